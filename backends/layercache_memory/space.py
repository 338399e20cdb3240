"""The keys of one cache in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import nsmallest
from math import inf
from random import expovariate
from sys import getsizeof
from threading import Lock
from typing import Any, Final

from layercache.core.tickets import Ticket, Tickets
from layercache.entry import CACHE_TAG, MISSING, Entry, Stamps
from layercache.spi import Change, Curve, KeyPage, KeySpace, Serializer, Sight, TagSight
from layercache_memory.record import Kind, Origin, Record
from layercache_memory.storage import UNIT, Storage

__all__ = ["MemorySpace"]

_OVERHEAD: Final = 250
"""Bytes that a record takes besides its key and its value: itself with its times, its places in the dict, a
queue and a
bucket, and its part of the sketch and the ghosts. Counted for every record; `benchmarks/memory.py` measures it."""

_TAG: Final = 100
"""Bytes that each tag of a record takes besides: its place in the index, and its part of the origin."""

_ASCII: Final = getsizeof("")  # and a byte for each character
_EARLIER: Final = (
    60.0  # seconds that memory may be held longer before a second place among the deadlines is worth it
)
_MOST_ORIGINS: Final = 1024
_COPIED: Final[dict[type, Kind]] = {dict: dict.copy, list: list.copy}


class MemorySpace(KeySpace):
    """A key space that is its own near answer.

    Attributes:
        records: the records by key; readers look here without a lock.
        tickets: for loads of these keys, voided under the lock with whatever voids them.
        now: the clock that they compare with.
        retired_hits: of records that are gone.
        trusted_until: what is here is relied on until then; a chain moves it.
    """

    def __init__(self, storage: Storage, serializer: Serializer, max_ttl: float) -> None:
        self.records: dict[str, Record] = {}
        self.now = storage.now
        self.retired_hits = 0
        self.trusted_until = inf
        self._storage, self._loads, self._max_ttl = storage, serializer.loads, max_ttl
        self._origins: dict[Any, Origin] = {}  # by life, or by life and tags where there are some
        self._tagged: dict[str, set[str]] = {}  # by tag, the keys of what is here
        self._tickets = self.tickets = Tickets(Lock())
        self.near = self
        storage.serve(self)

    def after_fork(self) -> None:
        self._tickets.reset(Lock())

    # -- the near answer

    def take(self, key: str, *, stale: bool) -> Entry | None:
        record = self.records.get(key)
        if record is None:
            return None
        with self._storage.lock:  # so that value and times are of one `set`
            now = self.now()
            if now >= (record.dead_at if stale else record.fresh_until) or now >= self.trusted_until:
                return None
            record.hits += 1
            entry = _entry(record)
            if now < record.hit_until:
                entry.spread = 0.0  # not to be refreshed yet
            return entry

    def hits(self) -> int:
        return self.retired_hits + sum(record.hits for record in list(self.records.values()))

    def put_text(self, key: str, text: str, seconds: float) -> bool:
        storage, now = self._storage, self.now()
        seconds = min(seconds, self._max_ttl)
        units = (_OVERHEAD + 2 * _ASCII + UNIT - 1 + len(key) + len(text)) // UNIT
        with storage.lock:
            if storage.deadlines.next <= now:
                storage.reclaim(now)
            origin = self._origins.get(seconds) or self._origin(seconds, ())
            end = now + seconds
            return self._store(key, text, None, units, origin, (end, end, end), now)

    # -- operations

    def get(self, key: str) -> Entry | None:
        now = self.now()
        with self._storage.lock:
            return self._living(key, now)

    def get_many(self, keys: Sequence[str]) -> dict[str, Entry]:
        now = self.now()
        with self._storage.lock:
            found = {key: self._living(key, now) for key in keys}
        return {key: entry for key, entry in found.items() if entry is not None}

    def set(self, key: str, entry: Entry) -> bool:
        now = self.now()
        with self._storage.lock:
            return self._keep(key, entry, now)

    def set_many(self, entries: Mapping[str, Entry]) -> list[str]:
        return [key for key, entry in entries.items() if not self.set(key, entry)]

    def update(self, key: str, change: Change) -> Entry | None:
        now = self.now()
        with self._storage.lock:
            changed = change(self._living(key, now))
            if changed is not None:
                self._keep(key, changed, now)
            return changed

    def fill(self, ticket: Ticket, entry: Entry) -> bool:
        now = self.now()
        with self._storage.lock:
            permitted = ticket.permits(entry)
            if permitted:
                self._keep(ticket.key, entry, now)
            return permitted

    def delete(self, key: str) -> bool:
        now = self.now()
        with self._storage.lock:
            self._tickets.void(key)
            record = self.records.get(key)
            if record is None:
                return False
            self._storage.drop(record)
            return record.dead_at > now

    def clear(self) -> None:
        """Drop the records one lock at a time, so that nobody waits for all of them."""
        storage = self._storage
        with self._tickets.clearing():
            for record in list(self.records.values()):
                with storage.lock:
                    if self.records.get(record.key) is record:
                        storage.drop(record)
            with storage.lock:
                if not self.records:
                    self.records.clear()  # the table of an emptied dict keeps its size
                storage.rest()

    def invalidate(self, tags: Sequence[str], soft: bool = False) -> None:
        """Drop what carries one of `tags`, or make it stale, found by an index of what is here: a microsecond each,
        under the lock."""
        if CACHE_TAG in tags:
            self.clear()
            return
        now = self.now()
        with self._storage.lock:
            self._tickets.void_tags(tags)
            for tag in tags:
                if soft:
                    for key in tuple(self._tagged.get(tag, ())):
                        self._make_stale(self.records[key], now)
                else:
                    for key in self._tagged.pop(tag, ()):
                        self._storage.drop(self.records[key])

    def explain(self, key: str) -> Sight:
        with self._storage.lock:
            record = self.records.get(key)
            if record is None:
                return Sight()
            entry = _entry(record)
            # what is invalidated is dropped, so what is here is current
            tags = tuple(TagSight(tag, 0, 0, is_alive=True) for tag, _ in entry.stamps)
            return Sight(entry, record.units * UNIT, tags=tags)

    def list_keys(self, prefix: str, limit: int, cursor: str) -> KeyPage:
        """In alphabetical order; the cursor is the last key. Looks at each record, without the lock: a million of them
        take a quarter of a second."""
        now = self.now()
        found = nsmallest(
            limit + 1, [key for key in list(self.records) if key > cursor and key.startswith(prefix)]
        )
        records = [(key, self.records.get(key)) for key in found[:limit]]
        alive = tuple(key for key, record in records if record is not None and record.dead_at > now)
        return KeyPage(alive, found[limit - 1] if len(found) > limit else None)

    def gauges(self) -> Mapping[str, int | float]:
        """Return the counts of the backend, all of its caches together."""
        storage = self._storage
        return {
            "entries": storage.entries,
            "bytes": storage.units * UNIT,
            "evictions": storage.evictions,
            "expirations": storage.expirations,
            "refusals": storage.refusals,
            "max_entries": storage.max_entries,
            "max_bytes": storage.max_units * UNIT,
        }

    def curve(self) -> Curve | None:
        """Return the curve of the backend, all of its caches together; its lapses are those of this one."""
        storage = self._storage
        if storage.curve is None:
            return None
        read = sum([home.hits() for home in list(storage.homes)])
        with storage.lock:
            return storage.curve.curve(self, read)

    # -- under the lock

    def _living(self, key: str, now: float) -> Entry | None:
        storage = self._storage
        if storage.deadlines.next <= now:
            storage.reclaim(now)
        record, curve = self.records.get(key), storage.curve
        if record is not None and record.dead_at <= now:
            storage.expire(record)
            record = None
        if record is None:
            if curve is not None:
                curve.missed(self, key)
            return None
        if curve is not None:
            curve.looked += 1
        # the policy has to know of this read; whoever asked counts it itself
        record.hits += 1
        self.retired_hits -= 1
        return _entry(record)

    def _keep(self, key: str, entry: Entry, now: float) -> bool:
        storage = self._storage
        if storage.deadlines.next <= now:
            storage.reclaim(now)
        if self._max_ttl != inf:
            entry = entry.living_at_most(self._max_ttl, now)
        value, kind = entry.value, _COPIED.get(type(entry.value))
        if value is MISSING:
            value, kind = entry.payload, self._loads
        units = _units(key, value, kind)
        life = inf if entry.dead_at == inf else entry.dead_at - entry.created_at
        tags: Stamps = ()
        if entry.stamps:
            tags = tuple((tag, 0) for tag, _ in entry.stamps if tag != CACHE_TAG)
            units += len(tags) * _TAG // UNIT
        # drawn once for all who read it here; other processes draw their own
        hit_until = entry.early_at(expovariate(1.0)) if entry.spread else entry.fresh_until
        times = (hit_until, entry.fresh_until, entry.dead_at)
        return self._store(key, value, kind, units, self._origin(life, tags), times, now)

    def _make_stale(self, record: Record, now: float) -> None:
        if record.dead_at <= now:
            self._storage.expire(record)
        else:  # as `Entry.made_stale` has it
            record.hit_until = record.fresh_until = 0.0

    def _origin(self, life: float, tags: Stamps) -> Origin:
        alike = (life, tags) if tags else life
        origin = self._origins.get(alike)
        if origin is None:
            if len(self._origins) >= _MOST_ORIGINS:
                self._origins.clear()  # lives without end of variety: those in use keep their origin
            origin = self._origins[alike] = Origin(self, life, tags)
        return origin

    def _store(
        self,
        key: str,
        value: Any,
        kind: Kind,
        units: int,
        origin: Origin,
        times: tuple[float, float, float],
        now: float,
    ) -> bool:
        """Change the record in its place, and so in its queue, where that can be; else store a new one.

        In place only to a value of the same kind: a reader without a lock takes value and kind one after
        the other.
        """
        storage = self._storage
        self._tickets.void(key)
        hit_until, fresh_until, dead_at = times
        record = self.records.get(key)
        if record is not None:
            more = units - record.units
            fits = storage.units + more <= storage.max_units and units <= storage.max_entry_units
            if record.kind == kind and fits:
                earlier = dead_at < record.dead_at - _EARLIER
                if more:
                    storage.units += more
                    record.units = units
                    storage.policy.resized(record, more)
                record.value = value
                if record.origin.stamps != origin.stamps:
                    self.untag(record)
                    self._tag(key, origin.stamps)
                record.origin = origin
                record.dead_at, record.fresh_until, record.hit_until = dead_at, fresh_until, hit_until
                if earlier:
                    storage.deadlines.add(record)
                return True
            storage.drop(record)
        record = Record()
        record.key, record.value, record.kind, record.units, record.origin = key, value, kind, units, origin
        record.dead_at, record.fresh_until, record.hit_until = dead_at, fresh_until, hit_until
        stored = storage.insert(record, now)
        if stored and origin.stamps:
            self._tag(key, origin.stamps)
        return stored

    def _tag(self, key: str, tags: Stamps) -> None:
        for tag, _ in tags:
            self._tagged.setdefault(tag, set()).add(key)

    def untag(self, record: Record) -> None:
        for tag, _ in record.origin.stamps:
            keys = self._tagged.get(tag)
            if keys is not None:
                keys.discard(record.key)
                if not keys:
                    del self._tagged[tag]

    def forget_tags(self) -> None:
        self._tagged.clear()


def _entry(record: Record) -> Entry:
    # an endless record does not know when it was made
    origin = record.origin
    created_at = -inf if record.dead_at == inf else record.dead_at - origin.life
    # the spread is not kept: that there was one is all that a reader has to know
    spread = record.fresh_until - record.hit_until if record.hit_until < record.fresh_until else 0.0
    times = (created_at, record.fresh_until, record.dead_at, origin.stamps, spread)
    if record.kind is None or type(record.value) in _COPIED:
        return Entry(None, record.value, *times)
    return Entry(record.value, MISSING, *times)


def _units(key: str, value: Any, kind: Kind) -> int:
    size = _OVERHEAD + getsizeof(key) + getsizeof(value)
    if kind is dict.copy:
        size += sum(map(getsizeof, value)) + sum(map(getsizeof, value.values()))
    elif kind is list.copy:
        size += sum(map(getsizeof, value))
    return (size + UNIT - 1) // UNIT
