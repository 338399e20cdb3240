"""The commands. What they exit with, `exits` says; what options they share, `world`."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

import typer

from layercache import __version__
from layercache.cli.admin import admin
from layercache.cli.advise import advise
from layercache.cli.changes import clear, invalidate
from layercache.cli.doctor import doctor
from layercache.cli.init import init
from layercache.cli.keys import delete, explain, get
from layercache.cli.printing import print_json
from layercache.cli.purge import purge
from layercache.cli.schema import schema
from layercache.cli.stats import stats
from layercache.cli.top import top
from layercache.cli.training import train_dictionary
from layercache.cli.warm import warm_functions
from layercache.cli.world import AsJson, Environment, SettingsFile, telling
from layercache.config import effective, read_settings

__all__ = ["app"]

app: Final = typer.Typer(
    name="layercache", no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"layercache {__version__}")
        raise typer.Exit


@app.callback()
def layercache(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Look at the caches that settings.toml defines, and look after them."""


app.command()(init)


@app.command()
def check(settings: SettingsFile = None, environment: Environment = None, as_json: AsJson = False) -> None:
    """Print the settings in force, secrets masked, or every fault in them and exit 1."""
    with telling(as_json):
        read = read_settings(settings, environment)
    tables = effective(read)
    if as_json:
        print_json({"origin": read.origin, "environment": read.environment, **tables})
        return
    typer.echo(f"# {read.origin}, environment {read.environment!r}")
    for line in _lines(tables):
        typer.echo(line)


app.command()(advise)
app.command()(doctor)
app.command()(stats)
app.command()(top)
app.command()(get)
app.command()(explain)
app.command()(delete)
app.command()(invalidate)
app.command()(clear)
app.command()(purge)
app.command("warm")(warm_functions)
app.command()(train_dictionary)
app.command()(schema)
app.command()(admin)


def _lines(tables: dict[str, Any], path: str = "") -> list[str]:
    """Spell nested tables as `caches.stock.ttl = "5m"`, which is TOML and easy to grep."""
    lines: list[str] = []
    for name, value in tables.items():
        here = f"{path}.{_key(name)}" if path else _key(name)
        lines += _lines(value, here) if isinstance(value, dict) else [f"{here} = {_spell(value)}"]
    return lines


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name)


def _spell(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(name)} = {_spell(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_spell, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
