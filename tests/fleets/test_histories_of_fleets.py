"""What four processes read of one cache, while the network between them and their server fails in every way."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from calling import until
from histories import Event, events_of, objections
from processes import Process

from layercache.testing import Chaos, ValkeyServer

NODES = 4
MAX_STALENESS = 0.3
SEED = int(os.environ.get("LAYERCACHE_TEST_SEED", "7"))


class Fleet:
    """Four processes, a proxy for each, and the server behind them."""

    def __init__(self, server: ValkeyServer, proxies: list[Chaos], processes: list[Process]) -> None:
        self.server, self.proxies, self.processes = server, proxies, processes

    def begin(self, folder: Path, seed: int, bugs: str = "", **chain: Any) -> None:
        self.seed = seed
        self.histories = [folder / f"node{number}.jsonl" for number in range(NODES)]
        prefix = f"t{uuid4().hex[:12]}"
        for number, (process, proxy) in enumerate(zip(self.processes, self.proxies, strict=True)):
            process.tell(
                "begin",
                settings=settings(proxy.url, prefix, **chain),
                seed=seed,
                history=str(self.histories[number]),
                tasks=[3, 0, 2, 0][number],
                threads=[0, 2, 1, 1][number],
                bug=bugs,
            )
        for process in self.processes:
            process.answer()

    def states(self) -> list[dict[str, Any]]:
        for process in self.processes:
            process.tell("state")
        return [process.answer() for process in self.processes]

    def is_well(self) -> bool:
        return not any(state["out"] or state["owes"] or state["lag"] > MAX_STALENESS for state in self.states())

    def until_well(self) -> None:
        until(self.is_well, within=10)

    def end(self) -> list[dict[str, Any]]:
        for process in self.processes:
            process.tell("end")
        return [process.answer() for process in self.processes]


def settings(url: str, prefix: str, **chain: Any) -> dict[str, Any]:
    return {
        "backends": {
            "near": {"type": "memory"},
            "far": {"type": "redis", "url": url, "prefix": prefix, "timeout": "100ms", "max_staleness": MAX_STALENESS},
            "both": {"type": "chain", "layers": ["near", "far"], **chain},
        },
        "caches": {"default": {"backend": "both", "ttl": 30}},
    }


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with ExitStack() as opened:
        server = opened.enter_context(ValkeyServer())
        proxies = [opened.enter_context(Chaos(server.port, seed=number)) for number in range(NODES)]
        node = Path(__file__).with_name("node.py")
        processes = [Process(node, name="abcd"[number]) for number in range(NODES)]
        for process in processes:
            opened.callback(process.end)
            process.ready()
        yield Fleet(server, proxies, processes)


# -- weather


Weather = Callable[[Fleet, random.Random], AbstractContextManager[Any]]


@contextmanager
def latency(fleet: Fleet, chance: random.Random) -> Iterator[None]:
    with ExitStack() as begun:
        for proxy in fleet.proxies:
            begun.enter_context(proxy.delay(chance.choice([0, 0.005, 0.03, 0.06])))
        yield


@contextmanager
def cuts(fleet: Fleet, chance: random.Random) -> Iterator[None]:
    with ExitStack() as begun:
        for proxy in fleet.proxies:
            begun.enter_context(proxy.cut(one_in=chance.choice([5, 20, 50]), requests=True))
        yield


def a_black_hole(fleet: Fleet, chance: random.Random) -> AbstractContextManager[Any]:
    return chance.choice(fleet.proxies).freeze()


def a_slow_drip(fleet: Fleet, chance: random.Random) -> AbstractContextManager[Any]:
    return chance.choice(fleet.proxies).drip(chance.choice([2_000, 20_000]))


def a_refusal(fleet: Fleet, chance: random.Random) -> AbstractContextManager[Any]:
    return chance.choice(fleet.proxies).down()


def flapping(fleet: Fleet, chance: random.Random) -> AbstractContextManager[Any]:
    return chance.choice(fleet.proxies).flap("60ms", "30ms")


@contextmanager
def a_server_that_hangs(fleet: Fleet, chance: random.Random) -> Iterator[None]:
    fleet.server.pause()
    yield
    fleet.server.resume()


@contextmanager
def a_server_that_crashes(fleet: Fleet, chance: random.Random) -> Iterator[None]:
    fleet.server.kill()
    yield
    fleet.server.start()


@contextmanager
def a_process_that_stands_still(fleet: Fleet, chance: random.Random) -> Iterator[None]:
    process = chance.choice(fleet.processes)
    process.signal(signal.SIGSTOP)
    yield
    process.signal(signal.SIGCONT)


WEATHER: list[Weather] = [
    latency,
    cuts,
    a_black_hole,
    a_slow_drip,
    a_refusal,
    flapping,
    a_server_that_hangs,
    a_server_that_crashes,
    a_process_that_stands_still,
]


def test_in_all_weather(fleet: Fleet, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    fleet.begin(tmp_path, SEED)
    fleet.until_well()
    for weather in chance.sample(WEATHER, len(WEATHER)):
        with weather(fleet, chance):
            t = time.monotonic()
            time.sleep(chance.choice([0.2, 0.5]))
            print(weather.__name__, t, time.monotonic())
        time.sleep(0.15)
    fleet.until_well()
    time.sleep(MAX_STALENESS)
    reports = fleet.end()
    for r in reports: print(r)
    began = time.monotonic()
    events = events_of(*fleet.histories)
    for late in (True, False):
        found = wrong(events, late=late)
        print(late, len(found))
        for o in found[:10]: print(o)
    print(len(events), time.monotonic() - began)
    for e in sorted(events, key=lambda e: e.began):
        if e.operation in ("outage", ): print(e)


def wrong(events, **options):
    return [o for o in objections(events, MAX_STALENESS, **options) if not was_waited_for(o)]


def was_waited_for(objection):
    """Whether the value was that of a load which was under way here when the caller asked: it boarded that, whatever was done meanwhile."""
    load = objection.written
    return load is not None and load.operation == "load" and load.node == objection.read.node and objection.read.began <= load.ended
