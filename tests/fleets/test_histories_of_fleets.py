"""What four processes read of one cache, while the network between them and their server fails in every way."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
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


def test_calm(fleet: Fleet, tmp_path: Path) -> None:
    fleet.begin(tmp_path, SEED)
    until(fleet.is_well)
    time.sleep(3)
    reports = fleet.end()
    for r in reports: print(r)
    began = time.monotonic()
    events = events_of(*fleet.histories)
    for o in objections(events, MAX_STALENESS)[:10]: print(o)
    print(len(events), time.monotonic() - began)
