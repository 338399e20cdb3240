"""The Redis backend: entries as frames on a Redis or Valkey server, shared by workers and hosts.

    [default.backends.shared]
    type = "redis"
    url = "redis://localhost:6379/0"
    prefix = "stockapi"
    codecs = ["json", "zstd"]
    timeout = "250ms"

`commands` says what is sent and what the answers mean, without any I/O; `sync` and `aio` send it. The driver
(redis-py, hiredis) is imported when a cache on this backend is opened.
"""

from __future__ import annotations

from typing import Any, ClassVar

from layercache.codecs.pipeline import Pipeline
from layercache.errors import MissingExtra
from layercache.spi import Backend, KeySpace, Opening, Serializer
from layercache_redis.options import RedisOptions

__all__ = ["RedisBackend", "RedisOptions"]


class RedisBackend(Backend):
    Options: ClassVar[type[Any]] = RedisOptions

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        try:
            from layercache_redis.aio import AioDriver
            from layercache_redis.sync import SyncDriver
        except ImportError as error:
            raise MissingExtra(
                "the backend 'redis'", (error.name or "redis").split(".")[0], "redis"
            ) from error
        stages = [stage.open() for stage in self.options.codecs]
        self._pipeline = Pipeline(stages, self.options.max_value_bytes)
        self.serializer: Serializer = self._pipeline.serializer
        self._sync = SyncDriver(self.name, self.options)
        self._aio = AioDriver(self.name, self.options)

    def key_space(self, cache: str) -> KeySpace:
        from layercache_redis.commands import Commands
        from layercache_redis.space import RedisSpace

        commands = Commands(self.name, self.options.prefix, cache, self._pipeline, self.now)
        return RedisSpace(commands, self._sync, self._aio)

    def close(self) -> None:
        """Close the connections of threads. Those of an event loop are closed by `aclose` or when it ends."""
        self._sync.close()

    async def aclose(self) -> None:
        """Close the connections of threads and of the running event loop."""
        self._sync.close()
        await self._aio.aclose()

    def after_fork(self) -> None:
        self._sync.after_fork()
        self._aio.after_fork()
