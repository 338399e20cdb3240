"""What the commands share: which settings they are about, and how they say what is wrong."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from layercache.caches import Caches
from layercache.errors import CacheError, ConfigError, MissingExtra, suggestion
from layercache.spi import Backend

__all__ = [
    "AsJson",
    "Environment",
    "SettingsFile",
    "backend_of",
    "named",
    "print_faults",
    "print_json",
    "world",
]

SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", "-s", help="The file to read instead of the nearest settings.toml."),
]
Environment = Annotated[
    str | None,
    typer.Option("--environment", "-e", help="The environment, instead of LAYERCACHE_ENV."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def world(settings: Path | None, environment: str | None, as_json: bool) -> Generator[Caches, None, None]:
    """Open the world of these settings, or print their faults and exit 1."""
    try:
        opened = Caches(settings, environment)
    except ConfigError as error:
        print_faults(error, as_json)
        raise typer.Exit(1) from None
    with opened:
        yield opened


def backend_of(caches: Caches, cache: str) -> Backend:
    """Return the backend of a cache that the settings define. Raises `CacheError` where it cannot be opened."""
    return opened(caches, caches.settings.caches[cache].backend)


def opened(caches: Caches, backend: str) -> Backend:
    try:
        return caches.backend(backend)
    except MissingExtra:
        raise
    except ImportError as error:
        raise CacheError(
            f"backend {backend!r} cannot be opened: {error}; install what offers its type"
        ) from error


def named(caches: Caches, name: str) -> str:
    """Return the name of a cache as the settings have it; wrong usage where they have none of that name."""
    if name not in caches:
        raise typer.BadParameter(f"no cache named {name!r}; {suggestion(name.lower(), caches)}")
    return name.lower()


def print_faults(error: ConfigError, as_json: bool) -> None:
    if as_json:
        faults = [fault._asdict() for fault in error.faults]
        print_json({"origin": error.origin, "environment": error.environment, "faults": faults})
    else:
        typer.echo(str(error), err=True)


def print_json(tables: dict[str, Any]) -> None:
    typer.echo(json.dumps(tables, ensure_ascii=False))
