"""The memory backend: its bounds, who makes room, and what belongs to whom."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layercache import Cache, Caches
from layercache.testing import Clock


def world(clock: Clock | None = None, **options: Any) -> Caches:
    settings = {
        "backends": {"m": {"type": "memory", **options}},
        "caches": {"default": {"backend": "m"}, "other": {"backend": "m"}},
    }
    return Caches(settings, **({} if clock is None else {"now": clock}))


def held(cache: Cache[Any]) -> tuple[int, int]:
    layer = cache.stats().layers[0]
    assert layer.entries is not None
    assert layer.bytes is not None
    return layer.entries, layer.bytes


def test_what_was_read_longest_ago_makes_room() -> None:
    cache = world(max_entries=3)["default"]
    for key in "abc":
        cache.set(key, key)
    cache.get("a")

    cache.set("d", "d")

    assert cache.get_many(["a", "b", "c", "d"]) == {"a": "a", "c": "c", "d": "d"}
    assert cache.stats().layers[0].evictions == 1


def test_replacing_a_key_evicts_nobody() -> None:
    cache = world(max_entries=2)["default"]
    cache.set_many({"a": 1, "b": 2})

    for number in range(10):
        cache.set("a", number)

    assert cache.get_many(["a", "b"]) == {"a": 9, "b": 2}
    assert cache.stats().layers[0].evictions == 0


@given(
    sizes=st.lists(st.integers(0, 3000), max_size=60),
    keys=st.lists(st.integers(0, 15), min_size=60, max_size=60),
)
def test_neither_bound_is_ever_exceeded(sizes: list[int], keys: list[int]) -> None:
    cache = world(max_entries=8, max_bytes="8KB")["default"]

    for size, key in zip(sizes, keys, strict=False):
        cache.set(f"k{key}", ["x" * size])
        entries, used = held(cache)
        assert entries <= 8
        assert used <= 8192

    cache.clear()
    assert held(cache) == (0, 0)


def test_an_entry_larger_than_everything_is_not_kept_and_evicts_nobody() -> None:
    cache = world(max_bytes="4KB")["default"]
    cache.set("small", 1)

    assert cache.set_many({"large": "x" * 5000}) == ["large"]

    assert cache.get("large") is None
    assert cache.get("small") == 1


def test_the_bounds_are_the_backends_and_the_keys_the_caches() -> None:
    caches = world(max_entries=2)
    caches["default"].set("k", "mine")
    caches["other"].set("k", "theirs")

    assert caches["default"].get("k") == "mine"
    caches["other"].set("l", 1)

    assert caches["default"].get("k") == "mine"
    assert caches["other"].get_many(["k", "l"]) == {"l": 1}, "read longest ago, whichever cache it was"


def test_expired_entries_give_their_memory_back_when_they_are_met() -> None:
    clock = Clock()
    cache = world(clock)["default"]
    cache.set("k", "x" * 1000, 10)
    clock.advance(10)

    assert cache.get("k") is None

    assert held(cache) == (0, 0)


def test_max_ttl_bounds_every_life() -> None:
    clock = Clock()
    cache = world(clock, max_ttl="1m")["default"]
    cache.set("k", 1, None)
    cache.set("l", 1, 10)

    assert cache.ttl_left("k") == 60
    assert cache.ttl_left("l") == 10


def test_close_empties_it() -> None:
    caches = world()
    caches["default"].set("k", 1)
    caches.close()

    assert caches["default"].get("k") is None


def test_threads_leave_the_books_in_order() -> None:
    cache = world(max_entries=50, max_bytes="16KB")["default"]

    def work(seed: int) -> None:
        for number in range(500):
            key = f"k{(number * seed) % 97}"
            cache.set(key, ["x" * (number % 300)], 60)
            cache.get(key)
            if number % 7 == 0:
                cache.delete(key)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 3, 5, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    entries, used = held(cache)
    assert entries <= 50
    assert 0 <= used <= 16_384
    cache.clear()
    assert held(cache) == (0, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_the_child_of_a_fork_starts_empty_and_unlocked() -> None:
    cache = world()["default"]
    cache.set("k", "parent")

    with cache._layer.space._store.lock:  # type: ignore[attr-defined]  # held by a thread of the parent
        child = os.fork()
        if child == 0:
            try:
                empty = cache.get("k") is None
                cache.set("k", "child")
                loaded = cache.get_or_set("l", lambda: 1) == 1
                os._exit(0 if empty and loaded and cache.get("k") == "child" else 1)
            except BaseException:
                os._exit(2)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert cache.get("k") == "parent"
