"""The inline port: a verb of the core runs to its end on the calling thread.

Nothing here suspends, so one `send(None)` runs a whole coroutine: no event loop, no thread hop. What has to
wait blocks the thread. A port that suspended all the same would leave the verb half done, so `run` raises.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import copy_context
from functools import partial
from inspect import iscoroutine
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, TypeVar

from layercache.core.flights import Flight, Party
from layercache.core.tickets import Ticket
from layercache.entry import Entry, Stamps
from layercache.errors import WouldDeadlock
from layercache.spi import Change, KeyPage, KeySpace, Lease, LeasingKeySpace, Sight

if TYPE_CHECKING:
    from layercache.core.port import Port

__all__ = ["Chance", "InlinePort", "chance", "run"]

_MOST_SPAWNED: Final = 32
"""Refreshes in the background at a time; who finds as many serves the stale value, and the refresh waits."""

R = TypeVar("R")


def run(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine that never suspends and return its result; `RuntimeError` if it does suspend."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: R = end.value
        return result
    except RuntimeError as error:
        # a loader may raise it as any other error, and what it raises is not wrapped (PEP 479 did)
        if isinstance(error.__cause__, StopIteration) and str(error) == "coroutine raised StopIteration":
            raise error.__cause__ from None
        raise
    coroutine.close()
    raise RuntimeError(f"{coroutine} suspended, which nothing under an inline port may do")


chance: Final = random.Random()  # noqa: S311  (nothing here is a secret)
"""A generator of our own. Who seeds the one of the module, for tests or for a job that can be repeated, would have two
processes draw the same tokens and stamps: what one has invalidated would be valid again once the other does."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=chance.seed)


class Chance:
    """What a port draws by chance."""

    uniform = staticmethod(chance.random)
    token = staticmethod(partial(chance.randbytes, 12))
    exponential = staticmethod(partial(chance.expovariate, 1.0))


class InlinePort(Chance):
    """Blocks where it has to wait."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self._threads: list[threading.Thread] = []

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

    async def fill(self, space: KeySpace, ticket: Ticket, entry: Entry) -> bool:
        return space.fill(ticket, entry)

    async def delete(self, space: KeySpace, key: str) -> bool:
        return space.delete(key)

    async def delete_many(self, space: KeySpace, keys: Sequence[str]) -> int:
        return space.delete_many(keys)

    async def clear(self, space: KeySpace) -> None:
        space.clear()

    async def invalidate(self, space: KeySpace, tags: Sequence[str], soft: bool) -> None:
        space.invalidate(tags, soft)

    async def stamps(self, space: KeySpace, tags: Sequence[str]) -> Stamps:
        return space.stamps(tags)

    async def lease_many(
        self,
        space: LeasingKeySpace,
        keys: Sequence[str],
        token: bytes,
        seconds: float,
        after: float,
        tags: Sequence[str],
    ) -> dict[str, Lease]:
        return space.lease_many(keys, token, seconds, after, tags)

    async def fill_many(
        self, space: LeasingKeySpace, token: bytes, entries: Mapping[str, Entry]
    ) -> list[str]:
        return space.fill_many(token, entries)

    async def release_many(
        self, space: LeasingKeySpace, keys: Sequence[str], token: bytes, seconds: float
    ) -> None:
        space.release_many(keys, token, seconds)

    async def late_stamps(
        self, space: LeasingKeySpace, tags: Sequence[str], mark: bytes | None
    ) -> Stamps | None:
        return space.late_stamps(tags, mark)

    async def explain(self, space: KeySpace, key: str) -> Sight:
        return space.explain(key)

    async def list_keys(self, space: KeySpace, prefix: str, limit: int, cursor: str) -> KeyPage:
        return space.list_keys(prefix, limit, cursor)

    async def load(self, loader: Callable[[], Any], seconds: float) -> Any:
        value = loader()  # a thread cannot be stopped: who waits for it stops waiting after `seconds`
        if iscoroutine(value):
            value.close()
            raise TypeError("the loader is async; await aget_or_set(...) instead of get_or_set(...)")
        return value

    async def start(
        self, job: Coroutine[Any, Any, None], party: Party, ended: Callable[[object], None], *, apart: bool
    ) -> None:
        if not apart or self._start(lambda: run(job), party) is None:
            await job

    def spawn(
        self,
        job: Callable[[Port], Coroutine[Any, Any, None]],
        party: Party,
        ended: Callable[[object], None],
    ) -> bool:
        self._threads = [thread for thread in self._threads if thread.is_alive()]  # none is, after a fork
        if len(self._threads) >= _MOST_SPAWNED:
            return False
        thread = self._start(lambda: run(job(self)), party)
        if thread is not None:
            self._threads.append(thread)
        return thread is not None

    def _start(self, job: Callable[[], None], party: Party) -> threading.Thread | None:
        """Return a thread that does `job`; None where none can be had, as when the interpreter is about to end."""

        def led() -> None:
            party.thread = get_ident()
            job()

        caller, party.thread = party.thread, 0
        # it knows what the caller's code knows: the loads that it is part of, and what users keep in their variables
        thread = threading.Thread(target=copy_context().run, args=(led,), name="layercache load", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            party.thread = caller
            return None
        return thread

    async def join(self, flight: Flight, seconds: float) -> bool:
        if flight.is_over:
            return True
        # the leader runs on this thread: it is a task of the loop we would block
        if flight.party.thread == get_ident():
            raise WouldDeadlock(
                "this key is being loaded on this same thread, which waiting here would stop for ever; "
                + (
                    "await aget_or_set(...) instead"
                    if _runs_loop()
                    else "a loader must not ask for its own key"
                ),
            )
        gate = threading.Lock()
        gate.acquire()
        flight.wakes.append(gate.release)
        if not flight.is_over:
            gate.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))
        return flight.is_over

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251  (a port that never suspends)


def _runs_loop() -> bool:
    # asked only of an asyncio that somebody else imported: without it no loop can run
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None  # noqa: SLF001
