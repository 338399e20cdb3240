"""The world of caches that a command is about, and how it says what is wrong.

Rule: what is wrong is said on stderr, in words, and with --json on stdout as {"error": …} or {"faults": […]}; what a
command exits with, `exits` says.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

from layercache.caches import Caches
from layercache.cli.exits import Exit
from layercache.cli.options import Call
from layercache.cli.printing import print_json
from layercache.core.layer import Layer
from layercache.errors import (
    CacheError,
    ConfigError,
    InvalidKey,
    InvalidOption,
    InvalidTtl,
    MissingExtra,
    suggestion,
)
from layercache.spi import Backend, KeySpace

__all__ = [
    "backend_of",
    "far_layers",
    "named",
    "names_in_stores",
    "not_reached",
    "opened",
    "stop",
    "telling",
    "wanted_names",
    "world",
]


@contextmanager
def world(call: Call) -> Generator[Caches, None, None]:
    """Open the world of the settings, or print their faults and exit 1; so with what goes wrong later."""
    with telling(call.as_json), Caches(call.settings, call.environment) as caches:
        yield caches


# -- what is wrong


@contextmanager
def telling(as_json: bool) -> Generator[None, None, None]:
    """Print what goes wrong, and exit with what is fit for it."""
    try:
        yield
    except CacheError as error:
        if isinstance(error, ConfigError) and error.faults and as_json:
            faults = [fault._asdict() for fault in error.faults]
            print_json({"origin": error.origin, "environment": error.environment, "faults": faults})
            raise typer.Exit(Exit.WRONG) from None
        is_misused = isinstance(error, InvalidKey | InvalidOption | InvalidTtl)
        stop(str(error), as_json, Exit.USAGE if is_misused else Exit.WRONG)


def stop(said: str, as_json: bool, code: Exit, **more: Any) -> NoReturn:
    """Print what is wrong, with --json beside what else is known, and exit."""
    if as_json:
        print_json({**more, "error": said})
    else:
        typer.echo(said, err=True)
    raise typer.Exit(code) from None


# -- caches and backends


def backend_of(caches: Caches, cache: str) -> Backend:
    """Return the backend of a cache that the settings define. Raises `CacheError` where it cannot be opened."""
    return opened(caches, caches.settings.caches[cache].backend)


def opened(caches: Caches, backend: str) -> Backend:
    """Return a backend of the world; raises `CacheError` that says what to install where it cannot be opened."""
    try:
        return caches.backend(backend)
    except MissingExtra:
        raise
    except ImportError as error:
        raise CacheError(
            f"backend {backend!r} cannot be opened: {error}; install what offers its type"
        ) from error


def far_layers(caches: Caches, cache: str) -> list[str]:
    """Return the names of the backends that keep a cache outside of this process, nearest first."""
    backend = backend_of(caches, cache)
    space = backend.key_space(cache)
    layers: Iterable[Layer] = space.layers()
    spaces: dict[str, KeySpace] = {layer.name: layer.space for layer in layers} or {backend.name: space}
    return [name for name, each in spaces.items() if each.blocks]


def not_reached(caches: Caches, names: Iterable[str], as_json: bool) -> NoReturn:
    """Say why nothing of these caches is reached from here, and what would, and exit."""
    said: list[str] = []
    for name in names:
        backend = backend_of(caches, name)
        where = "stores nothing" if backend.type == "null" else "is in the memory of each process alone"
        said.append(f"{name} {where} (backend {backend.name!r}, of type {backend.type!r})")
    helped = (
        "so nothing of it can be reached from here; name a service that serves the management API, such as "
        "--url http://127.0.0.1:8790"
    )
    stop(f"{'; '.join(said)}, {helped}", as_json, Exit.UNREACHABLE)


def named(caches: Caches, name: str) -> str:
    """Return the name of a cache as the settings have it; wrong usage where they have none of that name."""
    if name not in caches:
        raise typer.BadParameter(
            f"no cache named {name!r}; {suggestion(name.lower(), caches)}", param_hint="--cache"
        )
    return name.lower()


def wanted_names(caches: Caches, names: Iterable[str] | None) -> list[str]:
    """Return the caches that are named, each once; all where none is."""
    return list(dict.fromkeys(named(caches, name) for name in names or caches))


def names_in_stores(caches: Caches, names: Iterable[str] | None, as_json: bool) -> list[str]:
    """Return the caches that are wanted, or say why none of them is reached from here and exit."""
    wanted = wanted_names(caches, names)
    if not any(far_layers(caches, name) for name in wanted):
        not_reached(caches, wanted, as_json)
    return wanted
