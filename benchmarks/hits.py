"""What a hit in memory costs, beside the peers: `python benchmarks/hits.py`. Peers that are not installed
are left out.

The floor is what Python itself takes: a dict look-up with a check of the entry's time, written inline.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import orjson
from rounds import async_rounds, print_table, statement_rounds

from layercache import Caches, cached, configure, get_cache

KEYS = [f"key:{number}" for number in range(1000)]
KEY = KEYS[500]
QUOTE = {f"field{number}": {"a": number, "b": "x" * 10} for number in range(25)}
FLAT = {f"field{number}": "x" * 20 for number in range(25)}
FLOOR = """
entry = entries.get(key)
if entry is not None and entry.end > now():
    value = entry.value
"""


class Slot:
    __slots__ = ("end", "value")

    def __init__(self, value: object, end: float) -> None:
        self.value, self.end = value, end


def optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def filled(cache: Any) -> Any:
    for key in KEYS:
        cache[key] = "value"
    return cache


def sync_statements(cache: Any) -> dict[str, tuple[str, dict[str, Any]]]:
    entries = {key: Slot("value", time.time() + 3600) for key in KEYS}
    plain = dict.fromkeys(KEYS, "value")
    statements: dict[str, tuple[str, dict[str, Any]]] = {
        "dict": ("plain[key]", {"plain": plain, "key": KEY}),
        "dict + inlined TTL check": (FLOOR, {"entries": entries, "key": KEY, "now": time.time}),
        "layercache get": ("cache.get(key)", {"cache": cache, "key": KEY}),
        "layercache get_or_set": ("cache.get_or_set(key, None)", {"cache": cache, "key": KEY}),
    }
    if cachetools := optional("cachetools"):
        import threading

        lru = filled(cachetools.LRUCache(2000))
        ttl = filled(cachetools.TTLCache(2000, 3600))
        code = "with lock:\n    cache[key]"
        statements["cachetools LRU + lock"] = (code, {"cache": lru, "key": KEY, "lock": threading.Lock()})
        statements["cachetools TTL + lock"] = (code, {"cache": ttl, "key": KEY, "lock": threading.Lock()})
    if cachebox := optional("cachebox"):
        statements["cachebox LRU (no TTL)"] = (
            "cache.get(key)",
            {"cache": filled(cachebox.LRUCache(2000)), "key": KEY},
        )
        each = cachebox.VTTLCache(2000)
        for key in KEYS:
            each.insert(key, "value", 3600)
        statements["cachebox TTL per entry"] = ("cache.get(key)", {"cache": each, "key": KEY})
    if moka := optional("moka_py"):
        near = moka.Moka(2000, ttl=3600)
        for key in KEYS:
            near.set(key, "value")
        statements["moka-py"] = ("cache.get(key)", {"cache": near, "key": KEY})
    if dogpile := optional("dogpile.cache"):
        region = dogpile.make_region().configure("dogpile.cache.memory", expiration_time=3600)
        region.set(KEY, "value")
        statements["dogpile memory"] = ("cache.get(key)", {"cache": region, "key": KEY})
    if theine := optional("theine"):
        near = theine.Cache(2000)
        for key in KEYS:
            near.set(key, "value")
        statements["theine"] = ("cache.get(key)", {"cache": near, "key": KEY})
    if locmem := optional("django.core.cache.backends.locmem"):
        from django.conf import settings

        settings.configure()
        near = locmem.LocMemCache("bench", {})
        near.set(KEY, "value")
        statements["Django locmem"] = ("cache.get(key)", {"cache": near, "key": KEY})
    return statements


def main() -> None:
    memory = {"type": "memory", "max_entries": 10_000}
    configure({"backends": {"m": memory}, "caches": {"default": {"backend": "m", "ttl": "1h"}}})
    cache = get_cache()
    for key in KEYS:
        cache.set(key, "value")
    cache.set("quote", QUOTE)
    cache.set("flat", FLAT)

    floor = "dict + inlined TTL check"
    print_table("A hit on a str, sync", statement_rounds(sync_statements(cache), 100_000), floor)

    payload, flat = orjson.dumps(QUOTE), orjson.dumps(FLAT)
    names = {"cache": cache, "loads": orjson.loads, "payload": payload, "flat": flat}
    mutable = {
        "orjson.loads, nested": ("loads(payload)", names),
        "orjson.loads, flat": ("loads(flat)", names),
        "layercache get, nested": ("cache.get('quote')", names),
        "layercache get, flat": ("cache.get('flat')", names),
    }
    title = f"A hit on a dict of its own for each reader ({len(payload)} and {len(flat)} B of JSON)"
    print_table(title, statement_rounds(mutable, 20_000), "orjson.loads, nested")

    writes = {
        "dict": ("plain[key] = value", {"plain": {}, "key": KEY, "value": "value"}),
        "layercache set, a key that is there": (
            "cache.set(key, value)",
            {"cache": cache, "key": KEY, "value": "v"},
        ),
        "layercache set, with a ttl": (
            "cache.set(key, value, 60)",
            {"cache": cache, "key": KEY, "value": "v"},
        ),
    }
    for row, fits in (("a new key, with room", 10_000_000), ("a new key, another makes room", 10_000)):
        writes[f"layercache set, {row}"] = (
            "cache.set(new(), value)",
            {"cache": room_for(fits), "new": new_key, "value": "v"},
        )
    print_table("Storing a str", statement_rounds(writes, 10_000), "dict")
    print_table(
        "A decorated function of one str argument, sync", statement_rounds(decorated(), 100_000), "lru_cache"
    )
    asynchronous(cache)


def room_for(entries: int) -> Any:
    memory = {"type": "memory", "max_entries": entries, "max_bytes": "4GB"}
    cache = Caches({"backends": {"m": memory}, "caches": {"default": {"backend": "m", "ttl": "1h"}}})[
        "default"
    ]
    for _ in range(10_000):
        cache.set(new_key(), "value")
    return cache


new_key = (f"new:{number}" for number in count()).__next__


def decorated() -> dict[str, tuple[str, dict[str, Any]]]:
    from functools import lru_cache

    def quote(symbol: str) -> str:
        return symbol

    ours, plain = cached("quote:{symbol}")(quote), lru_cache(quote)
    statements: dict[str, tuple[str, dict[str, Any]]] = {
        "lru_cache": ("call(symbol)", {"call": plain, "symbol": "005930.KS"}),
        "layercache @cached": ("call(symbol)", {"call": ours, "symbol": "005930.KS"}),
    }
    if cachebox := optional("cachebox"):
        call = cachebox.cached(cachebox.LRUCache(2000))(quote)
        statements["cachebox @cached"] = ("call(symbol)", {"call": call, "symbol": "005930.KS"})
    if dogpile := optional("dogpile.cache"):
        region = dogpile.make_region().configure("dogpile.cache.memory", expiration_time=3600)
        call = region.cache_on_arguments()(quote)
        statements["dogpile @cache_on_arguments"] = ("call(symbol)", {"call": call, "symbol": "005930.KS"})
    for _, names in statements.values():
        names["call"](names["symbol"])
    return statements


def asynchronous(cache: Any) -> None:
    plain = dict.fromkeys(KEYS, "value")

    async def bare(key: str) -> str:
        return plain[key]

    @cached("quote:{symbol}")
    async def quote(symbol: str) -> str:
        return symbol

    contestants: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "bare coroutine over a dict": (bare, (KEY,)),
        "layercache aget": (cache.aget, (KEY,)),
        "layercache aget_or_set": (cache.aget_or_set, (KEY, None)),
        "layercache @cached": (quote, ("005930.KS",)),
    }
    if aiocache := optional("aiocache"):
        contestants["aiocache"] = (primed(aiocache.SimpleMemoryCache()), (KEY,))
    if cashews := optional("cashews"):
        near = cashews.Cache()
        near.setup("mem://")
        contestants["cashews"] = (primed(near), (KEY,))
    print_table("An awaited hit on a str", async_rounds(contestants, 20_000), "bare coroutine over a dict")


def primed(cache: Any) -> Callable[..., Any]:
    """Return the cache's `get`, which stores the value at its first call: in the loop that is measured."""
    stored = False

    async def get(key: str) -> Any:
        nonlocal stored
        if not stored:
            await cache.set(key, "value")
            stored = True
        return await cache.get(key)

    return get


if __name__ == "__main__":
    main()
