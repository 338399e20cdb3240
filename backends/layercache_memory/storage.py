"""All records of one memory backend: its bounds, its lock, and the dicts of its caches.

Rules:
1. Neither bound is ever exceeded: room is made before a record is stored.
2. Everything that changes happens under `lock`, in steps of bounded length; readers take no lock (see
   `record`).
3. Dead records are gone for readers at once; their memory is reclaimed a few at a time by whoever takes
   the lock next.

Bytes are counted in units of 16, which is how CPython's allocator gives them out.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Final

from layercache_memory.deadlines import Deadlines
from layercache_memory.policies.base import GONE, Policy
from layercache_memory.record import Home, Record

if TYPE_CHECKING:
    from layercache_memory.curve import CurveSketch

__all__ = ["UNIT", "Storage"]

UNIT: Final = 16
_RECLAIMED_AT_ONCE: Final = 16
_AVERAGE: Final = 4096  # bytes of an entry, before there is one


class Storage:
    """Attributes:
    lock: guards everything that follows, and the records of all key spaces.
    max_units, max_entry_units: the bounds in units of 16 bytes.
    entries, units: what all key spaces hold together.
    evictions, expirations, refusals: entries that made room, whose time was over, and that were too large.
    homes: the key spaces.
    curve: keeps book of what more and less room would do; None where nobody wants to know.
    """

    def __init__(
        self,
        max_entries: int,
        max_bytes: int,
        max_entry_bytes: int,
        policy: Policy,
        now: Callable[[], float],
        *,
        curve: bool = False,
    ) -> None:
        self.max_entries = max_entries
        self.max_units, self.max_entry_units = max_bytes // UNIT, max_entry_bytes // UNIT
        self.now = now
        self.policy, self.deadlines = policy, Deadlines()
        self.lock = Lock()
        self.entries = self.units = 0
        self.evictions = self.expirations = self.refusals = 0
        self.homes: list[Home] = []
        self.curve: CurveSketch | None = None
        if curve:
            from layercache_memory.curve import CurveSketch

            self.curve = CurveSketch(now, self.capacity, min(max_entries, max_bytes // _AVERAGE + 1))

    def serve(self, home: Home) -> None:
        """Keep records of this key space too."""
        with self.lock:
            self.homes.append(home)

    def capacity(self) -> float:
        """Return for how many entries there is room, as large as those that are here."""
        if not self.units:
            return self.max_entries
        return min(self.max_entries, self.entries * self.max_units / self.units)

    def after_fork(self) -> None:
        """Drop everything, under a new lock: the old one may be held by a thread that does not exist here."""
        self.lock = Lock()
        self.empty()

    def empty(self) -> None:
        """Drop everything. The dicts are emptied and not replaced, because readers are bound to them."""
        with self.lock:
            self._empty()

    def _empty(self) -> None:
        self.policy.clear()
        self.deadlines.clear()
        if self.curve is not None:
            self.curve.clear()
        for home in self.homes:
            home.retired_hits += sum(record.hits for record in home.records.values())
            home.records.clear()
            home.forget_tags()
        self.entries = self.units = 0

    # -- under the lock, which the caller holds

    def rest(self) -> None:
        """Give back what was made for many entries, when there are none."""
        if not self.entries:
            self.policy.clear()
            self.deadlines.clear()

    def reclaim(self, now: float) -> None:
        """Drop some of the records whose time is over. Call it when `deadlines.next <= now`."""
        for record in self.deadlines.due(now, _RECLAIMED_AT_ONCE):
            if record.queue is GONE:
                continue
            if record.dead_at > now:
                self.deadlines.add(record)  # it was moved while it lay here
            else:
                self.expire(record)

    def expire(self, record: Record) -> None:
        """Forget a record that is dead."""
        self.drop(record)
        self.expirations += 1

    def drop(self, record: Record) -> None:
        """Forget a record that the policy did not choose."""
        self.policy.remove(record)
        self._out(record)
        if self.curve is not None:
            self.curve.left(record, evicted=False)

    def insert(self, record: Record, now: float) -> bool:
        """Store a new record, making room for it first; False when it alone is too large."""
        units = record.units
        if units > self.max_entry_units:
            self.refusals += 1
            return False
        over, grown = self.entries + 1 - self.max_entries, self.units + units - self.max_units
        full = over > 0 or grown > 0
        if full:
            lost = self.policy.make_room(over, grown, now)
            for each in lost:
                self._out(each)
                if self.curve is not None:
                    self.curve.left(each, evicted=True)
            self.evictions += len(lost)
        record.hits = 0
        self.policy.admit(record, full=full)
        self.deadlines.add(record)
        record.origin.home.records[record.key] = record
        self.entries += 1
        self.units += units
        if self.curve is not None:
            self.curve.stored(record)
        return True

    def _out(self, record: Record) -> None:
        home = record.origin.home
        if record.origin.stamps:
            home.untag(record)
        del home.records[record.key]
        home.retired_hits += record.hits
        self.entries -= 1
        self.units -= record.units
        self.deadlines.sweep()
