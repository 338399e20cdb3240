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
from dataclasses import dataclass
from inspect import isawaitable
from types import coroutine
from typing import Any, TypeAlias

from layercache.core.flights import Flight
from layercache.entry import Entry
from layercache.spi import Change, KeySpace

__all__ = ["Killed", "Order", "Scenario", "StepPort", "every_order"]

Ready: TypeAlias = Callable[[], bool]


class Killed(BaseException):
    """Thrown into a caller to stop it where it is, as a cancellation would."""


class StepPort:
    """A port each of whose acts waits for its turn. Acts on key spaces call their sync side: give it those
    that never block, such as memory's."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now

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

    async def delete(self, space: KeySpace, key: str) -> bool:
        await pause(f"delete {key}")
        return space.delete(key)

    async def delete_many(self, space: KeySpace, keys: Sequence[str]) -> int:
        await pause(f"delete {', '.join(keys)}")
        return space.delete_many(keys)

    async def clear(self, space: KeySpace) -> None:
        await pause("clear")
        space.clear()

    async def load(self, loader: Callable[[], Any]) -> Any:
        await pause("load")
        value = loader()
        value = await value if isawaitable(value) else value
        await pause("loaded")
        return value

    async def join(self, flight: Flight) -> Entry:
        await pause("join", flight.future.done)
        return flight.future.result()


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
    most: int = 100_000,
) -> Iterator[Order]:
    """Run `scenario` in every order of its callers' steps and yield each one.

    Args:
        scenario: builds a world and returns its callers.
        now: the clock of the port.
        kill: the number of a caller that is, besides, killed at each of its steps in turn.
        most: how many orders there may be; `AssertionError` beyond, so that nothing is left out silently.
    """
    prefix: list[int] = []
    for _ in range(most):
        run = _Run(scenario(StepPort(now)), kill)
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

    def __init__(self, callers: Sequence[Coroutine[Any, Any, Any]], kill: int | None) -> None:
        self.callers = callers
        self.kill = kill
        self.steps: list[tuple[int, str]] = []
        self.results: list[Any] = [None] * len(callers)
        self.waiting: dict[int, tuple[str, Ready]] = {
            number: ("start", lambda: True) for number in range(len(callers))
        }

    def to_the_end(self, prefix: list[int]) -> list[tuple[int, int]]:
        """Decide as `prefix` says, then always the first; return each decision as (taken, how many there were)."""
        choices: list[tuple[int, int]] = []
        while self.waiting:
            options: list[tuple[int, bool]] = [
                (number, False) for number, (_, ready) in self.waiting.items() if ready()
            ]
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
        caller = self.callers[number]
        try:
            self.waiting[number] = caller.throw(Killed()) if killing else caller.send(None)
        except StopIteration as end:
            self.results[number] = end.value
        except (Exception, Killed) as error:
            self.results[number] = error
        if killing:
            self.kill = None
