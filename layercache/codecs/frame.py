"""The frame: what a byte store keeps for one key.

    magic    3 bytes   ab 'L' 'C'
    version  1 byte    1
    times    3 x 6     created_at, fresh_until, dead_at: milliseconds of the wall clock, all bits set for ever
    head     2 bytes   where the payload begins
             1         flags; none are defined, any set bit makes the frame unreadable
             1         length of the names of the stages, joined by ','
             1         how many tags
             8         the cache's own stamp, 0 for none
             ...       the names; then of each tag its length (2), its stamp (8) and its UTF-8
    payload  ...
    check    4 bytes   CRC-32 over the physical key, the head and the payload, XOR the one over the times

All integers are big-endian. Rules: what is truncated, extended, altered, of another version or filed under another key
is refused with `BadFrame`, never read as something else. A store that can run a script moves the times, or counts,
without the rest, as CRC-32 is linear; what was altered before stays so (docs/decisions/0006).
"""

from __future__ import annotations

import math
import struct
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias
from zlib import crc32

from layercache.entry import CACHE_TAG, Stamps
from layercache.errors import DecodeError, EncodeError

__all__ = [
    "MAX_PAYLOAD",
    "BadFrame",
    "Frame",
    "is_of_another_version",
    "pack",
    "pack_times",
    "unpack",
    "unpack_stamps",
]

_OPENING: Final = b"\xabLC\x01"
_VERSION_AT: Final = 3
_TIMES_AT: Final = len(_OPENING)
_TIMES_SIZE: Final = 18
_HEAD_AT: Final = _TIMES_AT + _TIMES_SIZE
_HEAD: Final = struct.Struct(">HBBBQ")
_NAMES_AT: Final = _HEAD_AT + _HEAD.size
_TAG: Final = struct.Struct(">HQ")
_CHECK: Final = struct.Struct(">I")
_FOR_EVER: Final = (1 << 48) - 1
MAX_PAYLOAD: Final = (1 << 32) - 1  # what a store's own string lengths can say


class BadFrame(DecodeError):
    """Bytes that are no frame of this key, with the reason as a word for a counter."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a frame of this key: {reason}")
        self.reason = reason


Parts: TypeAlias = tuple[tuple[str, ...], float, float, float, Stamps, bytes]
"""A frame as `pack` takes it: a plain tuple is made in a fifth of the time."""


class Frame(NamedTuple):
    """The parts of a frame; `stages` are the ones that were applied, in order."""

    stages: tuple[str, ...]
    created_at: float
    fresh_until: float
    dead_at: float
    stamps: Stamps
    payload: bytes


def pack(frame: Frame | Parts, key: bytes) -> bytes:
    """Return the bytes to keep under the physical `key`; `EncodeError` for tags of too many bytes."""
    stages, created_at, fresh_until, dead_at, stamps, payload = frame
    head = _head(stages, stamps)
    times = pack_times(created_at, fresh_until, dead_at)
    check = crc32(payload, crc32(head, crc32(key))) ^ crc32(times)
    return b"".join((_OPENING, times, head, payload, _CHECK.pack(check)))


def pack_times(created_at: float, fresh_until: float, dead_at: float) -> bytes:
    """Return how a frame spells its times, seconds of the wall clock: rounded down to milliseconds."""
    fresh = _ms(fresh_until)
    dead = fresh if dead_at == fresh_until else _ms(dead_at)
    return (_ms(created_at) << 96 | fresh << 48 | dead).to_bytes(_TIMES_SIZE)


def _ms(seconds: float) -> int:
    # 130.045 * 1000 is a little less than 130045; beyond 8,900 years is for ever, and before 1970 nothing was
    return int(seconds * 1000 + 0.001) if 0.0 <= seconds < 2.8e11 else _FOR_EVER if seconds > 0.0 else 0


@lru_cache(maxsize=256)  # entries without tags all have the same
def _head(stages: tuple[str, ...], stamps: Stamps) -> bytes:
    names = ",".join(stages).encode()
    own, tags = 0, b""
    for tag, stamp in stamps:
        if tag == CACHE_TAG and stamp:
            own = stamp
        else:
            spelt = tag.encode()
            tags += _TAG.pack(len(spelt), stamp) + spelt
    begins, count = _NAMES_AT + len(names) + len(tags), len(stamps) - (own != 0)
    if begins > 0xFFFF or count > 0xFF:
        raise EncodeError("an entry carries at most 255 tags, of at most 60 kB together")
    return _HEAD.pack(begins, 0, len(names), count, own) + names + tags


def unpack(data: bytes, key: bytes) -> Frame:
    """Return the parts of what is kept under the physical `key`, or raise `BadFrame`.

    The check comes first, so that what follows meets only what some writer meant to write: a
    frame of ours, or one of a program that has the format wrong.
    """
    begins, flags, names, count, own = _parsed_head(data)
    payload, times = data[begins:-4], data[_TIMES_AT:_HEAD_AT]
    check = crc32(payload, crc32(data[_HEAD_AT:begins], crc32(key))) ^ crc32(times)
    if check != int.from_bytes(data[-4:]):
        raise BadFrame("altered")
    if flags:
        raise BadFrame("flags")
    tags_at = _NAMES_AT + names
    stamps: Stamps = ((CACHE_TAG, own),) if own else ()
    if count or tags_at != begins:
        stamps += _tags(data[tags_at:begins], count)
    all_times = int.from_bytes(times)
    fresh, dead = all_times >> 48 & _FOR_EVER, all_times & _FOR_EVER
    fresh_until = math.inf if fresh == _FOR_EVER else fresh / 1000
    dead_at = math.inf if dead == _FOR_EVER else dead / 1000
    stages = _stages(data[_NAMES_AT:tags_at])
    return Frame(stages, (all_times >> 96) / 1000, fresh_until, dead_at, stamps, payload)


def unpack_stamps(data: bytes) -> Stamps:
    """Return the stamps of a frame that begins with `data`, unchecked; `BadFrame` where its head is not whole."""
    begins, _, names, count, own = _parsed_head(data)
    tags = _tags(data[_NAMES_AT + names : begins], count)
    return ((CACHE_TAG, own), *tags) if own else tags


def is_of_another_version(data: bytes) -> bool:
    """Whether `data` seems to be a frame of a version that is not read here, but may be elsewhere."""
    return (
        data[:_VERSION_AT] == _OPENING[:_VERSION_AT] and data[_VERSION_AT:_TIMES_AT] != _OPENING[_VERSION_AT:]
    )


def _parsed_head(data: bytes) -> tuple[int, int, int, int, int]:
    if len(data) < _NAMES_AT + 4 or data[:_VERSION_AT] != _OPENING[:_VERSION_AT]:
        raise BadFrame("foreign")
    if data[_VERSION_AT] != _OPENING[_VERSION_AT]:
        raise BadFrame("version")
    begins, flags, names, count, own = _HEAD.unpack_from(data, _HEAD_AT)
    if not _NAMES_AT + names <= begins <= len(data) - 4:
        raise BadFrame("length")
    return begins, flags, names, count, own


def _tags(data: bytes, count: int) -> Stamps:
    stamps, offset = [], 0
    try:
        for _ in range(count):
            length, stamp = _TAG.unpack_from(data, offset)
            offset += _TAG.size
            stamps.append((data[offset : offset + length].decode(), stamp))
            offset += length
    except (struct.error, UnicodeDecodeError) as error:
        raise BadFrame("malformed") from error
    if offset != len(data):
        raise BadFrame("length")
    return tuple(stamps)


@lru_cache(maxsize=64)  # a backend has one pipeline, so a handful of names
def _stages(names: bytes) -> tuple[str, ...]:
    try:
        return tuple(names.decode().split(","))
    except UnicodeDecodeError as error:
        raise BadFrame("malformed") from error
