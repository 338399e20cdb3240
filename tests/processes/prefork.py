"""A server that forks its workers, as gunicorn does with `preload_app`; prints what parent and children found, as JSON.

    prefork.py URL PREFIX

The parent uses its caches, from several threads, before it forks. The children use them at once, all four together.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from forking import Worker
from inside import (
    all_locks_held,
    chain,
    connections,
    far_gauges,
    fill,
    follow,
    kernel_threads,
    sockets,
    threads,
)
from waiting import until

from layercache import MISSING, Cache, Caches, LoadTimeout

URL, PREFIX = sys.argv[1:]
WORKERS = 4


def node(world: Caches) -> str:
    return str(world.backend("far")._parts._log.node.id.decode())


def main() -> dict[str, Any]:
    world = chain(URL, PREFIX)
    cache = world["default"]
    follow(cache)
    fill(cache, "near", "the parent's")
    busy = Busy(cache)
    before = sockets()
    report: dict[str, Any] = {"parent": {"node": node(world), "hit": cache.hit("near")}}

    workers = [Worker(lambda say, wait: serve(world, cache, before, say, wait)) for _ in range(WORKERS)]
    report["at once"] = [worker.said() for worker in workers]
    until(lambda: len(connections(URL, PREFIX, "-log")) == 1 + WORKERS)
    for worker in workers:
        worker.tell()
    report["loaded"] = [worker.said() for worker in workers]
    cache.set("written", "by the parent")
    report["heard"] = [worker.said() for worker in workers]
    until(lambda: cache.get("from a worker") is not None)

    loads = busy.end()
    report["parent"] |= {
        "loads": loads,
        "near": cache.get("near"),
        "errors": [layer.errors for layer in cache.stats().layers],
        "openings": far_gauges(cache)["circuit_openings"],
        "losses": far_gauges(cache)["log_losses"],
        "threads": threads(),
        "lost": len(before - sockets()),
    }
    both = connections(URL, PREFIX) | connections(URL, PREFIX, "-log")
    world.close()
    # no child has a copy of what the parent has closed, or the server would not see it end
    until(lambda: len(connections(URL, PREFIX, "-log")) == WORKERS)
    left = connections(URL, PREFIX) | connections(URL, PREFIX, "-log")
    report["parent"]["gone"] = len(both - left)
    for worker in workers:
        worker.tell()
    report["codes"] = [worker.ended() for worker in workers]
    until(lambda: not connections(URL, PREFIX) and not connections(URL, PREFIX, "-log"))
    report["locks"] = with_locks_held()
    return report


class Busy:
    """Threads of the parent: one in the middle of a load, one that reads and writes far away all the time."""

    def __init__(self, cache: Cache[Any]) -> None:
        self._cache, self._stop, self._loading, self.loads = cache, threading.Event(), threading.Event(), 0
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._load, self._exchange)]
        for thread in self._threads:
            thread.start()
        self._loading.wait()

    def _load(self) -> None:
        def load() -> str:
            self.loads += 1
            self._loading.set()
            self._stop.wait()
            return "loaded by the parent"

        assert self._cache.get_or_set("under way", load) == "loaded by the parent"

    def _exchange(self) -> None:
        while not self._stop.is_set():
            self._cache.add("added", 1)
            self._cache.get_many(["not there", "nor there"])

    def end(self) -> int:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.loads


def serve(
    world: Caches, cache: Cache[Any], before: set[str], say: Callable[[Any], None], wait: Callable[[], None]
) -> None:
    """What a worker does; it says thrice what it found."""
    gc.collect()
    found: dict[str, Any] = {
        "inherited": len(before & sockets()),
        "threads": [*threads(), str(kernel_threads())],
        "node": node(world),
        "near is empty": cache.hit("near") is MISSING,
        "flights": len(cache._flights),
        "far": cache.get("near"),
    }
    try:
        cache.get_or_set("under way", lambda: "mine", wait=0.05)
    except LoadTimeout:
        found["under way"] = "left to the parent"

    async def on_a_loop() -> Any:
        await cache.aset("of a loop", os.getpid())
        return await cache.aget("of a loop") is not None

    found["on loops"] = [asyncio.run(on_a_loop()), asyncio.run(on_a_loop())]
    say(found)

    wait()  # for all, so that they load together
    loads: list[int] = []

    def load() -> str:
        loads.append(1)
        time.sleep(0.02)  # so that the others come meanwhile
        return "loaded"

    value = cache.get_or_set("herd", load)
    follow(cache)
    fill(cache, "written", "by a worker")
    say({"value": value, "loads": len(loads)})

    until(lambda: cache.get("written") == "by the parent")
    cache.set("from a worker", 1)
    say({"log": threads(), "sockets": len(sockets() - before)})
    wait()


def with_locks_held() -> dict[str, Any]:
    """Fork while another thread has every lock there is; return what the child finds."""
    world = chain(URL, PREFIX)
    cache = world["default"]
    follow(cache)
    cache.get_or_set("k", lambda: "v")

    def work(say: Callable[[Any], None], wait: Callable[[], None]) -> None:
        cache.set("l", 1)
        found = [cache.get("k"), cache.get("l"), cache.get_or_set("m", lambda: 2), cache.delete("l")]
        found.append(asyncio.run(cache.aget_or_set("n", load_later)))
        cache.invalidate("a tag")
        follow(cache)
        cache.stats()
        world.close()
        say(found)
        wait()

    async def load_later() -> int:
        return 3

    with all_locks_held() as count:
        worker = Worker(work)
    found = worker.said()
    worker.tell()
    world.close()
    return {"count": count, "found": found, "code": worker.ended()}


if __name__ == "__main__":
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # that a machine is slow is no news here
    print(json.dumps(main()))  # noqa: T201
