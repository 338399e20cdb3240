"""Names to classes, through entry points: how backends and codec stages are found.

A package offers a backend with one line of its `pyproject.toml`:

    [project.entry-points."layercache.backends"]
    toy = "toy:ToyBackend"

The class is imported when settings that name it are read, not before. A driver that it needs is best imported by
its `__init__`: then settings that define a backend and do not use it need no driver.
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

    Raises `UnknownBackend` with the names there are, `ImportError` when the package cannot be imported, and
    `AttributeError` or `TypeError` when what it offers is no backend.
    """
    offered = _offered("layercache.backends")
    if name not in offered:
        raise UnknownBackend(name, offered)
    return _loaded(offered[name], Backend)


def stage_named(name: str) -> type[Stage]:
    """Return the codec stage that an installed package offers as `name`.

    Raises `UnknownStage` with the names there are, else as `backend_named`.
    """
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
