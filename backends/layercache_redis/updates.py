"""Atomic changes: by a script of its own where there is one, else by comparing and swapping.

A script that changes what is there in place sees the cache's stamp but neither the check nor the tags of the frame; who
called it sees to those, with what it gives back.
"""

from __future__ import annotations

from typing import Any
from zlib import crc32

from layercache.codecs.frame import BadFrame, head_of, is_of_another_version, pack_times, unpack_stamps
from layercache.codecs.normal import NormalForm, TypedForm
from layercache.codecs.pipeline import Pipeline
from layercache.core.changes import Add, Increment, Touch
from layercache.entry import CACHE_TAG, Entry
from layercache.spi import Change
from layercache_redis.calls import Taken
from layercache_redis.dictionaries import KnownDictionaries
from layercache_redis.reads import Reads
from layercache_redis.scripts import ADD, INCREMENT, SWAP, TOUCH, Script
from layercache_redis.stamping import Stamping
from layercache_redis.wire import Steps
from layercache_redis.writes import Writes, px_of

__all__ = ["Updates"]


class Updates:
    """The changes of one cache."""

    def __init__(
        self,
        pipeline: Pipeline,
        stamping: Stamping,
        dictionaries: KnownDictionaries,
        reads: Reads,
        writes: Writes,
    ) -> None:
        self._stamping, self._dictionaries, self._reads, self._writes = stamping, dictionaries, reads, writes
        self._calls, self._known = stamping.calls, stamping.known
        self._names, self._now = self._calls.names, self._calls.setting.now
        self._is_sealed = bool(pipeline.seals)
        # with JSON an int is its digits, which the server can add to
        digits = pipeline.serializer.name == "json"
        self._digit_stages = pipeline.serializer.name.encode() if digits else b""

    def update(self, key: str, change: Change) -> Steps[Entry | None]:
        """Apply `change` atomically: by a script of its own where there is one, else by comparing and swapping."""
        yield from self._dictionaries.learn_in_use()
        if isinstance(change, Add):
            return (yield from self._add(key, change))
        if self._is_sealed:  # the server has no key to seal what it would change
            return (yield from self._swap(key, change))
        if isinstance(change, Touch):
            return (yield from self._touch(key, change))
        if isinstance(change, Increment) and _is_plain_int(change.form) and abs(change.delta) < 10**15:
            return (yield from self._increment(key, change))
        return (yield from self._swap(key, change))

    def _add(self, key: str, change: Add) -> Steps[Entry | None]:
        at = self._names.value(key)
        taken = yield from self._stamping.to_write()
        px = self._writes.px(change.entry)
        while True:
            frame = self._writes.frame(change.entry, at, taken.stamp)
            life = self._stamping.prolonged(taken.stamp, px)
            reply = yield from self._calls.answer(ADD, at, taken, life, frame, px)
            if type(reply) is bytes:
                taken = self._stamping.corrected(reply, taken)
                continue
            if self._calls.checked(reply) == 1:
                self._stamping.learn_taken(taken)
                yield from self._writes.stored([at], ((CACHE_TAG, taken.stamp), *change.entry.stamps), px)
                return change.entry
            found = yield from self._reads.entry(at, reply[0], reply[1], taken.stamp)
            if change(found) is None:
                return None
            return (yield from self._swap(key, change))

    def _touch(self, key: str, change: Touch) -> Steps[Entry | None]:
        at = self._names.value(key)
        taken = yield from self._stamping.to_write()
        end = change.now + change.ttl
        px = px_of(change.ttl + change.stale_ttl)
        life = self._stamping.prolonged(taken.stamp, px)
        arguments = (pack_times(change.now, end, end + change.stale_ttl), px, int(change.now * 1000))
        reply, are_current = yield from self._in_place(TOUCH, at, taken, life, *arguments)
        if reply is None:
            return None
        entry = yield from self._still_there(at, reply, -1, are_current=are_current)
        yield from self._writes.stored([at], () if entry is None else entry.stamps, px)
        return entry and entry.living_again(change.ttl, change.now, change.stale_ttl)

    def _increment(self, key: str, change: Increment) -> Steps[Entry | None]:
        at = self._names.value(key)
        taken = yield from self._stamping.to_write()
        arguments = (change.delta, self._digit_stages, crc32(at), int(change.now * 1000))
        reply, are_current = yield from self._in_place(INCREMENT, at, taken, "", *arguments)
        if reply is None:
            return change(None)
        counted, frame, px = reply
        if not counted:
            return (yield from self._swap(key, change))
        entry = yield from self._still_there(at, frame, px, are_current=are_current)
        yield from self._calls.told([at])
        if entry is None:
            return change(None)
        count = change.form.decode(entry)
        return Entry(entry.payload, count, entry.created_at, entry.fresh_until, entry.dead_at, entry.stamps)

    def _in_place(
        self, script: Script, at: bytes, taken: Taken, life: int | str, *arguments: bytes | int
    ) -> Steps[tuple[Any, bool]]:
        """Have a script change what is there, and return its answer, None where nothing is that is fresh; and whether
        the tags of that were looked at.

        The script cannot see whether tags are current, and gives back what carries some; it is called again with what
        was found to be, until that is what it meets.
        """
        seen = b""
        while True:
            reply = yield from self._calls.answer(script, at, taken, life, *arguments, seen)
            if type(self._calls.checked(reply)) is not list or reply[0] != b"tagged":
                return reply, bool(seen)
            _, frame, left = reply
            entry = yield from self._still_there(at, frame, left)
            if entry is None or entry.fresh_until <= self._now():
                return None, True
            seen = head_of(frame)

    def _still_there(
        self, at: bytes, frame: bytes, px: int, *, are_current: bool = False
    ) -> Steps[Entry | None]:
        """Decode what a script took by the look of its head; what turns out to be no frame is dropped."""
        spoilt = self._reads.foreign
        try:
            own = next((stamp for tag, stamp in unpack_stamps(frame) if tag == CACHE_TAG), None)
        except BadFrame:
            own = None
        if own != self._known.own():
            self._known.forget(CACHE_TAG)  # the script knows better
        entry = yield from self._reads.entry(at, frame, px, own, are_current=are_current)
        if entry is None and self._reads.foreign > spoilt:
            yield from self._writes.dropped([at])
        return entry

    def _swap(self, key: str, change: Change) -> Steps[Entry | None]:
        """Read, change, and swap if what was read is still there, else once more. Each turn that fails
        means that somebody else's write went through, so the callers together always get on."""
        at = self._names.value(key)
        while True:
            version = self._known.version
            frame, px, stored = yield [
                ("GETRANGE", at, 0, self._reads.most_bytes),
                ("PTTL", at),
                ("GET", self._calls.own_stamp),
            ]
            own = self._stamping.learnt(stored, version)
            if isinstance(frame, bytes) and len(frame) > self._reads.most_bytes:
                # nothing of ours is as long, and it was not read to its end
                yield from self._writes.dropped([at])
                continue
            found = yield from self._reads.entry(at, frame, px, own)
            try:
                changed = change(found)
            except Exception:
                if found is None and frame and not (type(frame) is bytes and is_of_another_version(frame)):
                    yield from self._writes.dropped([at])  # it is of no use to anybody
                raise
            if changed is None:
                return None
            taken = yield from self._stamping.to_write(own)
            # what is of another type is replaced as if nothing were there
            expected = frame if isinstance(frame, bytes) else b""
            new_px = self._writes.px(changed)
            replacing = self._writes.frame(changed, at, taken.stamp)
            life = self._stamping.prolonged(taken.stamp, new_px)
            reply = yield from self._calls.answer(SWAP, at, taken, life, expected, replacing, new_px)
            if self._calls.checked(reply) == 1:
                yield from self._writes.stored([at], ((CACHE_TAG, taken.stamp), *changed.stamps), new_px)
                return changed


def _is_plain_int(form: NormalForm) -> bool:
    """Whether every int that `form` can read is stored as its digits."""
    return form.type is int if isinstance(form, TypedForm) else True
