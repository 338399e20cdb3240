"""Caches by name: a world of settings, opened lazily. The one behind `get_cache` is `default`'s.

What costs time to import (dynaconf, pydantic, the backends) is imported when a world is made or a cache is
opened, not with this module.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeAlias
from weakref import WeakSet, finalize, ref

from layercache.errors import CacheClosed, CacheError, UnknownCache, UnknownEvent
from layercache.spi import Backend, LeasingKeySpace, Opening

if TYPE_CHECKING:
    from pathlib import Path

    from layercache.alerts import Hook
    from layercache.core.watching import Watcher
    from layercache.events import Invalidation
    from layercache.face import Cache
    from layercache.settings import Settings
    from layercache.windows import Sampler, Window

__all__ = ["Caches", "Source", "closings"]

Source: TypeAlias = "str | Path | Mapping[str, Any] | None"


class Caches:
    """A world of caches: settings, and what was opened from them. Several may live side by side.

        with Caches("settings.toml", environment="testing") as caches:
            caches["stock"].set("quote:AAPL", 189.5)

    Args:
        settings: a file, or a mapping of the file's shape (its `[default]` table alone will do). None: the file
            that `LAYERCACHE_SETTINGS` names, else `settings.toml` in the working folder or the nearest
            folder above it, else the built-in default. A mapping stands as it is: environment
            variables change files and the built-in default only.
        environment: development, testing, production…; None: `LAYERCACHE_ENV`, else development.
        now: the wall clock, in seconds; tests give their own.

    Attributes:
        is_default: whether it is the one behind `get_cache`: what is declared for the process concerns it as well.

    Raises `ConfigError` with every fault of the settings. Nothing is connected before a verb needs it,
    but for the log that keeps a chain's near layers current: it is followed, in the background, once a cache is opened.
    """

    def __init__(
        self, settings: Source = None, environment: str | None = None, *, now: Callable[[], float] = time.time
    ) -> None:
        from layercache.config import read_settings
        from layercache.events import Events

        self.settings: Settings = read_settings(settings, environment)
        self._now = now
        self._lock = threading.RLock()  # guards the three below
        self._backends: dict[str, Backend] = {}
        self._health: dict[str, Any] = {}  # by backend
        self._opened: dict[str, Cache[Any]] = {}
        self._sampler: Sampler | None = None
        self._alert_hooks: list[Hook] = []
        self._watcher: Watcher | None = None
        self._watcher_of_the_process: Watcher | None = None
        self.is_default = False
        self._events = Events()
        for name, cache in self.settings.caches.items():
            for event, declared in cache.events.items():
                self._events.declare(event, name, declared.tags, soft=declared.soft)
        _worlds.add(self)

    def __getitem__(self, name: str) -> Cache[Any]:
        """Return the cache of that name, opening it at its first use. Raises `UnknownCache`."""
        found = self._opened.get(name)
        if found is not None:
            return found
        name = name.lower()
        with self._lock:
            if name not in self._opened:
                opened = self._opened[name] = self._open(name)
                opened.watch(self._watching())
                if self.settings.alerts.is_wanted:
                    self._sampling()
            return self._opened[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names that the settings define, opened or not."""
        return iter(self.settings.caches)

    def __len__(self) -> int:
        return len(self.settings.caches)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self.settings.caches

    @property
    def opened(self) -> list[Cache[Any]]:
        """The caches that are open now."""
        return list(self._opened.values())

    def windows(self, name: str) -> dict[str, Window]:
        """Return what the cache of that name did in the last minute, five minutes and hour: "1m", "5m" and "1h".

        Counted since the first call of this for any of the caches; until then nobody pays for it, and later on no hit.
        """
        cache = self[name]
        with self._lock:
            sampler = self._sampling()
        return sampler.windows(cache)

    def _sampling(self) -> Sampler:
        """Return what looks at the counters now and then, begun at the first call, under the lock."""
        if self._sampler is None:
            from layercache.windows import Sampler

            known = ref(self)  # a world that nobody has any more is not kept by the sampler's thread
            then = None
            if self.settings.alerts.is_wanted:
                from layercache.alerts import Alerts

                hooks: Callable[[], Iterable[Hook]] = lambda: (  # noqa: E731
                    world._hooks() if (world := known()) is not None else ()  # noqa: SLF001
                )
                then = Alerts(self.settings.alerts, hooks).check
            self._sampler = Sampler(lambda: world.opened if (world := known()) is not None else [], then=then)
            self._sampler.start()
            finalize(self, self._sampler.end).atexit = False
        return self._sampler

    def watch(self, watcher: Watcher | None, *, of_the_process: bool = False) -> None:
        """Have `watcher` told of each load and each far operation, of caches that are opened later as well; None:
        nobody. For integrations.

        Args:
            of_the_process: it is told where no other one is, for as long as this is the default world.
        """
        with self._lock:
            if of_the_process:
                self._watcher_of_the_process = watcher
            else:
                self._watcher = watcher
            for cache in self.opened:
                cache.watch(self._watching())

    def _watching(self) -> Watcher | None:
        return self._watcher or self._watcher_of_the_process

    def on_alert(self, hook: Hook) -> Hook:
        """Have `hook` called with an `Alert` when one of `[default.alerts]` begins, and when it ends; return it, so
        that this can decorate it.

        It is called on a daemon thread, one alert after the other; what it raises is logged. In the child of a fork it
        is called as well, with the alerts of that process.
        """
        self._alert_hooks.append(hook)
        return hook

    def _hooks(self) -> list[Hook]:
        if not self.is_default:
            return list(self._alert_hooks)
        from layercache.alerts import of_the_process

        return [*self._alert_hooks, *of_the_process]

    # -- events

    def on(self, event: str, *, tags: Iterable[str], cache: str = "default", soft: bool = False) -> None:
        """Have `emit(event)` invalidate `tags` of a cache of this world, besides what the settings and others have it
        do.

        Args:
            event: its name, compared without case.
            tags: as those of a decorated function they may be templates: of fields that `emit` is given by name.
            cache: the name of the cache.
            soft: what carries them is then stale, and not gone.

        Raises `UnknownCache`, and `InvalidOption` for what is no tag, template or event.
        """
        if cache not in self:
            raise self.unknown(cache)
        self._events.declare(event, cache, tags, soft=soft)

    def emit(self, event: str, /, **fields: Any) -> list[Invalidation]:
        """Invalidate what `event` makes invalid, in every cache that it concerns; return what that was.

        Args:
            event: as it was declared, in the settings or by `on`.
            fields: all that its tags name.

        Raises `UnknownEvent`, with the nearest names, and `WrongFields`. Where a cache fails, the others are seen to
        all the same, and then its error is raised.
        """
        found = self._invalidations(event, fields)
        failed: list[CacheError] = []
        for each in found:
            try:
                self[each.cache].invalidate(*each.tags, soft=each.soft)
            except CacheError as error:
                failed.append(error)
        _raise_first(failed)
        return found

    async def aemit(self, event: str, /, **fields: Any) -> list[Invalidation]:
        """As `emit`, without blocking the event loop."""
        found = self._invalidations(event, fields)
        failed: list[CacheError] = []
        for each in found:
            try:
                await self[each.cache].ainvalidate(*each.tags, soft=each.soft)
            except CacheError as error:
                failed.append(error)
        _raise_first(failed)
        return found

    def _invalidations(self, event: str, fields: Mapping[str, Any]) -> list[Invalidation]:
        from layercache.events import invalidations, of_the_process

        declared = (self._events, of_the_process) if self.is_default else (self._events,)
        found = invalidations(event, fields, declared)
        if found is None:
            known = {name for each in declared for name in each}
            raise UnknownEvent(event, known, self.settings.origin, self.settings.environment)
        return found

    def unknown(self, cache: str) -> UnknownCache:
        """Return the error that `cache` is none of this world's; it names the nearest."""
        return UnknownCache(cache, self.settings.caches, self.settings.origin, self.settings.environment)

    def backend(self, name: str) -> Backend:
        """Return the backend of that name in the settings, opening it at its first use."""
        with self._lock:
            if name not in self._backends:
                wanted = self.settings.backends[name]
                opening = Opening(name, wanted.options, self._now, self.backend)
                self._backends[name] = wanted.open(opening)
            return self._backends[name]

    def _open(self, name: str) -> Cache[Any]:
        from layercache.codecs.normal import NormalForm
        from layercache.core.flights import Flights, Outdating
        from layercache.core.layer import Health, Layer
        from layercache.core.tickets import Tickets
        from layercache.face import Cache
        from layercache.inline import InlinePort
        from layercache.loop import LoopPort

        wanted = self.settings.caches.get(name)
        if wanted is None:
            raise self.unknown(name)
        backend = self.backend(wanted.backend)
        forgiving = backend.on_error == "miss"
        tickets = Tickets(threading.Lock())
        health = self._health.setdefault(backend.name, Health(backend.name))
        layer = Layer(
            backend.name, backend.type, backend.key_space(name), tickets, health, forgiving=forgiving
        )

        def close() -> None:
            layer.space = _ClosedSpace(name)
            with self._lock:
                closed = self._opened.pop(name, None)
            if closed is not None:
                closed.unbind()
            closings.count += 1

        flights = Flights(threading.Lock(), threading.get_ident)
        if layer.space.near is not None:  # it follows what others do in any case
            layer.space.subscribe(Outdating(flights))
        return Cache(
            name,
            layer,
            wanted.policy(),
            NormalForm(
                backend.serializer,
                by_reference=wanted.isolation == "reference",
                is_near=layer.space.near is not None,
            ),
            flights,
            (InlinePort(self._now), LoopPort(self._now)),
            close,
        )

    def close(self) -> None:
        """Close all caches and backends; their verbs raise `CacheClosed` from now on."""
        for backend in self._shut():
            backend.close()

    async def aclose(self) -> None:
        """As `close`, and closes what belongs to the running event loop."""
        for backend in self._shut():
            await backend.aclose()

    def _shut(self) -> list[Backend]:
        with self._lock:
            for opened in list(self._opened.values()):
                opened.close()
            # those that are made of others were opened after these, and may still need them
            backends = list(self._backends.values())[::-1]
            self._backends = {}
            if self._sampler is not None:
                self._sampler.end()
                self._sampler = None
        return backends

    def _after_fork(self) -> None:
        # a lock may have been held by a thread of the parent, which does not run here
        self._lock = threading.RLock()
        self._sampler = None
        for backend in self._backends.values():
            backend.after_fork()
        for opened in self._opened.values():
            opened._after_fork(threading.Lock)  # noqa: SLF001
        if self._opened and self.settings.alerts.is_wanted:
            self._sampling()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<Caches {', '.join(self)} from {self.settings.origin}, {self.settings.environment!r}>"


def _raise_first(failed: list[CacheError]) -> None:
    if failed:
        for other in failed[1:]:
            failed[0].add_note(f"another cache failed as well: {other}")
        raise failed[0]


class _ClosedSpace(LeasingKeySpace):
    """What a closed cache is over: every operation says so."""

    def __init__(self, name: str) -> None:
        self.name = name

    def _closed(self, *_: Any, **__: Any) -> NoReturn:
        raise CacheClosed(self.name)

    async def _aclosed(self, *_: Any, **__: Any) -> NoReturn:
        raise CacheClosed(self.name)

    get = set = update = delete = clear = lease_many = fill_many = release_many = late_stamps = _closed
    alease_many = afill_many = arelease_many = alate_stamps = _aclosed


class _Closings:
    """How often a cache was closed, or the default world replaced: who keeps a cache looks whether this has moved."""

    def __init__(self) -> None:
        self.count = 0


closings = _Closings()

_worlds: WeakSet[Caches] = WeakSet()


def _after_fork() -> None:
    for world in list(_worlds):
        world._after_fork()  # noqa: SLF001


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
