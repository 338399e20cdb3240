"""A cache on the server and its key space, each on one of the two faces, for tests that look closer than verbs do."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import redis
from face import Face, Twins
from waiting import until

from layercache import Cache
from layercache.codecs.normal import NormalForm
from layercache.entry import MISSING, Entry, Stamps
from layercache.spi import Lease
from layercache_redis.commands import Commands
from layercache_redis.space import RedisSpace
from layercache_redis.stamps import KnownStamps
from layercache_redis.wire import Steps

FACES = ("sync", "async")

R = TypeVar("R")


class Leasing(Twins):
    """The operations of a key space, and its leases of one key at a time."""

    def lease(
        self, key: str, token: bytes, seconds: float, after: float = 0.0, tags: Sequence[str] = ()
    ) -> Lease:
        leases: dict[str, Lease] = self.lease_many([key], token, seconds, after, tags)
        return leases[key]

    def fill(self, key: str, token: bytes, entry: Entry) -> bool:
        refused: list[str] = self.fill_many(token, {key: entry})
        assert refused in ([], [key])
        return not refused

    def release(self, key: str, token: bytes, seconds: float = 0.0) -> None:
        self.release_many([key], token, seconds)


def leasing(
    commands: Commands, key: str, token: bytes, after: float = 0.0, tags: Sequence[str] = ()
) -> Steps[Lease]:
    """The steps of taking the lease of one key, for half a minute."""
    return (yield from commands.lease_many([key], token, 30, after, tags))[key]


def filling(commands: Commands, key: str, token: bytes, entry: Entry) -> Steps[bool]:
    """The steps of filling one key; whether it was stored."""
    return not (yield from commands.fill_many(token, {key: entry}))


class Far:
    """A cache as one process has it.

    Attributes:
        cache, space: its verbs, and the operations of its key space, on the face that is tested.
        plain: the key space itself.
        log, commands, known, names: what it is made of.
        form: of its values.
        stamp_at: where the cache's stamp is.
    """

    def __init__(self, cache: Cache[Any], runner: asyncio.Runner | None = None) -> None:
        space = cache._layer.space
        assert isinstance(space, RedisSpace)
        self.cache, self.space = Face(cache, runner), Leasing(space, runner)
        self.plain, self.log, self.commands = space, space.log.first, space._commands
        self.known: KnownStamps = self.commands.known
        self.names = self.commands.names
        self.form = NormalForm(self.commands.pipeline.serializer)
        self.stamp_at = self.commands.calls.own_stamp

    def follow(self) -> Far:
        """Follow the log, and know the cache's stamp."""
        until(self.log.is_current)
        # asked for again where the log speaks of it at that moment
        until(lambda: self.plain.stamps([]) and self.known.own() is not None)
        return self

    def stop_following(self) -> Far:
        """From now on nothing is known without asking."""
        self.log.close()
        assert not self.log.is_current()
        return self

    def hear_nothing_more(self) -> Far:
        """From now on believe what is known, as if the log's next word were on its way for ever."""
        self.log.close()
        self.log.tail.current_until = float("inf")
        return self

    def process(self, known: KnownStamps | None = None, *, trusts: bool = True) -> Commands:
        """The operations as another process has them, which hears nothing of the log but may trust what it learnt."""
        ours = self.commands
        return Commands(ours.setting, ours.names, ours.pipeline, known or KnownStamps(lambda: trusts))

    def run(self, steps: Any) -> Any:
        """The result of an operation of such a process."""
        return self.plain._sync.run(steps)

    def exchange(self, commands: list[Any]) -> list[Any]:
        """The replies to one round trip of it."""

        def steps() -> Any:
            return (yield commands)

        replies: list[Any] = self.run(steps())
        return replies


@contextmanager
def face(name: str) -> Iterator[asyncio.Runner | None]:
    with asyncio.Runner() if name == "async" else nullcontext() as runner:
        yield runner


def entry(value: Any = 1, ttl: float = 60.0, stamps: Stamps = (), *, stale: bool = False) -> Entry:
    now = time.time()
    made, fresh_until = (now - 2, now - 1) if stale else (now, now + ttl)
    return Entry(json.dumps(value).encode(), MISSING, made, fresh_until, now + ttl, stamps)


def value(found: Entry | None) -> Any:
    """The value of what a key space returned; None for nothing."""
    return None if found is None or found.payload is None else json.loads(found.payload)


def calls(server: redis.Redis) -> Counter[str]:
    """How often each command was called, from scripts as well, since the server began."""
    stats = server.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()})


def called(server: redis.Redis, act: Callable[[], object]) -> Counter[str]:
    """What `act` calls, on a server that nobody else uses."""
    before = calls(server)
    act()
    return calls(server) - before - Counter(info=1)
