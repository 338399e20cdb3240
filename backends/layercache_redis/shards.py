"""The log of one application: one stream, or several, which a cluster has on several nodes.

Every process follows all of them, each with a thread and a connection of its own; a write is told in any one.

Rules:
1. Processes may state different numbers, as while a new setting is rolled out. Who states several says so in the first
   stream, and under a name of its own for those who come later, before it writes to any but the first; who follows the
   first hears it, and follows as many. So nobody takes for current what was told in a stream that it does not know.
2. What is known is current for as long as it is by every stream; track that is lost in one is lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import inf
from typing import Final

from layercache.spi import Listener
from layercache_redis.log import Log
from layercache_redis.names import Node, Streams, log_name
from layercache_redis.sync import SyncDriver

__all__ = ["Shards"]

_MOST: Final = 64


class Shards:
    """The log, as this process follows it.

    Args:
        driver: reaches the servers.
        node: who we are; our own entries are not news.
        now: the wall clock, by which listeners rely on what they know.

    Attributes:
        streams: those that this process writes to.
        first: the stream that every process follows.
    """

    def __init__(self, driver: SyncDriver, node: Node, now: Callable[[], float]) -> None:
        options = driver.servers.options
        self._driver, self.node, self._now = driver, node, now
        self._prefix = options.prefix
        self.streams = Streams(options.prefix, options.log_shards)
        self.first = Log(driver, log_name(options.prefix), node, now, self.streams, self.follow)
        self._lock = threading.Lock()  # guards the three below
        self._logs = [self.first]
        self._listeners: list[tuple[str, _Several]] = []
        self._has_ended = False
        self.follow(options.log_shards)

    def reset(self) -> None:
        """None is followed yet: in the child of a fork no thread of the parent does."""
        self._lock = threading.Lock()
        self.streams.in_use = 1
        for log in self._logs:
            log.reset()
        for _, several in self._listeners:
            several.reset()

    def follow(self, number: int) -> None:
        """Follow so many streams, or as many as are followed already; there are never fewer."""
        with self._lock:
            while len(self._logs) < min(number, _MOST):
                log = Log(self._driver, log_name(self._prefix, len(self._logs)), self.node, self._now)
                for cache, several in self._listeners:
                    log.subscribe(cache, several.another())
                self._logs.append(log)
                if self.first.is_followed and not self._has_ended:
                    log.begin()

    # -- for those who rely on it

    def subscribe(self, cache: str, listener: Listener) -> None:
        """Tell `listener` of all that concerns `cache`, on the threads of the streams."""
        several = _Several(listener)
        with self._lock:
            self._listeners.append((cache, several))
            for log in self._logs:
                log.subscribe(cache, several.another())

    def is_current(self) -> bool:
        """Return whether what was heard may be relied on; begins to follow where nobody does."""
        if len(self._logs) == 1:
            return self.first.is_current()
        return all([log.is_current() for log in self._logs])  # noqa: C419  (each is asked, so that all begin)

    def begin(self) -> None:
        """Follow the log where nobody does yet; waits for nothing."""
        for log in self._logs:
            log.begin()

    def close(self) -> None:
        """Stop following, for good; waits for the threads to end."""
        with self._lock:
            self._has_ended = True
        for log in self._logs:
            log.close()

    def gauges(self) -> dict[str, int | float]:
        """Return what there is to say of all streams; how long ago they were confirmed, once all of them were."""
        tails = [log.tail for log in self._logs]
        lag = max(tail.lag for tail in tails)
        return {
            "log_entries": sum(tail.entries for tail in tails),
            "log_losses": sum(tail.losses for tail in tails),
            "log_set_backs": sum(tail.set_backs for tail in tails),
            **({"log_lag": lag} if lag < inf else {}),
        }


class _Several:
    """A listener to several streams: what it knows may be relied on as long as the least of them says."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._untils: list[float] = []
        self.reset()

    def reset(self) -> None:
        self._lock = threading.Lock()  # guards the two below, and the order in which the listener is told
        self._untils = [-inf] * len(self._untils)
        self._told = -inf

    def another(self) -> _Part:
        """Return what listens to one stream more; until it was confirmed nothing may be relied on."""
        with self._lock:
            self._untils.append(-inf)
            part = _Part(self._listener, self, len(self._untils) - 1)
            self._tell()
            return part

    def confirm(self, part: int, until: float) -> None:
        with self._lock:
            self._untils[part] = until
            self._tell()

    def _tell(self) -> None:
        least = min(self._untils)
        if least != self._told:
            self._told = least
            self._listener.confirmed(least)


class _Part:
    """A listener to one of several streams."""

    def __init__(self, listener: Listener, several: _Several, number: int) -> None:
        self._several, self._number = several, number
        self.written, self.invalidated = listener.written, listener.invalidated
        self.restamped, self.retrained = listener.restamped, listener.retrained
        self.lost_track, self.lost_writes = listener.lost_track, listener.lost_writes
        self.outage_began, self.outage_ending = listener.outage_began, listener.outage_ending
        self.outage_ended = listener.outage_ended

    def confirmed(self, until: float) -> None:
        self._several.confirm(self._number, until)
