"""What one Redis backend is made of: servers, drivers, the log, and a key space for each cache."""

from __future__ import annotations

from collections.abc import Callable

from layercache.codecs.pipeline import Pipeline
from layercache.spi import Serializer
from layercache_redis.aio import AioDriver
from layercache_redis.calls import Setting
from layercache_redis.commands import Commands
from layercache_redis.driver import Servers
from layercache_redis.names import Names, Node
from layercache_redis.options import Place, RedisOptions
from layercache_redis.seeing import Seeing
from layercache_redis.shards import Shards
from layercache_redis.space import RedisSpace
from layercache_redis.stamps import KnownStamps
from layercache_redis.sync import SyncDriver
from layercache_redis.topology import topology_of

__all__ = ["Parts"]


class Parts:
    """The parts of one backend.

    Args:
        name: of the backend in the settings.
        serializer: the first stage of the pipeline; the others are opened for each cache, which may have
            dictionaries of its own.
        now: the wall clock in seconds.
    """

    def __init__(
        self, name: str, options: RedisOptions, serializer: Serializer, now: Callable[[], float]
    ) -> None:
        self._name, self._options, self._serializer, self._now = name, options, serializer, now
        self._servers = Servers(name, options, self._probe)
        topology = topology_of(options)
        self._sync = SyncDriver(self._servers, topology)
        self.aio = AioDriver(self._servers, topology)
        self._log = Shards(self._sync, Node(), now)
        self._spaces: dict[str, RedisSpace] = {}
        self._heard: list[_Heard] = []

    def space(self, cache: str) -> RedisSpace:
        """Return the key space of a cache, the same for the same name."""
        found = self._spaces.get(cache)
        if found is None:
            stages = [stage.open(self._options.seal_keys) for stage in self._options.codecs[1:]]
            pipeline = Pipeline([self._serializer, *stages], self._options.max_value_bytes)
            stamps = KnownStamps(self._log.is_current)
            setting = Setting(
                self._name, self._options.url.is_cluster, self._options.log_length, self._log.node, self._now
            )
            names = Names(self._options.prefix, cache, self._log.streams)
            commands = Commands(setting, names, pipeline, stamps)
            seeing = Seeing(commands.calls, self._options, pipeline)
            heard = _Heard(commands, stamps)
            self._heard.append(heard)
            self._log.subscribe(cache, heard)
            found = self._spaces[cache] = RedisSpace(cache, commands, seeing, self._sync, self.aio, self._log)
        return found

    def close(self) -> None:
        self._servers.end()
        self._log.close()
        self._sync.close()

    def after_fork(self) -> None:
        self._log.node.renew()  # the parent's entries are news now
        self._servers.after_fork()
        self._log.reset()
        self._sync.after_fork()
        self.aio.after_fork()
        for heard in self._heard:
            heard.stamps.reset()

    def _probe(self, place: Place) -> None:
        self._sync.probe(place)


class _Heard:
    """What the log's news mean for one cache that keeps nothing near but stamps."""

    def __init__(self, commands: Commands, stamps: KnownStamps) -> None:
        self.commands, self.stamps = commands, stamps

    def written(self, key: str) -> None:
        pass

    def invalidated(self, tag: str, stamp: int, soft: bool) -> None:
        self.stamps.forget(tag, unless=stamp)

    def restamped(self, tag: str, stamp: int) -> None:
        self.stamps.forget(tag, unless=stamp)

    def retrained(self) -> None:
        self.commands.forget_dictionary()

    def lost_track(self) -> None:
        self.stamps.forget()
        self.commands.forget_dictionary()

    def lost_writes(self) -> None:
        pass

    def confirmed(self, until: float) -> None:
        pass

    def outage_began(self) -> None:
        pass

    def outage_ending(self) -> None:
        pass

    def outage_ended(self) -> None:
        pass
