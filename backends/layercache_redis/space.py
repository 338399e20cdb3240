"""The keys of one cache on the server: each operation one line, on a thread or on a loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from layercache.entry import Entry, Stamps
from layercache.spi import Change, KeySpace, Lease
from layercache_redis.aio import AioDriver
from layercache_redis.commands import Commands
from layercache_redis.log import Log
from layercache_redis.sync import SyncDriver

__all__ = ["RedisSpace"]


class RedisSpace(KeySpace):
    blocks: ClassVar[bool] = True

    def __init__(self, commands: Commands, sync: SyncDriver, aio: AioDriver, log: Log) -> None:
        self._commands, self._sync, self._aio, self.log = commands, sync, aio, log

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
        return self._sync.run(self._commands.update(key, change), again=False)

    async def aupdate(self, key: str, change: Change) -> Entry | None:
        return await self._aio.run(self._commands.update(key, change), again=False)

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

    # -- stamps and leases

    def invalidate(self, tags: Sequence[str]) -> None:
        """Make every entry that carries one of `tags` invalid."""
        self._sync.run(self._commands.invalidate(tags))

    async def ainvalidate(self, tags: Sequence[str]) -> None:
        await self._aio.run(self._commands.invalidate(tags))

    def stamps(self, tags: Sequence[str]) -> Stamps:
        """Return what an entry with `tags` has to carry whose load begins now."""
        return self._sync.run(self._commands.stamps(tags))

    async def astamps(self, tags: Sequence[str]) -> Stamps:
        return await self._aio.run(self._commands.stamps(tags))

    def lease(self, key: str, token: bytes, seconds: float) -> Lease:
        """Return the fresh entry of `key`, or grant the right to load it, for `seconds`, to the holder of `token`."""
        return self._sync.run(self._commands.lease(key, token, seconds))

    async def alease(self, key: str, token: bytes, seconds: float) -> Lease:
        return await self._aio.run(self._commands.lease(key, token, seconds))

    def fill(self, key: str, token: bytes, entry: Entry) -> bool:
        """Store what was loaded under a lease; return False, and store nothing, where the lease is void by now."""
        return self._sync.run(self._commands.fill(key, token, entry))

    async def afill(self, key: str, token: bytes, entry: Entry) -> bool:
        return await self._aio.run(self._commands.fill(key, token, entry))

    def gauges(self) -> Mapping[str, int | float]:
        """Return what can be said without asking the server.

        `foreign`: how often something under a key of this cache was not its own. `circuits_open`, `circuit_openings`:
        how many servers are left alone now, and how often one was. `log_entries`: of other processes and ours, heard.
        `log_losses`: how often track was lost, and everything forgotten. `log_lag`: seconds since what is known was
        confirmed; left out until it was once.
        """
        heard = {"log_lag": self.log.lag} if self.log.lag < float("inf") else {}
        return {
            "foreign": self._commands.foreign,
            **self._sync.servers.gauges(),
            "log_entries": self.log.entries,
            "log_losses": self.log.losses,
            **heard,
        }
