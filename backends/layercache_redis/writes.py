"""Writing: values stored and dropped, each script's worth in one step with the leases it voids and the log it tells.

`SET` is sent by a pattern, which is made once for each number of keys: what a `set` costs this process is mostly its
frame. Sets that are issued together are joined by `turns`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from layercache.codecs.frame import BadFrame, unpack_stamps
from layercache.codecs.pipeline import Pipeline
from layercache.entry import CACHE_TAG, Entry, Stamps
from layercache_redis.dictionaries import KnownDictionaries
from layercache_redis.scripts import DELETE, SET
from layercache_redis.stamping import Stamping, longest_of
from layercache_redis.stamps import is_alive, new_stamp, packed_stamp
from layercache_redis.wire import Packed, Refusal, Steps, pattern

__all__ = ["Writes", "Writing", "px_of"]

_PATTERNS: Final = 64
"""Numbers of keys for which the command that stores them is kept as a pattern: half a megabyte at most."""


class Writing:
    """What one script stores: entries that carry one stamp of the cache.

    Attributes:
        stamp: that one.
        stamps: it alone, as frames carry it.
        ats: the names of the values.
        pxs: for how many milliseconds each is kept, 0 for ever.
        names, frames: words of the call, each behind its length.
        prolongs: whether the call prolongs the life of the stamp.
    """

    __slots__ = ("ats", "frames", "names", "prolongs", "pxs", "stamp", "stamps")

    def __init__(self, stamp: int) -> None:
        self.stamp = stamp
        self.stamps: Stamps = ((CACHE_TAG, stamp),)
        self.ats: list[bytes] = []
        self.pxs: list[int] = []
        self.names: list[int | bytes] = []
        self.frames: list[int | bytes] = []
        self.prolongs = False


class Writes:
    """The writes of one cache."""

    def __init__(self, pipeline: Pipeline, stamping: Stamping, dictionaries: KnownDictionaries) -> None:
        self._pipeline, self._stamping, self._dictionaries = pipeline, stamping, dictionaries
        self._calls, self._known = stamping.calls, stamping.known
        self._names, self._now = self._calls.names, self._calls.setting.now
        self._set_pattern = lru_cache(_PATTERNS)(self._new_set_pattern)

    def set(self, key: str, entry: Entry) -> Steps[bool]:
        writing = self.added(None, key, entry)
        if writing is not None:
            (reply,) = yield Packed(self.set_call(writing), 1)
            if self.is_stored(writing, reply):
                if self._calls.cluster:
                    yield from self.stored(writing.ats, ((CACHE_TAG, writing.stamp),), writing.pxs[0])
                return True
        yield from self.set_many({key: entry})  # what else the reply may be, is seen to there
        return True

    def added(self, writing: Writing | None, key: str, entry: Entry) -> Writing | None:
        """Add `entry` to `writing`, or to a new one where there is none or no place in it, and return that. None where
        something has to be asked for before, or `entry` carries stamps: then it has to be stored by `set`."""
        own = self._known.own()
        if own is None or not self._dictionaries.is_known or entry.stamps:
            return None
        if writing is None or writing.stamp != own or len(writing.ats) >= self._calls.most:
            writing = Writing(own)
        self._put(writing, key, entry)
        return writing

    def _put(self, writing: Writing, key: str, entry: Entry) -> None:
        at, px = self._names.value(key), self.px(entry)
        lease, digits = self._names.lease(at), b"%d" % px
        stamps = _carried(writing.stamps, entry) if entry.stamps else writing.stamps
        frame = self._pipeline.encode(entry, at, stamps)
        writing.ats.append(at)
        writing.pxs.append(px)
        writing.names += (len(at), at, len(lease), lease)
        writing.frames += (len(frame), frame, len(digits), digits)

    def set_call(self, writing: Writing) -> bytes:
        """Return the call of the script that stores all of it, as it is sent; for `is_stored`."""
        life = self._stamping.prolonged(writing.stamp, longest_of(writing.pxs))
        writing.prolongs = life != ""
        return self._set_call(writing, new_stamp(), life)

    def is_stored(self, writing: Writing, reply: Any) -> bool:
        """Return whether the call went as usual; if not, each has to be stored by `set`. In a cluster, where a script
        sees its own key alone, there is more to do."""
        if reply != 1:
            return False
        if writing.prolongs and not self._calls.cluster:
            self._stamping.seen_to_last({CACHE_TAG: writing.stamp}, longest_of(writing.pxs), self._now())
        return True

    def _set_call(self, writing: Writing, fresh: int, life: int | str) -> bytes:
        digits = str(life).encode()
        shared = (8, packed_stamp(writing.stamp), 8, packed_stamp(fresh), len(digits), digits)
        call = self._set_pattern(len(writing.ats), self._calls.setting.node.id)
        if self._calls.cluster:
            return call % (*writing.names, *shared, *writing.frames)
        log = self._calls.log_of(writing.ats[0])
        return call % (*writing.names, len(log), log, *shared, *writing.frames)

    def _new_set_pattern(self, n: int, node: bytes) -> bytes:
        """Return the call of the script that stores n keys, as the process that is `node` sends it."""
        holes = [None] * 2 * n
        shared = () if self._calls.cluster else (self._calls.own_stamp, None)
        return pattern(*self._calls.words(SET, (*holes, *shared), n, None, None, None, node, *holes))

    def set_many(self, entries: Mapping[str, Entry]) -> Steps[list[str]]:
        if not entries:
            return []
        # all are encoded before any is sent: nothing is stored by halves
        yield from self._dictionaries.learn_in_use()
        taken = yield from self._stamping.to_write()
        parts = self._calls.parts(list(entries))
        refused: list[str] = []
        while parts:
            writings = [self._written(part, entries, taken.stamp) for part in parts]
            longest = longest_of([px for writing in writings for px in writing.pxs])
            life = self._stamping.prolonged(taken.stamp, longest)
            calls = [self._set_call(writing, taken.fresh, life) for writing in writings]
            replies = yield from self._calls.evaluated(Packed(b"".join(calls), len(calls)))
            others: list[Sequence[str]] = []
            stored: list[str] = []
            ats: list[bytes] = []
            for part, writing, reply in zip(parts, writings, replies, strict=True):
                if type(reply) is bytes:  # the current stamp, which is not the one we took for it
                    others.append(part)
                    taken = self._stamping.corrected(reply, taken)
                elif isinstance(reply, Refusal):
                    refused += part
                    if len(refused) == len(entries):
                        self._calls.checked(reply)
                else:
                    stored += part
                    ats += writing.ats
            if stored:
                self._stamping.learn_taken(taken)
                yield from self.stored(ats, ((CACHE_TAG, taken.stamp),), longest)
                for entry in [entries[key] for key in stored if entries[key].stamps]:
                    yield from self._stamping.assure(entry.stamps, self.px(entry))
            parts = others
        return refused

    def _written(self, keys: Sequence[str], entries: Mapping[str, Entry], stamp: int) -> Writing:
        writing = Writing(stamp)
        for key in keys:
            self._put(writing, key, entries[key])
        return writing

    # -- dropping

    def delete(self, key: str) -> Steps[bool]:
        count = yield from self.delete_many([key])
        return count > 0

    def delete_many(self, keys: Sequence[str]) -> Steps[int]:
        return (yield from self.dropped([self._names.value(key) for key in keys])) if keys else 0

    def dropped(self, ats: Sequence[bytes]) -> Steps[int]:
        """Drop the keys at `ats`; return how many held a valid entry."""
        taken = yield from self._stamping.to_write()
        commands = [self._calls.script(DELETE, part, taken, "") for part in self._calls.parts(ats)]
        replies = yield from self._calls.evaluated(commands)
        yield from self._calls.told(ats)
        stamped: list[Stamps] = []
        for reply in replies:
            *heads, current = self._calls.checked(reply)
            for head in heads:
                try:
                    stamps = unpack_stamps(head)
                except BadFrame:
                    continue
                if stamps and packed_stamp(stamps[0][1]) == current:
                    stamped.append(stamps)
        current_tags = yield from self._stamping.current(tag for stamps in stamped for tag, _ in stamps[1:])
        return sum(
            all((now := current_tags[tag]) is not None and is_alive(stamp, now) for tag, stamp in stamps[1:])
            for stamps in stamped
        )

    # -- for all that stores

    def frame(self, entry: Entry, at: bytes, stamp: int) -> bytes:
        """Return the frame of `entry` under the name `at`, which carries `stamp` for the cache's."""
        return self._pipeline.encode(entry, at, _carried(((CACHE_TAG, stamp),), entry))

    def px(self, entry: Entry) -> int:
        """Return the milliseconds that the server keeps `entry` from now on, 0 for ever."""
        return px_of(entry.left(self._now()))

    def stored(self, ats: Sequence[bytes], stamps: Stamps, px: int) -> Steps[None]:
        """After a write: the log is told of the keys at `ats`, and what they carry lives as long as they do."""
        yield from self._calls.told(ats)
        yield from self._stamping.assure(stamps, px)


def px_of(seconds: float) -> int:
    """Return the milliseconds that the server keeps what lives for so long, 0 for ever."""
    return 0 if math.isinf(seconds) else max(1, math.ceil(seconds * 1000))


def _carried(own: Stamps, entry: Entry) -> Stamps:
    """Return the stamps of a frame of `entry` that carries `own` for the cache's."""
    return own + tuple(pair for pair in entry.stamps if pair[0] != CACHE_TAG)
