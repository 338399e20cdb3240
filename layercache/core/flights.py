"""At most one load under way for each key in this process.

A *flight* is one load under way. Its *leader* runs the loader; *followers* wait for the leader to
land. The first to board a key leads it. Flights whose keys one call loads together share a *party*: all who wait for
any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeAlias

from layercache.entry import Entry, Missing

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["Flight", "Flights", "Landed", "LoadAbandoned", "LoadOverdue", "Party", "waits_in_a_circle"]

Landed: TypeAlias = "Entry | Missing"
"""What a flight lands with: the entry, or `MISSING` where the loader said that there is nothing to store."""


class LoadAbandoned(Exception):
    """The leader left without landing: it was cancelled or killed. Somebody else must lead."""


class LoadOverdue(Exception):
    """The loader was stopped as it took too long."""


class Party:
    """Those who wait for what one leader loads.

    Attributes:
        thread: the one that the load goes on on; 0 while that is not known.
        aboard: how many they are, the leader among them.
        give_up: ends the load; None where it goes on whoever leaves.
    """

    __slots__ = ("aboard", "give_up", "thread")

    def __init__(self, thread: int) -> None:
        self.thread = thread
        self.aboard = 0
        self.give_up: Callable[[], object] | None = None


class Flight:
    """One load under way.

    Attributes:
        future: cannot be cancelled, so no follower can sink it.
        party: who waits for it.
        waits_for: the flights that its loader waits for itself.
    """

    __slots__ = ("future", "party", "waits_for")

    def __init__(self, future: Future[Landed], party: Party) -> None:
        self.future, self.party = future, party
        self.waits_for: list[Flight] = []


class Flights:
    """The loads under way in one cache.

    Args:
        lock: guards the table and who is aboard; held for a few instructions, never while waiting.
        new_future: makes a future that is marked running, so that nobody can cancel it.
        thread: names the calling thread.
    """

    def __init__(
        self,
        lock: AbstractContextManager[Any],
        new_future: Callable[[], Future[Landed]],
        thread: Callable[[], int],
    ) -> None:
        self._lock = lock  # guards _under_way, and `aboard` of every party
        self._new_future, self._thread = new_future, thread
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
                flight.party.aboard += 1
                return flight, False
            flight = self._under_way[key] = Flight(self._new_future(), Party(self._thread()))
            flight.party.aboard = 1
            return flight, True

    def board_many(self, keys: Sequence[str]) -> tuple[dict[str, Flight], dict[str, Flight]]:
        """Return the flights that the caller leads, all of one party, and those of others, by key."""
        party = Party(self._thread())
        led: dict[str, Flight] = {}
        followed: dict[str, Flight] = {}
        with self._lock:
            for key in keys:
                flight = self._under_way.get(key)
                if flight is not None:
                    flight.party.aboard += 1
                    followed[key] = flight
                else:
                    led[key] = self._under_way[key] = Flight(self._new_future(), party)
            party.aboard = 1
        return led, followed

    def board_idle(self, keys: Sequence[str]) -> dict[str, Flight]:
        """Return flights that the caller leads and nobody waits for, all of one party, for those of `keys` of which
        none is under way."""
        with self._lock:
            idle = [key for key in keys if key not in self._under_way]
            party = Party(self._thread())
            led = {key: Flight(self._new_future(), party) for key in idle}
            self._under_way.update(led)
            return led

    def leave(self, flight: Flight, *, goes_on: bool) -> None:
        """Wait no more. Unless it `goes_on`, a load for which nobody waits any more is given up."""
        with self._lock:
            party = flight.party
            party.aboard -= 1
            if goes_on:
                party.give_up = None
            give_up = party.give_up if party.aboard <= 0 else None
        if give_up is not None and not flight.future.done():
            give_up()

    def land(self, key: str, flight: Flight, landed: Landed) -> None:
        """Hand what was loaded to the followers; who boards from now on starts a new flight."""
        self._close(key, flight)
        flight.future.set_result(landed)

    def fail(self, key: str, flight: Flight, error: BaseException) -> None:
        """Hand the loader's own error to the followers; a leader that was stopped lets them board again."""
        self._close(key, flight)
        flight.future.set_exception(error if isinstance(error, Exception) else LoadAbandoned())

    def _close(self, key: str, flight: Flight) -> None:
        with self._lock:
            # after a fork the table is another one
            if self._under_way.get(key) is flight:
                del self._under_way[key]


def waits_in_a_circle(flight: Flight, own: Sequence[Flight]) -> bool:
    """Whether the loader of `flight` waits, itself or through others, for one of `own`."""
    pending, seen = [flight], {id(flight)}
    while pending:
        reached = pending.pop()
        if any(reached is mine for mine in own):
            return True
        for following in list(reached.waits_for):
            if id(following) not in seen:
                seen.add(id(following))
                pending.append(following)
    return False
