"""Worlds over each kind of backend, on one clock, for suites that hold for all of them."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import redis
from shifting import ServerClock

from layercache import Cache, Caches
from layercache.testing import Clock

KINDS = ("memory", "redis", "chain", "null")


def settings(kind: str, url: str, prefix: str, **policy: Any) -> dict[str, Any]:
    """Settings whose default cache is on a backend of `kind`."""
    far = {"type": "redis", "url": url, "prefix": prefix, "codecs": ["json", "zstd"], "timeout": "2s"}
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
    """Wait until the log is followed, where there is one: near layers are emptied when that begins."""
    layers = cache.stats().layers
    if any(layer.type == "redis" for layer in layers):
        cache.has_key("anything")  # connects
        end = time.monotonic() + 5
        while not any("log_lag" in layer.gauges for layer in cache.stats().layers):
            assert time.monotonic() < end, "the log is not followed"
            time.sleep(0)  # lets the other thread run
