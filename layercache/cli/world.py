"""What the commands share: which settings they are about, which cache, and how they say what is wrong.

Rules:
1. The same option is called the same everywhere, and defined here.
2. What is wrong is said on stderr, in words, and with --json on stdout as {"error": …} or {"faults": […]}; what a
   command exits with, `exits` says.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from layercache.caches import Caches
from layercache.cli.exits import Exit
from layercache.cli.printing import print_json
from layercache.config import read_settings
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
    "AsJson",
    "CacheName",
    "CacheNames",
    "Environment",
    "OneCache",
    "ServiceToken",
    "ServiceUrl",
    "SettingsFile",
    "backend_of",
    "far_layers",
    "named",
    "not_reached",
    "opened",
    "print_error",
    "print_faults",
    "print_json",
    "stop",
    "telling",
    "wanted_names",
    "world",
]


def _known_caches(incomplete: str) -> list[str]:
    """Complete the name of a cache, where the settings can be read."""
    try:
        return [name for name in read_settings().caches if name.startswith(incomplete.lower())]
    except Exception:  # a shell that completes is told nothing of faults
        return []


SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", "-s", help="The file to read instead of the nearest settings.toml."),
]
Environment = Annotated[
    str | None,
    typer.Option("--environment", "-e", help="The environment, instead of LAYERCACHE_ENV."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
CacheName = Annotated[str, typer.Option("--cache", "-c", help="The cache.", autocompletion=_known_caches)]
OneCache = Annotated[
    str, typer.Option("--cache", "-c", help="The cache; it has to be named.", autocompletion=_known_caches)
]
CacheNames = Annotated[
    list[str] | None,
    typer.Option(
        "--cache",
        "-c",
        help="A cache, and others by repetition; all if left out.",
        autocompletion=_known_caches,
    ),
]
ServiceUrl = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="LAYERCACHE_ADMIN_URL",
        help="Where a running service serves its management API, which is asked then.",
    ),
]
ServiceToken = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="LAYERCACHE_ADMIN_TOKEN",
        help="The token for it; others see what stands in a command line, so better in the variable.",
    ),
]


@contextmanager
def world(settings: Path | None, environment: str | None, as_json: bool) -> Generator[Caches, None, None]:
    """Open the world of these settings, or print their faults and exit 1; so with what goes wrong later."""
    with telling(as_json), Caches(settings, environment) as caches:
        yield caches


# -- what is wrong


@contextmanager
def telling(as_json: bool) -> Generator[None, None, None]:
    """Print what goes wrong, and exit with what is fit for it."""
    try:
        yield
    except ConfigError as error:
        if error.faults:
            print_faults(error, as_json)
        else:
            print_error(error, as_json)
        raise typer.Exit(Exit.WRONG) from None
    except CacheError as error:
        print_error(error, as_json)
        wrong = isinstance(error, InvalidKey | InvalidOption | InvalidTtl)
        raise typer.Exit(Exit.USAGE if wrong else Exit.WRONG) from None


def stop(said: str, as_json: bool, code: Exit, **more: Any) -> NoReturn:
    """Print what is wrong and exit."""
    print_error(said, as_json, **more)
    raise typer.Exit(code) from None


def print_faults(error: ConfigError, as_json: bool) -> None:
    if as_json:
        faults = [fault._asdict() for fault in error.faults]
        print_json({"origin": error.origin, "environment": error.environment, "faults": faults})
    else:
        typer.echo(str(error), err=True)


def print_error(error: object, as_json: bool, **more: Any) -> None:
    if as_json:
        print_json({**more, "error": str(error)})
    else:
        typer.echo(str(error), err=True)


# -- caches and backends


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
