"""The keys of one cache on the server: each operation one line, on a thread or on a loop."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, ClassVar

from layercache.entry import Entry, Stamps
from layercache.spi import Change, KeyPage, Lease, LeasingKeySpace, Listener, Sight
from layercache_redis.aio import AioDriver
from layercache_redis.commands import Commands
from layercache_redis.seeing import Seeing
from layercache_redis.shards import Shards
from layercache_redis.sync import SyncDriver
from layercache_redis.turns import JoinedSets

__all__ = ["RedisSpace"]


class RedisSpace(LeasingKeySpace):
    """The entries of one cache on the servers; each operation raises `BackendError` where they fail."""

    blocks: ClassVar[bool] = True

    def __init__(
        self, cache: str, commands: Commands, seeing: Seeing, sync: SyncDriver, aio: AioDriver, log: Shards
    ) -> None:
        self._cache, self._seeing = cache, seeing
        self._commands, self._sync, self._aio, self.log = commands, sync, aio, log
        self._sets = JoinedSets(commands, aio)

    def get(self, key: str) -> Entry | None:
        return self._sync.run(self._commands.get(key))

    def aget(self, key: str) -> Coroutine[Any, Any, Entry | None]:
        return self._aio.run(self._commands.get(key))

    def get_many(self, keys: Sequence[str]) -> dict[str, Entry]:
        return self._sync.run(self._commands.get_many(keys))

    def aget_many(self, keys: Sequence[str]) -> Coroutine[Any, Any, dict[str, Entry]]:
        return self._aio.run(self._commands.get_many(keys))

    def set(self, key: str, entry: Entry) -> bool:
        return self._sync.run(self._commands.set(key, entry))

    def aset(self, key: str, entry: Entry) -> Coroutine[Any, Any, bool]:
        return self._sets.set(key, entry)

    def set_many(self, entries: Mapping[str, Entry]) -> list[str]:
        return self._sync.run(self._commands.set_many(entries))

    def aset_many(self, entries: Mapping[str, Entry]) -> Coroutine[Any, Any, list[str]]:
        return self._aio.run(self._commands.set_many(entries))

    def update(self, key: str, change: Change) -> Entry | None:
        return self._sync.run(self._commands.update(key, change))

    def aupdate(self, key: str, change: Change) -> Coroutine[Any, Any, Entry | None]:
        return self._aio.run(self._commands.update(key, change))

    def delete(self, key: str) -> bool:
        return self._sync.run(self._commands.delete(key))

    def adelete(self, key: str) -> Coroutine[Any, Any, bool]:
        return self._aio.run(self._commands.delete(key))

    def delete_many(self, keys: Sequence[str]) -> int:
        return self._sync.run(self._commands.delete_many(keys))

    def adelete_many(self, keys: Sequence[str]) -> Coroutine[Any, Any, int]:
        return self._aio.run(self._commands.delete_many(keys))

    def clear(self) -> None:
        self._sync.run(self._commands.clear())

    def aclear(self) -> Coroutine[Any, Any, None]:
        return self._aio.run(self._commands.clear())

    # -- seen from outside

    def explain(self, key: str) -> Sight:
        return self._sync.run(self._seeing.explain(key))

    def aexplain(self, key: str) -> Coroutine[Any, Any, Sight]:
        return self._aio.run(self._seeing.explain(key))

    def list_keys(self, prefix: str, limit: int, cursor: str) -> KeyPage:
        return self._seeing.list_keys(prefix, limit, cursor)

    # -- stamps and leases

    def stamps(self, tags: Sequence[str]) -> Stamps:
        return self._sync.run(self._commands.stamps(tags))

    def astamps(self, tags: Sequence[str]) -> Coroutine[Any, Any, Stamps]:
        return self._aio.run(self._commands.stamps(tags))

    def invalidate(self, tags: Sequence[str], soft: bool = False) -> None:
        self._sync.run(self._commands.invalidate(tags, soft))

    def ainvalidate(self, tags: Sequence[str], soft: bool = False) -> Coroutine[Any, Any, None]:
        return self._aio.run(self._commands.invalidate(tags, soft))

    def lease_many(
        self, keys: Sequence[str], token: bytes, seconds: float, after: float = 0.0, tags: Sequence[str] = ()
    ) -> dict[str, Lease]:
        return self._sync.run(self._commands.lease_many(keys, token, seconds, after, tags))

    def alease_many(
        self, keys: Sequence[str], token: bytes, seconds: float, after: float = 0.0, tags: Sequence[str] = ()
    ) -> Coroutine[Any, Any, dict[str, Lease]]:
        return self._aio.run(self._commands.lease_many(keys, token, seconds, after, tags))

    def fill_many(self, token: bytes, entries: Mapping[str, Entry]) -> list[str]:
        return self._sync.run(self._commands.fill_many(token, entries))

    def afill_many(self, token: bytes, entries: Mapping[str, Entry]) -> Coroutine[Any, Any, list[str]]:
        return self._aio.run(self._commands.fill_many(token, entries))

    def release_many(self, keys: Sequence[str], token: bytes, seconds: float = 0.0) -> None:
        self._sync.run(self._commands.release_many(keys, token, seconds))

    def arelease_many(
        self, keys: Sequence[str], token: bytes, seconds: float = 0.0
    ) -> Coroutine[Any, Any, None]:
        return self._aio.run(self._commands.release_many(keys, token, seconds))

    def late_stamps(self, tags: Sequence[str], mark: bytes | None) -> Stamps | None:
        return self._sync.run(self._commands.late_stamps(tags, mark))

    def alate_stamps(self, tags: Sequence[str], mark: bytes | None) -> Coroutine[Any, Any, Stamps | None]:
        return self._aio.run(self._commands.late_stamps(tags, mark))

    def subscribe(self, listener: Listener) -> bool:
        self._sync.servers.outages.subscribe(listener)
        self.log.subscribe(self._cache, listener)
        # from now on, not from the first read on: what is read before it is followed cannot be kept near
        self.log.begin()
        return True

    @property
    def is_out(self) -> bool:
        return self._sync.servers.outages.is_on

    def gauges(self) -> Mapping[str, int | float]:
        """Return what can be said without asking the server.

        `foreign`: how often something under a key of this cache was not its own. `unverified`: how often it was a frame
        that no holder of a seal key had made as it stood, `foreign` too; left out where frames are not sealed.
        `circuits_open`, `circuit_openings`: how many servers are left alone now, and how often one was. `log_entries`:
        of other processes and ours, heard. `log_losses`: how often track was lost, and everything forgotten;
        `log_set_backs`: how often of these as the server had lost writes. `log_lag`: seconds since what is known was
        confirmed; left out until it was once.
        """
        unverified = self._commands.unverified
        sealed = {} if unverified is None else {"unverified": unverified}
        return {
            "foreign": self._commands.foreign,
            **sealed,
            **self._sync.servers.gauges(),
            **self.log.gauges(),
        }
