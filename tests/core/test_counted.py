"""What was counted, as its readers see it: rates, and what came after an earlier look."""

from __future__ import annotations

from dataclasses import replace

import pytest

from layercache.core.stats import CacheStats, LayerStats
from layercache.core.times import Histogram

LAYER = LayerStats("local", "memory", 30, 10, 4, False, gauges={"entries": 7, "evictions": 5}, write_errors=1)
CACHE = CacheStats("stock", 30, 10, 3, 9, 2, 4.5, 6, 1, 2, 1, 0, (LAYER,))


@pytest.mark.parametrize(
    ("hits", "misses", "rate"), [(0, 0, 0.0), (3, 1, 0.75), (0, 5, 0.0), (5, 0, 1.0), (1, 1, 0.5)]
)
def test_the_hit_rate_is_the_share_of_hits_among_all_reads(hits: int, misses: int, rate: float) -> None:
    assert replace(LAYER, hits=hits, misses=misses).hit_rate == rate
    assert replace(CACHE, hits=hits, misses=misses).hit_rate == rate


def test_of_a_layer_what_came_after_is_counted_and_how_it_is_now_stays() -> None:
    now = replace(LAYER, hits=50, misses=11, errors=6, write_errors=2, gauges={"entries": 3, "evictions": 9})

    since = now.since(LAYER)

    assert (since.hits, since.misses, since.errors, since.write_errors) == (20, 1, 2, 1)
    assert (since.entries, since.evictions, since.bytes) == (3, 4, None)


def test_of_a_cache_what_came_after_is_counted_in_its_layers_too() -> None:
    now = replace(CACHE, hits=42, loads=10, load_seconds=5.0, layers=(replace(LAYER, hits=42),))

    since = now.since(CACHE)

    assert (since.name, since.hits, since.misses, since.loads, since.load_seconds) == ("stock", 12, 0, 1, 0.5)
    assert since.layers[0].hits == 12


def test_a_counter_that_went_back_counts_as_nothing() -> None:
    """Undecodable entries are taken off the hits when they are found, so a look between may have seen more."""
    assert replace(CACHE, hits=29).since(CACHE).hits == 0


def test_as_a_dict_it_has_its_rate_and_its_layers() -> None:
    told = CACHE.as_dict()

    assert (told["hit_rate"], told["layers"][0]["name"]) == (0.75, "local")


def test_times_of_a_layer_count_from_the_earlier_look_where_there_are_any() -> None:
    histogram = Histogram()
    histogram.add(0.2)
    first = replace(LAYER, read_times=histogram.times())
    histogram.add(3.0)

    since = replace(LAYER, read_times=histogram.times()).since(first)

    assert since.read_times is not None
    assert (since.read_times.count, since.read_times.seconds) == (1, pytest.approx(3.0))
    assert since.write_times is None
