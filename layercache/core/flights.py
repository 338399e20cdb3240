"""At most one load under way for each key in this process.

A *flight* is one load under way. Its *leader* runs the loader; *followers* wait for the leader to
land. The first to board a key leads it. Flights whose keys one call loads together share a *party*: all who wait for
any of them.

Rule: nobody boards a flight that began before a change of its key was completed here: what it will land with may be of
the past. It goes on for those who are aboard, and another one is begun.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

from layercache.core.policy import Plan
from layercache.entry import CACHE_TAG, MISSING, Entry, Missing

__all__ = [
    "Flight",
    "Flights",
    "Landed",
    "LoadAbandoned",
    "LoadOverdue",
    "Outdating",
    "Party",
    "waits_in_a_circle",
]

Landed: TypeAlias = Entry | Missing
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
        is_lost: whether the load stands still for ever: its loop was closed.
        job: whatever has to be kept for as long as the load goes on.
    """

    __slots__ = ("aboard", "give_up", "is_lost", "job", "thread")

    def __init__(self, thread: int, aboard: int) -> None:
        self.thread, self.aboard = thread, aboard
        self.give_up: Callable[[], object] | None = None
        self.is_lost: Callable[[], bool] = bool  # which says no
        self.job: object = None


class Flight:
    """One load under way.

    Nobody can sink it but its leader: a follower that leaves does no more than forget to look.

    Attributes:
        key: what is loaded.
        plan: how.
        party: who waits for it.
        is_over: whether it has landed or failed; the two that follow are set before.
        landed, error: what it landed with, or what it failed with.
        stopped: what stopped its leader, where that was neither.
        wakes: called when it is over. Who waits appends to it and then looks at `is_over`, so either sees the other.
        waits_for: the flights that its loader waits for itself.
    """

    __slots__ = ("error", "is_over", "key", "landed", "party", "plan", "stopped", "waits_for", "wakes")

    def __init__(self, key: str, plan: Plan, party: Party) -> None:
        self.key, self.plan, self.party = key, plan, party
        self.is_over = False
        self.landed: Landed = MISSING
        self.error: BaseException | None = None
        self.stopped: BaseException | None = None
        self.wakes: list[Callable[[], object]] = []
        self.waits_for: list[Flight] = []


class Flights:
    """The loads under way in one cache.

    Args:
        lock: guards the table and who is aboard; held for a few instructions, never while waiting.
        thread: names the calling thread.
    """

    def __init__(self, lock: AbstractContextManager[Any], thread: Callable[[], int]) -> None:
        self._lock = lock  # guards _under_way, and `aboard` of every party
        self._thread = thread
        self._under_way: dict[str, Flight] = {}

    def reset(self, lock: AbstractContextManager[Any]) -> None:
        """Forget all flights: in the child of a fork their leaders do not run."""
        self._lock = lock
        self._under_way = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def has(self, key: str) -> bool:
        """Whether a load of `key` is under way."""
        return key in self._under_way

    def board(self, key: str, plan: Plan) -> tuple[Flight, bool]:
        """Return the flight for `key`, and whether the caller is its leader."""
        with self._lock:
            flight = self._found(key)
            if flight is not None:
                flight.party.aboard += 1
                return flight, False
            flight = self._under_way[key] = Flight(key, plan, Party(self._thread(), 1))
            return flight, True

    def board_many(self, plans: Sequence[tuple[str, Plan]]) -> tuple[list[Flight], list[Flight]]:
        """Return the flights that the caller leads, all of one party, and those of others."""
        party = Party(self._thread(), 1)
        led: list[Flight] = []
        followed: list[Flight] = []
        with self._lock:
            for key, plan in plans:
                flight = self._found(key)
                if flight is not None:
                    flight.party.aboard += 1
                    followed.append(flight)
                else:
                    flight = self._under_way[key] = Flight(key, plan, party)
                    led.append(flight)
        return led, followed

    def board_idle(self, plans: Sequence[tuple[str, Plan]]) -> list[Flight]:
        """Return flights that the caller leads and nobody waits for, all of one party, for those keys of which none is
        under way."""
        party = Party(self._thread(), 0)
        with self._lock:
            led = [Flight(key, plan, party) for key, plan in plans if self._found(key) is None]
            for flight in led:
                self._under_way[flight.key] = flight
        return led

    def outdate(self, keys: Collection[str] = (), tags: Collection[str] = ()) -> None:
        """Have nobody board the flights of `keys` any more, nor those whose value carries one of `tags`, or may turn
        out to; `*` is the tag of all."""
        if not self._under_way:  # hardly ever: a change pays no more than this look
            return
        with self._lock:
            for key in keys:
                self._under_way.pop(key, None)
            for tag in tags:
                for key, flight in list(self._under_way.items()):
                    plan = flight.plan
                    if tag == CACHE_TAG or tag in plan.tags or plan.tags_of is not None:
                        del self._under_way[key]

    def _found(self, key: str) -> Flight | None:
        flight = self._under_way.get(key)
        return None if flight is None or flight.party.is_lost() else flight

    def leave(self, flight: Flight, *, goes_on: bool) -> None:
        """Wait no more. Unless it `goes_on`, a load for which nobody waits any more is given up."""
        with self._lock:
            party = flight.party
            party.aboard -= 1
            give_up = None if goes_on or party.aboard > 0 else party.give_up
            if goes_on or give_up is not None:
                party.give_up = (
                    None  # and given up once: a second time would end it while it gives its leases back
                )
        if give_up is not None and not flight.is_over:
            give_up()

    def land(self, flight: Flight, landed: Landed) -> None:
        """Hand what was loaded to the followers; who boards from now on starts a new flight."""
        flight.landed = landed
        self._end(flight)

    def fail(self, flight: Flight, error: BaseException) -> None:
        """Hand the loader's own error to the followers; a leader that was stopped lets them board again."""
        if isinstance(error, Exception):
            flight.error = error
        else:
            flight.error, flight.stopped = LoadAbandoned(), error
        self._end(flight)

    def _end(self, flight: Flight) -> None:
        with self._lock:
            # after a fork the table is another one, and after a change the flight
            if self._under_way.get(flight.key) is flight:
                del self._under_way[flight.key]
        flight.is_over = True
        for wake in tuple(flight.wakes):
            wake()


class Outdating:
    """What the changes of other processes mean for the flights of this one: a `Listener`."""

    def __init__(self, flights: Flights) -> None:
        self._flights = flights

    def written(self, key: str) -> None:
        self._flights.outdate((key,))

    def invalidated(self, tag: str, stamp: int, soft: bool) -> None:
        self._flights.outdate(tags=(tag,))

    def restamped(self, tag: str, stamp: int) -> None:
        """What is loaded is as right as it was."""

    def retrained(self) -> None:
        """Nothing is compressed here."""

    def lost_track(self) -> None:
        """That anything may have happened is the rule at the beginning, and no reason to load everything twice."""

    def lost_writes(self) -> None:
        """What is loaded comes from elsewhere."""

    def confirmed(self, until: float) -> None:
        """How long what is near is relied on is nothing to a load."""

    def outage_began(self) -> None: ...

    def outage_ending(self) -> None: ...

    def outage_ended(self) -> None: ...


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
