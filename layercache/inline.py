"""The inline port: a verb of the core runs to its end on the calling thread.

Nothing here suspends, so one `send(None)` runs a whole coroutine: no event loop, no thread hop. What has to
wait blocks the thread. A port that suspended all the same would leave the verb half done, so `run` raises.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from inspect import iscoroutine
from threading import get_ident
from typing import Any, TypeVar

from layercache.core.flights import Flight
from layercache.entry import Entry
from layercache.errors import WouldDeadlock
from layercache.spi import Change, KeySpace

__all__ = ["InlinePort", "ThreadFlight", "run"]

R = TypeVar("R")


def run(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine that never suspends and return its result; `RuntimeError` if it does suspend."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: R = end.value
        return result
    coroutine.close()
    raise RuntimeError(f"{coroutine} suspended, which nothing under an inline port may do")


class ThreadFlight:
    """A flight that threads and event loops can both wait for.

    The future is marked running at once, so that cancelling a follower cannot cancel it.
    """

    def __init__(self) -> None:
        self.future: Future[Entry] = Future()
        self.future.set_running_or_notify_cancel()
        self.leader_thread = get_ident()

    def land(self, entry: Entry) -> None:
        self.future.set_result(entry)

    def fail(self, error: BaseException) -> None:
        self.future.set_exception(error)


class InlinePort:
    """Blocks where it has to wait."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now

    async def read(self, space: KeySpace, key: str) -> Entry | None:
        return space.get(key)

    async def read_many(self, space: KeySpace, keys: Sequence[str]) -> dict[str, Entry]:
        return space.get_many(keys)

    async def write(self, space: KeySpace, key: str, entry: Entry) -> bool:
        return space.set(key, entry)

    async def write_many(self, space: KeySpace, entries: Mapping[str, Entry]) -> list[str]:
        return space.set_many(entries)

    async def update(self, space: KeySpace, key: str, change: Change) -> Entry | None:
        return space.update(key, change)

    async def delete(self, space: KeySpace, key: str) -> bool:
        return space.delete(key)

    async def delete_many(self, space: KeySpace, keys: Sequence[str]) -> int:
        return space.delete_many(keys)

    async def clear(self, space: KeySpace) -> None:
        space.clear()

    async def load(self, loader: Callable[[], Any]) -> Any:
        value = loader()
        if iscoroutine(value):
            value.close()
            raise TypeError("the loader is async; await aget_or_set(...) instead of get_or_set(...)")
        return value

    async def join(self, flight: Flight) -> Entry:
        # the leader runs on this thread: it is a task of the loop we would block, or our own loader
        if flight.leader_thread == get_ident() and not flight.future.done():
            raise WouldDeadlock(
                "this key is being loaded on this same thread, which waiting here would stop for ever; "
                + (
                    "await aget_or_set(...) instead"
                    if _runs_loop()
                    else "a loader must not ask for its own key"
                ),
            )
        return flight.future.result()


def _runs_loop() -> bool:
    # asked only of an asyncio that somebody else imported: without it no loop can run
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None  # noqa: SLF001
