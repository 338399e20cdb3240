"""Durations as people write them."""

from __future__ import annotations

import math
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from layercache.durations import DEFAULT, parse_duration, spell_duration
from layercache.errors import CacheError, InvalidTtl


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        (15, 15.0),
        (0, 0.0),
        (-1, -1.0),
        (0.25, 0.25),
        (math.inf, math.inf),
        (None, math.inf),
        (timedelta(minutes=5), 300.0),
        (timedelta(milliseconds=250), 0.25),
        (timedelta(seconds=-5), -5.0),
        ("15s", 15.0),
        ("5m", 300.0),
        ("2h", 7200.0),
        ("1d", 86_400.0),
        ("250ms", 0.25),
        ("9ms", 0.009),
        ("1h30m", 5400.0),
        ("1d 2h 3m 4s 5ms", 93_784.005),
        ("1.5h", 5400.0),
        ("0.5 s", 0.5),
        ("  15s  ", 15.0),
        ("15 s", 15.0),
        ("30m1h", 5400.0),
        ("-5m", -300.0),
        ("-1h30m", -5400.0),
        ("0s", 0.0),
        ("15", 15.0),
        ("0.25", 0.25),
        ("-5", -5.0),
        ("1e3", 1000.0),
        ("forever", math.inf),
        (" Forever ", math.inf),
        ("inf", math.inf),
    ],
)
def test_what_is_documented_is_understood(duration: Any, seconds: float) -> None:
    parsed = parse_duration(duration)

    assert parsed == seconds
    assert type(parsed) is float


@pytest.mark.parametrize(
    "duration",
    [
        True,
        False,
        math.nan,
        -math.inf,
        "nan",
        "-inf",
        "",
        " ",
        "-",
        "--5s",
        "- 5s",
        "s",
        "5 parsecs",
        "5 m in",
        "5M",
        "5S",
        "15sec",
        "1h-5m",
        "1,5h",
        "1.h",
        ".5h",
        "1e3s",
        "-forever",
        "never",
        "\u0665s",
        "9" * 31 + "s",
        "9" * 5000 + "x",
        "1h" * 5000 + "!",
        10**400,
        Decimal(5),
        b"5s",
        [5],
        {"seconds": 5},
        1j,
        DEFAULT,
        object(),
    ],
)
def test_anything_else_is_refused_with_what_would_be_right(duration: Any) -> None:
    with pytest.raises(
        InvalidTtl, match=r"is no duration; right are seconds \(15, 0.5\), a timedelta, text"
    ) as caught:
        parse_duration(duration)

    assert isinstance(caught.value, CacheError)
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 200


@given(st.floats(allow_nan=False).filter(lambda seconds: seconds != -math.inf))
@example(0.009)
@example(0.0001)
@example(-0.5)
@example(-90.0)
@example(1e15)
@example(1e308)
@example(5e-324)
@example(86_399.999)
def test_what_was_spelled_is_read_back_as_the_same(seconds: float) -> None:
    assert parse_duration(spell_duration(seconds)) == seconds


@given(st.integers(-(10**12), 10**12))
def test_whole_milliseconds_are_spelled_in_units(milliseconds: int) -> None:
    spelled = spell_duration(milliseconds / 1000)

    assert parse_duration(spelled) == milliseconds / 1000
    assert spelled.endswith(("d", "h", "m", "s"))


@pytest.mark.parametrize(
    ("seconds", "spelled"),
    [
        (0, "0s"),
        (15, "15s"),
        (0.25, "250ms"),
        (5400, "1h30m"),
        (86_400, "1d"),
        (93_784.005, "1d2h3m4s5ms"),
        (-90, "-1m30s"),
        (math.inf, "forever"),
        (0.0001, "0.0001"),
        (1e20, "1e+20"),
    ],
)
def test_it_is_spelled_as_people_would(seconds: float, spelled: str) -> None:
    assert spell_duration(seconds) == spelled


@given(st.text(alphabet="0123456789dhms. -e", max_size=20) | st.text())
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except InvalidTtl:
        return

    assert not math.isnan(seconds)


def test_what_is_left_out_says_what_it_is() -> None:
    assert repr(DEFAULT) == "DEFAULT"
