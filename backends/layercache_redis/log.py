"""The log: what was written and invalidated, by whom, for every process that keeps something near.

An entry of the stream holds `n`, the node that wrote, and any number of `k` (the name of a value), `t` (that of a tag
that was invalidated) and `m` (of one whose stamp was lost and made anew), the last two followed by the new stamp, `s`;
names are without the prefix. One thread per process and backend follows it.

Rules:
1. It is followed from a mark of our own, so there is always an entry that we know we have seen. After a broken
   connection it goes on from the last one seen: nothing is lost.
2. If after reading the last entry seen is gone, the stream was trimmed past us, deleted, or set back by a failover:
   what was missed cannot be known, so everything is forgotten and a new mark made.
3. What is known is current until `max_staleness` after the latest request that was answered and left nothing unread was
   *sent*, whatever the network does.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from redis.exceptions import RedisError

from layercache.errors import BackendError
from layercache.spi import Listener
from layercache_redis.names import Node
from layercache_redis.sync import SyncConnection, SyncDriver
from layercache_redis.wire import Command, Refusal, packed

__all__ = ["Log"]

log = logging.getLogger("layercache.redis")

_GATHERING: Final = 0.003
"""Seconds to let entries gather after some have come: else each write of this process would wake the thread, which
takes longer than the write."""

_WRITTEN: Final = {b"k"}  # the kinds of what an entry says of a write

_COUNT: Final = 1000  # entries of one answer; with as many there may be more
_LIFE: Final = 86_400_000  # milliseconds that the stream outlives its last follower
_RENEWED: Final = 600.0  # seconds between prolongations
_LONGEST_PAUSE: Final = 0.5  # seconds between attempts to reach the server


class Log:
    """The log of one application, as this process follows it.

    Args:
        driver: reaches the server.
        name: of the stream.
        node: who we are; our own entries are not news.
    """

    def __init__(self, driver: SyncDriver, name: bytes, node: Node, now: Callable[[], float]) -> None:
        self._driver, self._name, self.node, self._now = driver, name, node, now
        self._staleness = driver.servers.options.max_staleness
        self._block = min(1.0, self._staleness / 4)  # seconds that the server keeps an unanswered request
        self._listeners: dict[str, list[Listener]] = {}
        self.reset()

    def reset(self) -> None:
        """Not followed yet: in the child of a fork no thread of the parent does."""
        self._lock = threading.Lock()  # guards _thread
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._connection: SyncConnection | None = None
        self._current_until = 0.0
        self._last = b""
        self._fields: Sequence[bytes] = []
        self._renew_at = 0.0
        self.entries = self.losses = 0

    # -- for those who rely on it

    def subscribe(self, cache: str, listener: Listener) -> None:
        """Tell `listener` of all that concerns `cache`, on the log's own thread."""
        self._listeners.setdefault(cache, []).append(listener)

    def is_current(self) -> bool:
        """Return whether what was heard may be relied on; begins to follow the log where nobody does."""
        if self._current_until > monotonic():
            return True
        self.begin()
        return False

    def begin(self) -> None:
        """Follow the log, on a thread of its own, where nobody does yet; waits for nothing."""
        if self._thread is None:
            self._start()

    @property
    def lag(self) -> float:
        """Seconds since what is known was confirmed; infinite before it ever was."""
        return monotonic() - (self._current_until - self._staleness) if self._last else float("inf")

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
        self._current_until = 0.0

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._ended.is_set():
                self._thread = threading.Thread(target=self._follow, name="layercache log", daemon=True)
                self._thread.start()

    # -- the thread

    def _follow(self) -> None:
        pause = 0.01
        while not self._ended.is_set():
            try:
                self._connection = self._driver.connect_for_log(self._name)
                try:
                    while not self._ended.is_set():
                        self._turn(self._connection)
                        pause = 0.01
                finally:
                    connection, self._connection = self._connection, None
                    connection.close()
            except (RedisError, BackendError, OSError):
                # reads ask the server meanwhile, and say what is wrong with it
                self._driver.forget_places()
            except Exception:
                log.exception("the log was misread; starting anew")
                self._lose_track()
            self._ended.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _turn(self, connection: SyncConnection) -> None:
        if not self._last:
            self._mark(connection)
        sent, wall = monotonic(), self._now()
        if sent > self._renew_at:
            self._ask(connection, [("PEXPIRE", self._name, _LIFE)])
            self._renew_at = sent + _RENEWED
        block = max(1, int(self._block * 1000))  # 0 is for ever
        read: Command = ("XREAD", "COUNT", _COUNT, "BLOCK", block, "STREAMS", self._name, self._last)
        # looked at after the entries were read: if it is there then, none was missed between it and them
        seen: Command = ("XRANGE", self._name, self._last, self._last)
        answer, still_there = self._ask(connection, [read, seen], self._block)
        # by its content as well: an id is a millisecond, which a stream made anew may have too
        if not still_there or still_there[0][1] != self._fields:
            self._lose_track()
            return
        entries = answer[0][1] if answer else []
        for id, fields in entries:
            self._hear(fields)
            self._last, self._fields = id, fields
        self.entries += len(entries)
        if len(entries) < _COUNT:
            self._current_until = sent + self._staleness
            self._tell_all(lambda listener: listener.confirmed(wall + self._staleness))
            if entries:
                self._ended.wait(_GATHERING)

    def _mark(self, connection: SyncConnection) -> None:
        """Begin to follow: what is learnt from now on is kept current by the entries after our own mark."""
        length = self._driver.servers.options.log_length
        mark: Command = ("XADD", self._name, "MAXLEN", "~", length, "*", b"n", self.node.id)
        sent, wall = monotonic(), self._now()
        last, _ = self._ask(connection, [mark, ("PEXPIRE", self._name, _LIFE)])
        self._tell_all(lambda listener: listener.lost_track())
        self._last, self._fields = last, [b"n", self.node.id]
        self._current_until = sent + self._staleness
        self._tell_all(lambda listener: listener.confirmed(wall + self._staleness))
        self._renew_at = sent + _RENEWED

    def _lose_track(self) -> None:
        self._current_until, self._last = 0.0, b""
        self.losses += 1
        self._tell_all(lambda listener: listener.lost_track())

    def _hear(self, fields: Sequence[bytes]) -> None:
        own = fields[:2] == [b"n", self.node.id]
        if own and set(fields[2::2]) == _WRITTEN:
            return  # what most entries are, in a quarter of the time
        pairs = list(zip(fields[::2], fields[1::2], strict=False))
        for index, (kind, name) in enumerate(pairs):
            if own and kind == b"k":
                continue  # of what changed for a tag we hear even where it was us: our own answer may have been lost
            cache, _, rest = name.partition(b":")
            for listener in self._listeners.get(_text(cache), ()):
                if kind == b"k":
                    listener.written(_text(rest))
                elif kind in {b"t", b"m"}:
                    following = pairs[index + 1] if index + 1 < len(pairs) else (b"", b"")
                    stamp = int.from_bytes(following[1][:8]) if following[0] == b"s" else 0
                    (listener.invalidated if kind == b"t" else listener.restamped)(_text(rest), stamp)
                elif kind == b"d":
                    listener.retrained()

    def _tell_all(self, tell: Callable[[Listener], None]) -> None:
        for listeners in list(self._listeners.values()):
            for listener in listeners:
                try:
                    tell(listener)
                except Exception:  # of one listener: the others are told all the same
                    log.exception("a listener of the log failed")

    def _ask(self, connection: SyncConnection, commands: list[Command], block: float = 0.0) -> list[Any]:
        deadline = monotonic() + block + self._driver.servers.options.timeout
        replies = connection.exchange(packed(commands), len(commands), deadline)
        for reply in replies:
            if isinstance(reply, Refusal):
                if reply.code == "WRONGTYPE":
                    connection.exchange(packed([("UNLINK", self._name)]), 1, deadline)
                raise reply
        return replies


def _text(escaped: bytes) -> str:
    """Return what was escaped in a name as it was."""
    return unquote_to_bytes(escaped).decode("utf-8", "replace")  # a stranger's, in that case
