"""What happens when many ask for one key that nobody has: `python benchmarks/herd.py`. Peers that are not installed are
left out.

The loader takes 50 ms. All callers start at one barrier; what is printed is how often the loader ran, and how long it
took from the barrier until the last of them had the value. A library whose protection works in one kind of caller only
has all of its callers of that kind.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from multiprocessing.synchronize import Barrier
from typing import Any

import redis
from hits import optional

from layercache import Caches
from layercache.testing import ValkeyServer

LOAD = 0.05
CALLERS = 64
PROCESSES = 4
ROUNDS = 11
TTL = 600

Threads = Callable[[str], Any]
Tasks = Callable[[str], Awaitable[Any]]
Asked = tuple[Threads | None, Tasks | None]
"""How a thread asks for a key, and how a task does; None where the library has no such way."""


class Loader:
    """Takes its time, and counts its calls by key."""

    def __init__(self, count: Callable[[str], object]) -> None:
        self.count = count

    def thread(self, key: str) -> str:
        self.count(key)
        time.sleep(LOAD)
        return "value"

    async def task(self, key: str) -> str:
        # counted without waiting for it, as it is no part of what is measured
        self.count(key)
        await asyncio.sleep(LOAD)
        return "value"


# -- how each library is asked


def layercache_(loader: Loader, url: str | None) -> Asked:
    backend: dict[str, Any] = {"type": "redis", "url": url} if url else {"type": "memory"}
    cache = Caches({"backends": {"b": backend}, "caches": {"default": {"backend": "b", "ttl": TTL}}})[
        "default"
    ]
    return (
        lambda key: cache.get_or_set(key, lambda: loader.thread(key)),
        lambda key: cache.aget_or_set(key, lambda: loader.task(key)),
    )


def layercache_chain(loader: Loader, url: str | None) -> Asked:
    backends = {
        "near": {"type": "memory"},
        "far": {"type": "redis", "url": url, "prefix": "chained"},
        "layered": {"type": "chain", "layers": ["near", "far"]},
    }
    cache = Caches({"backends": backends, "caches": {"default": {"backend": "layered", "ttl": TTL}}})[
        "default"
    ]
    return (
        lambda key: cache.get_or_set(key, lambda: loader.thread(key)),
        lambda key: cache.aget_or_set(key, lambda: loader.task(key)),
    )


def dogpile(loader: Loader, url: str | None) -> Asked:
    made = optional("dogpile.cache").make_region()
    if url is None:
        region = made.configure("dogpile.cache.memory", expiration_time=TTL)
    else:
        arguments = {"url": url, "distributed_lock": True, "thread_local_lock": False, "lock_timeout": 30}
        region = made.configure("dogpile.cache.redis", expiration_time=TTL, arguments=arguments)
    return lambda key: region.get_or_create(key, lambda: loader.thread(key)), None


def cachetools(loader: Loader, url: str | None) -> Asked:
    library = optional("cachetools")
    near = library.TTLCache(10_000, TTL)
    cached = library.cached(near, key=lambda key: key, condition=threading.Condition())
    return cached(loader.thread), None


def django(loader: Loader, url: str | None) -> Asked:
    if url is None:
        cache = optional("django.core.cache.backends.locmem").LocMemCache("herd", {})
    else:
        cache = optional("django.core.cache.backends.redis").RedisCache(url, {})
    return lambda key: cache.get_or_set(key, lambda: loader.thread(key), TTL), None


def cashews_lock(loader: Loader, url: str | None) -> Asked:
    cache = optional("cashews").Cache()
    cache.setup(url or "mem://")
    return None, cache.cache(ttl=TTL, key="{key}", lock=True)(loader.task)


def cashews_early(loader: Loader, url: str | None) -> Asked:
    cache = optional("cashews").Cache()
    cache.setup(url or "mem://")
    return None, cache.early(ttl=TTL, key="{key}")(loader.task)


def aiocache(loader: Loader, url: str | None) -> Asked:
    library = optional("aiocache")
    where: dict[str, Any] = {}
    if url is not None:
        parsed = redis.connection.parse_url(url)
        where = {"cache": library.RedisCache, "endpoint": parsed["host"], "port": parsed["port"]}
        where["serializer"] = library.serializers.JsonSerializer()
    return None, library.cached_stampede(lease=10, ttl=TTL, key_builder=lambda function, key: key, **where)(
        loader.task
    )


IN_PROCESS: dict[str, tuple[str, Callable[[Loader, str | None], Asked]]] = {
    "layercache": ("layercache", layercache_),
    "cachetools TTL + condition": ("cachetools", cachetools),
    "dogpile memory": ("dogpile.cache", dogpile),
    "Django locmem": ("django.core.cache", django),
    "cashews lock": ("cashews", cashews_lock),
    "cashews early": ("cashews", cashews_early),
    "aiocache RedLock": ("aiocache", aiocache),
}
ON_SERVER: dict[str, tuple[str, Callable[[Loader, str | None], Asked]]] = {
    "layercache": ("layercache", layercache_),
    "layercache, memory before it": ("layercache", layercache_chain),
    "dogpile redis, its distributed lock": ("dogpile.cache", dogpile),
    "Django redis": ("django.core.cache", django),
    "cashews lock": ("cashews", cashews_lock),
    "cashews early": ("cashews", cashews_early),
    "aiocache RedLock": ("aiocache", aiocache),
}


# -- one herd


class Herd:
    """Threads and tasks of this process that ask at the same time.

    Args:
        threads, tasks: how many of each.
    """

    def __init__(self, asked: Asked, threads: int, tasks: int) -> None:
        self.by_thread, self.by_task = asked
        self.threads, self.tasks = threads, tasks
        self.loop = asyncio.new_event_loop()

    def run(self, key: str, barrier: Callable[[], object] = lambda: None) -> tuple[float, float]:
        """Return when it began and when the last of them had the value, by the system's monotonic clock."""
        ended: list[float] = []
        start = threading.Barrier(self.threads + (self.tasks > 0) + 1)

        def thread() -> None:
            assert self.by_thread is not None
            start.wait()
            assert self.by_thread(key) == "value"
            ended.append(time.monotonic())

        async def task() -> None:
            assert self.by_task is not None
            assert await self.by_task(key) == "value"
            ended.append(time.monotonic())

        async def all_tasks() -> None:
            start.wait()
            await asyncio.gather(*(task() for _ in range(self.tasks)))

        running = [threading.Thread(target=thread) for _ in range(self.threads)]
        if self.tasks:
            running.append(threading.Thread(target=lambda: self.loop.run_until_complete(all_tasks())))
        for each in running:
            each.start()
        barrier()
        began = time.monotonic()
        start.wait()
        for each in running:
            each.join()
        assert len(ended) == self.threads + self.tasks
        return began, max(ended)


def shares(asked: Asked, callers: int) -> tuple[int, int]:
    """Return how many threads and tasks ask: half of each where the library serves both."""
    by_thread, by_task = asked
    if by_thread is None:
        return 0, callers
    if by_task is None:
        return callers, 0
    return callers // 2, callers - callers // 2


def in_process(kind: str) -> None:
    counts: dict[str, int] = {}
    lock = threading.Lock()

    def count(key: str) -> None:
        with lock:
            counts[key] = counts.get(key, 0) + 1

    herds: dict[str, Herd] = {}
    for name, (package, make) in IN_PROCESS.items():
        if optional(package) is None:
            continue
        asked = make(Loader(lambda key, name=name: count(f"{name} {key}")), None)
        if asked[kind == "tasks"] is not None:
            threads = CALLERS if kind == "threads" else 0
            herds[name] = Herd(asked, threads, CALLERS - threads)
    took: dict[str, list[float]] = {name: [] for name in herds}
    for number in range(ROUNDS + 1):
        for name, herd in herds.items():
            began, end = herd.run(f"key{number}")
            took[name].append(end - began)
    rows = [
        Row(name, f"{CALLERS} {kind}", seconds[1:], [counts[f"{name} key{n}"] for n in range(1, ROUNDS + 1)])
        for name, seconds in took.items()
    ]
    print_rows(f"{CALLERS} {kind} of one process", rows)


# -- several processes on one server


def member(name: str, url: str, barrier: Barrier, results: Any) -> None:
    """One of the processes: takes part in each round, and says when it began and ended."""
    if conf := optional("django.conf"):
        conf.settings.configure()
    counting = redis.Redis.from_url(url)
    asked = ON_SERVER[name][1](Loader(lambda key: counting.incr(f"loads of {key}")), url)
    threads, tasks = shares(asked, CALLERS // 2)
    callers = " + ".join(f"{n} {kind}" for n, kind in ((threads, "threads"), (tasks, "tasks")) if n)
    herd = Herd(asked, threads, tasks)
    for turn in range(ROUNDS + 1):
        results.put((turn, *herd.run(f"key{turn}", barrier.wait), callers))


def across_processes() -> None:
    rows = []
    context = multiprocessing.get_context("spawn")
    for name, (package, _) in ON_SERVER.items():
        if optional(package) is None:
            continue
        with ValkeyServer() as server:
            barrier, results = context.Barrier(PROCESSES), context.Queue()
            members = [
                context.Process(target=member, args=(name, server.url, barrier, results))
                for _ in range(PROCESSES)
            ]
            for each in members:
                each.start()
            times: dict[int, list[tuple[float, float]]] = {}
            callers = ""
            for _ in range(PROCESSES * (ROUNDS + 1)):
                turn, began, end, callers = results.get(timeout=120)
                times.setdefault(turn, []).append((began, end))
            for each in members:
                each.join()
            seconds = [
                max(end for _, end in times[turn]) - min(began for began, _ in times[turn])
                for turn in range(1, ROUNDS + 1)
            ]
            client = redis.Redis.from_url(server.url)
            loads = [int(client.get(f"loads of key{turn}") or 0) for turn in range(1, ROUNDS + 1)]
            rows.append(Row(name, f"{PROCESSES} × ({callers})", seconds, loads))
    print_rows(f"{PROCESSES} processes on one server", rows)


class Row:
    def __init__(self, name: str, callers: str, seconds: list[float], loads: list[int]) -> None:
        self.name, self.callers, self.seconds, self.loads = name, callers, seconds, loads


def print_rows(title: str, rows: list[Row]) -> None:
    print(f"\n{title}; the loader takes {LOAD * 1000:.0f} ms")
    print(f"Python {sys.version.split()[0]}; {ROUNDS} rounds\n")
    print("| | callers | loads in a round | least, ms | median, ms |")
    print("|---|---|---:|---:|---:|")
    for row in sorted(rows, key=lambda row: (statistics.median(row.loads), min(row.seconds))):
        shown = f"**{row.name}**" if row.name.startswith("layercache") else row.name
        fewest, most = min(row.loads), max(row.loads)
        loads = str(most) if fewest == most else f"{fewest} to {most}"
        least, median = min(row.seconds) * 1000, statistics.median(row.seconds) * 1000
        print(f"| {shown} | {row.callers} | {loads} | {least:,.1f} | {median:,.1f} |", flush=True)


def main() -> None:
    if conf := optional("django.conf"):
        conf.settings.configure()
    in_process("threads")
    in_process("tasks")
    across_processes()


if __name__ == "__main__":
    main()
