"""`s3-fifo`: three FIFOs (Yang, Zhang, Qiu, Yue & Vinayak, SOSP 2023).

New keys enter a small queue of a tenth of the entries. Who is hit there more than once moves on to the main
queue, who is not leaves a ghost; a key that comes back while its ghost is remembered enters main at once.
Main gives records that were hit another round, up to three.
"""

from __future__ import annotations

from typing import Final

from layercache_memory.policies.base import GONE, OneAtATime, RecordQueue
from layercache_memory.policies.ghosts import CANDIDATE, Ghosts
from layercache_memory.record import Record

__all__ = ["S3Fifo"]

_SMALL: Final = 1
_MAIN: Final = 2
_SMALL_SHARE: Final = 0.1
_SCAN: Final = 64  # most records that are looked at for one victim


class S3Fifo(OneAtATime):
    """The policy `s3-fifo`."""

    def __init__(self) -> None:
        self._small, self._main = RecordQueue(_SMALL), RecordQueue(_MAIN)
        self._ghosts = Ghosts()

    def admit(self, record: Record, *, full: bool) -> None:
        record.seen = record.hits
        back = None
        if full:
            entries = self._small.living + self._main.living + 1
            if entries > self._ghosts.horizon:
                self._ghosts.fit(entries + entries // 8)
            back = self._ghosts.returned(hash(record.key))
        (self._small if back is None else self._main).push(record)

    def victim(self, now: float) -> Record | None:
        small, main = self._small, self._main
        for _ in range(_SCAN):
            queue = self._next()
            record = queue.head()
            if record is None:
                return None
            if record.dead_at <= now:
                return queue.pop()  # nobody will come back for it: no ghost
            fresh = min(record.hits - record.seen, 3)
            if queue is small:
                if fresh <= 1:
                    break
                record.seen = record.hits
                main.push(small.pop())
            else:
                if not fresh:
                    break
                record.seen = record.hits - (fresh - 1)
                main.rotate()
        queue = self._next()
        if queue.head() is None:
            return None
        record = queue.pop()
        if queue is small:
            self._ghosts.lost(hash(record.key), CANDIDATE)
        return record

    def _next(self) -> RecordQueue:
        """Return the queue that has to give one up: small while it has its share, else main."""
        small, main = self._small, self._main
        enough = small.living >= _SMALL_SHARE * (small.living + main.living)
        return small if small.living and (enough or not main.living) else main

    def remove(self, record: Record) -> None:
        if record.queue is GONE:
            return
        queue = self._small if record.queue == _SMALL else self._main
        queue.leave(record)

    def clear(self) -> None:
        self._small.clear()
        self._main.clear()
        self._ghosts.clear()
