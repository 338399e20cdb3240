"""What a verb costs against a real server on loopback, beside the floors and the peers: `python benchmarks/far.py`.
Peers that are not installed are left out; each is set up as its documentation does, with its own serializer.

Every contestant stores the same quote, in a database of its own, and is checked to give it back before it is timed.
Client and server share one CPU where the system lets us say so: left free, the scheduler puts them together or apart
as it likes, and a round trip takes three times as long apart. `--spread` leaves them free.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from itertools import cycle
from typing import Any, NamedTuple

import hiredis
import orjson
import redis
import redis.asyncio
from hits import optional
from rounds import awaited_rounds, print_table, sync_rounds

from layercache import MISSING, Caches
from layercache.codecs.json import JsonOptions, JsonStage
from layercache.codecs.normal import NormalForm
from layercache.codecs.pipeline import Pipeline
from layercache.entry import Entry
from layercache.testing import ValkeyServer

TTL = 600
# The fields of one quote of Yahoo Finance.
QUOTE = {
    "language": "en-US",
    "region": "US",
    "quoteType": "EQUITY",
    "typeDisp": "Equity",
    "quoteSourceName": "Delayed Quote",
    "currency": "KRW",
    "exchange": "KSC",
    "fullExchangeName": "KSE",
    "symbol": "005930.KS",
    "shortName": "SamsungElec",
    "longName": "Samsung Electronics Co., Ltd.",
    "marketState": "REGULAR",
    "exchangeTimezoneName": "Asia/Seoul",
    "exchangeTimezoneShortName": "KST",
    "gmtOffSetMilliseconds": 32400000,
    "regularMarketPrice": 71400.0,
    "regularMarketChange": -600.0,
    "regularMarketChangePercent": -0.8333333,
    "regularMarketTime": 1763704800,
    "regularMarketDayHigh": 72300.0,
    "regularMarketDayLow": 71100.0,
    "regularMarketDayRange": "71100.0 - 72300.0",
    "regularMarketVolume": 14251893,
    "regularMarketPreviousClose": 72000.0,
    "regularMarketOpen": 72000.0,
    "fiftyTwoWeekHigh": 88800.0,
    "fiftyTwoWeekLow": 49900.0,
    "fiftyTwoWeekRange": "49900.0 - 88800.0",
    "fiftyDayAverage": 70152.0,
    "twoHundredDayAverage": 62331.5,
    "marketCap": 426239590400000,
    "sharesOutstanding": 5969780224,
    "trailingPE": None,
}
KEYS = [f"quote:{number}" for number in range(100)]
MANY = {f"many:{number}": QUOTE for number in range(100)}
next_key = cycle(KEYS).__next__

RAW = "raw socket + hiredis + orjson"
BY_HAND = "redis-py + hiredis + orjson"
JOINED = "one connection, writes joined per turn"
RAW_FRAMES = "raw socket + hiredis + the codec of layercache"
JOINED_FRAMES = "one connection, writes joined per turn + the codec of layercache"
AIO_BY_HAND = "redis.asyncio + orjson"

VOID_AND_LOG = """
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[2])
return redis.call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'k', KEYS[1])
"""

pack, dumps, loads = hiredis.pack_command, orjson.dumps, orjson.loads


PIPELINE = Pipeline([JsonStage(JsonOptions())], 1 << 25)
FORM = NormalForm(PIPELINE.serializer)


def framed(key: str, value: Any) -> bytes:
    """What layercache keeps of a value: its normal form, in a frame."""
    payload, _ = FORM.encode(value)
    now = time.time()
    return PIPELINE.encode(Entry(payload, MISSING, now, now + TTL, now + TTL, (("*", 7),)), key.encode())


def unframed(key: str, frame: bytes) -> Any:
    return loads(PIPELINE.decode(frame, key.encode()).payload or b"")


class Verbs(NamedTuple):
    """The verbs of one contestant, all sync or all async; None where it has none, or none worth a row."""

    get: Callable[[str], Any] | None = None
    set: Callable[[str, Any], Any] | None = None
    get_many: Callable[[Any], Any] | None = None
    set_many: Callable[[Any], Any] | None = None

    def call(self, verb: str) -> Callable[[], Any]:
        """Return a call of that verb on the next key, or on the hundred."""
        do = getattr(self, verb)
        return {
            "get": lambda: do(next_key()),
            "set": lambda: do(next_key(), QUOTE),
            "get_many": lambda: do(MANY),
            "set_many": lambda: do(MANY),
        }[verb]


def ours(url: str, *codecs: str) -> Caches:
    far = {"type": "redis", "url": url, "prefix": "bench", "codecs": codecs or ["json"]}
    return Caches({"backends": {"far": far}, "caches": {"default": {"backend": "far", "ttl": TTL}}})


# -- sync


def raw(port: int) -> dict[str, Verbs]:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reader = hiredis.Reader()
    send, receive, feed, gets = connection.sendall, connection.recv, reader.feed, reader.gets

    def reply() -> Any:
        while (got := gets()) is False:
            feed(receive(65_536))
        return got

    def framed_get_many(keys: Any) -> Any:
        names = [f"framed:{key}" for key in keys]
        send(b"".join([pack(("GET", name)) for name in names]))
        return [unframed(name, reply()) for name in names]

    def framed_set_many(values: Any) -> Any:
        named = {f"framed:{key}": value for key, value in values.items()}
        send(b"".join([pack(("SET", n, framed(n, value), "PX", TTL * 1000)) for n, value in named.items()]))
        return [reply() for _ in named]

    def get(key: str) -> Any:
        send(pack(("GET", key)))
        return loads(reply())

    def set_(key: str, value: Any) -> Any:
        send(pack(("SET", key, dumps(value), "PX", TTL * 1000)))
        return reply()

    def get_many(keys: Any) -> Any:
        send(b"".join([pack(("GET", key)) for key in keys]))
        return [loads(reply()) for _ in keys]

    def set_many(values: Any) -> Any:
        send(b"".join([pack(("SET", key, dumps(value), "PX", TTL * 1000)) for key, value in values.items()]))
        return [reply() for _ in values]

    def mget(keys: Any) -> Any:
        send(pack(("MGET", *keys)))
        return [loads(each) for each in reply()]

    return {
        RAW: Verbs(get, set_, get_many, set_many),
        "raw socket, one MGET": Verbs(get_many=mget),
        RAW_FRAMES: Verbs(get_many=framed_get_many, set_many=framed_set_many),
    }


def by_hand(url: str) -> dict[str, Verbs]:
    client = redis.Redis.from_url(url)
    sha = client.script_load(VOID_AND_LOG)

    def get(key: str) -> Any:
        return loads(client.get(key))

    def set_(key: str, value: Any) -> Any:
        return client.set(key, dumps(value), px=TTL * 1000)

    def set_void_log(key: str, value: Any) -> Any:
        return client.evalsha(sha, 3, key, f"lease:{key}", "log", dumps(value), TTL * 1000)

    def get_many(keys: Any) -> Any:
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.get(key)
        return [loads(each) for each in pipeline.execute()]

    def set_many(values: Any) -> Any:
        pipeline = client.pipeline(transaction=False)
        for key, value in values.items():
            pipeline.set(key, dumps(value), px=TTL * 1000)
        return pipeline.execute()

    return {
        BY_HAND: Verbs(get, set_, get_many, set_many),
        "redis-py, SET + DEL + XADD by EVALSHA": Verbs(set=set_void_log),
    }


def sync_contestants(port: int, urls: Iterator[str]) -> dict[str, Verbs]:
    cache = ours(next(urls))["default"]
    made = {
        **raw(port),
        **by_hand(next(urls)),
        "layercache": Verbs(
            cache.get,
            lambda key, value: cache.set(key, value, TTL),
            cache.get_many,
            lambda values: cache.set_many(values, TTL),
        ),
    }
    if dogpile := optional("dogpile.cache"):
        arguments = {"url": next(urls), "redis_expiration_time": TTL}
        region = dogpile.make_region().configure(
            "dogpile.cache.redis", expiration_time=TTL, arguments=arguments
        )
        made["dogpile redis"] = Verbs(
            region.get, region.set, lambda keys: region.get_multi(list(keys)), region.set_multi
        )
    for name, module in (
        ("Django redis", "django.core.cache.backends.redis"),
        ("django-redis", "django_redis.cache"),
    ):
        if found := optional(module):
            made[name] = django(found, next(urls))
    for verbs in made.values():
        if verbs.get and verbs.set:
            for key in KEYS:
                verbs.set(key, QUOTE)
                assert verbs.get(key) == QUOTE
        if verbs.get_many:
            if verbs.set_many:
                verbs.set_many(MANY)
            assert listed(verbs.get_many(MANY)) == list(MANY.values())
    return made


def django(module: Any, url: str) -> Verbs:
    cache = module.RedisCache(url, {})
    return Verbs(
        cache.get,
        lambda key, value: cache.set(key, value, TTL),
        cache.get_many,
        lambda values: cache.set_many(values, TTL),
    )


def listed(found: Any) -> list[Any]:
    return list(found.values() if isinstance(found, dict) else found)


# -- async


class Connection(asyncio.Protocol):
    """One connection for all tasks; replies come in the order of the commands, so a deque says whose they are."""

    def __init__(self, *, joined: bool) -> None:
        self.joined = joined
        self.reader = hiredis.Reader()
        self.takers: deque[Callable[[Any], object]] = deque()
        self.unsent: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport, self.loop = transport, asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        while (reply := self.reader.gets()) is not False:
            self.takers.popleft()(reply)

    def ask(self, *command: Any) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = self.loop.create_future()
        self.takers.append(answer.set_result)
        self.write(pack(command))
        return answer

    def ask_many(self, commands: list[tuple[Any, ...]]) -> asyncio.Future[list[Any]]:
        answer: asyncio.Future[list[Any]] = self.loop.create_future()
        replies: list[Any] = []
        self.takers.extend([replies.append] * (len(commands) - 1))
        self.takers.append(lambda last: answer.set_result([*replies, last]))
        self.write(b"".join([pack(command) for command in commands]))
        return answer

    def write(self, packed: bytes) -> None:
        if not self.joined:
            self.transport.write(packed)
            return
        if not self.unsent:
            self.loop.call_soon(self.flush)
        self.unsent.append(packed)

    def flush(self) -> None:
        self.transport.write(b"".join(self.unsent))
        self.unsent.clear()

    def verbs(self) -> Verbs:
        async def get(key: str) -> Any:
            return loads(await self.ask("GET", key))

        async def set_(key: str, value: Any) -> Any:
            return await self.ask("SET", key, dumps(value), "PX", TTL * 1000)

        async def get_many(keys: Any) -> Any:
            return [loads(each) for each in await self.ask_many([("GET", key) for key in keys])]

        async def set_many(values: Any) -> Any:
            return await self.ask_many(
                [("SET", key, dumps(value), "PX", TTL * 1000) for key, value in values.items()]
            )

        return Verbs(get, set_, get_many, set_many)

    def framed(self) -> Verbs:
        async def get_many(keys: Any) -> Any:
            names = [f"framed:{key}" for key in keys]
            frames = await self.ask_many([("GET", name) for name in names])
            return [unframed(name, frame) for name, frame in zip(names, frames, strict=True)]

        async def set_many(values: Any) -> Any:
            named = {f"framed:{key}": value for key, value in values.items()}
            return await self.ask_many(
                [("SET", name, framed(name, value), "PX", TTL * 1000) for name, value in named.items()]
            )

        return Verbs(get_many=get_many, set_many=set_many)

    async def mget(self, keys: Any) -> Any:
        return [loads(each) for each in await self.ask("MGET", *keys)]


def aio_by_hand(client: redis.asyncio.Redis) -> Verbs:
    async def get(key: str) -> Any:
        return loads(await client.get(key))

    async def set_(key: str, value: Any) -> Any:
        return await client.set(key, dumps(value), px=TTL * 1000)

    async def get_many(keys: Any) -> Any:
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.get(key)
        return [loads(each) for each in await pipeline.execute()]

    async def set_many(values: Any) -> Any:
        pipeline = client.pipeline(transaction=False)
        for key, value in values.items():
            pipeline.set(key, dumps(value), px=TTL * 1000)
        return await pipeline.execute()

    return Verbs(get, set_, get_many, set_many)


async def async_contestants(port: int, urls: Iterator[str], stack: AsyncExitStack) -> dict[str, Verbs]:
    loop = asyncio.get_running_loop()
    connections: dict[bool, Connection] = {}
    for joined in (True, False):
        transport, connections[joined] = await loop.create_connection(
            lambda joined=joined: Connection(joined=joined), "127.0.0.1", port
        )
        stack.callback(transport.close)
    client = redis.asyncio.Redis.from_url(next(urls))
    stack.push_async_callback(client.aclose)
    cache = (await stack.enter_async_context(ours(next(urls))))["default"]
    made = {
        JOINED: connections[True].verbs(),
        "one connection, writes at once": connections[False].verbs()._replace(get_many=None, set_many=None),
        "one connection, one MGET": Verbs(get_many=connections[True].mget),
        JOINED_FRAMES: connections[True].framed(),
        AIO_BY_HAND: aio_by_hand(client),
        "layercache": Verbs(
            cache.aget,
            lambda key, value: cache.aset(key, value, TTL),
            cache.aget_many,
            lambda values: cache.aset_many(values, TTL),
        ),
    }
    if aiocache := optional("aiocache"):
        aio = aiocache.Cache.from_url(next(urls))
        stack.push_async_callback(aio.close)
        made["aiocache"] = Verbs(
            aio.get,
            lambda key, value: aio.set(key, value, ttl=TTL),
            aio.multi_get,
            lambda values: aio.multi_set(values.items(), ttl=TTL),
        )
    if cashews := optional("cashews"):
        far = cashews.Cache()
        far.setup(next(urls))
        stack.push_async_callback(far.close)
        made["cashews"] = Verbs(
            far.get,
            lambda key, value: far.set(key, value, expire=TTL),
            lambda keys: far.get_many(*keys),
            lambda values: far.set_many(values, expire=TTL),
        )
    if module := optional("django.core.cache.backends.redis"):
        hop = module.RedisCache(next(urls), {})
        # its aget_many and aset_many are a hundred hops, one after the other
        made["Django redis (a hop to a thread)"] = Verbs(
            hop.aget, lambda key, value: hop.aset(key, value, TTL)
        )
    for verbs in made.values():
        if verbs.get and verbs.set:
            for key in KEYS:
                await verbs.set(key, QUOTE)
                assert await verbs.get(key) == QUOTE
        if verbs.get_many:
            if verbs.set_many:
                await verbs.set_many(MANY)
            assert listed(await verbs.get_many(MANY)) == list(MANY.values())
    return made


# -- tables


def sync_tables(port: int, urls: Iterator[str]) -> None:
    contestants = sync_contestants(port, urls)
    for verb, title, floor, number in (
        ("get", "`get`, sync, one thread", BY_HAND, 600),
        ("set", "`set` with a ttl, sync, one thread", BY_HAND, 600),
        ("get_many", "`get_many` of 100, sync", RAW_FRAMES, 20),
        ("set_many", "`set_many` of 100 with a ttl, sync", RAW_FRAMES, 20),
    ):
        calls = {name: verbs.call(verb) for name, verbs in contestants.items() if getattr(verbs, verb)}
        print_table(title, sync_rounds(calls, number), floor, "µs")


async def async_tables(port: int, urls: Iterator[str]) -> None:
    async with AsyncExitStack() as stack:
        contestants = await async_contestants(port, urls, stack)
        for verb, title, floor, tasks, number in (
            ("get", "`aget`, 64 tasks", AIO_BY_HAND, 64, 15),
            ("set", "`aset` with a ttl, 64 tasks", AIO_BY_HAND, 64, 15),
            ("get", "`aget`, one task", AIO_BY_HAND, 1, 500),
            ("set", "`aset` with a ttl, one task", AIO_BY_HAND, 1, 500),
            ("get_many", "`aget_many` of 100, one task", JOINED_FRAMES, 1, 20),
            ("set_many", "`aset_many` of 100 with a ttl, one task", JOINED_FRAMES, 1, 20),
        ):
            calls = {name: (each.call(verb), ()) for name, each in contestants.items() if getattr(each, verb)}
            print_table(title, await awaited_rounds(calls, number, tasks=tasks), floor, "µs")


def bytes_table(urls: Iterator[str]) -> None:
    plain = len(dumps(QUOTE))
    print("\nBytes that the server keeps of a quote (STRLEN)\n")
    print("| codecs | B | × its JSON |")
    print("|---|---:|---:|")
    print(f"| none: its JSON alone | {plain:,} | 1.00 |")
    for codecs in (["json"], ["json", "zstd"]):
        url = next(urls)
        with ours(url, *codecs) as caches:
            caches["default"].set(KEYS[0], QUOTE, TTL)
        client = redis.Redis.from_url(url)
        kept = max(client.strlen(key) for key in client.scan_iter(_type="string"))
        print(f"| **layercache**, {' + '.join(codecs)} | {kept:,} | {kept / plain:.2f} |")


def main() -> None:
    if conf := optional("django.conf"):
        conf.settings.configure()
    if hasattr(os, "sched_setaffinity") and "--spread" not in sys.argv:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the server inherits it
        print("Client and server share one CPU.")
    with ValkeyServer() as server:
        urls = (
            f"redis://127.0.0.1:{server.port}/{number}" for number in range(1, 16)
        )  # 0 is the raw floors'
        sync_tables(server.port, urls)
        asyncio.run(async_tables(server.port, urls))
        bytes_table(urls)


if __name__ == "__main__":
    main()
