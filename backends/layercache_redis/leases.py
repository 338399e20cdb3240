"""Leases: one load of a key under way among all processes.

Rules:
1. A lease is held by its token, for `seconds` at most. It is that and the cache's stamp, so a clear voids it; every
   write and delete of the key ends it in the same step (`prelude.lua`).
2. Who asks is given the fresh entry, or the lease, or told that somebody else has it; a stale entry comes along.
3. What was loaded is stored only under a lease that still stands, and carries the stamps that came with it, which are
   from before the load: if one has changed since, it is of no use to anybody, and nobody is to keep it near.
4. A lease that is kept back without a token has everybody wait who would be content with what there was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from layercache.entry import CACHE_TAG, Entry
from layercache.spi import Lease
from layercache_redis.calls import Taken
from layercache_redis.dictionaries import KnownDictionaries
from layercache_redis.marks import mark_of
from layercache_redis.reads import Reads
from layercache_redis.scripts import FILL, LEASE, RELEASE
from layercache_redis.stamping import Stamping, longest_of
from layercache_redis.stamps import new_stamp, stamp_of
from layercache_redis.wire import Command, Steps
from layercache_redis.writes import Writes

__all__ = ["Leases"]

_FOR_EVER_MS: Final = (1 << 48) - 1

_STATES: Final[dict[bytes, Literal["fresh", "granted", "busy"]]] = {
    b"fresh": "fresh", b"granted": "granted", b"busy": "busy",
}  # fmt: skip


class Leases:
    """The leases of one cache."""

    def __init__(
        self, stamping: Stamping, dictionaries: KnownDictionaries, reads: Reads, writes: Writes
    ) -> None:
        self._stamping, self._dictionaries, self._reads, self._writes = stamping, dictionaries, reads, writes
        self._calls, self._known = stamping.calls, stamping.known
        self._names, self._now = self._calls.names, self._calls.setting.now

    def lease_many(
        self, keys: Sequence[str], token: bytes, seconds: float, after: float, tags: Sequence[str]
    ) -> Steps[dict[str, Lease]]:
        """For each of `keys` return its fresh entry; or grant its lease, for `seconds`, to the holder of `token`; or
        say that somebody else has it. A stale entry comes along."""
        ats = {key: self._names.value(key) for key in keys}
        useless = dict.fromkeys(keys, b"")
        stale: dict[str, Entry] = {}  # by their tags, which no script sees
        beyond = _FOR_EVER_MS if math.isinf(after) else int(max(after, self._now()) * 1000)
        px = max(1, _ms(seconds))
        leases: dict[str, Lease] = {}
        pending = list(keys)
        while pending:
            taken = yield from self._stamping.to_write()
            wanted, asking = self._stamping.wanted(tags)
            leasing = [
                self._calls.script(LEASE, [ats[key]], taken, "", token, px, beyond, useless[key])
                for key in pending
            ]
            marks: Command = ("HMGET", self._names.marks, "*", "n")
            *replies, noted = yield from self._calls.evaluated([*leasing, *asking, marks])
            current = self._stamping.found(wanted, replies[len(pending) :])
            again: list[str] = []
            for key, reply in zip(pending, replies, strict=False):
                state, frame, left, stamp = self._calls.checked(reply)
                own = self._stamping.learnt(stamp, taken.version)
                assert own is not None
                entry = (yield from self._reads.entry(ats[key], frame, left, own)) if frame else None
                if state == b"fresh" and (entry is None or entry.fresh_until <= self._now()):
                    useless[key] = frame[-4:]  # altered, or its tags are not current
                    if entry is not None:
                        stale[key] = entry
                    again.append(key)
                    continue
                stamps = ((CACHE_TAG, own), *((tag, current[tag]) for tag in tags))
                leases[key] = Lease(_STATES[state], entry or stale.get(key), stamps, mark_of(noted), token)
            pending = again
        return leases

    def fill_many(self, token: bytes, entries: Mapping[str, Entry]) -> Steps[list[str]]:
        """Store what was loaded under leases, with the stamps that came with them; return the keys of those that are
        void by now: their leases, as the keys were written or the cache cleared, or what they carry, as a tag of theirs
        was invalidated. The latter are stored, and stale or of no use to anybody; but nobody is to keep them near."""
        if not entries:
            return []
        yield from self._dictionaries.learn_in_use()
        version = self._known.version
        filling = [self._filling(token, key, entry, version) for key, entry in entries.items()]
        carried = {
            tag: stamp for entry in entries.values() for tag, stamp in entry.stamps if tag != CACHE_TAG
        }
        looks: list[Command] = [("GET", self._names.stamp(tag)) for tag in carried]
        if self._calls.cluster and looks:  # in no order else, as they go to several servers
            replies = yield from self._calls.evaluated(filling)
            replies += yield looks
        else:
            replies = yield from self._calls.evaluated([*filling, *looks])
        stored = {
            key: entry for (key, entry), reply in zip(entries.items(), replies, strict=False) if reply == 1
        }
        if stored:
            stamps = dict.fromkeys(pair for entry in stored.values() for pair in entry.stamps)
            longest = longest_of([self._writes.px(entry) for entry in stored.values()])
            yield from self._writes.stored([self._names.value(key) for key in stored], tuple(stamps), longest)
        now = [stamp_of(self._calls.string(reply)) for reply in replies[len(filling) :]]
        gone = {tag for (tag, stamp), current in zip(carried.items(), now, strict=True) if stamp != current}
        for tag in gone:
            self._known.forget(tag)  # sooner than the log says so
        return [
            key
            for (key, entry), reply in zip(entries.items(), replies, strict=False)
            if self._calls.checked(reply) != 1 or any(tag in gone for tag, _ in entry.stamps)
        ]

    def _filling(self, token: bytes, key: str, entry: Entry, version: int) -> Command:
        at, px = self._names.value(key), self._writes.px(entry)
        taken = Taken(dict(entry.stamps)[CACHE_TAG], new_stamp(), version)
        frame = self._writes.frame(entry, at, taken.stamp)
        life = self._stamping.prolonged(taken.stamp, px)
        return self._calls.script(FILL, [at], taken, life, token, frame, px)

    def release_many(self, keys: Sequence[str], token: bytes, seconds: float) -> Steps[None]:
        """Give leases back; or keep them, so that nobody loads, for so long."""
        if not keys:
            return
        taken, px = Taken(0, 0, 0), _ms(seconds)
        commands = [
            self._calls.script(RELEASE, [self._names.value(key)], taken, "", token, px) for key in keys
        ]
        for reply in (yield from self._calls.evaluated(commands)):
            self._calls.checked(reply)


def _ms(seconds: float) -> int:
    """Return the milliseconds of a lease; a lease for ever ends in some thousand years."""
    return math.ceil(min(seconds * 1000, _FOR_EVER_MS))
