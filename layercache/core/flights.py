"""At most one load under way for each key in this process.

A *flight* is one load under way. Its *leader* runs the loader; *followers* wait for the leader to
land. The first to board a key leads it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from layercache.entry import Entry

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["Flight", "Flights", "LoadAbandoned"]


class LoadAbandoned(Exception):
    """The leader left without landing: it was cancelled or killed. Somebody else must lead."""


class Flight(Protocol):
    """One load under way: a future that cannot be cancelled, so no follower can sink it."""

    future: Future[Entry]
    leader_thread: int

    def land(self, entry: Entry) -> None: ...

    def fail(self, error: BaseException) -> None: ...


class Flights:
    """The loads under way in one cache.

    Args:
        lock: guards the table; held for a few instructions, never while waiting.
        new_flight: makes a flight led by the caller.
    """

    def __init__(self, lock: AbstractContextManager[Any], new_flight: Callable[[], Flight]) -> None:
        self._lock = lock  # guards _under_way
        self._new_flight = new_flight
        self._under_way: dict[str, Flight] = {}

    def reset(self, lock: AbstractContextManager[Any]) -> None:
        """Forget all flights: in the child of a fork their leaders do not run."""
        self._lock = lock
        self._under_way = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def board(self, key: str) -> tuple[Flight, bool]:
        """Return the flight for `key`, and whether the caller is its leader."""
        with self._lock:
            flight = self._under_way.get(key)
            if flight is not None:
                return flight, False
            flight = self._under_way[key] = self._new_flight()
            return flight, True

    def land(self, key: str, flight: Flight, entry: Entry) -> None:
        """Hand `entry` to the followers; who boards from now on starts a new flight."""
        self._close(key)
        flight.land(entry)

    def fail(self, key: str, flight: Flight, error: BaseException) -> None:
        """Hand the loader's own error to the followers; a leader that was stopped lets them board again."""
        self._close(key)
        flight.fail(error if isinstance(error, Exception) else LoadAbandoned())

    def _close(self, key: str) -> None:
        with self._lock:
            del self._under_way[key]
