"""Measure what the cache is worth: `python -m stock_api.demo`, or `make demo`; `--short` for CI.

Four phases against a real fleet: every fact once, cold, through one worker; the same through the other
worker, which finds it in Valkey; the same again through both, which find it in their own memory; then
users who look around. The exit code is 0 when the targets are met, 1 when one is missed, 2 when nothing
could be measured.
"""

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from stock_api.fleet import Fleet, FleetError, fleet, interrupt_on_termination
from stock_api.report import Phase, Report
from stock_api.traffic import Done, Line, TrafficError, ask_once, browse, lines_to, paths_of

LINES_PER_WORKER = 16
SECONDS_BETWEEN_LOOKS = 0.12

Traffic = Callable[[Done], Awaitable[list[float]]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much traffic; asking about all `symbols` cold must end before the first quote's 15 s do."""

    symbols: int
    rounds: int
    browsing_seconds: float


FULL = Plan(symbols=12, rounds=5, browsing_seconds=26.0)
SHORT = Plan(symbols=8, rounds=3, browsing_seconds=6.0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="stock_api.demo", description="Measure what the cache is worth.")
    parser.add_argument("--short", action="store_true", help="less traffic, for CI")
    plan = SHORT if parser.parse_args().short else FULL
    interrupt_on_termination()
    console = Console(highlight=False)
    try:
        report = measured(plan, console)
    except KeyboardInterrupt:
        console.print("stopped; every process has ended")
        return 130
    except (FleetError, TrafficError, httpx.HTTPError) as error:
        console.print(f"nothing could be measured: {error!r}", style="red", markup=False)
        return 2
    report.show(console)
    return 0 if all(verdict.met for verdict in report.verdicts()) else 1


def measured(plan: Plan, console: Console) -> Report:
    """Start the fleet, send the traffic of `plan` through it, end it, and return what was seen."""
    console.print("a market that takes 2-3 s; two API workers, each with memory in front of Valkey")
    with fleet() as running, _progress(console) as progress:
        return asyncio.run(_drive(running, plan, progress))


async def _drive(running: Fleet, plan: Plan, progress: Progress) -> Report:
    async with (
        httpx.AsyncClient(base_url=running.upstream, trust_env=False) as upstream,
        lines_to(running.api, running.workers, LINES_PER_WORKER) as lines,
    ):
        first, second = lines.values()
        return await Drive(plan, upstream, first, second, progress).report()


class Drive:
    """One run: `first` and `second` are the lines to the two workers."""

    def __init__(
        self,
        plan: Plan,
        upstream: httpx.AsyncClient,
        first: list[Line],
        second: list[Line],
        progress: Progress,
    ) -> None:
        self._plan, self._upstream, self._progress = plan, upstream, progress
        self._first, self._second = first, second
        self._paths = paths_of(plan.symbols)

    async def report(self) -> Report:
        facts, rounds = len(self._paths), self._plan.rounds
        users = len(self._first + self._second)
        looks = int(users * self._plan.browsing_seconds / SECONDS_BETWEEN_LOOKS)
        return Report(
            cold=await self._phase("cold", facts, self._ask_cold),
            far=await self._phase("far hit", facts, self._ask_far),
            near=await self._phase("near hit", facts * rounds * 2, self._ask_near),
            browsing=await self._phase("browsing", looks, self._browse),
        )

    async def _ask_cold(self, done: Done) -> list[float]:
        return await ask_once(self._paths, self._first, done)

    async def _ask_far(self, done: Done) -> list[float]:
        # one line, so that hits are not measured while they wait for each other
        return await ask_once(self._paths, self._second[:1], done)

    async def _ask_near(self, done: Done) -> list[float]:
        times: list[float] = []
        for line in (self._first[0], self._second[0]) * self._plan.rounds:
            times += await ask_once(self._paths, [line], done)
        return times

    async def _browse(self, done: Done) -> list[float]:
        everyone = self._first + self._second
        return await browse(everyone, self._plan.browsing_seconds, SECONDS_BETWEEN_LOOKS, done)

    async def _phase(self, name: str, expected: int, traffic: Traffic) -> Phase:
        """Send the `traffic` of about `expected` requests, and count at the servers what it caused."""
        before = await self._counters()
        bar = self._progress.add_task(name, total=expected)
        seconds = await traffic(lambda: self._progress.advance(bar))
        self._progress.update(bar, total=len(seconds), completed=len(seconds))
        return Phase(name, seconds, await self._counters() - before)

    async def _counters(self) -> Counter[str]:
        calls = (await self._upstream.get("/calls")).json()
        counted = Counter(upstream=sum(calls.values()))
        for line in (self._first[0], self._second[0]):
            for layer in (await line.json("/stats"))["layers"]:
                counted[layer["type"]] += layer["hits"]
        return counted


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<14}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=console.is_terminal,  # where nothing can be erased, as in CI's log, the last state stays
    )


if __name__ == "__main__":
    sys.exit(main())
