"""Worlds over each kind of backend, on one clock, for suites that hold for all of them."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import redis
from shifting import ServerClock
from waiting import until

from layercache import Cache, Caches
from layercache.testing import Clock

KINDS = ("memory", "redis", "chain", "null")


def settings(kind: str, url: str, prefix: str, **policy: Any) -> dict[str, Any]:
    """Settings whose default cache is on a backend of `kind`."""
    far = {"type": "redis", "url": url, "prefix": prefix, "codecs": ["json", "zstd"], "timeout": "10s"}
    backends: dict[str, Any] = {"memory": {"type": "memory"}, "null": {"type": "null"}, "redis": far}
    backends["chain"] = {"type": "chain", "layers": ["memory", "redis"]}
    return {"backends": backends, "caches": {"default": {"backend": kind, "ttl": 300, **policy}}}


def make_world(kind: str, server: redis.Redis, url: str, clock: Clock | None = None, **policy: Any) -> Caches:
    """A world with a key space on the server that no other has; its clock moves the server's expiries along."""
    prefix = f"t{uuid4().hex[:12]}"
    clock = clock or ServerClock(server, f"{prefix}:*")
    world = Caches(settings(kind, url, prefix, **policy), now=clock)
    world.clock = clock  # type: ignore[attr-defined]
    return world


def follow(cache: Cache[Any]) -> None:
    """Wait until the log is followed, where there is one, and there is a stamp: near layers are emptied when that
    begins, and when a stamp is made."""

    def gauge(name: str) -> float | None:
        return next((layer.gauges[name] for layer in cache.stats().layers if name in layer.gauges), None)

    if gauge("log_entries") is not None:
        cache.has_key("anything")  # connects
        until(lambda: gauge("log_lag") is not None)
        heard = gauge("log_entries")
        cache.delete("anything")  # makes a stamp where there is none
        until(lambda: gauge("log_entries") != heard)
