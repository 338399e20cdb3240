"""The commands. Exit codes: 0 as asked, 1 something is wrong with what was looked at, 2 wrong usage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from layercache import __version__
from layercache.config import effective, read_settings
from layercache.errors import ConfigError

__all__ = ["app"]

app: Final = typer.Typer(
    name="layercache", no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False
)

SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", "-s", help="The file to read instead of the nearest settings.toml."),
]
Environment = Annotated[
    str | None,
    typer.Option("--environment", "-e", help="The environment, instead of LAYERCACHE_ENV."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


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
    """Look at the caches that settings.toml defines."""


@app.command()
def check(settings: SettingsFile = None, environment: Environment = None, as_json: AsJson = False) -> None:
    """Print the settings in force, secrets masked, or every fault in them and exit 1."""
    try:
        read = read_settings(settings, environment)
    except ConfigError as error:
        _print_faults(error, as_json)
        raise typer.Exit(1) from None
    tables = effective(read)
    if as_json:
        typer.echo(
            json.dumps({"origin": read.origin, "environment": read.environment, **tables}, ensure_ascii=False)
        )
        return
    typer.echo(f"# {read.origin}, environment {read.environment!r}")
    for line in _lines(tables):
        typer.echo(line)


def _print_faults(error: ConfigError, as_json: bool) -> None:
    if as_json:
        faults = [fault._asdict() for fault in error.faults]
        typer.echo(json.dumps({"origin": error.origin, "environment": error.environment, "faults": faults}))
    else:
        typer.echo(str(error), err=True)


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
