"""Worlds of caches: opened by name, side by side, replaced and closed."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from waiting import PATIENCE

import layercache
from layercache import CacheClosed, Caches, ConfigError, UnknownCache, cache, configure, get_cache

MEMORY = {
    "backends": {"m": {"type": "memory"}},
    "caches": {"default": {"backend": "m"}, "stock": {"ttl": "10s"}, "news": {}},
}


def test_a_world_is_iterated_by_name_and_opened_by_name() -> None:
    caches = Caches(MEMORY)

    assert list(caches) == ["default", "stock", "news"]
    assert len(caches) == 3
    assert "Stock" in caches
    assert "stork" not in caches
    assert 7 not in caches
    assert caches["STOCK"] is caches["stock"]
    assert repr(caches) == "<Caches default, stock, news from a mapping, 'development'>"


def test_an_unknown_name_brings_the_nearest() -> None:
    with pytest.raises(UnknownCache, match=r"no cache named 'stok'.*did you mean 'stock'") as caught:
        Caches(MEMORY)["stok"]

    assert isinstance(caught.value, LookupError)
    assert caught.value.known == ["default", "news", "stock"]


def test_worlds_side_by_side_share_nothing() -> None:
    one, other = Caches(MEMORY), Caches(MEMORY)
    one["stock"].set("k", 1)

    assert other["stock"].get("k") is None
    assert one["news"].get("k") is None


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_world_is_a_context_manager_of_both_kinds(kind: str) -> None:
    caches = Caches(MEMORY)

    async def main() -> None:
        async with caches as entered:
            assert entered is caches
            await entered["stock"].aset("k", 1)

    if kind == "sync":
        with caches as entered:
            assert entered is caches
            kept = entered["stock"]
            kept.set("k", 1)
    else:
        asyncio.run(main())
        kept = caches["stock"]
        caches.close()

    with pytest.raises(CacheClosed):
        kept.get("k")


def test_a_cache_closed_alone_leaves_the_others_open() -> None:
    caches = Caches(MEMORY)
    caches["news"].set("k", 1)
    caches["stock"].typed(int).close()

    assert caches["news"].get("k") == 1
    caches["stock"].set("k", 2)
    assert caches["stock"].get("k") == 2


def test_get_cache_speaks_to_the_default_world() -> None:
    configure(MEMORY)

    assert get_cache() is get_cache("default")
    assert get_cache("stock") is get_cache("stock")
    with pytest.raises(UnknownCache):
        get_cache("stocks")


def test_the_default_cache_can_be_imported_before_anything_is_configured() -> None:
    configure(MEMORY)

    cache.set("k", "v", 300)

    assert cache.get("k") == "v"
    assert "k" in cache
    assert cache.ttl_left("k") == pytest.approx(300, abs=5)
    assert repr(cache) == "<the default cache>"


def test_configure_closes_and_replaces() -> None:
    configure(MEMORY)
    kept = get_cache("stock")
    kept.set("k", 1)

    configure({**MEMORY, "caches": {"default": {"backend": "m"}}})

    with pytest.raises(CacheClosed):
        kept.get("k")
    with pytest.raises(UnknownCache):
        get_cache("stock")
    assert cache.get("k") is None


def test_configure_with_faults_changes_nothing() -> None:
    configure(MEMORY)
    kept = get_cache("stock")

    with pytest.raises(ConfigError):
        configure({"backends": {"m": {"type": "memory", "max_entires": 3}}})

    kept.set("k", 1)
    assert get_cache("stock") is kept


@pytest.mark.parametrize(
    "close", [layercache.close, lambda: asyncio.run(layercache.aclose())], ids=["sync", "async"]
)
def test_close_ends_the_default_world_and_the_next_use_reads_settings_anew(close: Any) -> None:
    configure(MEMORY)
    kept = get_cache("stock")

    close()
    close()

    with pytest.raises(CacheClosed):
        kept.get("k")
    with pytest.raises(UnknownCache):
        get_cache("news of another file")


def test_threads_that_open_at_once_get_one_cache() -> None:
    caches = Caches(MEMORY)
    together = threading.Barrier(8)
    opened: list[Any] = []

    def open_it() -> None:
        together.wait(PATIENCE)
        opened.append(caches["stock"])

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(opened) == 8
    assert len(set(map(id, opened))) == 1


def test_null_keeps_nothing_and_checks_everything() -> None:
    caches = Caches({"backends": {"n": {"type": "null"}}, "caches": {"default": {"backend": "n"}}})
    null = caches["default"]

    null.set("k", 1)
    assert null.get("k") is None
    assert null.add("k", 1) is True
    assert null.touch("k") is False
    assert null.delete("k") is False
    assert null.set_many({"k": 1}) == []
    assert null.get_or_set("k", lambda: (1,)) == [1]
    with pytest.raises(layercache.InvalidKey):
        null.get("")
    with pytest.raises(layercache.EncodeError):
        null.set("k", object())
    with pytest.raises(layercache.KeyNotFound):
        null.incr("k")
