"""The frame: what was packed comes out, and nothing else ever does."""

from __future__ import annotations

import math
import struct
from typing import Any
from zlib import crc32

import pytest
from altering import altered, frames
from altering import times as finite
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from layercache.codecs.frame import TIMES_AT, BadFrame, Frame, pack, pack_times, unpack, unpack_stamps

KEY = b"app:stock:quote:AAPL"
FRAME = Frame(
    stages=("json", "zstd"),
    created_at=1_700_000_000.25,
    fresh_until=1_700_000_015.25,
    dead_at=math.inf,
    stamps=(("*", 258), ("news", 2**64 - 1), ("주식", 7)),
    payload=b'{"price":189.5}',
)
GOLDEN = bytes.fromhex(
    "ab4c430141d954fc4010000041d954fc43d000007ff00000000000002385256c"
    "0000005b0009000200000000000001026a736f6e2c7a7374640004ffffffffff"
    "ffffff6e65777300060000000000000007eca3bcec8b9d50f0bd147b22707269"
    "6365223a3138392e357dfbaffa3a"
)

thoroughly = settings(deadline=None, max_examples=300)


def signed(opening: bytes, times: bytes, head: bytes, payload: bytes) -> bytes:
    """As a writer would leave it that has the format wrong and the checks right."""
    check = crc32(head, crc32(KEY))
    parts = (
        opening,
        times,
        struct.pack(">I", crc32(times, crc32(KEY))),
        head,
        struct.pack(">I", check),
        payload,
        struct.pack(">I", crc32(payload, check)),
    )
    return b"".join(parts)


OPENING, TIMES, PAYLOAD = GOLDEN[:4], GOLDEN[4:28], FRAME.payload
HEAD = GOLDEN[32 : -len(PAYLOAD) - 8]


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
        (signed(b"\xabLC\x00", TIMES, HEAD, PAYLOAD), "version"),
        (GOLDEN[:20] + b"\x00" + GOLDEN[21:], "altered"),
        (GOLDEN[:50] + b"\x00" + GOLDEN[51:], "altered"),
        (GOLDEN[:-6] + b"\x00" + GOLDEN[-5:], "altered"),
        (signed(OPENING, TIMES, HEAD[:4] + b"\x80" + HEAD[5:], PAYLOAD), "flags"),
        (GOLDEN[: len(GOLDEN) - len(PAYLOAD) - 5], "length"),  # ends within the head
        (signed(OPENING, TIMES, b"\xff" + HEAD[1:], PAYLOAD), "length"),  # a payload that begins nowhere
        (
            signed(OPENING, TIMES, HEAD[:5] + b"\xff" + HEAD[6:], PAYLOAD),
            "length",
        ),  # names longer than the head
        (
            signed(OPENING, TIMES, HEAD[:7] + b"\x01" + HEAD[8:], PAYLOAD),
            "length",
        ),  # fewer tags than there are
        (signed(OPENING, TIMES, HEAD[:6] + b"\xff\xff" + HEAD[8:], PAYLOAD), "malformed"),  # more tags
        (
            signed(OPENING, TIMES, HEAD[:16] + b"\xff" + HEAD[17:], PAYLOAD),
            "malformed",
        ),  # a name that is no UTF-8
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
    packed = pack(frame, KEY)
    begins = int.from_bytes(packed[32:36])
    parts = [packed[:4], packed[4:28], packed[32 : begins - 4], packed[begins:-4]]
    spoilt = data.draw(st.integers(0, 3))
    parts[spoilt] = data.draw(altered(parts[spoilt]))

    try:
        read = unpack(signed(*parts), KEY)
    except BadFrame:
        return

    assert read.payload == parts[3]


@given(frames, st.tuples(finite, finite, finite))
@settings(deadline=None)
def test_a_store_can_move_the_times_in_place(frame: Frame, times: tuple[float, float, float]) -> None:
    packed, moved = pack(frame, KEY), pack_times(*times, KEY)

    read = unpack(packed[:TIMES_AT] + moved + packed[TIMES_AT + len(moved) :], KEY)

    assert read == frame._replace(created_at=times[0], fresh_until=times[1], dead_at=times[2])
    with pytest.raises(BadFrame, match="altered"):
        unpack(packed[:TIMES_AT] + pack_times(*times, b"another") + packed[TIMES_AT + len(moved) :], KEY)


@given(frames)
@settings(deadline=None)
def test_the_stamps_can_be_read_without_the_payload(frame: Frame) -> None:
    packed = pack(frame, KEY)

    assert unpack_stamps(packed[: int.from_bytes(packed[32:36]) + 4], KEY) == frame.stamps
    with pytest.raises(BadFrame):
        unpack_stamps(packed, b"another key")
