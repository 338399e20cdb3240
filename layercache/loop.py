"""The loop port: a verb of the core runs as part of a task of the running event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from inspect import isawaitable, iscoroutinefunction
from math import inf
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from layercache.core.flights import Flight, LoadOverdue, Party
from layercache.core.tickets import Ticket
from layercache.entry import Entry, Stamps
from layercache.inline import Chance
from layercache.spi import Change, KeyPage, KeySpace, Lease, LeasingKeySpace, Sight

if TYPE_CHECKING:
    from layercache.core.port import Port

__all__ = ["LoopPort"]

_SOONER: Final = 0.002  # seconds

_MOST_SPAWNED: Final = 256
"""Refreshes in the background at a time; who finds as many serves the stale value, and the refresh waits."""


class LoopPort(Chance):
    """Awaits where it has to wait. What the key space does itself is handed on as it is: a coroutine around each would
    cost as much as a look-up in memory."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.after_fork()

    def after_fork(self) -> None:
        """Nothing of it goes on in the child of a fork."""
        self._spawned: set[asyncio.Task[None]] = set()

    def read(self, space: KeySpace, key: str) -> Coroutine[Any, Any, Entry | None]:
        return space.aget(key)

    def read_many(self, space: KeySpace, keys: Sequence[str]) -> Coroutine[Any, Any, dict[str, Entry]]:
        return space.aget_many(keys)

    def write(self, space: KeySpace, key: str, entry: Entry) -> Coroutine[Any, Any, bool]:
        return space.aset(key, entry)

    def write_many(self, space: KeySpace, entries: Mapping[str, Entry]) -> Coroutine[Any, Any, list[str]]:
        return space.aset_many(entries)

    def update(self, space: KeySpace, key: str, change: Change) -> Coroutine[Any, Any, Entry | None]:
        return space.aupdate(key, change)

    def fill(self, space: KeySpace, ticket: Ticket, entry: Entry) -> Coroutine[Any, Any, bool]:
        return space.afill(ticket, entry)

    def delete(self, space: KeySpace, key: str) -> Coroutine[Any, Any, bool]:
        return space.adelete(key)

    def delete_many(self, space: KeySpace, keys: Sequence[str]) -> Coroutine[Any, Any, int]:
        return space.adelete_many(keys)

    def clear(self, space: KeySpace) -> Coroutine[Any, Any, None]:
        return space.aclear()

    def invalidate(self, space: KeySpace, tags: Sequence[str], soft: bool) -> Coroutine[Any, Any, None]:
        return space.ainvalidate(tags, soft)

    def stamps(self, space: KeySpace, tags: Sequence[str]) -> Coroutine[Any, Any, Stamps]:
        return space.astamps(tags)

    def lease_many(
        self,
        space: LeasingKeySpace,
        keys: Sequence[str],
        token: bytes,
        seconds: float,
        after: float,
        tags: Sequence[str],
    ) -> Coroutine[Any, Any, dict[str, Lease]]:
        return space.alease_many(keys, token, seconds, after, tags)

    def fill_many(
        self, space: LeasingKeySpace, token: bytes, entries: Mapping[str, Entry]
    ) -> Coroutine[Any, Any, list[str]]:
        return space.afill_many(token, entries)

    def release_many(
        self, space: LeasingKeySpace, keys: Sequence[str], token: bytes, seconds: float
    ) -> Coroutine[Any, Any, None]:
        return space.arelease_many(keys, token, seconds)

    def late_stamps(
        self, space: LeasingKeySpace, tags: Sequence[str], mark: bytes | None
    ) -> Coroutine[Any, Any, Stamps | None]:
        return space.alate_stamps(tags, mark)

    def explain(self, space: KeySpace, key: str) -> Coroutine[Any, Any, Sight]:
        return space.aexplain(key)

    def list_keys(
        self, space: KeySpace, prefix: str, limit: int, cursor: str
    ) -> Coroutine[Any, Any, KeyPage]:
        return space.alist_keys(prefix, limit, cursor)

    async def load(self, loader: Callable[[], Any], seconds: float) -> Any:
        if not iscoroutinefunction(loader):
            # a plain function may take seconds: on a thread of its own it holds up nobody else's request. It cannot be
            # stopped, so its flight goes on until it ends: its followers would start another beside it
            value = await asyncio.to_thread(loader)
            return await value if isawaitable(value) else value
        if seconds == inf:
            return await loader()
        # a little sooner than who waits for it, who would leave a flight that is about to fail for the next to board
        limit = asyncio.timeout(max(seconds - _SOONER, 0.0))
        try:
            async with limit:
                return await loader()
        except TimeoutError as error:
            if limit.expired():
                raise LoadOverdue from error
            raise

    async def start(
        self, job: Coroutine[Any, Any, None], party: Party, ended: Callable[[object], None], *, apart: bool
    ) -> None:
        # always a task of its own: a cancelled caller leaves, and the load goes on for its followers. A loop keeps no
        # task alive by itself; its party does, which the table of flights holds until it is over
        loop = asyncio.get_running_loop()
        party.job = task = loop.create_task(job)
        task.add_done_callback(ended)
        party.give_up, party.is_lost = partial(_give_up, loop, task, party.thread), loop.is_closed

    def spawn(
        self,
        job: Callable[[Port], Coroutine[Any, Any, None]],
        party: Party,
        ended: Callable[[object], None],
    ) -> bool:
        if len(self._spawned) >= _MOST_SPAWNED:
            for spawned in list(self._spawned):  # from the same set, as each that ends takes itself out
                if spawned.done() or spawned.get_loop().is_closed():  # which ends never
                    self._spawned.discard(spawned)
            if len(self._spawned) >= _MOST_SPAWNED:
                return False
        loop = asyncio.get_running_loop()
        party.job = task = loop.create_task(job(self))
        party.is_lost = loop.is_closed
        self._spawned.add(task)
        task.add_done_callback(self._spawned.discard)
        task.add_done_callback(ended)
        return True

    async def join(self, flight: Flight, seconds: float) -> bool:
        if flight.is_over:
            return True
        loop, thread = asyncio.get_running_loop(), get_ident()
        waiter = loop.create_future()

        def end() -> None:
            if not waiter.done():
                waiter.set_result(None)

        def wake() -> None:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                if get_ident() == thread:  # as a rule: half of what waking through the loop's pipe takes
                    end()
                else:
                    loop.call_soon_threadsafe(end)

        flight.wakes.append(wake)
        if flight.is_over:
            return True
        timer = None if seconds == inf else loop.call_later(seconds, end)
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()
            if not flight.is_over:
                with suppress(ValueError):
                    flight.wakes.remove(wake)
        return flight.is_over

    def sleep(self, seconds: float) -> Coroutine[Any, Any, None]:
        return asyncio.sleep(seconds)


def _give_up(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None], thread: int) -> None:
    def cancel() -> None:
        if not task.cancelling():  # with all others, as a loop that ends does: it gives back what it holds
            task.cancel()

    # not at once: a task that is cancelled before its first step never runs, and would give back nothing that it holds
    if get_ident() == thread:
        loop.call_soon(cancel)
    else:
        with suppress(RuntimeError):  # the loop is closed, and the task with it
            loop.call_soon_threadsafe(cancel)
