"""What caches did in the last minute, five minutes and hour: the difference of two looks at their counters.

A daemon thread looks at the counters of the opened caches every few seconds, from the first time that somebody asks for
a window on. A hit pays nothing for it; the look itself costs what `stats()` does, and never more than one percent of
the time.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from weakref import ref

if TYPE_CHECKING:
    from layercache.core.stats import CacheStats
    from layercache.face import Cache

__all__ = ["WINDOWS", "Sampler", "Seen", "Window"]

WINDOWS: Final[Mapping[str, float]] = {"1m": 60.0, "5m": 300.0, "1h": 3600.0}

_INTERVAL: Final = 5.0
_COARSE: Final = 60.0
"""Seconds between the looks that are kept for the hour; for the shorter windows each is."""

_SHARE: Final = 100  # times as long as a look took, until the next


@dataclass(frozen=True, slots=True)
class Window:
    """What a cache did in the last while, in this process.

    Attributes:
        name: "1m", "5m" or "1h".
        seconds: that it covers: fewer than its name says until as many have passed since sampling began, or since the
            cache was opened; and up to a minute more.
        stats: counted in it. Gauges that are no counters, such as `entries`, are those of now.
    """

    name: str
    seconds: float
    stats: CacheStats

    @property
    def reads_per_second(self) -> float:
        """Hits and misses; 0 where no time passed."""
        reads = self.stats.hits + self.stats.misses
        return reads / self.seconds if self.seconds > 0 else 0.0

    @property
    def loads_per_second(self) -> float:
        """Loaders that returned; 0 where no time passed."""
        return self.stats.loads / self.seconds if self.seconds > 0 else 0.0


Seen: TypeAlias = "tuple[CacheStats, dict[str, Window]]"
"""The counters of a cache, and what it did in each of the windows."""


class _Looks:
    """The looks at one cache, the oldest first, each with when it was. It does not keep the cache, nor so its world."""

    def __init__(self, cache: Cache[Any]) -> None:
        self._of = ref(cache)
        self._kept: deque[tuple[float, CacheStats]] = deque()

    def are_of(self, cache: Cache[Any] | None) -> bool:
        return cache is not None and self._of() is cache

    def add(self, now: float, stats: CacheStats) -> None:
        self._kept.append((now, stats))
        self._thin(now)

    def _thin(self, now: float) -> None:
        """Of what no short window reaches any more keep one a minute, and none that no window reaches."""
        short = now - WINDOWS["5m"] - _INTERVAL
        kept: deque[tuple[float, CacheStats]] = deque()
        for look in self._kept:
            recent = kept[-1][0] if kept else -_COARSE
            if look[0] >= short or look[0] - recent >= _COARSE:
                kept.append(look)
        while len(kept) > 1 and kept[1][0] <= now - WINDOWS["1h"]:
            kept.popleft()
        self._kept = kept

    def before(self, moment: float) -> tuple[float, CacheStats] | None:
        """Return the latest look that was not after `moment`, else the first there is."""
        kept = list(self._kept)
        earlier = [look for look in kept if look[0] <= moment]
        return earlier[-1] if earlier else kept[0] if kept else None

    def __len__(self) -> int:
        return len(self._kept)


class Sampler:
    """Looks at the counters of caches now and then.

    Args:
        opened: gives the caches that are open.
        clock: monotonic seconds.
        then: given, after each look of the thread, the counters of each cache and its windows.
    """

    def __init__(
        self,
        opened: Callable[[], list[Cache[Any]]],
        clock: Callable[[], float] = monotonic,
        then: Callable[[list[Seen]], None] | None = None,
    ) -> None:
        self._opened, self._clock, self._then = opened, clock, then
        self._lock = threading.Lock()  # guards _looks
        self._looks: dict[str, _Looks] = {}
        self._ended = threading.Event()

    def start(self) -> None:
        """Look from now on, on a thread of its own, until `end`."""
        threading.Thread(target=self._run, name="layercache windows", daemon=True).start()

    def end(self) -> None:
        self._ended.set()

    def _run(self) -> None:
        pause = _INTERVAL
        while not self._ended.wait(pause):
            began = self._clock()
            seen = self.look()
            if self._then is not None and not self._ended.is_set():
                self._then([(stats, self._windows(cache, stats)) for cache, stats in seen])
            pause = max(_INTERVAL, _SHARE * (self._clock() - began))

    def look(self) -> list[tuple[Cache[Any], CacheStats]]:
        """Look at each cache once, and forget those that were closed; return what was seen."""
        opened = {cache.name: cache for cache in self._opened()}
        seen = [(cache, cache.stats()) for cache in opened.values()]
        with self._lock:
            self._looks = {
                name: looks for name, looks in self._looks.items() if looks.are_of(opened.get(name))
            }
            for cache, stats in seen:
                self._looks_of(cache).add(self._clock(), stats)
        return seen

    def _looks_of(self, cache: Cache[Any]) -> _Looks:
        looks = self._looks.get(cache.name)
        if looks is None or not looks.are_of(cache):
            looks = self._looks[cache.name] = _Looks(cache)
        return looks

    def windows(self, cache: Cache[Any]) -> dict[str, Window]:
        """Return what `cache` did in each of the `WINDOWS`, until now."""
        return self._windows(cache, cache.stats())

    def _windows(self, cache: Cache[Any], stats: CacheStats) -> dict[str, Window]:
        with self._lock:
            now = self._clock()
            looks = self._looks_of(cache)
            if not looks:
                looks.add(now, stats)
            return {window.name: window for window in _windows(looks, now, stats)}


def _windows(looks: _Looks, now: float, stats: CacheStats) -> Iterator[Window]:
    for name, seconds in WINDOWS.items():
        began = looks.before(now - seconds)
        assert began is not None
        yield Window(name, now - began[0], stats.since(began[1]))
