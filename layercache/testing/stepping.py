"""Every order of events: a port that pauses before each act, and a scheduler that tries them all.

The core is coroutines over a port. `StepPort` lets each of its acts wait for its turn, so a scheduler can decide
who goes next, and `every_order` runs a scenario once for each possible decision: no sleeps, no loop,
thousands of orders in a second. A caller that waits for a flight is not offered a turn until it has landed; when nobody
can go on, that is a deadlock and an `AssertionError`.

    def scenario(port):
        cache = make_cache()
        return [cache.get_or_set(port, "k", loader), cache.get_or_set(port, "k", loader)]

    for order in every_order(scenario):
        assert order.results == [1, 1], order.steps
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from inspect import isawaitable
from math import inf
from types import coroutine
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from layercache.core.flights import Flight, Party
from layercache.core.tickets import Ticket
from layercache.entry import Entry, Stamps
from layercache.spi import Change, KeyPage, KeySpace, Lease, LeasingKeySpace, Sight

if TYPE_CHECKING:
    from layercache.core.port import Port

__all__ = ["Killed", "Order", "Ready", "Scenario", "StepPort", "every_order", "pause"]

Ready: TypeAlias = Callable[[], bool]

_SLEEP: Final = "sleep"
_FOR_EVER: Final = 200  # turns


class Killed(BaseException):
    """Thrown into a caller to stop it where it is, as a cancellation would."""


class StepPort:
    """A port each of whose acts waits for its turn. Acts on key spaces call their sync side: give it those
    that never block, such as memory's.

    What a port starts apart from its callers becomes a caller of its own, with a number after theirs. Waiting for a
    limited time may end, in other orders, before the flight has landed.

    Args:
        now: the wall clock.
        apart: whether loads always go on apart from their callers, as those of an event loop do; else only where they
            have to.
    """

    def __init__(self, now: Callable[[], float], *, apart: bool = False) -> None:
        self.now = now
        self._apart = apart
        self._tokens = 0
        self.started: list[Coroutine[Any, Any, Any]] = []  # to be taken up by whoever steps
        self.given_up: list[Coroutine[Any, Any, Any]] = []  # to be killed
        self.progress = 0  # acts so far, but for those that only waited

    def uniform(self) -> float:
        return 1.0

    def exponential(self) -> float:
        return 1.0

    def token(self) -> bytes:
        self._tokens += 1
        return b"token %d" % self._tokens

    async def read(self, space: KeySpace, key: str) -> Entry | None:
        await pause(f"read {key}")
        return space.get(key)

    async def read_many(self, space: KeySpace, keys: Sequence[str]) -> dict[str, Entry]:
        await pause(f"read {', '.join(keys)}")
        return space.get_many(keys)

    async def write(self, space: KeySpace, key: str, entry: Entry) -> bool:
        await pause(f"write {key}")
        return space.set(key, entry)

    async def write_many(self, space: KeySpace, entries: Mapping[str, Entry]) -> list[str]:
        await pause(f"write {', '.join(entries)}")
        return space.set_many(entries)

    async def update(self, space: KeySpace, key: str, change: Change) -> Entry | None:
        await pause(f"update {key}")
        return space.update(key, change)

    async def fill(self, space: KeySpace, ticket: Ticket, entry: Entry) -> bool:
        await pause(f"fill {ticket.key}")
        return space.fill(ticket, entry)

    async def delete(self, space: KeySpace, key: str) -> bool:
        await pause(f"delete {key}")
        return space.delete(key)

    async def delete_many(self, space: KeySpace, keys: Sequence[str]) -> int:
        await pause(f"delete {', '.join(keys)}")
        return space.delete_many(keys)

    async def clear(self, space: KeySpace) -> None:
        await pause("clear")
        space.clear()

    async def invalidate(self, space: KeySpace, tags: Sequence[str], soft: bool) -> None:
        await pause(f"{'softly ' if soft else ''}invalidate {', '.join(tags)}")
        space.invalidate(tags, soft)

    async def stamps(self, space: KeySpace, tags: Sequence[str]) -> Stamps:
        await pause(f"stamps of {', '.join(tags)}")
        return space.stamps(tags)

    async def lease_many(
        self,
        space: LeasingKeySpace,
        keys: Sequence[str],
        token: bytes,
        seconds: float,
        after: float,
        tags: Sequence[str],
    ) -> dict[str, Lease]:
        await pause(f"lease {', '.join(keys)}")
        return space.lease_many(keys, token, seconds, after, tags)

    async def fill_many(
        self, space: LeasingKeySpace, token: bytes, entries: Mapping[str, Entry]
    ) -> list[str]:
        await pause(f"fill {', '.join(entries)}")
        return space.fill_many(token, entries)

    async def release_many(
        self, space: LeasingKeySpace, keys: Sequence[str], token: bytes, seconds: float
    ) -> None:
        await pause(f"release {', '.join(keys)}")
        space.release_many(keys, token, seconds)

    async def late_stamps(
        self, space: LeasingKeySpace, tags: Sequence[str], mark: bytes | None
    ) -> Stamps | None:
        await pause(f"late stamps of {', '.join(tags)}")
        return space.late_stamps(tags, mark)

    async def explain(self, space: KeySpace, key: str) -> Sight:
        await pause(f"explain {key}")
        return space.explain(key)

    async def list_keys(self, space: KeySpace, prefix: str, limit: int, cursor: str) -> KeyPage:
        await pause(f"list {prefix}")
        return space.list_keys(prefix, limit, cursor)

    async def load(self, loader: Callable[[], Any], seconds: float) -> Any:
        await pause("load")
        value = loader()
        value = await value if isawaitable(value) else value
        await pause("loaded")
        return value

    async def start(
        self, job: Coroutine[Any, Any, None], party: Party, ended: Callable[[object], None], *, apart: bool
    ) -> None:
        if not (apart or self._apart):
            await job
            return
        self.started.append(job)
        party.give_up = lambda: self.given_up.append(job)

    def spawn(
        self,
        job: Callable[[Port], Coroutine[Any, Any, None]],
        party: Party,
        ended: Callable[[object], None],
    ) -> bool:
        self.started.append(job(self))
        return True

    async def join(self, flight: Flight, seconds: float) -> bool:
        await pause("join", (lambda: flight.is_over) if seconds == inf else lambda: True)
        return flight.is_over

    async def sleep(self, seconds: float) -> None:
        """Wait until somebody has done something else than wait, or else nobody can."""
        seen = self.progress
        await pause(_SLEEP, lambda: self.progress > seen)


@coroutine
def pause(act: str, ready: Ready = lambda: True) -> Generator[tuple[str, Ready], None, None]:
    """Wait for a turn before `act`; none is offered until `ready()`. For loaders of scenarios too."""
    yield act, ready


Scenario: TypeAlias = Callable[[StepPort], Sequence[Coroutine[Any, Any, Any]]]
"""Builds a world anew and returns its callers; called once for each order."""


@dataclass(frozen=True)
class Order:
    """One order that was run to its end.

    Attributes:
        steps: what happened, as (number of the caller, act), in order.
        results: what each caller returned, or the exception it ended with.
    """

    steps: list[tuple[int, str]]
    results: list[Any]


def every_order(
    scenario: Scenario,
    *,
    now: Callable[[], float] = lambda: 0.0,
    kill: int | None = None,
    apart: bool = False,
    most: int = 100_000,
) -> Iterator[Order]:
    """Run `scenario` in every order of its callers' steps and yield each one.

    Args:
        scenario: builds a world and returns its callers.
        now: the clock of the port.
        kill: the number of a caller that is, besides, killed at each of its steps in turn. What callers start apart are
            numbered after them, in the order in which they are started.
        apart: whether loads go on apart from their callers, as those of an event loop do.
        most: how many orders there may be; `AssertionError` beyond, so that nothing is left out silently.
    """
    prefix: list[int] = []
    for _ in range(most):
        port = StepPort(now, apart=apart)
        run = _Run(port, scenario(port), kill)
        choices = run.to_the_end(prefix)
        yield Order(run.steps, run.results)
        # the next order: the last decision that has an alternative left takes it
        while choices and choices[-1][0] + 1 == choices[-1][1]:
            choices.pop()
        if not choices:
            return
        prefix = [taken for taken, _ in choices[:-1]] + [choices[-1][0] + 1]
    raise AssertionError(f"more than {most} orders; make the scenario smaller or raise `most`")


class _Run:
    """One order being run."""

    def __init__(self, port: StepPort, callers: Sequence[Coroutine[Any, Any, Any]], kill: int | None) -> None:
        self.port = port
        self.kill = kill
        self.callers: list[Coroutine[Any, Any, Any]] = []
        self.contexts: list[Context] = []  # of each caller: what one sets, no other sees
        self.steps: list[tuple[int, str]] = []
        self.results: list[Any] = []
        self.waiting: dict[int, tuple[str, Ready]] = {}
        for caller in callers:
            self._take_up(caller, copy_context())

    def _take_up(self, caller: Coroutine[Any, Any, Any], context: Context) -> None:
        self.waiting[len(self.callers)] = ("start", lambda: True)
        self.callers.append(caller)
        self.contexts.append(context)
        self.results.append(None)

    def to_the_end(self, prefix: list[int]) -> list[tuple[int, int]]:
        """Decide as `prefix` says, then always the first; return each decision as (taken, how many there were)."""
        choices: list[tuple[int, int]] = []
        idle = 0  # turns in which time was all that passed
        while self.waiting:
            options: list[tuple[int, bool]] = [
                (number, False) for number, (_, ready) in self.waiting.items() if ready()
            ]
            if not options:  # where nobody else can go on, time passes
                options = [(number, False) for number, (act, _) in self.waiting.items() if act == _SLEEP][:1]
                idle += 1
                assert idle < _FOR_EVER, f"waiting for ever after {self.steps[:-_FOR_EVER]}: {self.waiting}"
            if self.kill in self.waiting and self.waiting[self.kill][0] != "start":
                options.append((self.kill, True))
            assert any(not killing for _, killing in options), f"deadlock after {self.steps}: {self.waiting}"
            taken = prefix[len(choices)] if len(choices) < len(prefix) else 0
            choices.append((taken, len(options)))
            self._step(*options[taken])
        return choices

    def _step(self, number: int, killing: bool) -> None:
        act, _ = self.waiting.pop(number)
        self.steps.append((number, f"killed before {act}" if killing else act))
        self.port.progress += act not in {_SLEEP, "start"}
        caller, context = self.callers[number], self.contexts[number]
        try:
            if killing:
                self.waiting[number] = context.run(caller.throw, Killed())
            else:
                self.waiting[number] = context.run(caller.send, None)
        except StopIteration as end:
            self.results[number] = end.value
        except (Exception, Killed) as error:
            self.results[number] = error
        if killing:
            self.kill = None
        for job in self._taken(self.port.started):
            self._take_up(job, context.copy())
        for job in self._taken(self.port.given_up):
            given_up = self.callers.index(job)
            if given_up in self.waiting and self.waiting[given_up][0] == "start":
                self._step(given_up, killing=False)  # it begins before it is stopped, as a port sees to
            if given_up in self.waiting:
                self._step(given_up, killing=True)

    @staticmethod
    def _taken(jobs: list[Coroutine[Any, Any, Any]]) -> list[Coroutine[Any, Any, Any]]:
        taken = jobs[:]
        jobs.clear()
        return taken
