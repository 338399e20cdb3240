"""Interleaved rounds: every contestant once per round, the least disturbed round of each counts.

On a shared machine absolute times wander by tens of per cent within minutes; contestants that take turns
wander together, so ratios to a floor of the same run stay comparable.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from timeit import Timer

ROUNDS = 15


def sync_rounds(
    contestants: dict[str, Callable[[], object]], number: int, rounds: int = ROUNDS
) -> dict[str, float]:
    """Return the nanoseconds of one call of each, the cost of calling an empty lambda taken off."""
    timers = {name: Timer(call) for name, call in {"empty": _nothing, **contestants}.items()}
    least = dict.fromkeys(timers, float("inf"))
    for _ in range(rounds):
        for name, timer in timers.items():
            least[name] = min(least[name], timer.timeit(number) / number * 1e9)
    empty = least.pop("empty")
    return {name: taken - empty for name, taken in least.items()}


def statement_rounds(
    statements: dict[str, tuple[str, dict[str, object]]], number: int, rounds: int = ROUNDS
) -> dict[str, float]:
    """Return the nanoseconds of each statement, run inline with its names bound as globals."""
    timers = {name: Timer(code, globals=names) for name, (code, names) in statements.items()}
    least = dict.fromkeys(timers, float("inf"))
    for _ in range(rounds):
        for name, timer in timers.items():
            least[name] = min(least[name], timer.timeit(number) / number * 1e9)
    return least


def async_rounds(
    contestants: dict[str, tuple[Callable[..., Awaitable[object]], tuple[object, ...]]],
    number: int,
    rounds: int = ROUNDS,
) -> dict[str, float]:
    """Return the nanoseconds of one awaited call of each, awaited in a loop of one task."""
    return asyncio.run(awaited_rounds(contestants, number, rounds))


async def awaited_rounds(
    contestants: dict[str, tuple[Callable[..., Awaitable[object]], tuple[object, ...]]],
    number: int,
    rounds: int = ROUNDS,
    tasks: int = 1,
) -> dict[str, float]:
    """Return, for a loop that runs already, the nanoseconds a call while so many tasks make `number` calls each."""

    async def calls(call: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        for _ in range(number):
            await call(*args)

    least = dict.fromkeys(contestants, float("inf"))
    for _ in range(rounds):
        for name, contestant in contestants.items():
            began = time.perf_counter()
            await asyncio.gather(*(calls(*contestant) for _ in range(tasks)))
            least[name] = min(least[name], (time.perf_counter() - began) / (tasks * number) * 1e9)
    return least


def _nothing() -> None:
    pass


def print_table(
    title: str,
    times: dict[str, float],
    floor: str,
    unit: str = "ns",
    rounds: int = ROUNDS,
    more: tuple[str, dict[str, float]] | None = None,
) -> None:
    """Print the times, fastest first, and each as a ratio to the floor.

    Args:
        unit: ns or µs.
        rounds: of how many the times are the least.
        more: the head of one more column, and what stands in it.
    """
    size, form = {"ns": (1, ",.0f"), "µs": (1000, ",.1f")}[unit]
    print(f"\n{title}")
    print(f"Python {sys.version.split()[0]}; least of {rounds} interleaved rounds\n")
    print(f"| | {unit} | × {floor.partition(':')[0]} |" + (f" {more[0]} |" if more else ""))
    print("|---|---:|---:|" + ("---:|" if more else ""))
    for name, taken in sorted(times.items(), key=lambda pair: pair[1]):
        shown = f"**{name}**" if name.startswith("layercache") else name
        last = f" {more[1][name]:.1f} |" if more else ""
        print(f"| {shown} | {taken / size:{form}} | {taken / times[floor]:.2f} |{last}", flush=True)
