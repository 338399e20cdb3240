"""Reading: what is under a key, and whether that is an entry that counts.

What is kept for a key is a frame (`layercache.codecs.frame`) and what the server leaves it to live. An entry is what
its check, its stages, the cache's stamp, the clock and its tags' stamps all let pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from layercache.codecs.dictionaries import UnknownDictionary
from layercache.codecs.pipeline import Pipeline
from layercache.entry import CACHE_TAG, Entry
from layercache.errors import DecodeError
from layercache_redis.dictionaries import KnownDictionaries
from layercache_redis.stamping import Stamping
from layercache_redis.stamps import is_alive
from layercache_redis.wire import Packed, Refusal, Steps, packed, pattern

__all__ = ["Reads"]

_HEAD_BYTES: Final = 1 << 17
"""What a frame may hold besides its payload, and what a stage that does not shrink may add to that."""


class Reads:
    """The reads of one cache.

    Attributes:
        most_bytes: of a frame of ours.
        foreign: how often something under a key of ours was not ours.
    """

    def __init__(self, pipeline: Pipeline, stamping: Stamping, dictionaries: KnownDictionaries) -> None:
        self._pipeline, self._stamping, self._dictionaries = pipeline, stamping, dictionaries
        self._calls, self._known = stamping.calls, stamping.known
        self._names, self._now = self._calls.names, self._calls.setting.now
        self.most_bytes = pipeline.max_value_bytes + _HEAD_BYTES
        # not GET: of what is longer than anything of ours no more than that comes over the wire
        self._reading = pattern("GETRANGE", None, 0, self.most_bytes) + pattern("PTTL", None)
        self._asking_stamp = packed([("GET", self._calls.own_stamp)])
        self.foreign = 0

    def get(self, key: str) -> Steps[Entry | None]:
        at = self._names.value(key)
        reading = self._reading % (len(at), at, len(at), at)
        own, version = self._known.own(), self._known.version
        if own is None:
            frame, px, stamp = yield Packed(reading + self._asking_stamp, 3)
            own = self._stamping.learnt(stamp, version)
        else:
            frame, px = yield Packed(reading, 2)
        if px == -2:
            return None
        try:
            entry = self._decoded(at, frame, px, own)
        except UnknownDictionary:
            entry = None
        else:
            if entry is None or len(entry.stamps) == 1:
                return entry
        return (yield from self.entry(at, frame, px, own))

    def get_many(self, keys: Sequence[str]) -> Steps[dict[str, Entry]]:
        """For each key the frame, and what the server leaves it to live."""
        if not keys:
            return {}
        ats = [self._names.value(key) for key in keys]
        own, version = self._known.own(), self._known.version
        asked = [self._reading % (len(at), at, len(at), at) for at in ats]
        if own is None:
            asked.append(self._asking_stamp)
        replies = yield Packed(b"".join(asked), len(ats) + len(asked))
        if own is None:
            own = self._stamping.learnt(replies.pop(), version)
        living = yield from self.living(ats, replies[::2], replies[1::2], own)
        return {key: entry for key, entry in zip(keys, living, strict=True) if entry is not None}

    def entry(
        self, at: bytes, frame: Any, px: Any, own: int | None, *, are_current: bool = False
    ) -> Steps[Entry | None]:
        """As `living`, of the one key at `at`."""
        return (yield from self.living([at], [frame], [px], own, are_current=are_current))[0]

    def living(
        self,
        ats: Sequence[bytes],
        frames: Sequence[Any],
        pxs: Sequence[Any],
        own: int | None,
        *,
        are_current: bool = False,
    ) -> Steps[list[Entry | None]]:
        """Decode `frames` of the keys at `ats`: entries that are alive and valid, or stale; None for all else.

        Args:
            own: the cache's stamp.
            are_current: their tags are known to be.
        """
        try:
            entries = [
                self._decoded(at, frame, px, own) for at, frame, px in zip(ats, frames, pxs, strict=True)
            ]
        except UnknownDictionary as unknown:
            yield from self._dictionaries.learn(unknown.id)
            return (yield from self.living(ats, frames, pxs, own, are_current=are_current))
        tagged = [entry for entry in entries if entry is not None and len(entry.stamps) > 1]
        if not tagged or are_current:
            return entries
        current = yield from self._stamping.current(tag for entry in tagged for tag, _ in entry.stamps[1:])
        return [None if entry is None else _by_tags(entry, current) for entry in entries]

    def _decoded(self, at: bytes, frame: Any, px: Any, own: int | None) -> Entry | None:
        """Decode one frame; whether its tags are current remains to be seen."""
        if not frame or type(frame) is Refusal:
            self._nothing(frame, px)
            return None
        try:
            entry = self._pipeline.decode(frame, at)
        except UnknownDictionary as unknown:
            if unknown.id not in self._dictionaries.lost:
                raise
            self.foreign += 1
            return None
        except DecodeError:
            self.foreign += 1
            return None
        if own is None or not entry.stamps or entry.stamps[0] != (CACHE_TAG, own):
            return None
        now = self._now()
        milliseconds = px if type(px) is int else self._calls.checked(px)
        # -1: no expiry; -2: it expired between the two commands
        living = entry.living_at_most(math.inf if milliseconds == -1 else milliseconds / 1000, now)
        return living if living.dead_at > now else None

    def _nothing(self, frame: Any, px: Any) -> None:
        """Tell what is not there from what is empty, or of another type."""
        if type(frame) is Refusal and frame.code != "WRONGTYPE":
            self._calls.checked(frame)
        if self._calls.checked(px) != -2:
            self.foreign += 1


def _by_tags(entry: Entry, current: Mapping[str, int | None]) -> Entry | None:
    """Return `entry` as the `current` stamps of its tags leave it: as it is, stale, or None."""
    is_current = True
    for tag, stamp in entry.stamps[1:]:
        now = current[tag]
        if now != stamp:
            if now is None or not is_alive(stamp, now):
                return None
            is_current = False
    return entry if is_current else entry.made_stale()
