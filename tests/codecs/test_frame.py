"""The frame: what was packed comes out, and nothing else ever does."""

from __future__ import annotations

import math
import struct
from typing import Any
from zlib import crc32

import pytest
from altering import altered, frames
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from layercache.codecs.frame import BadFrame, Frame, pack, unpack

KEY = b"app:stock:quote:AAPL"
FRAME = Frame(
    stages=("json", "zstd"),
    created_at=1_700_000_000.25,
    fresh_until=1_700_000_015.25,
    dead_at=math.inf,
    stamps=(("news", 2**64 - 1), ("주식", 7)),
    payload=b'{"price":189.5}',
)
GOLDEN = bytes.fromhex(
    "ab4c43010009000241d954fc4010000041d954fc43d000007ff0000000000000"
    "0000000f6a736f6e2c7a7374640004ffffffffffffffff6e6577730006000000"
    "0000000007eca3bcec8b9d7b227072696365223a3138392e357dfdd09a6b"
)

thoroughly = settings(deadline=None, max_examples=300)


def signed(body: bytes) -> bytes:
    """As a writer would leave it that has the format wrong and the check right."""
    return body + struct.pack(">I", crc32(body, crc32(KEY)))


def test_the_format_does_not_change_unnoticed() -> None:
    assert pack(FRAME, KEY).hex() == GOLDEN.hex()
    assert unpack(GOLDEN, KEY) == FRAME


@given(frames, st.binary())
@settings(deadline=None)
def test_what_was_packed_comes_out(frame: Frame, key: bytes) -> None:
    assert unpack(pack(frame, key), key) == frame


def test_a_payload_may_be_anything() -> None:
    for payload in (b"", b"\0" * 1000, GOLDEN, bytes(range(256)) * 300):
        assert unpack(pack(FRAME._replace(payload=payload), KEY), KEY).payload == payload


def test_every_single_flip_is_refused() -> None:
    for bit in range(len(GOLDEN) * 8):
        data = bytearray(GOLDEN)
        data[bit // 8] ^= 1 << bit % 8

        with pytest.raises(BadFrame):
            unpack(bytes(data), KEY)


def test_every_cut_is_refused() -> None:
    for at in range(len(GOLDEN)):
        for data in (GOLDEN[:at], GOLDEN[at + 1 :], GOLDEN[:at] + GOLDEN[at + 1 :]):
            with pytest.raises(BadFrame):
                unpack(data, KEY)


def test_every_swap_of_neighbours_is_refused() -> None:
    for at in range(len(GOLDEN) - 1):
        data = bytearray(GOLDEN)
        data[at], data[at + 1] = data[at + 1], data[at]
        if data != GOLDEN:
            with pytest.raises(BadFrame):
                unpack(bytes(data), KEY)


@pytest.mark.parametrize("more", [b"\0", b"\n", GOLDEN, GOLDEN[-4:], b"\0" * 4096])
def test_an_extension_is_refused(more: bytes) -> None:
    for data in (GOLDEN + more, more + GOLDEN):
        with pytest.raises(BadFrame):
            unpack(data, KEY)


@given(st.data(), frames)
@thoroughly
def test_whatever_happens_to_a_frame_is_refused(data: Any, frame: Frame) -> None:
    original = pack(frame, KEY)
    changed = data.draw(altered(original))
    assume(changed != original)

    with pytest.raises(BadFrame):
        unpack(changed, KEY)


@given(frames, frames, st.binary(), st.binary())
@settings(deadline=None)
def test_frames_that_changed_places_are_refused(one: Frame, other: Frame, here: bytes, there: bytes) -> None:
    assume(here != there)

    with pytest.raises(BadFrame, match="altered"):
        unpack(pack(other, there), here)
    with pytest.raises(BadFrame, match="altered"):
        unpack(pack(one, here), there)


@given(st.binary(max_size=200))
@thoroughly
def test_foreign_content_is_refused(data: bytes) -> None:
    for content in (data, b"\xabLC" + data, b"\xabLC\x01" + data):
        with pytest.raises(BadFrame):
            unpack(content, KEY)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "foreign"),
        (b"hello", "foreign"),
        (b"x" * 500, "foreign"),
        (b'{"price": 189.5}' * 5, "foreign"),
        (GOLDEN[:20], "foreign"),
        (b"\xabLX" + GOLDEN[3:], "foreign"),
        (b"\xabLC\x02" + GOLDEN[4:], "version"),
        (signed(b"\xabLC\x00" + GOLDEN[4:-4]), "version"),
        (GOLDEN[:50] + b"\x00" + GOLDEN[51:], "altered"),
        (signed(b"\xabLC\x01\x80" + GOLDEN[5:-4]), "flags"),
        (signed(GOLDEN[:-5]), "length"),
        (signed(GOLDEN[:-4] + b"\x00"), "length"),
        (signed(GOLDEN[:5] + b"\xff" + GOLDEN[6:-4]), "malformed"),  # stages longer than all of it
        (signed(GOLDEN[:6] + b"\xff\xff" + GOLDEN[8:-4]), "malformed"),  # more stamps than there are
        (signed(GOLDEN[:36] + b"\xff" + GOLDEN[37:-4]), "malformed"),  # a stage whose name is no UTF-8
    ],
)
def test_the_reason_is_a_word(data: bytes, reason: str) -> None:
    with pytest.raises(BadFrame) as caught:
        unpack(data, KEY)

    assert caught.value.reason == reason
    assert str(caught.value) == f"not a frame of this key: {reason}"


@given(st.data(), frames)
@thoroughly
def test_a_writer_with_the_format_wrong_is_refused_or_read_but_never_breaks_the_reader(
    data: Any, frame: Frame
) -> None:
    body = data.draw(altered(pack(frame, KEY)[:-4]))

    try:
        read = unpack(signed(body), KEY)
    except BadFrame:
        return

    assert body.endswith(read.payload)
