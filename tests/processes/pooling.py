"""Pools of processes, as users have them: begun from a running loop, by fork; and by spawn or forkserver.

pooling.py loops URL PREFIX    prints what was found on the loops of asyncio and uvloop, as JSON
pooling.py spawn|forkserver    with a cached function of this module, and settings from the environment
"""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import uvloop
from inside import chain, far_gauges, fill, follow, sockets
from waiting import until

from layercache import MISSING, Caches, cached, get_cache

# -- spawn and forkserver: the module is imported anew, and names are all that goes across


@cached("quote:{symbol}", ttl="1m")
def quote(symbol: str) -> list[Any]:
    return [symbol, os.getpid()]


def pooled(method: str) -> dict[str, Any]:
    get_cache().set("warm", 1)
    mine = quote("AAPL")
    with multiprocessing.get_context(method).Pool(1) as pool:
        found = pool.map(quote, ["AAPL", "MSFT", "AAPL", "MSFT"], chunksize=1)
        pool.close()
        pool.join()
    return {"mine": mine, "found": found}


# -- fork, from a running loop

world: Caches
before: set[str]


def in_child(number: int) -> dict[str, Any]:
    cache = world["default"]
    found: dict[str, Any] = {"inherited": len(before & sockets()), "empty": cache.hit("near") is MISSING}

    async def work() -> list[Any]:
        await cache.aset(f"of {number}", number)
        return [await cache.aget("near"), await cache.aget(f"of {number}")]

    return found | {"on loops": [asyncio.run(work()), asyncio.run(work())], "sync": cache.get("near")}


async def serving(report: dict[str, Any]) -> None:
    global before
    cache = world["default"]
    stop, rounds = asyncio.Event(), [0]

    async def traffic() -> None:
        while not stop.is_set():
            await asyncio.gather(cache.aadd("added", 1), cache.aget_many(["not there", "nor there"]))
            rounds[0] += 1

    busy = [asyncio.create_task(traffic()) for _ in range(2)]
    while not rounds[0]:
        await asyncio.sleep(0)
    before = sockets()
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        loop = asyncio.get_running_loop()
        report["children"] = await asyncio.gather(
            *(loop.run_in_executor(pool, in_child, n) for n in range(2))
        )
        forked_at = rounds[0]
        while rounds[0] < forked_at + 20:  # on the connections that were there before
            await asyncio.sleep(0)
    stop.set()
    await asyncio.gather(*busy)
    report["errors"] = [layer.errors for layer in cache.stats().layers]
    report["openings"] = far_gauges(cache)["circuit_openings"]
    report["of a child"] = [await cache.aget("of 0"), await cache.aget("of 1")]


def on_loops(url: str, prefix: str) -> list[dict[str, Any]]:
    global world
    world = chain(url, prefix)
    cache = world["default"]
    follow(cache)
    fill(cache, "near", "v")
    at_first = len(sockets())
    reports: list[dict[str, Any]] = []
    new_loops: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]
    for new_loop in new_loops:
        report: dict[str, Any] = {}
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(serving(report))
        until(lambda: len(sockets()) <= at_first)
        reports.append(report)
    return reports


if __name__ == "__main__":
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # that a machine is slow is no news here
    what, *rest = sys.argv[1:]
    print(json.dumps(on_loops(*rest) if what == "loops" else pooled(what)))  # noqa: T201
