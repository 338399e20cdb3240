"""What a miss costs besides the load itself: `python benchmarks/misses.py`. Peers that are not installed are left out.

Every call asks for a key that nobody has asked for before, and its loader returns at once. What is printed is what is
left when the bare loader, and the making of the key, are taken off: looking, boarding, the lease or ticket, storing.
Those that do not keep two callers from loading the same key are there to compare, and say so.

Then the same against a real server on loopback, with the round trips as the server counts them; client and server share
one CPU, as in `far.py`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from itertools import count
from typing import Any

import orjson
import redis
from far import QUOTE
from hits import optional
from rounds import async_rounds, awaited_rounds, print_table, sync_rounds

from layercache import Caches
from layercache.testing import ValkeyServer

TTL = 3600
BARE = "the bare loader"
BY_HAND = "dict + a lock for each key, by hand"
AWAITED_BY_HAND = "dict + a future for each key, by hand"
REDIS_BY_HAND = "redis-py by hand: GET, SET NX, SET + DEL by EVALSHA"
AIO_BY_HAND = "redis.asyncio by hand: GET, SET NX, SET + DEL by EVALSHA"
STORE_AND_FREE = """
if redis.call('GET', KEYS[2]) ~= ARGV[3] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return redis.call('DEL', KEYS[2])
"""

new_key = (f"key:{number}" for number in count()).__next__


def load() -> str:
    return "value"


async def aload() -> str:
    return "value"


def load_quote() -> dict[str, Any]:
    return QUOTE


async def aload_quote() -> dict[str, Any]:
    return QUOTE


def ours(backend: dict[str, Any], **policy: Any) -> Any:
    return Caches(
        {"backends": {"b": backend}, "caches": {"default": {"backend": "b", "ttl": TTL, **policy}}}
    )["default"]


def memory(**policy: Any) -> Any:
    return ours({"type": "memory", "max_entries": 10_000_000, "max_bytes": "4GB"}, **policy)


# -- in memory


def locks_by_hand() -> Callable[[str], str]:
    """What one writes who wants a value loaded once and has no library: no bound, no fault tolerance."""
    entries: dict[str, tuple[str, float]] = {}
    locks: dict[str, threading.Lock] = {}
    guard, now = threading.Lock(), time.time

    def get_or_set(key: str) -> str:
        entry = entries.get(key)
        if entry is not None and entry[1] > now():
            return entry[0]
        with guard:
            lock = locks.setdefault(key, threading.Lock())
        with lock:
            entry = entries.get(key)
            if entry is not None and entry[1] > now():
                return entry[0]
            value = load()
            entries[key] = value, now() + TTL
        with guard:
            locks.pop(key, None)
        return value

    return get_or_set


def futures_by_hand() -> Callable[[str], Awaitable[str]]:
    """The same for one event loop; its leader's cancellation is everybody's."""
    entries: dict[str, tuple[str, float]] = {}
    under_way: dict[str, asyncio.Future[str]] = {}
    now = time.time

    async def get_or_set(key: str) -> str:
        entry = entries.get(key)
        if entry is not None and entry[1] > now():
            return entry[0]
        if key in under_way:
            return await under_way[key]
        future = under_way[key] = asyncio.get_running_loop().create_future()
        value = await aload()
        entries[key] = value, now() + TTL
        del under_way[key]
        future.set_result(value)
        return value

    return get_or_set


def in_memory() -> dict[str, Callable[[], object]]:
    by_hand, plain, rich = locks_by_hand(), memory(), memory(stale_ttl="1h", jitter=0.1, tags=["all"])
    limited = memory(hard_timeout="10s")
    made: dict[str, Callable[[], object]] = {
        BARE: lambda: (new_key(), load()),
        BY_HAND: lambda: by_hand(new_key()),
        "layercache": lambda: plain.get_or_set(new_key(), load),
        "layercache, with stale_ttl, jitter and a tag": lambda: rich.get_or_set(new_key(), load),
        "layercache, with a hard_timeout: on a thread": lambda: limited.get_or_set(new_key(), load),
    }
    if cachetools := optional("cachetools"):
        cached = cachetools.cached(
            cachetools.TTLCache(10_000_000, TTL), key=lambda key: key, condition=threading.Condition()
        )(lambda key: load())
        made["cachetools TTL + condition"] = lambda: cached(new_key())
    if dogpile := optional("dogpile.cache"):
        region = dogpile.make_region().configure("dogpile.cache.memory", expiration_time=TTL)
        made["dogpile memory"] = lambda: region.get_or_create(new_key(), load)
    if locmem := optional("django.core.cache.backends.locmem"):
        near = locmem.LocMemCache("misses", {"OPTIONS": {"MAX_ENTRIES": 10_000_000}})
        made["Django locmem (loads as often as it is asked)"] = lambda: near.get_or_set(new_key(), load, TTL)
    return made


def awaited_in_memory() -> dict[str, tuple[Callable[[], Awaitable[object]], tuple[()]]]:
    by_hand, plain, rich = futures_by_hand(), memory(), memory(stale_ttl="1h", jitter=0.1, tags=["all"])
    limited = memory(hard_timeout="10s")

    async def bare() -> str:
        new_key()
        return await aload()

    made: dict[str, Callable[[], Awaitable[object]]] = {
        BARE: bare,
        AWAITED_BY_HAND: lambda: by_hand(new_key()),
        "layercache": lambda: plain.aget_or_set(new_key(), aload),
        "layercache, with stale_ttl, jitter and a tag": lambda: rich.aget_or_set(new_key(), aload),
        "layercache, with a hard_timeout": lambda: limited.aget_or_set(new_key(), aload),
    }
    if cashews := optional("cashews"):
        near = cashews.Cache()
        near.setup("mem://?size=10000000")
        made["cashews lock"] = locked(near)
        made["cashews get_or_set (loads as often as it is asked)"] = lambda: near.get_or_set(
            new_key(), aload, expire=TTL
        )
    if aiocache := optional("aiocache"):
        made["aiocache RedLock"] = stampede(aiocache, aload)
    return {name: (call, ()) for name, call in made.items()}


def locked(near: Any, loader: Callable[[], Awaitable[Any]] = aload) -> Callable[[], Awaitable[object]]:
    @near.cache(ttl=TTL, key="{key}", lock=True)
    async def get_or_set(key: str) -> Any:
        return await loader()

    return lambda: get_or_set(new_key())


def stampede(
    aiocache: Any, loader: Callable[[], Awaitable[Any]], **where: Any
) -> Callable[[], Awaitable[object]]:
    @aiocache.cached_stampede(lease=10, ttl=TTL, key_builder=lambda function, key: key, **where)
    async def get_or_set(key: str) -> Any:
        return await loader()

    return lambda: get_or_set(new_key())


# -- on a server


def on_server(urls: Iterator[str]) -> dict[str, Callable[[], object]]:
    client = redis.Redis.from_url(next(urls))
    sha = client.script_load(STORE_AND_FREE)

    def by_hand(key: str) -> Any:
        found = client.get(key)
        if found is not None:
            return orjson.loads(found)
        token = os.urandom(12)
        assert client.set(f"lease:{key}", token, nx=True, px=30_000)
        value = load_quote()
        client.evalsha(sha, 2, key, f"lease:{key}", orjson.dumps(value), TTL * 1000, token)
        return value

    url = next(urls)
    alone = ours({"type": "redis", "url": url, "prefix": "alone"})
    made: dict[str, Callable[[], object]] = {
        BARE: lambda: (new_key(), load_quote()),
        REDIS_BY_HAND: lambda: by_hand(new_key()),
        "layercache": lambda: alone.get_or_set(new_key(), load_quote),
        "layercache, memory before it": lambda: chained.get_or_set(new_key(), load_quote),
    }
    chained = layered(url)
    if dogpile := optional("dogpile.cache"):
        arguments = {
            "url": next(urls),
            "redis_expiration_time": TTL,
            "distributed_lock": True,
            "thread_local_lock": False,
            "lock_timeout": 30,
        }
        region = dogpile.make_region().configure(
            "dogpile.cache.redis", expiration_time=TTL, arguments=arguments
        )
        made["dogpile redis, its distributed lock"] = lambda: region.get_or_create(new_key(), load_quote)
    if django := optional("django_redis.cache"):
        far = django.RedisCache(next(urls), {})
        made["django-redis (loads as often as it is asked)"] = lambda: far.get_or_set(
            new_key(), load_quote, TTL
        )
    return made


def layered(url: str) -> Any:
    backends = {
        "near": {"type": "memory", "max_entries": 1_000_000, "max_bytes": "4GB"},
        "far": {"type": "redis", "url": url, "prefix": "chained"},
        "layered": {"type": "chain", "layers": ["near", "far"]},
    }
    return Caches({"backends": backends, "caches": {"default": {"backend": "layered", "ttl": TTL}}})[
        "default"
    ]


async def awaited_on_server(
    urls: Iterator[str], stack: AsyncExitStack
) -> dict[str, Callable[[], Awaitable[object]]]:
    client = redis.asyncio.Redis.from_url(next(urls))
    stack.push_async_callback(client.aclose)
    sha = await client.script_load(STORE_AND_FREE)

    async def by_hand(key: str) -> Any:
        found = await client.get(key)
        if found is not None:
            return orjson.loads(found)
        token = os.urandom(12)
        assert await client.set(f"lease:{key}", token, nx=True, px=30_000)
        value = await aload_quote()
        await client.evalsha(sha, 2, key, f"lease:{key}", orjson.dumps(value), TTL * 1000, token)
        return value

    async def bare() -> Any:
        new_key()
        return await aload_quote()

    alone = ours({"type": "redis", "url": next(urls), "prefix": "awaited"})
    made: dict[str, Callable[[], Awaitable[object]]] = {
        BARE: bare,
        AIO_BY_HAND: lambda: by_hand(new_key()),
        "layercache": lambda: alone.aget_or_set(new_key(), aload_quote),
    }
    if cashews := optional("cashews"):
        far = cashews.Cache()
        far.setup(next(urls))
        stack.push_async_callback(far.close)
        made["cashews lock"] = locked(far, aload_quote)
    if aiocache := optional("aiocache"):
        url = redis.connection.parse_url(next(urls))
        where = {"endpoint": url["host"], "port": url["port"], "db": url["db"]}
        json = aiocache.serializers.JsonSerializer()
        made["aiocache RedLock"] = stampede(
            aiocache, aload_quote, cache=aiocache.RedisCache, serializer=json, **where
        )
    return made


class Counting:
    """Round trips as the server sees them: it reads once for each, but for those of the logs' own threads."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)

    def reads(self) -> int:
        everything = self._client.info("everything")
        followed = everything.get("cmdstat_xread", {}).get("calls", 0)
        return int(everything["total_reads_processed"]) - int(followed)

    def of(self, call: Callable[[], object], number: int = 200) -> float:
        for _ in range(10):  # scripts and connections are made
            call()
        before = self.reads()
        for _ in range(number):
            call()
        return (self.reads() - before - 1) / number


def over_bare(times: dict[str, float]) -> dict[str, float]:
    bare = times.pop(BARE)
    return {name: taken - bare for name, taken in times.items()}


async def awaited_far(server: ValkeyServer, urls: Iterator[str]) -> None:
    counting = Counting(server.url)
    async with AsyncExitStack() as stack:
        contestants = await awaited_on_server(urls, stack)
        calls = {name: (call, ()) for name, call in contestants.items()}
        times = over_bare(await awaited_rounds(calls, 200))
        trips = {}
        for name, call in contestants.items():
            for _ in range(10):
                await call()
            before = counting.reads()
            for _ in range(200):
                await call()
            trips[name] = (counting.reads() - before - 1) / 200
        print_table(
            "A miss on a server, awaited, one task", times, AIO_BY_HAND, "µs", more=("round trips", trips)
        )


def main() -> None:
    if conf := optional("django.conf"):
        conf.settings.configure()
    sync = over_bare(sync_rounds(in_memory(), 200))
    print_table("A miss in memory, sync, over the bare loader", sync, BY_HAND, "µs")
    awaited = over_bare(async_rounds(awaited_in_memory(), 200))
    print_table("A miss in memory, awaited, over the bare loader", awaited, AWAITED_BY_HAND, "µs")
    if hasattr(os, "sched_setaffinity") and "--spread" not in sys.argv:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the server inherits it
        print("\nClient and server share one CPU.")
    with ValkeyServer() as server:
        urls = (f"redis://127.0.0.1:{server.port}/{number}" for number in range(1, 16))
        contestants = on_server(urls)
        times = over_bare(sync_rounds(contestants, 200))
        counting = Counting(server.url)
        trips = {name: counting.of(call) for name, call in contestants.items()}
        print_table(
            "A miss on a server, sync, one thread", times, REDIS_BY_HAND, "µs", more=("round trips", trips)
        )
        asyncio.run(awaited_far(server, urls))


if __name__ == "__main__":
    main()
