"""The loop port: a verb of the core runs as part of a task of the running event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from inspect import isawaitable, iscoroutinefunction
from typing import Any

from layercache.core.flights import Flight
from layercache.entry import Entry
from layercache.spi import Change, KeySpace

__all__ = ["LoopPort"]


class LoopPort:
    """Awaits where it has to wait."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now

    async def read(self, space: KeySpace, key: str) -> Entry | None:
        return await space.aget(key)

    async def read_many(self, space: KeySpace, keys: Sequence[str]) -> dict[str, Entry]:
        return await space.aget_many(keys)

    async def write(self, space: KeySpace, key: str, entry: Entry) -> bool:
        return await space.aset(key, entry)

    async def write_many(self, space: KeySpace, entries: Mapping[str, Entry]) -> list[str]:
        return await space.aset_many(entries)

    async def update(self, space: KeySpace, key: str, change: Change) -> Entry | None:
        return await space.aupdate(key, change)

    async def delete(self, space: KeySpace, key: str) -> bool:
        return await space.adelete(key)

    async def delete_many(self, space: KeySpace, keys: Sequence[str]) -> int:
        return await space.adelete_many(keys)

    async def clear(self, space: KeySpace) -> None:
        await space.aclear()

    async def load(self, loader: Callable[[], Any]) -> Any:
        if iscoroutinefunction(loader):
            return await loader()
        # a plain function may take seconds: on a thread of its own it holds up nobody else's request
        value = await asyncio.to_thread(loader)
        return await value if isawaitable(value) else value

    async def join(self, flight: Flight) -> Entry:
        return await asyncio.wrap_future(flight.future)
