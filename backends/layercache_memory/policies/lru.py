"""`lru`: what was not read for long makes room, as a clock sees it.

Exact LRU moves a list on every hit. This is its usual approximation, second chance (Corbató 1968): the
oldest record goes, unless it was read since the hand last passed; then it goes round once more.
"""

from __future__ import annotations

from typing import Final

from layercache_memory.policies.base import GONE, Policy, RecordQueue
from layercache_memory.record import Record

__all__ = ["Lru"]

_SCAN: Final = 64  # most records that the hand passes for one victim


class Lru(Policy):
    def __init__(self) -> None:
        self._queue = RecordQueue(1)

    def admit(self, record: Record, *, full: bool) -> None:
        record.seen = record.hits
        self._queue.push(record)

    def make_room(self, entries: int, units: int) -> list[Record]:
        out: list[Record] = []
        while (entries > 0 or units > 0) and self._queue.head() is not None:
            record = self._victim()
            entries -= 1
            units -= record.units
            out.append(record)
        return out

    def _victim(self) -> Record:
        queue = self._queue
        for _ in range(_SCAN):
            record = queue.head()
            if record is None or record.hits == record.seen:
                break
            record.seen = record.hits
            queue.rotate()
        queue.head()
        return queue.pop()

    def remove(self, record: Record) -> None:
        if record.queue is not GONE:
            self._queue.leave(record)

    def clear(self) -> None:
        self._queue.clear()
