"""A program that ends with everything open, in one of the ways in which programs end.

    ending.py WAY URL PREFIX

Open are: connections of threads and of a loop that runs on, the log, a probe of a server that is not there, loads and
refreshes in the background that never end, and a schedule of refreshes.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import signal
import sys
import threading
import time

from inside import chain, fill, follow, threads
from waiting import until

from layercache import Caches, WarmReport

WAY, URL, PREFIX = sys.argv[1:]
FOR_EVER = 3600.0


def open_everything() -> tuple[Caches, Caches, WarmReport]:
    logging.getLogger("layercache").addHandler(logging.NullHandler())  # the outage is no news here
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # nor that a machine is slow
    world = chain(URL, f"{PREFIX}-{WAY}")
    cache = world["default"]
    follow(cache)
    fill(cache, "near", "v")

    def for_ever() -> None:
        time.sleep(FOR_EVER)

    under_way = threading.Event()

    def load() -> None:
        under_way.set()
        for_ever()

    threading.Thread(target=lambda: cache.get_or_set("under way", load), daemon=True).start()
    under_way.wait()
    threading.Thread(
        target=lambda: cache.get_or_set("slow", for_ever, hard_timeout=FOR_EVER), daemon=True
    ).start()
    cache.set("stale", "v", 0.001)
    until(lambda: cache.get("stale") is None)
    assert cache.get_or_set("stale", for_ever) == "v"

    nowhere = {"type": "redis", "url": "redis://127.0.0.1:1", "on_error": "miss"}
    gone = Caches({"backends": {"gone": nowhere}, "caches": {"default": {"backend": "gone"}}})
    gone["default"].get("k")

    running = threading.Event()

    async def serve() -> None:
        while True:
            await asyncio.gather(cache.aget("not there"), cache.aadd("added", 1))
            running.set()
            await asyncio.sleep(0.001)

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    running.wait()

    @cache.cached("warm:{number}", warm=[1, 2], refresh_every="1h")
    def warmed(number: int) -> int:
        return number

    report = warmed.warm()
    names = threads()
    for name in ("layercache load", "layercache log", "layercache probe of 127.0.0.1:1"):
        assert name in names, names
    return world, gone, report


def after_the_main_thread(world: Caches) -> None:
    threading.main_thread().join()
    go_on(world)


def go_on(world: Caches) -> None:
    """What works when no thread can be begun any more, as of Python 3.12."""
    cache = world["default"]
    cache.set("late", 1)
    assert cache.get("late") == 1
    assert cache.get_or_set("late too", lambda: 2) == 2
    cache.set("stale", 3, 0.001)
    time.sleep(0.002)
    assert cache.get_or_set("stale", lambda: 4) == 3
    assert cache.get_or_set("limited", lambda: 5, hard_timeout=60) == 5
    print("all was well")  # noqa: T201


def main() -> None:
    world, *_ = kept = open_everything()  # noqa: F841  (or what nobody has would be closed)

    match WAY:
        case "returns":
            threading.Thread(target=lambda: sys.exit(3)).start()  # which ends that thread, and no more
        case "raises":
            asyncio.run(_raise(world))
        case "is terminated":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(FOR_EVER)
        case "goes on":
            threading.Thread(target=lambda: after_the_main_thread(world)).start()
            atexit.register(lambda: go_on(world))


async def _raise(world: Caches) -> None:
    await world["default"].aget("k")
    raise LookupError("of the program's own")


if __name__ == "__main__":
    main()
