"""The commands. Exit codes: 0 as asked, 1 something is wrong with what was looked at, 2 wrong usage."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

import typer

from layercache import __version__
from layercache.cli.admin import admin
from layercache.cli.doctor import doctor
from layercache.cli.purge import purge
from layercache.cli.training import train_dictionary
from layercache.cli.warm import warm_functions
from layercache.cli.world import AsJson, Environment, SettingsFile, print_faults, print_json
from layercache.config import effective, read_settings
from layercache.errors import ConfigError

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


@app.command()
def check(settings: SettingsFile = None, environment: Environment = None, as_json: AsJson = False) -> None:
    """Print the settings in force, secrets masked, or every fault in them and exit 1."""
    try:
        read = read_settings(settings, environment)
    except ConfigError as error:
        print_faults(error, as_json)
        raise typer.Exit(1) from None
    tables = effective(read)
    if as_json:
        print_json({"origin": read.origin, "environment": read.environment, **tables})
        return
    typer.echo(f"# {read.origin}, environment {read.environment!r}")
    for line in _lines(tables):
        typer.echo(line)


app.command()(admin)
app.command()(doctor)
app.command()(purge)
app.command()(train_dictionary)
app.command("warm")(warm_functions)


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
