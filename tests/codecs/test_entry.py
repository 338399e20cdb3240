"""An entry's times: a skewed clock may shorten a life, never lengthen it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layercache.entry import MISSING, Entry, Freshness

seconds = st.floats(0, 1e6)
moments = st.floats(1e9, 2e9)


def entry(created_at: float = 100.0, fresh: float = 10.0, life: float = 60.0) -> Entry:
    return Entry(b"1", MISSING, created_at, created_at + fresh, created_at + life, (("tag", 1),))


def test_missing_is_falsy_and_says_what_it_is() -> None:
    assert not MISSING
    assert repr(MISSING) == "MISSING"
    assert MISSING is not None


@pytest.mark.parametrize(
    ("now", "freshness"),
    [
        (100, Freshness.FRESH),
        (109.9, Freshness.FRESH),
        (110, Freshness.STALE),
        (159.9, Freshness.STALE),
        (160, Freshness.DEAD),
    ],
)
def test_an_entry_is_fresh_then_stale_then_dead(now: float, freshness: Freshness) -> None:
    assert entry().freshness(now) is freshness
    assert (entry().left(now) <= 0) is (freshness is Freshness.DEAD)


def test_a_writer_whose_clock_runs_ahead_adds_nothing() -> None:
    assert entry(created_at=100, life=60).left(now=40) == 60


def test_what_lives_for_ever_always_does() -> None:
    for_ever = entry(life=math.inf)

    assert for_ever.left(1e12) == math.inf
    assert for_ever.living_at_most(math.inf, 100) is for_ever


@given(moments, moments, seconds, seconds)
def test_living_at_most_never_lengthens(created_at: float, now: float, life: float, most: float) -> None:
    original = entry(created_at, life / 2, life)

    shortened = original.living_at_most(most, now)

    assert shortened.left(now) <= min(original.left(now), most) + 1e-6
    assert shortened.fresh_until <= original.fresh_until
    assert shortened.fresh_until - now <= life / 2 + 1e-6 or shortened is original
    assert shortened.stamps == original.stamps


def test_a_writer_far_ahead_leaves_what_the_store_leaves() -> None:
    ahead = entry(created_at=500, fresh=60, life=60)

    shortened = ahead.living_at_most(30, now=100)

    assert shortened.left(100) == 30
    assert shortened.left(131) < 0


@given(moments, seconds)
def test_living_again_starts_a_new_life(now: float, life: float) -> None:
    again = entry().living_again(life, now)

    assert again.left(now) == pytest.approx(life, abs=1e-6)
    assert (again.payload, again.stamps) == (b"1", (("tag", 1),))


def test_a_repr_shows_no_value() -> None:
    assert repr(entry()) == "<Entry 1 B fresh_until=110.000 dead_at=160.000>"
    assert repr(Entry(None, "secret", 0, 1, 2)) == "<Entry shared fresh_until=1.000 dead_at=2.000>"
