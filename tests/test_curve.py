"""What the hit rate would be with less memory, and with more, and what else should be looked at."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any
from zlib import crc32

import pytest

from layercache import Cache, Caches, Curve
from layercache.advising import Advice, advise
from layercache.testing import Clock
from layercache_memory import curve as sketches

World = tuple[Caches, Cache[Any]]
ROOM = 100


@pytest.fixture(autouse=True)
def the_same_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a str they would be others in each process."""
    init = sketches.CurveSketch.__init__

    def seeded(self: Any, *args: Any) -> None:
        init(self, *args, hash_=lambda key: crc32(key.encode()) * 0x9E37_79B1 >> 7)

    monkeypatch.setattr(sketches.CurveSketch, "__init__", seeded)


def settings(entries: int = ROOM, **options: Any) -> dict[str, Any]:
    memory = {
        "type": "memory",
        "max_entries": entries,
        "eviction": "lru",
        "miss_ratio_curve": True,
        **options,
    }
    return {
        "backends": {"m": memory},
        "caches": {"default": {"backend": "m", "ttl": "1h"}, "other": {"backend": "m", "ttl": "1h"}},
    }


@pytest.fixture
def world(clock: Clock) -> Iterator[Caches]:
    with Caches(settings(), now=clock) as world:
        yield world


def curve_of(cache: Cache[Any]) -> Curve:
    curve = cache.stats().layers[0].curve
    assert curve is not None
    return curve


def read(cache: Cache[Any], keys: list[str]) -> None:
    for key in keys:
        cache.get_or_set(key, lambda: 1)


def exact(keys: list[str], entries: int) -> float:
    kept: OrderedDict[str, None] = OrderedDict()
    hits = 0
    for key in keys:
        if key in kept:
            hits += 1
            kept.move_to_end(key)
        else:
            kept[key] = None
            if len(kept) > entries:
                kept.popitem(last=False)
    return hits / len(keys)


def skewed(reads: int, distinct: int, seed: int = 1) -> list[str]:
    """As popular as keys are: few are read often, and many seldom."""
    draw = random.Random(seed)
    return [f"k:{int(distinct ** draw.random())}" for _ in range(reads)]


class TestShape:
    def test_nobody_keeps_book_unless_asked(self) -> None:
        with Caches(
            {"backends": {"m": {"type": "memory"}}, "caches": {"default": {"backend": "m"}}}
        ) as world:
            world["default"].get_or_set("k", lambda: 1)

            assert world["default"].stats().layers[0].curve is None

    def test_before_the_first_read_there_is_none(self, cache: Cache[Any]) -> None:
        assert cache.stats().layers[0].curve is None

    def test_what_goes_round_fits_or_does_not(self, cache: Cache[Any]) -> None:
        read(cache, [f"{number}" for number in range(150)] * 20)

        curve = curve_of(cache)
        assert curve.at(0.5) == 0
        assert curve.at(1.0) == 0
        assert curve.at(2.0) == pytest.approx(0.95, abs=0.001)
        assert curve.entries == ROOM
        assert curve.reads == 3000

    def test_it_is_as_an_lru_cache_of_that_size_does(self, cache: Cache[Any]) -> None:
        keys = skewed(10_000, 2000)
        read(cache, keys)

        curve = curve_of(cache)
        for memory in (0.25, 0.5, 1.0, 2.0, 5.0, 10.0):
            assert curve.at(memory) == pytest.approx(exact(keys, int(ROOM * memory)), abs=0.02)

    def test_where_all_are_hits_less_memory_is_told_of_by_how_often_each_is_read(
        self, cache: Cache[Any]
    ) -> None:
        keys = skewed(10_000, 90)
        read(cache, [f"k:{number}" for number in range(1, 91)])
        read(cache, keys)

        curve = curve_of(cache)
        for memory in (0.25, 0.5):
            assert curve.at(memory) == pytest.approx(exact(keys, int(ROOM * memory)), abs=0.06)
        assert curve.at(1.0) > 0.98

    def test_a_sample_of_keys_is_enough(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sketches, "_MOST", 600)
        with Caches(settings(entries=200), now=clock) as world:
            keys = skewed(20_000, 20_000)
            read(world["default"], keys)
            curve = curve_of(world["default"])
            sketch = world["default"]._layer.space._storage.curve  # type: ignore[attr-defined]

            assert len(sketch._seen) <= 600
            assert curve.sampled < 10_000
            assert curve.reads == 20_000
            for memory in (0.5, 1.0, 2.0, 10.0):
                assert curve.at(memory) == pytest.approx(exact(keys, int(200 * memory)), abs=0.05)

    def test_the_bound_that_counts_may_be_that_of_bytes(self, clock: Clock) -> None:
        with Caches(settings(entries=10_000, max_bytes="32KB"), now=clock) as world:
            cache = world["default"]
            for number in range(500):
                cache.set(f"{number}", "x" * 500)
                cache.get(f"{number}")
            held = cache.stats().layers[0].entries
            assert held is not None

            assert curve_of(cache).entries == pytest.approx(held, abs=1)

    def test_older_reads_count_less(self, cache: Cache[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sketches, "_REMEMBERED", 1000.0)
        read(cache, [f"{number}" for number in range(5000)])  # none repeats
        assert curve_of(cache).at(1.0) == 0

        for _ in range(10):
            read(cache, ["a", "b"] * 500)
            curve = curve_of(cache)
        assert curve.at(1.0) > 0.95

    def test_so_do_those_that_were_misses(self, cache: Cache[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sketches, "_REMEMBERED", 1000.0)
        read(cache, [f"{number}" for number in range(150)] * 20)
        assert curve_of(cache).at(2.0) > 0.9

        for begin in range(0, 10_000, 1000):
            read(cache, [f"new:{number}" for number in range(begin, begin + 1000)])
            curve = curve_of(cache)
        assert curve.at(2.0) < 0.01


class TestNoMatterOfMemory:
    def test_what_expires_would_with_any_memory(self, cache: Cache[Any], clock: Clock) -> None:
        for _ in range(50):
            read(cache, ["quote:a", "quote:b"])
            clock.advance(4000)

        curve = curve_of(cache)
        assert curve.at(10.0) == 0
        (lapse,) = curve.lapses
        assert (lapse.prefix, lapse.ttl, lapse.lapsed) == ("quote:", 3600, 98)
        assert lapse.median == pytest.approx(400, rel=0.5)

    def test_what_was_evicted_and_is_over_by_now_is_no_matter_of_room(
        self, cache: Cache[Any], clock: Clock
    ) -> None:
        for _ in range(5):
            read(cache, [f"{number}" for number in range(2 * ROOM)])
            clock.advance(4000)

        assert curve_of(cache).at(10.0) == 0

    def test_what_was_deleted_or_invalidated_is_not_there_with_any_memory(self, cache: Cache[Any]) -> None:
        for _ in range(50):
            read(cache, ["a"])
            cache.delete("a")
            cache.get_or_set("b", lambda: 1, tags=["t"])
            cache.invalidate("t")

        curve = curve_of(cache)
        assert curve.at(10.0) == 0
        assert curve.lapses == ()

    def test_what_is_never_stored_is_a_miss_with_any_memory(self, cache: Cache[Any]) -> None:
        for number in range(200):
            cache.get("nothing")
            cache.get(f"{number % 2}")
            cache.get(f"{number % 2}")

        assert curve_of(cache).at(10.0) == 0
        assert curve_of(cache).reads == 600

    def test_what_was_evicted_and_is_not_stored_again_is_missed_once_for_want_of_room(
        self, cache: Cache[Any]
    ) -> None:
        read(cache, [f"{number}" for number in range(ROOM + 1)])
        for _ in range(9):
            cache.get("0")

        assert curve_of(cache).at(10.0) == pytest.approx(1 / (ROOM + 10))


def test_caches_of_one_backend_share_its_curve_and_have_their_own_lapses(world: Caches, clock: Clock) -> None:
    for _ in range(10):
        read(world["default"], ["a:1"])
        read(world["other"], ["a:1", "b:1"])
        clock.advance(4000)

    one, other = curve_of(world["default"]), curve_of(world["other"])
    assert one.points == other.points
    assert [lapse.prefix for lapse in one.lapses] == ["a:"]
    assert sorted(lapse.prefix for lapse in other.lapses) == ["a:", "b:"]


def test_a_cache_that_is_closed_is_forgotten(world: Caches) -> None:
    read(world["default"], ["a", "b"])
    sketch = world["default"]._layer.space._storage.curve  # type: ignore[attr-defined]

    world.close()

    assert not sketch._seen


def test_the_books_of_the_sketch_agree_with_what_is_there(
    cache: Cache[Any], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sketches, "_MOST", 150)
    draw = random.Random(3)
    storage: Any = cache._layer.space._storage  # type: ignore[attr-defined]
    sketch = storage.curve
    for number in range(5000):
        key = f"{draw.randrange(400)}"
        act = draw.randrange(20)
        if act < 15:
            cache.get_or_set(key, lambda: 1, ttl=draw.choice([1, 100, 4000]))
        elif act == 15:
            cache.delete(key)
        elif act == 16:
            cache.set(key, draw.choice(["text", 1, [1]]))
        else:
            clock.advance(draw.random() * 10)
        if number % 100 == 0:
            cache.stats()
            assert sketch._order == sorted(sketch._by_turn)
            assert {seen.at for seen in sketch._seen.values()} == set(sketch._by_turn)
            records = cache.near_records()
            assert records is not None
            for (_, name), seen in sketch._here.items():
                assert records[name] is seen.record
    assert len(sketch._seen) <= 150


class TestAdvice:
    def about(self, world: Caches, kind: str) -> list[Advice]:
        return [each for each in advise(world) if each.kind == kind]

    def test_memory_that_is_too_small(self, world: Caches, cache: Cache[Any]) -> None:
        read(cache, [f"{number}" for number in range(150)] * 20)

        (advice,) = self.about(world, "memory")
        assert advice.about == "m"
        assert advice.message == "twice the memory (100 entries now) would answer 95.0 % more of the reads"
        assert "backends.m" in advice.fix

    def test_memory_that_is_wanted_for_nothing(self, world: Caches, cache: Cache[Any]) -> None:
        for number in range(2000):
            read(cache, [f"{number}", "a", "b"])

        (advice,) = self.about(world, "memory")
        assert advice.message.startswith("half the memory")

    def test_a_ttl_that_is_too_short_for_how_often_it_is_read(
        self, world: Caches, cache: Cache[Any], clock: Clock
    ) -> None:
        for number in range(60):
            read(cache, ["quote:a", "news:a", "news:a"])
            clock.advance(4000 if number % 3 else 8000)

        (advice, _) = self.about(world, "ttl")
        assert advice.about == "default quote:*"
        assert "98.3 % of the reads came when the ttl of 1h was over" in advice.message
        assert 'ttls = { "quote:*" = ' in advice.fix

    def test_caches_that_are_never_hit_or_not_used(self, world: Caches, cache: Cache[Any]) -> None:
        for number in range(100):
            cache.get(f"{number}")

        assert [each.about for each in self.about(world, "never hit")] == ["default"]
        assert [each.message for each in self.about(world, "unused")] == [
            "it is defined, and this process has not opened it"
        ]
        world["other"].set("k", 1)
        assert [each.message for each in self.about(world, "unused")] == [
            "it is open, and was never read in this process"
        ]

    def test_what_is_not_kept_book_of_is_said(self) -> None:
        with Caches(settings(miss_ratio_curve=False)) as world:
            for _ in range(100):
                world["default"].get("k")

            (advice,) = self.about(world, "curve")
            assert advice.fix.startswith("miss_ratio_curve = true in backends.m")

    def test_of_few_reads_nothing_is_said(self, world: Caches, cache: Cache[Any]) -> None:
        read(cache, ["a", "b", "a"])

        assert [each.kind for each in advise(world)] == ["unused"]
