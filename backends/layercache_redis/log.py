"""A stream of the log: what was written and invalidated, by whom, for every process that keeps something near.

One thread per process, backend and stream follows it, over a connection of its own; what is asked and told is the
`Tail`'s to say.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from redis.exceptions import RedisError

from layercache.errors import BackendError
from layercache.spi import Listener
from layercache_redis.names import Node, Streams
from layercache_redis.sync import SyncConnection, SyncDriver
from layercache_redis.tail import Tail
from layercache_redis.wire import Steps, packed

__all__ = ["Log"]

R = TypeVar("R")

log = logging.getLogger("layercache.redis")

_LONGEST_PAUSE: Final = 0.5  # seconds between attempts to reach the server

# one that goes on while the machine sleeps, where there is such a clock
if sys.platform == "linux":
    _ticks: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
else:
    _ticks = time.monotonic


class Log:
    """One stream of the log of one application, as this process follows it.

    Args:
        driver: reaches the server.
        name: of the stream.
        node: who we are; our own entries are not news.
        now: the wall clock, by which listeners rely on what they know.
        streams, follow: see `Tail`.
    """

    def __init__(
        self,
        driver: SyncDriver,
        name: bytes,
        node: Node,
        now: Callable[[], float],
        streams: Streams | None = None,
        follow: Callable[[int], object] = int,
    ) -> None:
        self._driver, self._name, self.node = driver, name, node
        options = driver.servers.options
        self._gathering = min(options.log_gathering, options.max_staleness / 4)
        self.tail = Tail(name, node, options.log_length, options.max_staleness, now, _ticks, streams, follow)
        self.reset()

    def reset(self) -> None:
        """Not followed yet: in the child of a fork no thread of the parent does."""
        self._lock = threading.Lock()  # guards _thread
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._connection: SyncConnection | None = None
        self.tail.reset()

    # -- for those who rely on it

    def subscribe(self, cache: str, listener: Listener) -> None:
        """Tell `listener` of all that concerns `cache`, on the log's own thread."""
        self.tail.subscribe(cache, listener)

    def is_current(self) -> bool:
        """Return whether what was heard may be relied on; begins to follow the log where nobody does."""
        if self.tail.current_until > _ticks():
            return True
        self.begin()
        return False

    def begin(self) -> None:
        """Follow the log, on a thread of its own, where nobody does yet; waits for nothing."""
        if self._thread is None:
            self._start()

    @property
    def is_followed(self) -> bool:
        """Whether a thread reads it."""
        return self._thread is not None

    @property
    def lag(self) -> float:
        """Seconds since what is known was confirmed; infinite before it ever was."""
        return self.tail.lag

    def close(self) -> None:
        """Stop following, for good; waits for the thread to end, which takes no longer than `timeout`."""
        self._ended.set()
        connection = self._connection
        if connection is not None:
            connection.shut()  # wakes the thread from its read
        with self._lock:
            thread = self._thread
        # a world may be collected on any thread, the log's own among them
        if thread is not None and thread is not threading.current_thread():
            thread.join(self._driver.servers.options.timeout * 2)
        self.tail.current_until = 0.0

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._ended.is_set():
                self._thread = threading.Thread(target=self._follow, name="layercache log", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:
                    # none can be had, as at the end of the interpreter: reads ask the server
                    self._thread = None

    # -- the thread

    def _follow(self) -> None:
        pause = 0.01
        while not self._ended.is_set():
            try:
                self._connection = self._driver.connect_for_log(self._name)
                try:
                    while not self._ended.is_set():
                        heard = self._run(self._connection, self.tail.turn())
                        self.tail.compare_clocks()
                        if heard:
                            # others gather meanwhile: each write of this process would wake the thread, which takes
                            # longer than the write, and the server would answer each of us for each
                            self._ended.wait(self._gathering)
                        pause = 0.01
                finally:
                    connection, self._connection = self._connection, None
                    connection.close()
            except (RedisError, BackendError, OSError):
                # reads ask the server meanwhile, and say what is wrong with it
                self._driver.forget_places()
            except Exception:
                log.exception("the log was misread; starting anew")
                self.tail.lose_track()
            self.tail.compare_clocks()
            self._ended.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _run(self, connection: SyncConnection, steps: Steps[R]) -> R:
        limit = self.tail.block + self._driver.servers.options.timeout
        try:
            commands = next(steps)
            while True:
                data = packed(commands)
                commands = steps.send(connection.exchange(data, len(commands), time.monotonic() + limit))
        except StopIteration as end:
            result: R = end.value
            return result
