"""The default world: what `get_cache` and its like speak to, one for the process.

Rule: what is declared for the process (`on`, `on_alert`, `watch_default`) holds for whichever world is the default one,
and for no other.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from layercache.caches import Caches, Source, closings

if TYPE_CHECKING:
    from layercache.alerts import Hook
    from layercache.core.watching import Watcher
    from layercache.events import Invalidation
    from layercache.face import Cache

__all__ = [
    "aclose",
    "aemit",
    "cache",
    "close",
    "configure",
    "default_made_by",
    "default_world",
    "emit",
    "get_cache",
    "names",
    "on",
    "on_alert",
    "watch_default",
]

_lock = threading.Lock()  # guards what follows
_default: Caches | None = None
_make: Callable[[Source, str | None], Caches] = Caches
_watcher: Watcher | None = None


def _after_fork() -> None:
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def get_cache(name: str = "default") -> Cache[Any]:
    """Return the cache of that name, from the settings of this process.

    The same object each time, for sync and async use. Raises `ConfigError` when the settings cannot be right, and
    `UnknownCache`, with the nearest names, for one they do not define.
    """
    return default_world()[name]


def names() -> list[str]:
    """Return the names of the caches that the settings of this process define."""
    return list(default_world())


def on(event: str, *, tags: Iterable[str], cache: str = "default", soft: bool = False) -> None:
    """Have `emit(event)` invalidate `tags` of the cache of that name, besides what the settings and others have it
    do.

    For the top of a module: it needs no settings yet, and holds for as long as the process lives, whatever they are and
    whenever `configure` replaces them.

    Args:
        event, tags, cache, soft: as for `Caches.on`.

    Raises `InvalidOption` for what is no tag, template or event, and `UnknownCache` where the settings were read
    already and do not define it; else `emit` does.
    """
    from layercache.events import of_the_process

    world = _default
    if world is not None and cache not in world:
        raise world.unknown(cache)
    of_the_process.declare(event, cache, tags, soft=soft)


def on_alert(hook: Hook) -> Hook:
    """Have `hook` called with an `Alert` when one of `[default.alerts]` begins, and when it ends, of the caches of
    `get_cache`; return it, so that this can decorate it.

    For the top of a module: it needs no settings yet, and holds for as long as the process lives, as `on` does.
    """
    from layercache.alerts import of_the_process

    of_the_process.append(hook)
    return hook


def emit(event: str, /, **fields: Any) -> list[Invalidation]:
    """Invalidate what `event` makes invalid in the caches of `get_cache`; return what that was.

    Args:
        event: as it was declared, in the settings or by `on`.
        fields: all that its tags name.

    Raises as `Caches.emit`.
    """
    return default_world().emit(event, **fields)


async def aemit(event: str, /, **fields: Any) -> list[Invalidation]:
    """As `emit`, without blocking the event loop."""
    return await default_world().aemit(event, **fields)


def configure(settings: Source, environment: str | None = None) -> None:
    """Give the process other settings: closes what `get_cache` has opened and replaces it.

    Args:
        settings, environment: as for `Caches`.

    Raises `ConfigError` and changes nothing when they cannot be right.
    """
    made = _make(settings, environment)
    with _lock:
        replaced = _replaced(made)
    if replaced is not None:
        replaced.close()


def close() -> None:
    """Close every cache that `get_cache` has opened; the next `get_cache` reads the settings anew."""
    world = _taken()
    if world is not None:
        world.close()


async def aclose() -> None:
    """As `close`, and closes the connections of the running event loop: for the end of a service."""
    world = _taken()
    if world is not None:
        await world.aclose()


@contextmanager
def default_made_by(make: Callable[[Source, str | None], Caches]) -> Generator[None]:
    """While the block runs, have `make` give the default world wherever a `Caches` would: at the first `get_cache`, at
    `configure`, and after a `close`. For tests; the default world from before is there again afterwards."""
    global _make
    with _lock:
        before, made_before, _make = _replaced(None), _make, make
    try:
        yield
    finally:
        with _lock:
            made, _make = _replaced(before), made_before
        if made is not None:
            made.close()


def _taken() -> Caches | None:
    with _lock:
        return _replaced(None)


def _replaced(world: Caches | None) -> Caches | None:
    """Put `world` in the place of the default one, which is returned; under the lock."""
    global _default
    replaced, _default = _default, world
    closings.count += 1
    if replaced is not None:
        replaced.is_default = False
        replaced.watch(None, of_the_process=True)
    if world is not None:
        world.is_default = True
        world.watch(_watcher, of_the_process=True)
    return replaced


def default_world() -> Caches:
    """Return the world that `get_cache` speaks to."""
    world = _default
    if world is None:
        with _lock:
            if _default is None:
                _replaced(_make(None, None))
            world = _default
    assert world is not None
    return world


def watch_default(watcher: Watcher | None) -> None:
    """As `Caches.watch`, of the world behind `get_cache`, whatever its settings are. For integrations."""
    global _watcher  # noqa: PLW0603
    with _lock:
        _watcher = watcher
        if _default is not None:
            _default.watch(watcher, of_the_process=True)


class _DefaultCache:
    """`get_cache()` looked up anew at each use, so that it can be imported before anything is configured."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(get_cache(), name)

    def __contains__(self, key: str) -> bool:
        return key in get_cache()

    def __repr__(self) -> str:
        return "<the default cache>"


cache = cast("Cache[Any]", _DefaultCache())
"""The default cache, as in `cache.set(key, value, 300)`."""
