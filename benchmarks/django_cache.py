"""What Django's verbs cost over layercache and over Django's own backends: `python benchmarks/django_cache.py`.

A dict of some 300 bytes; in memory, and against a server on loopback. Django's Redis backend pickles without signing.
"""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache
from rounds import awaited_rounds, sync_rounds

import layercache
from layercache.integrations.django import LayerCacheBackend
from layercache.testing import ValkeyServer

VALUE = {
    "symbol": "AAPL",
    "price": 189.5,
    "tags": ["a", "b"],
    "name": "Apple Inc.",
    "closes": list(range(100)),
}
KEYS = [f"k{number}" for number in range(20)]


def tables(url: str) -> dict[str, Any]:
    def far(*codecs: str) -> dict[str, Any]:
        keys = ["a:0123456789abcdefghijklmnopqrstuvwxyz"]
        common = {"type": "redis", "url": url, "timeout": "2s", "prefix": uuid4().hex}
        return {**common, "codecs": list(codecs), "seal_keys": keys}

    backends = {
        "memory": {"type": "memory", "codecs": ["pickle"]},
        "sign": far("pickle", "sign"),
        "encrypt": far("pickle", "encrypt"),
        "far": far("pickle", "sign"),
        "chain": {"type": "chain", "layers": ["memory", "far"]},
    }
    return {"backends": backends, "caches": {name: {"backend": name} for name in backends}}


def main() -> None:
    settings.configure()
    with ValkeyServer() as server:
        layercache.configure(tables(server.url))
        caches: dict[str, BaseCache] = {
            "LocMemCache": LocMemCache("bench", {}),
            "layercache, memory": LayerCacheBackend("memory", {}),
            "layercache, chain": LayerCacheBackend("chain", {}),
            "Django's RedisCache": RedisCache(server.url, {}),
            "layercache, redis, sign": LayerCacheBackend("sign", {}),
            "layercache, redis, encrypt": LayerCacheBackend("encrypt", {}),
        }
        for cache in caches.values():
            cache.set("k", VALUE)
            cache.set_many(dict.fromkeys(KEYS, VALUE))
            cache.get("k")
        print_all(caches)


def print_all(caches: dict[str, BaseCache]) -> None:
    columns = {
        "get": sync_rounds({name: _call(cache.get, "k") for name, cache in caches.items()}, 500),
        "set": sync_rounds({name: _call(cache.set, "k", VALUE) for name, cache in caches.items()}, 500),
        "get_or_set": sync_rounds(
            {name: _call(cache.get_or_set, "k", VALUE) for name, cache in caches.items()}, 500
        ),
        "get_many of 20": sync_rounds(
            {name: _call(cache.get_many, KEYS) for name, cache in caches.items()}, 50
        ),
        "aget": asyncio.run(_awaited(caches)),
    }
    print("| µs |", *(f"{name} |" for name in columns))
    print("|---|" + "---:|" * len(columns))
    for name in caches:
        print(f"| {name} |", *(f"{column[name] / 1000:,.1f} |" for column in columns.values()))


def _call(verb: Any, *arguments: Any) -> Any:
    return lambda: verb(*arguments)


async def _awaited(caches: dict[str, BaseCache]) -> dict[str, float]:
    found = await awaited_rounds({name: (cache.aget, ("k",)) for name, cache in caches.items()}, 300)
    await layercache.aclose()
    return found


if __name__ == "__main__":
    main()
