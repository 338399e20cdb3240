"""Names to classes, through entry points: how backends and codec stages are found.

A package offers a backend with one line of its `pyproject.toml`:

    [project.entry-points."layercache.backends"]
    toy = "toy:ToyBackend"

The class is imported when a cache that names it is opened, not before.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from layercache.errors import UnknownBackend, UnknownStage
from layercache.spi import Backend, Stage

__all__ = ["backend_named", "backend_names", "stage_named", "stage_names"]


def backend_named(name: str) -> type[Backend]:
    """Return the backend class that an installed package offers as `name`.

    Raises `UnknownBackend` with the names there are, and `MissingExtra` when its driver is
    not installed.
    """
    offered = _offered("layercache.backends")
    if name not in offered:
        raise UnknownBackend(name, offered)
    return _loaded(offered[name], Backend)


def stage_named(name: str) -> type[Stage]:
    """Return the codec stage that an installed package offers as `name`, or raise `UnknownStage`."""
    offered = _offered("layercache.stages")
    if name not in offered:
        raise UnknownStage(name, offered)
    return _loaded(offered[name], Stage)


def backend_names() -> list[str]:
    return sorted(_offered("layercache.backends"))


def stage_names() -> list[str]:
    return sorted(_offered("layercache.stages"))


def _offered(group: str) -> dict[str, EntryPoint]:
    return {entry_point.name: entry_point for entry_point in entry_points(group=group)}


@cache
def _loaded(entry_point: EntryPoint, base: type[Any]) -> type[Any]:
    loaded = entry_point.load()
    if not (isinstance(loaded, type) and issubclass(loaded, base)):
        raise TypeError(f"entry point {entry_point.name} = {entry_point.value!r} is no {base.__name__}")
    return loaded
