"""Strategies for frames, and for everything that can happen to bytes on their way."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from layercache.codecs.frame import Frame

moments = st.integers(0, 10**13).map(lambda ms: ms / 1000)
ends = moments | st.just(math.inf)
names = st.text(st.characters(exclude_characters=",", exclude_categories=("Cs",)), min_size=1, max_size=12)
tags = st.tuples(st.text(max_size=20).filter(lambda tag: tag != "*"), st.integers(0, 2**64 - 1))
own_stamps = st.lists(st.tuples(st.just("*"), st.integers(1, 2**64 - 1)), max_size=1)
stamps = st.builds(lambda own, others: (*own, *others), own_stamps, st.lists(tags, max_size=4))
# what the one byte says exactly; all else is rounded to these
spreads = st.integers(0, 255).map(lambda spelt: 2 ** ((spelt - 1) / 12) / 1000 if spelt else 0.0)
frames = st.builds(
    Frame,
    stages=st.lists(names, min_size=1, max_size=4).map(tuple),
    created_at=moments,
    fresh_until=ends,
    dead_at=ends,
    stamps=stamps,
    payload=st.binary(max_size=300),
    spread=spreads,
)


@st.composite
def altered(draw: Any, original: bytes) -> bytes:
    """`original` after one to three accidents; it may have survived them."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        to = draw(st.integers(at, min(len(data), at + 12)))
        other = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(
            st.sampled_from(["flip", "swap", "cut", "cut short", "extend", "insert", "repeat", "overwrite"])
        ):
            case "flip" if data:
                data[at] ^= draw(st.integers(1, 255))
            case "swap" if data:
                data[at], data[other] = data[other], data[at]
            case "cut":
                del data[at:to]
            case "cut short":
                del data[at:]
            case "extend":
                data += draw(st.binary(min_size=1, max_size=12))
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=12))
            case "repeat":
                data[to:to] = data[at:to]
            case _:
                data[at:to] = draw(st.binary(min_size=to - at, max_size=to - at))
    return bytes(data)
