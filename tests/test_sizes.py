"""Amounts of memory as people write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from layercache.sizes import parse_size, rough_size, spell_size


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, 0),
        (65536, 65536),
        ("65536", 65536),
        ("1B", 1),
        ("512KB", 512 << 10),
        ("512kb", 512 << 10),
        ("512KiB", 512 << 10),
        ("64MB", 64 << 20),
        ("64 mb", 64 << 20),
        (" 64MiB ", 64 << 20),
        ("1GB", 1 << 30),
        ("2gib", 2 << 30),
        ("1.5MB", 3 << 19),
        ("0.5KB", 512),
        ("0.3KB", 307),  # 307.2, rounded down
        ("1.9B", 1),
        ("9007199254740993", 2**53 + 1),
        ("1.000000000000000000000000000001GB", 1 << 30),
    ],
)
def test_what_is_documented_is_understood(size: Any, expected: int) -> None:
    parsed = parse_size(size)

    assert parsed == expected
    assert type(parsed) is int


@pytest.mark.parametrize(
    "size",
    [
        -1,
        "-1",
        "-5MB",
        True,
        False,
        1.5,
        None,
        "",
        " ",
        "MB",
        "5 parsecs",
        "5M",
        "5TB",
        "1,5MB",
        "1.MB",
        ".5MB",
        "1e3",
        "inf",
        "nan",
        "\u0665MB",
        "5MB5KB",
        "9" * 31,
        "9" * 5000 + "MB",
        b"5MB",
        [5],
    ],
)
def test_anything_else_is_refused_with_what_would_be_right(size: Any) -> None:
    with pytest.raises(
        ValueError, match=r'is no size; right are bytes \(65536\) or text such as "512KB"'
    ) as caught:
        parse_size(size)

    assert len(str(caught.value)) < 150


@given(st.integers(0, 2**90))
@example(2**53 + 1)
@example(2**63 - 1)
def test_what_was_spelled_is_read_back_as_the_same(size: int) -> None:
    assert parse_size(spell_size(size)) == size


@pytest.mark.parametrize(
    ("size", "spelled"),
    [
        (0, "0B"),
        (1, "1B"),
        (1023, "1023B"),
        (1024, "1KB"),
        (1536, "1536B"),
        (64 << 20, "64MB"),
        (3 << 30, "3GB"),
        (4096 << 30, "4096GB"),
    ],
)
def test_it_is_spelled_in_the_largest_unit_that_keeps_it_exact(size: int, spelled: str) -> None:
    assert spell_size(size) == spelled


@pytest.mark.parametrize(
    ("size", "spelled"),
    [
        (0, "0 bytes"),
        (1023, "1,023 bytes"),
        (1536, "1.5 KB"),
        (67_000_000, "63.9 MB"),
        (3 << 40, "3,072.0 GB"),
    ],
)
def test_people_are_told_it_rounded(size: int, spelled: str) -> None:
    assert rough_size(size) == spelled


@given(st.text(alphabet="0123456789.KMGIBkmgib ", max_size=12) | st.text())
def test_any_text_is_a_size_or_refused(text: str) -> None:
    try:
        size = parse_size(text)
    except ValueError as error:
        assert "is no size" in str(error)  # noqa: PT017
        return

    assert size >= 0
