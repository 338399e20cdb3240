"""`layercache check`: the settings in force, or every fault in them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import typer

from layercache.cli.options import Call
from layercache.cli.printing import print_json
from layercache.cli.world import telling
from layercache.config import effective, read_settings

__all__ = ["check"]


def check(call: Call) -> None:
    """Print the settings in force, secrets masked, or every fault in them and exit 1."""
    with telling(call.as_json):
        read = read_settings(call.settings, call.environment)
    tables = effective(read)
    if call.as_json:
        print_json({"origin": read.origin, "environment": read.environment, **tables})
        return
    typer.echo(f"# {read.origin}, environment {read.environment!r}")
    for line in _lines(tables):
        typer.echo(line)


def _lines(tables: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Spell nested tables as `caches.stock.ttl = "5m"`, which is TOML and easy to grep."""
    for name, value in tables.items():
        here = f"{path}.{_key(name)}" if path else _key(name)
        if isinstance(value, dict):
            yield from _lines(value, here)
        else:
            yield f"{here} = {_spell(value)}"


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name)


def _spell(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(name)} = {_spell(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_spell, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
