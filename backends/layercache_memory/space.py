"""The keys of one cache in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from sys import getsizeof
from typing import Any, Final

from layercache.entry import MISSING, Entry
from layercache.spi import Change, KeySpace, Serializer
from layercache_memory.record import Kind, Record
from layercache_memory.storage import Storage

__all__ = ["MemorySpace"]

# What a record takes besides its key and its value, by `benchmarks/memory.py`: itself with its times, its
# places in the dict, a queue and a bucket, and its part of the sketch and the ghosts. Counted for every
# record.
OVERHEAD: Final = 250


class MemorySpace(KeySpace):
    """A key space that is its own near answer.

    Attributes:
        records: the records by key; readers look here without a lock.
        now: the clock that they compare with.
        retired_hits: of records that are gone.
    """

    def __init__(self, storage: Storage, serializer: Serializer, max_ttl: float) -> None:
        self.records: dict[str, Record] = {}
        self.now = storage.now
        self.retired_hits = 0
        self._storage, self._loads, self._max_ttl = storage, serializer.loads, max_ttl
        self.near = self
        storage.serve(self)

    # -- the near answer

    def peek(self, key: str) -> Entry | None:
        """Return the living entry of `key`, uncounted and without a lock."""
        record = self.records.get(key)
        return _entry(record) if record is not None and record.dead_at > self.now() else None

    def hits(self) -> int:
        """Return how often records of this key space were read, by readers without a lock."""
        return self.retired_hits + sum(record.hits for record in list(self.records.values()))

    def put(self, key: str, value: Any, kind: Kind, seconds: float) -> bool:
        """Store a value that lives `seconds`, and return whether it is kept."""
        now = self.now()
        end = now + (seconds if seconds < self._max_ttl else self._max_ttl)
        with self._storage.lock:
            return self._put(key, value, kind, (now, end, end, ()), now)

    # -- operations

    def get(self, key: str) -> Entry | None:
        with self._storage.lock:
            return self._living(key, self.now())

    def get_many(self, keys: Sequence[str]) -> dict[str, Entry]:
        now = self.now()
        with self._storage.lock:
            found = {key: self._living(key, now) for key in keys}
        return {key: entry for key, entry in found.items() if entry is not None}

    def set(self, key: str, entry: Entry) -> bool:
        with self._storage.lock:
            return self._keep(key, entry, self.now())

    def set_many(self, entries: Mapping[str, Entry]) -> list[str]:
        now = self.now()
        refused: list[str] = []
        for key, entry in entries.items():
            with self._storage.lock:  # once for each, so that nobody waits for all
                if not self._keep(key, entry, now):
                    refused.append(key)
        return refused

    def update(self, key: str, change: Change) -> Entry | None:
        now = self.now()
        with self._storage.lock:
            changed = change(self._living(key, now))
            if changed is None:
                return None
            self._keep(key, changed, now)
            return changed

    def delete(self, key: str) -> bool:
        now = self.now()
        with self._storage.lock:
            record = self.records.get(key)
            if record is None:
                return False
            self._storage.drop(record)
            return record.dead_at > now

    def clear(self) -> None:
        storage = self._storage
        for record in list(self.records.values()):
            with storage.lock:
                if self.records.get(record.key) is record:
                    storage.drop(record)

    def gauges(self) -> Mapping[str, int | float]:
        """Return the counts of the backend, all of its caches together."""
        storage = self._storage
        return {
            "entries": storage.entries,
            "bytes": storage.bytes,
            "evictions": storage.evictions,
            "expirations": storage.expirations,
            "refusals": storage.refusals,
        }

    # -- under the lock

    def _living(self, key: str, now: float) -> Entry | None:
        self._storage.reclaim(now)
        record = self.records.get(key)
        if record is None:
            return None
        if record.dead_at <= now:
            self._storage.drop(record)
            self._storage.expirations += 1
            return None
        # the policy has to know; whoever asked counts the hit itself
        record.hits += 1
        self.retired_hits -= 1
        return _entry(record)

    def _keep(self, key: str, entry: Entry, now: float) -> bool:
        entry = entry.living_at_most(self._max_ttl, now) if self._max_ttl is not inf else entry
        value, kind = entry.value, _COPIED.get(type(entry.value))
        if value is MISSING:
            value, kind = entry.payload, self._loads
        times = (entry.created_at, entry.fresh_until, entry.dead_at, entry.stamps)
        return self._put(key, value, kind, times, now)

    def _put(
        self, key: str, value: Any, kind: Kind, times: tuple[float, float, float, Any], now: float
    ) -> bool:
        storage = self._storage
        storage.reclaim(now)
        size = _size(key, value, kind)
        record = self.records.get(key)
        if record is not None:
            # in its place only with the same kind: a reader without a lock takes the two one after the other
            if record.kind == kind and storage.resize(record, size):
                record.value = value
                record.created_at, record.fresh_until, record.dead_at, record.stamps = times
                storage.moved(record)
                return True
            storage.drop(record)
        record = Record()
        record.key, record.value, record.kind, record.size, record.home = key, value, kind, size, self
        record.created_at, record.fresh_until, record.dead_at, record.stamps = times
        return storage.insert(record)


_COPIED: Final[dict[type, Kind]] = {dict: dict.copy, list: list.copy}


def _entry(record: Record) -> Entry:
    times = (record.created_at, record.fresh_until, record.dead_at, record.stamps)
    if record.kind is None or type(record.value) in _COPIED:
        return Entry(None, record.value, *times)
    return Entry(record.value, MISSING, *times)


def _size(key: str, value: Any, kind: Kind) -> int:
    size = OVERHEAD + getsizeof(key) + getsizeof(value)
    if kind is dict.copy:
        size += sum(map(getsizeof, value)) + sum(map(getsizeof, value.values()))
    elif kind is list.copy:
        size += sum(map(getsizeof, value))
    return size
