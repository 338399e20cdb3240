"""The keys of one cache on the server: each operation one line, on a thread or on a loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from layercache.entry import Entry
from layercache.spi import Change, KeySpace
from layercache_redis.aio import AioDriver
from layercache_redis.commands import Commands
from layercache_redis.sync import SyncDriver

__all__ = ["RedisSpace"]


class RedisSpace(KeySpace):
    blocks: ClassVar[bool] = True

    def __init__(self, commands: Commands, sync: SyncDriver, aio: AioDriver) -> None:
        self._commands, self._sync, self._aio = commands, sync, aio

    def get(self, key: str) -> Entry | None:
        return self._sync.run(self._commands.get(key))

    async def aget(self, key: str) -> Entry | None:
        return await self._aio.run(self._commands.get(key))

    def get_many(self, keys: Sequence[str]) -> dict[str, Entry]:
        return self._sync.run(self._commands.get_many(keys))

    async def aget_many(self, keys: Sequence[str]) -> dict[str, Entry]:
        return await self._aio.run(self._commands.get_many(keys))

    def set(self, key: str, entry: Entry) -> bool:
        return self._sync.run(self._commands.set(key, entry))

    async def aset(self, key: str, entry: Entry) -> bool:
        return await self._aio.run(self._commands.set(key, entry))

    def set_many(self, entries: Mapping[str, Entry]) -> list[str]:
        return self._sync.run(self._commands.set_many(entries))

    async def aset_many(self, entries: Mapping[str, Entry]) -> list[str]:
        return await self._aio.run(self._commands.set_many(entries))

    def update(self, key: str, change: Change) -> Entry | None:
        return self._sync.run(self._commands.update(key, change))

    async def aupdate(self, key: str, change: Change) -> Entry | None:
        return await self._aio.run(self._commands.update(key, change))

    def delete(self, key: str) -> bool:
        return self._sync.run(self._commands.delete(key))

    async def adelete(self, key: str) -> bool:
        return await self._aio.run(self._commands.delete(key))

    def delete_many(self, keys: Sequence[str]) -> int:
        return self._sync.run(self._commands.delete_many(keys))

    async def adelete_many(self, keys: Sequence[str]) -> int:
        return await self._aio.run(self._commands.delete_many(keys))

    def clear(self) -> None:
        self._sync.run(self._commands.clear())

    async def aclear(self) -> None:
        await self._aio.run(self._commands.clear())

    def gauges(self) -> Mapping[str, int | float]:
        """Return `foreign`: how often something under a key of this cache was not its own."""
        return {"foreign": self._commands.foreign}
