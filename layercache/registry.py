"""Names to classes, through entry points: how backends and codec stages are found.

A package offers a backend with one line of its `pyproject.toml`:

    [project.entry-points."layercache.backends"]
    toy = "toy:ToyBackend"

The class is imported when settings that name it are read, not before. A driver that it needs is best imported by
its `__init__`: then settings that define a backend and do not use it need no driver.

What is installed is read once for a path of modules, and again where a name is unknown: 8 ms, in which nothing is
imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache, lru_cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from typing import Any, TypeVar, cast

from layercache.errors import UnknownBackend, UnknownName, UnknownStage
from layercache.spi import Backend, Stage

__all__ = ["backend_named", "backend_names", "class_named", "stage_named", "stage_names"]


B = TypeVar("B")


def class_named(group: str, name: str, base: Callable[..., B], unknown: type[UnknownName]) -> type[B]:
    """Return the class that an installed package offers as `name` in a group of entry points.

    Raises `unknown` with the names there are, `ImportError` when the package cannot be imported, and
    `AttributeError` or `TypeError` when what it offers is no `base`.
    """
    if name not in _offered(group):
        _installed.cache_clear()  # it may have been installed a moment ago
    offered = _offered(group)
    if name not in offered:
        raise unknown(name, offered)
    return cast("type[B]", _loaded(offered[name], base))


def backend_named(name: str) -> type[Backend]:
    """Return the backend class of that name, as `class_named` does; `UnknownBackend` when there is none."""
    return class_named("layercache.backends", name, Backend, UnknownBackend)


def stage_named(name: str) -> type[Stage]:
    """Return the codec stage of that name, as `class_named` does; `UnknownStage` when there is none."""
    return class_named("layercache.stages", name, Stage, UnknownStage)


def backend_names() -> list[str]:
    """Return the names of all backends that are installed, sorted; imports none."""
    return sorted(_offered("layercache.backends"))


def stage_names() -> list[str]:
    """Return the names of all stages that are installed, sorted; imports none."""
    return sorted(_offered("layercache.stages"))


def _offered(group: str) -> dict[str, EntryPoint]:
    offered = _installed(tuple(sys.path)).select(group=group)
    return {entry_point.name: entry_point for entry_point in offered}


@lru_cache(maxsize=1)
def _installed(_: tuple[str, ...]) -> EntryPoints:
    return cast("EntryPoints", entry_points())  # in Python 3.11 it is a dict still, and selects as well


@cache
def _loaded(entry_point: EntryPoint, base: Any) -> type[Any]:
    loaded = entry_point.load()
    if not (isinstance(loaded, type) and issubclass(loaded, base)):
        raise TypeError(f"entry point {entry_point.name} = {entry_point.value!r} is no {base.__name__}")
    return loaded
