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
from weakref import finalize

from layercache.errors import MissingExtra
from layercache.spi import Backend, KeySpace, Opening, Serializer
from layercache_redis.options import RedisOptions

__all__ = ["RedisBackend", "RedisOptions"]


class RedisBackend(Backend):
    Options: ClassVar[type[Any]] = RedisOptions

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        try:
            from layercache_redis.backend import Parts
        except ImportError as error:
            raise MissingExtra(
                "the backend 'redis'", (error.name or "redis").split(".")[0], "redis"
            ) from error
        serializer = self.options.codecs[0].open()
        assert isinstance(serializer, Serializer)
        self.serializer = serializer
        self._parts = Parts(self.name, self.options, serializer, self.now)
        # a world that nobody has any more must not go on following the log
        finalize(self, self._parts.close).atexit = False

    def key_space(self, cache: str) -> KeySpace:
        return self._parts.space(cache)

    def close(self) -> None:
        """Close the connections of threads. Those of an event loop are closed by `aclose` or when it ends."""
        self._parts.close()

    async def aclose(self) -> None:
        """Close the connections of threads and of the running event loop."""
        self._parts.close()
        await self._parts.aio.aclose()

    def after_fork(self) -> None:
        self._parts.after_fork()
