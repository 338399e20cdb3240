"""Tickets: permission to store what is loaded, or read farther away, voided by whatever makes it a thing of the past.

Rules, for each key of one layer:
1. A ticket is opened before the load, or the read of a farther layer, begins.
2. A change voids the tickets it concerns in the same step in which it is made; where a store has no such step, a
   change is registered before it begins until after it ended, and a ticket opened meanwhile is void from the start.
3. Who has a ticket stores by an atomic `update` that stores nothing if the ticket is void by then.

So of a fill that comes after a change, the ticket is void; and what a fill that came before it has stored, the change
replaces or drops.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from layercache.entry import CACHE_TAG, Entry

__all__ = ["Fill", "Ticket", "Tickets"]


class Ticket:
    """Permission to store one key.

    Attributes:
        is_void: whether it was withdrawn.
        dropped: the tags that were invalidated since it was opened: what carries one of them is of the past.
        writes: whether it is a write's, not a load's or a read's.
    """

    __slots__ = ("dropped", "is_void", "key", "writes")

    def __init__(self, key: str, *, writes: bool = False) -> None:
        self.key, self.writes = key, writes
        self.is_void = False
        self.dropped: frozenset[str] = frozenset()

    def permits(self, entry: Entry) -> bool:
        """Whether `entry` may be stored."""
        if self.is_void:
            return False
        dropped = self.dropped
        return not dropped or not any(tag in dropped for tag, _ in entry.stamps)


class Fill:
    """Store `entry` if its ticket still permits it: a `spi.Change`."""

    def __init__(self, entry: Entry, ticket: Ticket) -> None:
        self.entry, self.ticket = entry, ticket

    def __call__(self, entry: Entry | None) -> Entry | None:
        return self.entry if self.ticket.permits(self.entry) else None


class Tickets:
    """The open tickets of one layer; as many as there are loads and reads under way.

    Args:
        lock: guards the table; held for a few instructions.
    """

    def __init__(self, lock: AbstractContextManager[Any]) -> None:
        self.reset(lock)

    def reset(self, lock: AbstractContextManager[Any]) -> None:
        """Forget all tickets: in the child of a fork nobody has one."""
        self._lock = lock  # guards what follows
        self._open: dict[str, list[Ticket]] = {}
        self._clearing = 0  # how many changes of everything are under way

    def __len__(self) -> int:
        return sum(map(len, list(self._open.values())))

    def open(self, key: str) -> Ticket:
        """Return a ticket for `key`, to be closed when it was used, or will not be."""
        ticket = Ticket(key)
        with self._lock:
            others = self._open.get(key)
            if others is None:
                self._open[key] = [ticket]
            else:
                ticket.is_void = any(other.writes for other in others)
                others.append(ticket)
            if self._clearing:
                ticket.is_void = True
        return ticket

    def close(self, ticket: Ticket) -> None:
        """Done with it; closing it twice is harmless."""
        with self._lock:
            tickets = self._open.get(ticket.key)
            if tickets is not None and ticket in tickets:
                tickets.remove(ticket)
                if not tickets:
                    del self._open[ticket.key]

    def void(self, key: str) -> None:
        """Withdraw the tickets of `key`."""
        if self._open:  # hardly ever: a write pays no more than this look
            with self._lock:
                for ticket in self._open.get(key, ()):
                    ticket.is_void = True

    def void_tags(self, tags: Iterable[str]) -> None:
        """Withdraw the tickets for whatever turns out to carry one of `tags`."""
        dropped = frozenset(tags)
        with self._lock:
            for tickets in self._open.values():
                for ticket in tickets:
                    ticket.dropped |= dropped
                    ticket.is_void = ticket.is_void or CACHE_TAG in dropped

    @contextmanager
    def writing(self, keys: Iterable[str]) -> Generator[list[Ticket], None, None]:
        """Register writes of `keys`, and give their own tickets.

        Where one of another write is open, both are void: in which order the two arrive farther away, nobody here
        knows.
        """
        opened = [Ticket(key, writes=True) for key in keys]
        with self._lock:
            for ticket in opened:
                others = self._open.setdefault(ticket.key, [])
                for other in others:
                    other.is_void = True
                    ticket.is_void = ticket.is_void or other.writes
                ticket.is_void = ticket.is_void or self._clearing > 0
                others.append(ticket)
        try:
            yield opened
        finally:
            for ticket in opened:
                self.close(ticket)

    @contextmanager
    def clearing(self) -> Generator[None, None, None]:
        """Register a change of everything."""
        lock = self._lock
        with lock:
            self._clearing += 1
            for tickets in self._open.values():
                for ticket in tickets:
                    ticket.is_void = True
        try:
            yield
        finally:
            if self._lock is lock:  # else it was forgotten, in the child of a fork
                with lock:
                    self._clearing -= 1
