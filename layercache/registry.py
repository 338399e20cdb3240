"""Names to classes, through entry points: how backends and codec stages are found.

A package offers a backend with one line of its `pyproject.toml`:

    [project.entry-points."layercache.backends"]
    toy = "toy:ToyBackend"

The class is imported when settings that name it are read, not before. A driver that it needs is best imported by
its `__init__`: then settings that define a backend and do not use it need no driver.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
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
    return sorted(_offered("layercache.backends"))


def stage_names() -> list[str]:
    return sorted(_offered("layercache.stages"))


def _offered(group: str) -> dict[str, EntryPoint]:
    return {entry_point.name: entry_point for entry_point in entry_points(group=group)}


@cache
def _loaded(entry_point: EntryPoint, base: Any) -> type[Any]:
    loaded = entry_point.load()
    if not (isinstance(loaded, type) and issubclass(loaded, base)):
        raise TypeError(f"entry point {entry_point.name} = {entry_point.value!r} is no {base.__name__}")
    return loaded
