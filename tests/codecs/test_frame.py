"""The frame: what was packed comes out, and nothing else ever does."""

from __future__ import annotations

import math
import struct
from typing import Any
from zlib import crc32

import pytest
from altering import altered, ends, frames, moments
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from layercache.codecs.frame import BadFrame, Frame, pack, pack_times, unpack, unpack_stamps
from layercache.errors import EncodeError

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
    "ab4c4301018bcfe568fa018bcfe5a392ffffffffffff004a0009020000000000"
    "0001026a736f6e2c7a7374640004ffffffffffffffff6e657773000600000000"
    "00000007eca3bcec8b9d7b227072696365223a3138392e357d75319ca6"
)

thoroughly = settings(max_examples=300)


def signed(opening: bytes, times: bytes, head: bytes, payload: bytes) -> bytes:
    """As a writer would leave it that has the format wrong and the check right."""
    check = crc32(payload, crc32(head, crc32(KEY))) ^ crc32(times)
    return b"".join((opening, times, head, payload, struct.pack(">I", check)))


OPENING, TIMES, PAYLOAD = GOLDEN[:4], GOLDEN[4:22], FRAME.payload
HEAD = GOLDEN[22 : -len(PAYLOAD) - 4]


def test_the_format_does_not_change_unnoticed() -> None:
    assert pack(FRAME, KEY).hex() == GOLDEN.hex()
    assert unpack(GOLDEN, KEY) == FRAME


@given(frames, st.binary())
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
        (GOLDEN[: len(GOLDEN) - len(PAYLOAD) - 3], "length"),  # ends within the head
        (signed(OPENING, TIMES, b"\xff" + HEAD[1:], PAYLOAD), "length"),  # a payload that begins nowhere
        (
            signed(OPENING, TIMES, HEAD[:3] + b"\xff" + HEAD[4:], PAYLOAD),
            "length",
        ),  # names longer than the head
        (
            signed(OPENING, TIMES, HEAD[:4] + b"\x01" + HEAD[5:], PAYLOAD),
            "length",
        ),  # fewer tags than there are
        (signed(OPENING, TIMES, HEAD[:4] + b"\xff" + HEAD[5:], PAYLOAD), "malformed"),  # more tags
        (
            signed(OPENING, TIMES, HEAD[:13] + b"\xff" + HEAD[14:], PAYLOAD),
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
    begins = int.from_bytes(packed[22:24])
    parts = [packed[:4], packed[4:22], packed[22:begins], packed[begins:-4]]
    spoilt = data.draw(st.integers(0, 3))
    parts[spoilt] = data.draw(altered(parts[spoilt]))

    try:
        read = unpack(signed(*parts), KEY)
    except BadFrame:
        return

    assert (parts[2] + parts[3]).endswith(read.payload)


@given(frames, moments, ends, ends)
def test_a_store_can_move_the_times_in_place(
    frame: Frame, created_at: float, fresh_until: float, dead_at: float
) -> None:
    packed, times = pack(frame, KEY), pack_times(created_at, fresh_until, dead_at)
    check = int.from_bytes(packed[-4:]) ^ crc32(packed[4:22]) ^ crc32(times)

    read = unpack(packed[:4] + times + packed[22:-4] + struct.pack(">I", check), KEY)

    assert read == frame._replace(created_at=created_at, fresh_until=fresh_until, dead_at=dead_at)


@given(frames, st.binary(min_size=1, max_size=40), st.binary(min_size=1, max_size=40))
def test_a_frame_is_refused_under_any_other_key(frame: Frame, here: bytes, there: bytes) -> None:
    assume(here != there)
    for payload in (frame.payload, b"7"):  # with this one head and payload are as long as the times
        with pytest.raises(BadFrame, match="altered"):
            unpack(pack(frame._replace(stages=("json",), stamps=(), payload=payload), here), there)


@pytest.mark.parametrize("spread", [1e-300, 0.0004, 0.001, 0.03, 1.0, 7.5, 600.0, 2300.0])
def test_the_spread_is_kept_to_a_few_percent(spread: float) -> None:
    read = unpack(pack(FRAME._replace(spread=spread), KEY), KEY)

    assert read.spread == pytest.approx(max(spread, 0.001), rel=0.03)
    assert read._replace(spread=0.0) == FRAME


@pytest.mark.parametrize("spread", [3_000.0, 1e305, math.inf])
def test_a_spread_longer_than_any_load_is_the_longest_there_is(spread: float) -> None:
    assert unpack(pack(FRAME._replace(spread=spread), KEY), KEY).spread == pytest.approx(2_352, rel=0.01)


def test_no_spread_is_none() -> None:
    assert unpack(GOLDEN, KEY).spread == 0.0


def test_times_are_never_rounded_up() -> None:
    read = unpack(pack(FRAME._replace(created_at=0.0019, fresh_until=1.9999, dead_at=1e300), KEY), KEY)

    assert (read.created_at, read.fresh_until, read.dead_at) == (0.001, 1.999, math.inf)


def test_more_tags_than_a_frame_has_room_for_are_refused() -> None:
    for tags in (("a",) * 256, ("x" * 40_000, "y" * 40_000)):
        with pytest.raises(EncodeError, match="at most 255 tags"):
            pack(FRAME._replace(stamps=tuple((tag, 1) for tag in tags)), KEY)


@given(frames)
def test_the_stamps_can_be_read_without_the_payload(frame: Frame) -> None:
    packed = pack(frame, KEY)

    assert unpack_stamps(packed[: int.from_bytes(packed[22:24]) + 4]) == frame.stamps
    with pytest.raises(BadFrame):
        unpack_stamps(packed[: int.from_bytes(packed[22:24]) - 1])
