"""What an eviction policy must offer. Third parties give theirs through `layercache.evictions` entry points."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Final

from layercache_memory.record import Record

__all__ = ["GONE", "OneAtATime", "Policy", "RecordQueue"]

GONE: Final = None  # the value of `Record.queue` once no queue keeps it


class Policy(ABC):
    """Chooses who makes room.

    Every method is called under the backend's lock, and is short: it looks at a bounded number of records.
    Readers raise `record.hits` at any time; a policy may keep `record.seen` and `record.queue` as it likes,
    with `queue = GONE` for a record that it no longer keeps.
    """

    @abstractmethod
    def admit(self, record: Record, *, full: bool) -> None:
        """Take up a new record; `full` says that others had to make room for it."""

    @abstractmethod
    def make_room(self, entries: int, units: int, now: float) -> list[Record]:
        """Give up records, at least `entries` of them and of `units` of 16 bytes in all, and return them.

        Fewer only when there are no more. Who is dead `now` (`record.dead_at <= now`) had better go first.
        """

    @abstractmethod
    def remove(self, record: Record) -> None:
        """Forget a record that was deleted or is dead."""

    def resized(self, record: Record, more: int) -> None:
        """Take notice that `record.units` grew by `more`, which may be less than 0; a policy of numbers need not."""

    @abstractmethod
    def clear(self) -> None:
        """Forget all records."""


class OneAtATime(Policy):
    """A policy that gives up records one by one, whatever their size."""

    def make_room(self, entries: int, units: int, now: float) -> list[Record]:
        out: list[Record] = []
        while entries > 0 or units > 0:
            record = self.victim(now)
            if record is None:
                break
            entries -= 1
            units -= record.units
            out.append(record)
        return out

    @abstractmethod
    def victim(self, now: float) -> Record | None:
        """Take out the record that goes next; None when there is none."""


class RecordQueue:
    """A FIFO of records that may leave from the middle: who left is skipped, and swept out when they are many."""

    __slots__ = ("living", "name", "records", "units")

    def __init__(self, name: int) -> None:
        self.name = name
        self.records: deque[Record] = deque()
        self.living = self.units = 0

    def push(self, record: Record) -> None:
        """Append a record."""
        record.queue = self.name
        self.records.append(record)
        self.living += 1
        self.units += record.units

    def push_back(self, record: Record) -> None:
        """Put a record that was just popped where it was."""
        record.queue = self.name
        self.records.appendleft(record)
        self.living += 1
        self.units += record.units

    def head(self) -> Record | None:
        """Return the oldest record that is still here."""
        records = self.records
        while records:
            record = records[0]
            if record.queue == self.name:
                return record
            records.popleft()
        return None

    def pop(self) -> Record:
        """Take the head out; `head()` was just asked."""
        record = self.records.popleft()
        record.queue = GONE
        self.living -= 1
        self.units -= record.units
        return record

    def rotate(self) -> None:
        """Let the head go round again."""
        self.records.rotate(-1)

    def leave(self, record: Record) -> None:
        """Let a record go from the middle; each sweep of the queue pays for as many as have left."""
        record.queue = GONE
        self.living -= 1
        self.units -= record.units
        if len(self.records) > 2 * self.living + 64:
            self.records = deque(record for record in self.records if record.queue == self.name)

    def clear(self) -> None:
        for record in self.records:
            record.queue = GONE
        self.records.clear()
        self.living = self.units = 0
