"""What a cache did in the last minute, five minutes and hour, and how long things took."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from waiting import until, until_collected

from layercache import Cache, Caches
from layercache.core.times import BOUNDS, Histogram, Times
from layercache.testing import Clock
from layercache.windows import Sampler, Window

SETTINGS = {
    "backends": {"m": {"type": "memory"}},
    "caches": {"default": {"backend": "m"}, "other": {"backend": "m"}},
}


@pytest.fixture
def world() -> Iterator[Caches]:
    with Caches(SETTINGS) as world:
        yield world


@pytest.fixture
def sampler(world: Caches, clock: Clock) -> Sampler:
    return Sampler(lambda: world.opened, clock)


def run(sampler: Sampler, clock: Clock, cache: Cache[Any], seconds: int, reads: int = 1) -> dict[str, Window]:
    """Let time pass with so many reads every five seconds, of which each is a miss."""
    for _ in range(0, seconds, 5):
        for _ in range(reads):
            cache.get("nothing")
        clock.advance(5)
        sampler.look()
    return sampler.windows(cache)


def test_each_window_has_what_was_done_in_it(sampler: Sampler, clock: Clock, cache: Cache[Any]) -> None:
    sampler.look()

    windows = run(sampler, clock, cache, 2 * 3600)

    assert windows["1m"].seconds == 60
    assert windows["1m"].stats.misses == 12
    assert windows["5m"].seconds == 300
    assert windows["5m"].stats.misses == 60
    assert windows["1h"].seconds == pytest.approx(3600, abs=60)
    assert windows["1h"].stats.misses == windows["1h"].seconds / 5
    assert windows["5m"].reads_per_second == pytest.approx(0.2)


def test_a_window_that_is_young_says_what_it_covers(
    sampler: Sampler, clock: Clock, cache: Cache[Any]
) -> None:
    assert sampler.windows(cache)["1h"].seconds == 0
    assert sampler.windows(cache)["1h"].reads_per_second == 0

    windows = run(sampler, clock, cache, 20)

    assert [window.seconds for window in windows.values()] == [20, 20, 20]


def test_what_was_done_before_it_is_not_in_it(sampler: Sampler, clock: Clock, cache: Cache[Any]) -> None:
    cache.set("k", 1)
    for _ in range(50):
        cache.get("k")
    run(sampler, clock, cache, 120, reads=0)

    cache.get("k")

    stats = sampler.windows(cache)["1m"].stats
    assert (stats.hits, stats.misses, stats.hit_rate) == (1, 0, 1.0)
    assert stats.layers[0].entries == 1, "how it is now"


def test_counters_of_a_backend_are_those_of_the_window(sampler: Sampler, clock: Clock) -> None:
    settings = {
        "backends": {"m": {"type": "memory", "max_entries": 5}},
        "caches": {"default": {"backend": "m"}},
    }
    with Caches(settings) as world:
        cache, sampler = world["default"], Sampler(lambda: world.opened, clock)
        cache.set_many({str(number): 1 for number in range(20)})
        assert cache.stats().layers[0].evictions
        run(sampler, clock, cache, 120, reads=0)

        assert sampler.windows(cache)["1m"].stats.layers[0].evictions == 0


def test_an_hour_is_kept_in_some_hundred_looks(sampler: Sampler, clock: Clock, cache: Cache[Any]) -> None:
    run(sampler, clock, cache, 3 * 3600, reads=0)

    assert len(sampler._looks["default"]) < 140


def test_a_cache_that_was_closed_begins_anew(sampler: Sampler, clock: Clock, world: Caches) -> None:
    run(sampler, clock, world["default"], 60)
    world["default"].close()

    windows = run(sampler, clock, world["default"], 10)

    assert windows["1h"].stats.misses == 1, "that after the first look at it"
    world["default"].close()
    sampler.look()
    assert sampler._looks.keys() == set()


@pytest.fixture
def sampling() -> Callable[[], int]:
    """How many threads sample that this test began; those of others may still be about to end."""
    before = set(threading.enumerate())
    return lambda: sum(thread.name == "layercache windows" for thread in set(threading.enumerate()) - before)


def test_a_world_samples_from_the_first_question_on_until_it_is_closed(
    world: Caches, sampling: Callable[[], int]
) -> None:
    world["default"].set("k", 1)
    assert sampling() == 0

    world.windows("default")
    world.windows("other")
    assert sampling() == 1

    world["default"].get("k")
    assert world.windows("default")["1m"].stats.hits == 1
    world.close()
    until(lambda: sampling() == 0)


def test_a_world_that_nobody_has_is_not_kept_by_its_sampler(sampling: Callable[[], int]) -> None:
    world = Caches(SETTINGS)
    world.windows("default")
    assert sampling() == 1
    del world

    until_collected(lambda: sampling() == 0)


# -- times


def test_loads_are_timed_and_those_that_fail_as_well(clock: Clock) -> None:
    with Caches(SETTINGS, now=clock) as world:
        cache = world["default"]

        def load() -> int:
            clock.advance(0.2)
            return 1

        def fail() -> int:
            clock.advance(3)
            raise LookupError

        cache.get_or_set("a", load)
        cache.get_or_set("b", load)
        with pytest.raises(LookupError):
            cache.get_or_set("c", fail)

        times = cache.stats().load_times
        assert times.count == 3
        assert times.mean == pytest.approx(3.4 / 3)
        assert times.quantile(0.5) == pytest.approx(0.2, abs=0.06)
        assert 2.5 < times.quantile(0.99) <= 5


def test_what_stays_in_this_process_is_not_timed(cache: Cache[Any]) -> None:
    cache.get("k")

    assert cache.stats().layers[0].read_times is None


def test_far_operations_are_timed(server_url: str) -> None:
    settings = {
        "backends": {"far": {"type": "redis", "url": server_url, "prefix": "times"}},
        "caches": {"default": {"backend": "far"}},
    }
    with Caches(settings) as world:
        cache = world["default"]
        cache.set("k", 1)
        cache.get("k")
        cache.get_many(["k", "l"])
        cache.delete("k")

        layer = cache.stats().layers[0]
        assert layer.read_times is not None
        assert layer.write_times is not None
        assert (layer.read_times.count, layer.write_times.count) == (2, 2)
        assert 0 < layer.read_times.mean < 2


def test_quantiles_are_as_exact_as_the_buckets() -> None:
    histogram = Histogram()
    for number in range(1, 1001):
        histogram.add(number / 1000)

    times = histogram.times()

    for part in (0.1, 0.5, 0.95, 0.99):
        assert times.quantile(part) == pytest.approx(part, rel=0.05)
    assert times.quantile(1.0) == 1.0
    assert times.seconds == pytest.approx(500.5)


def test_of_nothing_there_is_no_time_and_beyond_the_last_bound_it_is_that() -> None:
    assert Times().mean is None
    assert Times().quantile(0.5) is None
    histogram = Histogram()
    histogram.add(1000)
    histogram.add(-1)  # the clock was set back
    assert histogram.times().quantile(0.99) == BOUNDS[-1]
    assert histogram.times().seconds == 1000


def test_times_add_up_and_are_subtracted() -> None:
    one, two = Histogram(), Histogram()
    one.add(0.1)
    before = one.times()
    one.add(3)
    two.add(3)

    assert one.times().since(before) == two.times()
    assert before.together(two.times()) == one.times()
