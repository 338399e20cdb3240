"""`lru`: what was not read for long makes room, as a clock sees it.

Exact LRU moves a list on every hit. This is its usual approximation, second chance (Corbató 1968): the
oldest record goes, unless it was read since the hand last passed; then it goes round once more.
"""

from __future__ import annotations

from typing import Final

from layercache_memory.policies.base import GONE, OneAtATime, RecordQueue
from layercache_memory.record import Record

__all__ = ["Lru"]

_SCAN: Final = 64  # most records that the hand passes for one victim


class Lru(OneAtATime):
    """The policy `lru`."""

    def __init__(self) -> None:
        self._queue = RecordQueue(1)

    def admit(self, record: Record, *, full: bool) -> None:
        record.seen = record.hits
        self._queue.push(record)

    def victim(self, now: float) -> Record | None:
        queue = self._queue
        for _ in range(_SCAN):
            record = queue.head()
            if record is None:
                return None
            if record.hits == record.seen or record.dead_at <= now:
                break
            record.seen = record.hits
            queue.rotate()
        return queue.pop() if queue.head() else None

    def remove(self, record: Record) -> None:
        if record.queue is not GONE:
            self._queue.leave(record)

    def clear(self) -> None:
        self._queue.clear()
