"""The Redis backend: entries as frames on a Redis or Valkey server, shared by workers and hosts.

    [default.backends.shared]
    type = "redis"
    url = "redis://localhost:6379/0"
    prefix = "stockapi"
    codecs = ["json", "zstd"]
    timeout = "250ms"

`commands` says what is sent and what the answers mean, without any I/O: the table of what `reads`, `writes`, `updates`,
`leases`, `marks` and `stamping` tell. `sync` and `aio` send it; `log` and `tail` hear what others did. The driver
(redis-py, hiredis) is imported when a cache on this backend is opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any, ClassVar
from weakref import finalize

from layercache.errors import BackendError, CircuitOpen, MissingExtra
from layercache.options import seal_faults
from layercache.spi import Backend, Finding, KeySpace, Opening, Serializer, Trained
from layercache_redis.options import RedisOptions

__all__ = ["RedisBackend", "RedisOptions"]


class RedisBackend(Backend):
    """Stores on Redis or Valkey: one server, the primary that Sentinels name, or a Cluster."""

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
        self.on_error = self.options.on_error
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

    @classmethod
    def faults(cls, options: Any, backends: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        return seal_faults(options.codecs, options.seal_keys)

    # -- for operators: what these import, a service does not need

    def examine(self, caches: Sequence[str]) -> Iterable[Finding]:
        """Look at the servers, and read once as a service does; which has this process follow the log."""
        from layercache_redis.doctor import examined

        is_reached = False
        for finding in examined(self.options, self.now, caches):
            is_reached = is_reached or finding.level == "ok"
            yield finding
        if caches:
            yield from self._own_way(caches[0], is_reached)

    def _own_way(self, cache: str, is_reached: bool) -> Iterator[Finding]:
        """Say whether this process leaves a server alone; where it is reached, by reading once as the service does."""
        space = self._parts.space(cache)
        if not is_reached:
            if space.gauges()["circuits_open"]:
                yield Finding(
                    "warning", "circuit", "open: this process leaves the server alone, and goes without"
                )
            return
        try:
            space.get("%doctor")  # connects
            began = perf_counter()
            space.get("%doctor")
        except CircuitOpen as error:
            fix = "wait: it closes as soon as the server answers a probe"
            yield Finding("warning", "circuit", f"open: {error.problem}", fix)
        except BackendError as error:
            fix = "look at what the server says, and at its own log"
            yield Finding("error", "circuit", f"a read as the service does it fails: {error.problem}", fix)
        else:
            took = (perf_counter() - began) * 1000
            yield Finding("ok", "circuit", f"closed; a read as the service does it took {took:.2f} ms")

    def survey(self, caches: Sequence[str]) -> Mapping[str, Mapping[str, int | float]]:
        """Count on the servers, for a second at most."""
        from layercache_redis.survey import surveyed

        return surveyed(self.name, self.options, self.now, caches)

    def purge(self, cache: str) -> Iterator[tuple[int, int]]:
        """Look through the keys of `cache`, a quarter of the time, and drop what a clear has left behind."""
        from layercache_redis.purge import purged

        return purged(self.name, self.options, cache)

    def train_dictionary(self, cache: str, samples: int) -> Trained:
        from layercache_redis.training import trained

        return trained(self.name, self.options, cache, samples)
