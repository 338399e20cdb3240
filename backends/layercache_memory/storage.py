"""All records of one memory backend: its bounds, its lock, and the partitions of its caches.

Rules:
1. Neither bound is ever exceeded: room is made before a record is stored.
2. Everything that changes happens under `lock`, in steps of bounded length; readers take no lock (see
   `record`).
3. Expired records are gone for readers at once; their memory is reclaimed a few at a time by whatever takes
   the lock next.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Final

from layercache_memory.deadlines import Deadlines
from layercache_memory.policies.base import GONE, Policy
from layercache_memory.record import Home, Record

__all__ = ["Storage"]

_RECLAIMED_AT_ONCE: Final = 16


class Storage:
    """Attributes:
    bytes, entries, evictions, expirations, refusals: of all its caches together.
    """

    def __init__(
        self, max_entries: int, max_bytes: int, max_entry_bytes: int, policy: Policy, now: Callable[[], float]
    ) -> None:
        self.max_entries, self.max_bytes, self.max_entry_bytes = max_entries, max_bytes, max_entry_bytes
        self.now = now
        self._policy, self._deadlines = policy, Deadlines()
        self._homes: list[Home] = []
        self.lock = Lock()
        self.entries = self.bytes = 0
        self.evictions = self.expirations = self.refusals = 0

    def serve(self, home: Home) -> None:
        """Keep records of this key space too."""
        with self.lock:
            self._homes.append(home)

    def reset(self) -> None:
        """Drop everything, also where the lock is held by a thread that does not exist here (after a fork).

        The dicts are emptied and not replaced, because readers are bound to them.
        """
        self.lock = Lock()
        self._policy.clear()
        self._deadlines.clear()
        for home in self._homes:
            home.retired_hits += sum(record.hits for record in home.records.values())
            home.records.clear()
        self.entries = self.bytes = 0

    # -- under the lock, which the caller holds

    def reclaim(self, now: float) -> None:
        """Drop some of the records whose time is over."""
        for record in self._deadlines.due(now, _RECLAIMED_AT_ONCE):
            if record.queue is GONE:
                continue
            if record.dead_at > now:
                self._deadlines.add(record)  # it was moved while it lay here
            else:
                self.drop(record)
                self.expirations += 1

    def drop(self, record: Record) -> None:
        """Forget a record that the policy did not choose."""
        self._policy.remove(record)
        self._out(record)

    def insert(self, record: Record) -> bool:
        """Store a new record, making room for it first; False when it alone is too large."""
        size = record.size
        if size > self.max_entry_bytes:
            self.refusals += 1
            return False
        over = self.entries + 1 - self.max_entries
        full = over > 0 or self.bytes + size > self.max_bytes
        if full:
            for lost in self._policy.make_room(over, self.bytes + size - self.max_bytes):
                self._out(lost)
                self.evictions += 1
        record.hits = 0
        self._policy.admit(record, full=full)
        self._deadlines.add(record)
        record.home.records[record.key] = record
        self.entries += 1
        self.bytes += size
        return True

    def resize(self, record: Record, size: int) -> bool:
        """Take notice of another size of a record in its place; False when it no longer fits there."""
        grown = self.bytes - record.size + size
        if size > self.max_entry_bytes or grown > self.max_bytes:
            return False
        self.bytes = grown
        record.size = size
        return True

    def moved(self, record: Record) -> None:
        self._deadlines.moved(record)

    def _out(self, record: Record) -> None:
        home = record.home
        del home.records[record.key]
        home.retired_hits += record.hits
        self.entries -= 1
        self.bytes -= record.size
