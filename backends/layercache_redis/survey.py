"""How much of each cache is on the servers, by a look that takes bounded time: for tools.

Rule: nothing is changed. Where there are more keys than the time allows to look at, the rest is taken to be like them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, Final

from redis.exceptions import NoPermissionError, RedisError

from layercache_redis.client import Reached, batches, connected
from layercache_redis.driver import translated
from layercache_redis.names import Names, log_name
from layercache_redis.options import RedisOptions

__all__ = ["surveyed"]

_SECONDS: Final = 1.0  # for the keys of all servers
_SAMPLE: Final = 100  # keys of a cache on one server that are weighed


def surveyed(
    backend: str, options: RedisOptions, now: Callable[[], float], caches: Sequence[str]
) -> dict[str, dict[str, int | float]]:
    """Return what there is of each cache: `entries`, what a clear has left behind among them; their `bytes`, by a
    sample; `leases`; and, of the log that all share, `log_length` and `log_age`, seconds since the last news.

    Raises `BackendError`.
    """
    names = {cache: Names(options.prefix, cache) for cache in caches}
    found: dict[str, dict[str, int | float]] = {
        cache: {"entries": 0, "bytes": 0, "leases": 0, "looked_at": 1.0} for cache in caches
    }
    try:
        with connected(options) as reached:
            for server in reached.primaries.values():
                for cache, seen in _of_server(server, names, _SECONDS / len(reached.primaries)).items():
                    for fact, count in seen.items():
                        known = found[cache][fact]
                        found[cache][fact] = min(known, count) if fact == "looked_at" else known + count
            log = _log(reached, options, now())
    except RedisError as error:
        raise translated(backend, error) from error
    return {cache: {**facts, **log} for cache, facts in found.items()}


def _of_server(server: Any, names: Mapping[str, Names], seconds: float) -> dict[str, dict[str, int | float]]:
    values = {cache: each.values.encode() for cache, each in names.items()}
    leases = {cache: each.lease(values[cache])[:-1] for cache, each in names.items()}
    keys: dict[str, set[bytes]] = {cache: set() for cache in names}
    held: dict[str, set[bytes]] = {cache: set() for cache in names}
    looked_at, share = 0, 1.0
    deadline = monotonic() + seconds
    for some in batches(server):
        for key in some:
            for cache in names:
                if key.startswith(values[cache]):
                    keys[cache].add(key)
                elif key.startswith(leases[cache]):
                    held[cache].add(key)
        looked_at += len(some)
        if monotonic() > deadline:
            share = min(1.0, max(looked_at, 1) / max(server.dbsize(), 1))
            break
    return {
        cache: {
            "entries": round(len(keys[cache]) / share),
            "bytes": round(_weight(server, list(keys[cache])[:_SAMPLE]) * len(keys[cache]) / share),
            "leases": round(len(held[cache]) / share),
            "looked_at": share,
        }
        for cache in names
    }


def _weight(server: Any, keys: Sequence[bytes]) -> float:
    """Return how many bytes of the server's memory one of `keys` takes, names and bookkeeping included."""
    if not keys:
        return 0.0
    with server.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.memory_usage(key)
        taken = pipeline.execute(raise_on_error=False)
    known = [each for each in taken if isinstance(each, int)]
    return sum(known) / len(known) if known else 0.0


def _log(reached: Reached, options: RedisOptions, now: float) -> dict[str, int | float]:
    length, newest = 0, 0.0
    try:
        for number in range(options.log_shards):
            stream = log_name(options.prefix, number)
            length += reached.whole.xlen(stream)
            for id, _ in reached.whole.xrevrange(stream, count=1):
                newest = max(newest, int(id.partition(b"-")[0]) / 1000)
    except NoPermissionError:  # doctor says so
        return {}
    return {"log_length": length, "log_age": max(0.0, now - newest)} if length else {"log_length": 0}
