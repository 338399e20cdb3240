"""The loop port: a verb of the core runs as part of a task of the running event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from inspect import isawaitable, iscoroutinefunction
from typing import Any

from layercache.core.flights import Flight
from layercache.entry import Entry
from layercache.spi import Change, KeySpace

__all__ = ["LoopPort"]


class LoopPort:
    """Awaits where it has to wait. What the key space does itself is handed on as it is: a coroutine around each would
    cost as much as a look-up in memory."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now

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

    def delete(self, space: KeySpace, key: str) -> Coroutine[Any, Any, bool]:
        return space.adelete(key)

    def delete_many(self, space: KeySpace, keys: Sequence[str]) -> Coroutine[Any, Any, int]:
        return space.adelete_many(keys)

    def clear(self, space: KeySpace) -> Coroutine[Any, Any, None]:
        return space.aclear()

    async def load(self, loader: Callable[[], Any]) -> Any:
        if iscoroutinefunction(loader):
            return await loader()
        # a plain function may take seconds: on a thread of its own it holds up nobody else's request
        value = await asyncio.to_thread(loader)
        return await value if isawaitable(value) else value

    async def join(self, flight: Flight) -> Entry:
        return await asyncio.wrap_future(flight.future)
