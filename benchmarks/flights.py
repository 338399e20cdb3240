"""What a flight is best made of: `python benchmarks/flights.py`. The lab behind decision 0010."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import Any

from rounds import async_rounds, print_table, sync_rounds

from layercache.core.flights import Flight, Flights, Party
from layercache.core.policy import Plan

KEY, PLAN, PARTY = "key", Plan(), Party(0, 1)
FLOOR = "a Flight, landed and read"


def future() -> object:
    made: Future[object] = Future()
    made.set_running_or_notify_cancel()
    made.set_result(1)
    return made.result()


def flight() -> object:
    made: Any = Flight(KEY, PLAN, PARTY)
    made.landed = 1
    made.is_over = True
    for wake in tuple(made.wakes):
        wake()
    return made.landed


FLIGHTS = Flights(threading.Lock(), threading.get_ident)


def boarded() -> object:
    """All there is to a load that nobody else waits for: the table under its lock, a party, a flight."""
    made: Any
    made, _ = FLIGHTS.board(KEY, PLAN)
    FLIGHTS.land(made, 1)  # type: ignore[arg-type]
    return made.landed


def gate() -> object:
    """What a thread that waits pays besides: a lock of its own, which its leader opens."""
    made = threading.Lock()
    made.acquire()
    made.release()
    return made.acquire()


async def at_once() -> None:
    waiter = asyncio.get_running_loop().create_future()
    waiter.set_result(None)
    await asyncio.sleep(0)
    await waiter


async def through_the_loop() -> None:
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()
    loop.call_soon_threadsafe(waiter.set_result, None)
    await asyncio.sleep(0)
    await waiter


def main() -> None:
    print_table(
        "One load that nobody waits for",
        sync_rounds(
            {
                "a concurrent.futures.Future, set and read": future,
                FLOOR: flight,
                "board and land: table, lock, Party and Flight": boarded,
                "a waiting thread's lock, made, opened and passed": gate,
            },
            2_000,
        ),
        FLOOR,
    )
    woken = {
        "its future is set by the same thread": (at_once, ()),
        "call_soon_threadsafe": (through_the_loop, ()),
    }
    print_table(
        "A task is woken by one of its own loop, a turn of the loop included",
        async_rounds(woken, 1_000),
        "its future is set by the same thread",
    )


if __name__ == "__main__":
    main()
