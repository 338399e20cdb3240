"""When records have to be looked at because their time is over: bounded steps, no thread.

A record lies in the bucket of the span in which its deadline falls; a span is at least a second and about a
thirtieth of the record's life, so that there are few buckets whatever the lives are. `due` hands out a few
records of spans that are over. One whose deadline was moved meanwhile is put into its new span when its old
one comes up, so that moving costs nothing.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from typing import Final

from layercache_memory.policies.base import GONE
from layercache_memory.record import Record

__all__ = ["Deadlines"]

_SPANS_PER_LIFE: Final = 32
_SWEPT_AT_ONCE: Final = 6


class Deadlines:
    """The buckets of one backend. Every method is called under its lock.

    Attributes:
        next: when the next bucket comes up; `math.inf` when there is none.
        held: how many records lie in buckets, those that are gone included.
    """

    __slots__ = ("_at", "_buckets", "_ends", "_swept", "_unswept", "held", "next")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._buckets: dict[int, list[Record]] = {}
        self._ends: list[int] = []  # a heap of the ends of spans that have a bucket
        self.next: float = inf
        self.held = 0
        self._unswept: list[list[Record]] = []
        self._swept: list[Record] = []
        self._at = 0

    def add(self, record: Record) -> None:
        """Look at `record` soon after its deadline."""
        dead_at = record.dead_at
        if dead_at == inf:
            return
        span = 1 << int(record.origin.life / _SPANS_PER_LIFE).bit_length()
        end = (int(dead_at) // span + 1) * span
        bucket = self._buckets.get(end)
        if bucket is None:
            bucket = self._buckets[end] = []
            heappush(self._ends, end)
            self.next = self._ends[0]
        bucket.append(record)
        self.held += 1

    def due(self, now: float, most: int) -> list[Record]:
        """Take out up to `most` records whose spans are over."""
        out: list[Record] = []
        while self.next <= now and len(out) < most:
            bucket = self._buckets[self._ends[0]]
            taken = bucket[-(most - len(out)) :]
            del bucket[-len(taken) :]
            out += taken
            if not bucket:
                del self._buckets[heappop(self._ends)]
                self.next = self._ends[0] if self._ends else inf
        self.held -= len(out)
        return out

    def sweep(self) -> None:
        """Look at a few records and let go of those that are gone. Called once for each that leaves, it
        keeps them to
        about a quarter of all that lie here."""
        bucket, at = self._swept, self._at
        for _ in range(_SWEPT_AT_ONCE):
            if at >= len(bucket):
                self._unswept = self._unswept or list(self._buckets.values())
                if not self._unswept:
                    break
                bucket, at = self._unswept.pop(), 0
            elif bucket[at].queue is GONE:
                bucket[at] = bucket[-1]
                bucket.pop()
                self.held -= 1
            else:
                at += 1
        self._swept, self._at = bucket, at
