"""What an outage costs a caller: `python benchmarks/outage.py`. Peers that are not installed are left out.

A server on loopback is killed, or stopped with SIGSTOP: it keeps its sockets and answers nothing. Each contestant then
calls `get` until it has called often enough or five seconds are over; then the server comes back. Of an `aget` some
25 µs are the runner's that awaits it.

Then the same of a chain, memory over that server: a hit near and a load, before and during an outage. The loader
returns at once, so a load takes what a call costs beside its loader; the first of an outage is the one that pays.
"""

from __future__ import annotations

import asyncio
import importlib
import statistics
import time
from collections.abc import Callable
from typing import Any

from layercache import Caches
from layercache.testing import ValkeyServer

CALLS = 3000
LONGEST = 5.0  # seconds that a contestant may spend on its calls
TIMEOUT = 0.25


def tried(call: Callable[[], Any]) -> tuple[bool, float]:
    """Return whether `call` succeeded, and the seconds that it took."""
    began = time.perf_counter()
    try:
        call()
    except Exception:
        return False, time.perf_counter() - began
    return True, time.perf_counter() - began


def ours(url: str) -> Caches:
    far = {"type": "redis", "url": url, "timeout": f"{int(TIMEOUT * 1000)}ms"}
    return Caches({"backends": {"far": far}, "caches": {"default": {"backend": "far", "ttl": 600}}})


def contestants(url: str, runner: asyncio.Runner) -> dict[str, Callable[[], Any]]:
    one, other = ours(url)["default"], ours(url)["default"]
    made: dict[str, Callable[[], Any]] = {
        "layercache get": lambda: one.get("k"),
        "layercache aget": lambda: runner.run(other.aget("k")),
    }
    import redis

    plain = redis.Redis.from_url(url)
    made["redis-py, as it ships"] = lambda: plain.get("k")
    bounded = redis.Redis.from_url(url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, retry=None)
    made[f"redis-py, {TIMEOUT * 1000:.0f} ms and no retry"] = lambda: bounded.get("k")
    try:
        dogpile = importlib.import_module("dogpile.cache")
    except ImportError:
        return made
    arguments = {"url": url, "socket_timeout": TIMEOUT}
    region = dogpile.make_region().configure("dogpile.cache.redis", arguments=arguments)
    made[f"dogpile redis, {TIMEOUT * 1000:.0f} ms"] = lambda: region.get("k")
    return made


def measure(name: str, call: Callable[[], Any], server: ValkeyServer, how: str) -> str:
    assert tried(call)[0], name
    server.kill() if how == "killed" else server.pause()
    took, end = [tried(call)[1]], time.perf_counter() + LONGEST
    while len(took) < CALLS and time.perf_counter() < end:
        took.append(tried(call)[1])
    server.start() if how == "killed" else server.resume()
    came_back = time.perf_counter()
    while not tried(call)[0]:
        pass
    back = time.perf_counter() - came_back
    first, rest = took[0] * 1000, sorted(seconds * 1e6 for seconds in took[1:])
    if not rest:
        return f"| {name} | {first:,.0f} | | | | {back * 1000:,.0f} |"
    p99 = rest[int(len(rest) * 0.99)]
    shown = f"**{name}**" if name.startswith("layercache") else name
    p50 = statistics.median(rest)
    return f"| {shown} | {first:,.1f} | {p50:,.0f} | {p99:,.0f} | {rest[-1]:,.0f} | {back * 1000:,.0f} |"


# -- a chain


LOADS = 1000


def chain(url: str) -> Caches:
    return Caches(
        {
            "backends": {
                "near": {"type": "memory"},
                "far": {"type": "redis", "url": url, "timeout": f"{int(TIMEOUT * 1000)}ms"},
                "both": {"type": "chain", "layers": ["near", "far"]},
            },
            "caches": {"default": {"backend": "both", "ttl": 600}},
        },
    )


def percentiles(took: list[float]) -> tuple[float, float]:
    took = sorted(took)
    return statistics.median(took), took[int(len(took) * 0.99)]


def hits(cache: Any) -> tuple[float, float]:
    """Seconds of a hit near: the median and the p99 of batches, as a single one is shorter than the clock's steps."""
    batch, took = 100, []
    for _ in range(CALLS // 10):
        began = time.perf_counter()
        for _ in range(batch):
            cache.get("near")
        took.append((time.perf_counter() - began) / batch)
    return percentiles(took)


def loads(cache: Any, name: str, number: int = LOADS) -> list[float]:
    return [
        tried(lambda turn=turn: cache.get_or_set(f"{name} {turn}", lambda: 1))[1] for turn in range(number)
    ]


def row(name: str, measured: tuple[float, float], before: tuple[float, float] | None = None) -> str:
    shown = [f"{seconds * 1e6:,.2f}" for seconds in measured]
    ratios = (
        [""] * 2
        if before is None
        else [f"{now / then:.2f}" for now, then in zip(measured, before, strict=True)]
    )
    return f"| {' | '.join([name, *shown, *ratios])} |"


def measure_chain(server: ValkeyServer, how: str) -> list[str]:
    with chain(server.url) as caches:
        cache = caches["default"]
        cache.set("any", 1)
        while (
            cache.stats().layers[1].gauges.get("log_entries", 0) < 1
        ):  # followed, and its own stamp heard of
            time.sleep(0.01)
        cache.set("near", 1)
        usual, load = hits(cache), percentiles(loads(cache, "before"))
        server.kill() if how == "killed" else server.pause()
        first = loads(cache, "first", 1)[0]
        during, out = percentiles(loads(cache, "during")), hits(cache)
        server.start() if how == "killed" else server.resume()
    return [
        row("hit near, before", usual),
        row("**hit near, in the outage**", out, usual),
        row("load, before", load),
        f"| **the first load of the outage** | {first * 1e6:,.2f} | | | |",
        row("**load, after the first**", during, load),
    ]


def main() -> None:
    for how in ("killed", "stopped"):
        print(f"\nServer {how}; then up to {CALLS:,} calls, or {LONGEST:.0f} s of them\n")
        print("| | first call, ms | p50 after, µs | p99, µs | longest, µs | back after, ms |")
        print("|---|---:|---:|---:|---:|---:|")
        with ValkeyServer() as server, asyncio.Runner() as runner:
            for name, call in contestants(server.url, runner).items():
                print(measure(name, call, server, how), flush=True)
    for how in ("killed", "stopped"):
        print(f"\nA chain, memory over a server that is {how}; `timeout` is {TIMEOUT * 1000:.0f} ms\n")
        print("| | p50, µs | p99, µs | p50, of before | p99, of before |")
        print("|---|---:|---:|---:|---:|")
        with ValkeyServer() as server:
            print("\n".join(measure_chain(server, how)), flush=True)


if __name__ == "__main__":
    main()
