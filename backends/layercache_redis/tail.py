"""Following the log: what is asked, what the answers mean, and what listeners are told. Pure, no I/O.

An entry of the stream holds `n`, the node that wrote, and any number of `k` (the name of a value), `t` (that of a tag
that was invalidated), `o` (of one that was invalidated softly: what carries it is old, not gone) and `m` (of one whose
stamp was lost and made anew), the last three followed by the new stamp, `s`; names are without the prefix. A mark may
hold `h`, to how many streams its node writes (see `shards`). A turn of the `Tail` is `wire.Steps`; the thread of `log`
drives them.

Rules:
1. It is followed from a mark of our own, so there is always an entry that we know we have seen. After a broken
   connection it goes on from the last one seen: nothing is lost.
2. If after reading the last entry seen is gone, what was missed cannot be known: everything is forgotten and a new
   mark made.
3. If entries from before the last one seen are still there without it (or its id is, with other content), the server
   has lost writes that were made: it was set back, by a failover to a replica that lagged or a restart with data of
   the past. Trimming takes the oldest first, so it never looks like that; nor does a log that was deleted or
   flushed, with or without new entries.
4. What is known is current until `max_staleness` after the latest request that was answered and left nothing unread was
   *sent*, whatever the network does, and for as long as no clock says otherwise: listeners are told in wall-clock
   seconds, and told anew where that clock was set.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from layercache.spi import Listener
from layercache_redis.names import Node, Streams
from layercache_redis.wire import Command, Refusal, Steps

__all__ = ["Tail"]

log = logging.getLogger("layercache.redis")

_WRITTEN: Final = {b"k"}  # the kinds of what an entry says of a write
_STAMPED: Final = {b"t", b"o", b"m"}  # those of what it says of stamps

_COUNT: Final = 1000  # entries of one answer; with as many there may be more
_LIFE: Final = 86_400_000  # milliseconds that the stream outlives its last follower
_RENEWED: Final = 600.0  # seconds between prolongations
_APART: Final = 0.05  # seconds that the clocks may come apart before listeners are told


class Tail:
    """The end of the log, as one process follows it. A turn is for one thread at a time; to ask is for all.

    Args:
        name: of the stream.
        node: who we are; our own entries are not news.
        length: how many entries the stream keeps.
        staleness: seconds that what was heard may be relied on.
        now: the wall clock.
        ticks: a clock that nobody sets.
        streams: of the log, where this is the first of them, in which is said how many there are; None for the others.
        follow: sees to it that so many streams are followed.

    Attributes:
        block: seconds that the server may take for its answer, as there may be nothing to say.
        current_until: by the clock that nobody sets.
        entries, losses, set_backs: how many were heard; how often track was lost; and how often as the server was set
            back.
    """

    def __init__(
        self,
        name: bytes,
        node: Node,
        length: int,
        staleness: float,
        now: Callable[[], float],
        ticks: Callable[[], float],
        streams: Streams | None = None,
        follow: Callable[[int], object] = int,
    ) -> None:
        self._name, self._node, self._length, self._staleness = name, node, length, staleness
        self._now, self._ticks = now, ticks
        self._streams, self._follow = streams, follow
        self.block = min(1.0, staleness / 4)
        self._listeners: dict[str, list[Listener]] = {}
        self.reset()

    def reset(self) -> None:
        """Nothing was heard yet."""
        self.current_until = self._trusted_until = 0.0
        self._last = b""
        self._fields: Sequence[bytes] = []
        self._renew_at = 0.0
        self.entries = self.losses = self.set_backs = 0

    def subscribe(self, cache: str, listener: Listener) -> None:
        """Tell `listener` of all that concerns `cache`, in the turns."""
        self._listeners.setdefault(cache, []).append(listener)

    @property
    def lag(self) -> float:
        """Seconds since what is known was confirmed; infinite before it ever was."""
        return self._ticks() - (self.current_until - self._staleness) if self._last else inf

    # -- a turn

    def turn(self) -> Steps[bool]:
        """Ask what is new and hear it; return whether anything was, and all of it."""
        if not self._last:
            yield from self._mark()
        sent = self._times()
        if sent[0] > self._renew_at:
            yield from self._asked([("PEXPIRE", self._name, _LIFE)])
            yield from self._say_how_many()
            self._renew_at = sent[0] + _RENEWED
        block = max(1, int(self.block * 1000))  # 0 is for ever
        read: Command = ("XREAD", "COUNT", _COUNT, "BLOCK", block, "STREAMS", self._name, self._last)
        # looked at after the entries were read: if it is there then, none was missed between it and them
        seen: Command = ("XRANGE", self._name, self._last, self._last)
        answer, still_there = yield from self._asked([read, seen])
        # by its content as well: an id is a millisecond, which a stream made anew may have too
        if not still_there or still_there[0][1] != self._fields:
            (oldest,) = yield from self._asked([("XRANGE", self._name, "-", "+", "COUNT", 1)])
            self.lose_track(set_back=bool(oldest) and _order(oldest[0][0]) < _order(self._last))
            return False
        entries = answer[0][1] if answer else []
        for id, fields in entries:
            self._hear(fields)
            self._last, self._fields = id, fields
        self.entries += len(entries)
        if len(entries) >= _COUNT:
            return False
        self._confirm(sent)
        return bool(entries)

    def _mark(self) -> Steps[None]:
        """Begin to follow: what is learnt from now on is kept current by the entries after our own mark."""
        fields = [b"n", self._node.id, *(yield from self._say_how_many())]
        mark: Command = ("XADD", self._name, "MAXLEN", "~", self._length, "*", *fields)
        sent = self._times()
        last, _ = yield from self._asked([mark, ("PEXPIRE", self._name, _LIFE)])
        self._tell_all(lambda listener: listener.lost_track())
        self._last, self._fields = last, fields
        self._renew_at = sent[0] + _RENEWED
        yield from self._learn_how_many()
        self._confirm(sent)

    def _say_how_many(self) -> Steps[list[bytes]]:
        """Say to how many streams we write, where that is several, to those who begin to follow later; return what our
        mark says of it, to those who follow already. Before it is made: who misses the one hears the other."""
        if self._streams is None or self._streams.stated == 1:
            return []
        stated, at = self._streams.stated, self._streams.said_at
        # a string as long as the greatest number that was said; commands that every user of the server may send here
        _, said = yield from self._asked([("SETRANGE", at, stated, "+"), ("GET", at)])
        if len(said) - 1 <= stated:  # one that nobody says any more goes with the day
            yield from self._asked([("PEXPIRE", at, _LIFE)])
        return [b"h", b"%d" % stated]

    def _learn_how_many(self) -> Steps[None]:
        if self._streams is not None:
            (said,) = yield from self._asked([("GET", self._streams.said_at)])
            self._follow(len(said or b"") - 1)
            self._streams.in_use = self._streams.stated  # others know

    def _asked(self, commands: list[Command]) -> Steps[list[Any]]:
        replies = yield commands
        for reply in replies:
            if isinstance(reply, Refusal):
                if reply.code == "WRONGTYPE":
                    also = () if self._streams is None else (self._streams.said_at,)
                    yield [("UNLINK", self._name, *also)]
                raise reply
        return replies

    # -- what may be relied on

    def _times(self) -> tuple[float, float]:
        """Return the time by the clock that nobody sets, and by the wall clock."""
        return self._ticks(), self._now()

    def _confirm(self, sent: tuple[float, float]) -> None:
        self.current_until, self._trusted_until = (time + self._staleness for time in sent)
        until = self._trusted_until
        self._tell_all(lambda listener: listener.confirmed(until))

    def compare_clocks(self) -> None:
        """Where the wall clock was set since listeners were told how long to rely on what they know, tell them anew. To
        be called after each turn, one that failed as well."""
        ticks, now = self._times()
        left = self.current_until - ticks
        if self._last and abs(self._trusted_until - now - left) > _APART:
            until = self._trusted_until = now + left
            self._tell_all(lambda listener: listener.confirmed(until))

    def lose_track(self, *, set_back: bool = False) -> None:
        """Forget everything, and begin anew with the next turn."""
        self.current_until, self._last = 0.0, b""
        self.losses += 1
        self.set_backs += set_back
        self._tell_all(lambda listener: listener.confirmed(-inf))
        self._tell_all(lambda listener: listener.lost_track())
        if set_back:
            log.warning("the server was set back: writes that were made are lost")
            self._tell_all(lambda listener: listener.lost_writes())

    # -- hearing

    def _hear(self, fields: Sequence[bytes]) -> None:
        own = fields[:2] == [b"n", self._node.id]
        if own and set(fields[2::2]) == _WRITTEN:
            return  # what most entries are, in a quarter of the time
        pairs = list(zip(fields[::2], fields[1::2], strict=False))
        for index, (kind, name) in enumerate(pairs):
            if own and kind == b"k":
                continue  # of what changed for a tag we hear even where it was us: our own answer may have been lost
            if kind == b"h" and name.isdigit():
                self._follow(int(name[:9]))
                continue
            cache, _, rest = name.partition(b":")
            for listener in self._listeners.get(_text(cache), ()):
                if kind == b"k":
                    listener.written(_text(rest))
                elif kind in _STAMPED:
                    following = pairs[index + 1] if index + 1 < len(pairs) else (b"", b"")
                    stamp = int.from_bytes(following[1][:8]) if following[0] == b"s" else 0
                    if kind == b"m":
                        listener.restamped(_text(rest), stamp)
                    else:
                        listener.invalidated(_text(rest), stamp, kind == b"o")
                elif kind == b"d":
                    listener.retrained()

    def _tell_all(self, tell: Callable[[Listener], None]) -> None:
        for listeners in list(self._listeners.values()):
            for listener in listeners:
                try:
                    tell(listener)
                except Exception:  # of one listener: the others are told all the same
                    log.exception("a listener of the log failed")


def _order(id: bytes) -> tuple[int, int]:
    """Return what orders the ids of entries: milliseconds, and a number within each."""
    milliseconds, _, number = id.partition(b"-")
    return int(milliseconds), int(number)


def _text(escaped: bytes) -> str:
    """Return what was escaped in a name as it was."""
    return unquote_to_bytes(escaped).decode("utf-8", "replace")  # a stranger's, in that case
