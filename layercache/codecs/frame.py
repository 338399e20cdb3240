"""The frame: what a byte store keeps for one key.

    magic    3 bytes   ab 'L' 'C'
    version  1 byte    1
    times    3 x 8     created_at, fresh_until, dead_at: wall-clock seconds, inf for ever
             4         CRC-32 over the physical key and the times
    head     4 bytes   where the payload begins
             1         flags; none are defined, any set bit makes the frame unreadable
             1         length of the names of the stages, joined by ','
             2         how many tags
             8         the cache's own stamp, 0 for none
             ...       the names; then of each tag its length (2), its stamp (8) and its UTF-8
             4         CRC-32 over the physical key and the head so far
    payload  ...
    check    4 bytes   CRC-32 over the payload, going on from the head's

All integers are big-endian. Rule: what is truncated, extended, altered, of another version or filed under another
key is refused with `BadFrame`, never read as something else. The parts have checks of their own so that a store
that can run a script moves the times, or counts, without the rest (docs/decisions/0006).
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final, NamedTuple
from zlib import crc32

from layercache.entry import CACHE_TAG, Stamps
from layercache.errors import DecodeError

__all__ = ["MAX_PAYLOAD", "TIMES_AT", "BadFrame", "Frame", "pack", "pack_times", "unpack", "unpack_stamps"]

_MAGIC: Final = b"\xabLC"
_VERSION: Final = 1
_OPENING: Final = _MAGIC + bytes([_VERSION])
_TIMES: Final = struct.Struct(">ddd")
_HEAD: Final = struct.Struct(">IBBHQ")
_TAG: Final = struct.Struct(">HQ")
_CHECK: Final = struct.Struct(">I")
TIMES_AT: Final = len(_OPENING)
_HEAD_AT: Final = TIMES_AT + _TIMES.size + _CHECK.size
_NAMES_AT: Final = _HEAD_AT + _HEAD.size
_LEAST: Final = _NAMES_AT + 2 * _CHECK.size
MAX_PAYLOAD: Final = (1 << 32) - 1  # what a store's own string lengths can say


class BadFrame(DecodeError):
    """Bytes that are no frame of this key, with the reason as a word for a counter."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a frame of this key: {reason}")
        self.reason = reason


class Frame(NamedTuple):
    """The parts of a frame; `stages` are the ones that were applied, in order."""

    stages: tuple[str, ...]
    created_at: float
    fresh_until: float
    dead_at: float
    stamps: Stamps
    payload: bytes


def pack(frame: Frame, key: bytes) -> bytes:
    """Return the bytes to keep under the physical `key`."""
    head = _head(frame.stages, frame.stamps)
    seed = crc32(key)
    times = _TIMES.pack(frame.created_at, frame.fresh_until, frame.dead_at)
    check = crc32(head, seed)
    return b"".join((
        _OPENING,
        times,
        _CHECK.pack(crc32(times, seed)),
        head,
        _CHECK.pack(check),
        frame.payload,
        _CHECK.pack(crc32(frame.payload, check)),
    ))  # fmt: skip


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
    begins = _NAMES_AT + len(names) + len(tags) + _CHECK.size
    return _HEAD.pack(begins, 0, len(names), len(stamps) - (own != 0), own) + names + tags


def pack_times(created_at: float, fresh_until: float, dead_at: float, key: bytes) -> bytes:
    """Return what stands at `TIMES_AT` in a frame of the physical `key`."""
    times = _TIMES.pack(created_at, fresh_until, dead_at)
    return times + _CHECK.pack(crc32(times, crc32(key)))


def unpack(data: bytes, key: bytes) -> Frame:
    """Return the parts of what is kept under the physical `key`, or raise `BadFrame`.

    The checks come first, so that what follows meets only what some writer meant to write: a
    frame of ours, or one of a program that has the format wrong.
    """
    seed = crc32(key)
    begins, names, count, own, check = _checked_head(data, seed)
    times = data[TIMES_AT : _HEAD_AT - 4]
    payload = data[begins:-4]
    if crc32(times, seed) != int.from_bytes(data[_HEAD_AT - 4 : _HEAD_AT]) or crc32(
        payload, check
    ) != int.from_bytes(data[-4:]):
        raise BadFrame("altered")
    created_at, fresh_until, dead_at = _TIMES.unpack(times)
    tags_at = _NAMES_AT + names
    stamps: Stamps = ((CACHE_TAG, own),) if own else ()
    if count or tags_at != begins - 4:
        stamps += _tags(data[tags_at : begins - 4], count)
    return Frame(_stages(data[_NAMES_AT:tags_at]), created_at, fresh_until, dead_at, stamps, payload)


def unpack_stamps(data: bytes, key: bytes) -> Stamps:
    """Return the stamps of a frame whose beginning `data` is; `BadFrame` where it has no whole head."""
    begins, names, count, own, _ = _checked_head(data, crc32(key))
    tags = _tags(data[_NAMES_AT + names : begins - 4], count)
    return ((CACHE_TAG, own), *tags) if own else tags


def _checked_head(data: bytes, seed: int) -> tuple[int, int, int, int, int]:
    if len(data) < _LEAST or data[:3] != _MAGIC:
        raise BadFrame("foreign")
    if data[3] != _VERSION:
        raise BadFrame("version")
    begins, flags, names, count, own = _HEAD.unpack_from(data, _HEAD_AT)
    if not _NAMES_AT + names + 4 <= begins <= len(data) - 4:
        raise BadFrame("length")
    check = crc32(data[_HEAD_AT : begins - 4], seed)
    if check != int.from_bytes(data[begins - 4 : begins]):
        raise BadFrame("altered")
    if flags:
        raise BadFrame("flags")
    return begins, names, count, own, check


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
