"""When records have to be looked at because their time is over: bounded steps, no thread.

A record lies in the bucket of the span in which its deadline falls; a span is at least a second and about a
thirtieth of the record's life, so that there are few buckets whatever the lives are. `due` hands out a few
records of spans that are over. One whose deadline was moved meanwhile is put into its new span when its old
one comes up, so that moving costs nothing.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import isinf
from typing import Final

from layercache_memory.record import Record

__all__ = ["Deadlines"]

_SPANS_PER_LIFE: Final = 32
_EARLIER: Final = 60.0  # seconds that memory may be held longer before it is worth a second place
_NEVER: Final = float("inf")


class Deadlines:
    """The buckets of one backend. Every method is called under its lock."""

    __slots__ = ("_buckets", "_ends")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._buckets: dict[float, list[Record]] = {}
        self._ends: list[float] = []  # a heap of the ends of spans that have a bucket

    def add(self, record: Record) -> None:
        """Look at `record` soon after its deadline."""
        if isinf(record.dead_at):
            record.due = _NEVER
            return
        span = 1 << int((record.dead_at - record.created_at) / _SPANS_PER_LIFE).bit_length()
        # the same float object in all records of a bucket, and one bucket for spans that end together
        end = float((int(record.dead_at) // span + 1) * span)
        bucket = self._buckets.get(end)
        if bucket is None:
            bucket = self._buckets[end] = []
            heappush(self._ends, end)
            record.due = end
        else:
            record.due = bucket[0].due if bucket else end
        bucket.append(record)

    def moved(self, record: Record) -> None:
        """Take notice of an earlier deadline; a later one is found when the old span comes up."""
        if record.dead_at < record.due - _EARLIER:
            self.add(record)

    def due(self, now: float, most: int) -> list[Record]:
        """Take out up to `most` records whose spans are over."""
        out: list[Record] = []
        while self._ends and self._ends[0] <= now and len(out) < most:
            bucket = self._buckets[self._ends[0]]
            taken = bucket[-(most - len(out)) :]
            del bucket[-len(taken) :]
            out += taken
            if not bucket:
                del self._buckets[heappop(self._ends)]
        return out
