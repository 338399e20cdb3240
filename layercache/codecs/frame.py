"""The frame: what a byte store keeps for one key.

    magic    3 bytes   ab 'L' 'C'
    version  1 byte    1
    flags    1 byte    none are defined; any set bit makes the frame unreadable
    stages   1 byte    length of their names, which follow the header, joined by ','
    stamps   2 bytes   how many; each is a tag's length (2), its stamp (8) and its UTF-8
    times    3 x 8     created_at, fresh_until, dead_at: wall-clock seconds, inf for ever
    length   4 bytes   of the payload
    ...                stage names, stamps, payload
    check    4 bytes   CRC-32 over the physical key and all of the above

All integers are big-endian. Rule: what is truncated, extended, altered, of another version or
filed under another key is refused with `BadFrame`, never read as something else.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple
from zlib import crc32

from layercache.entry import Stamps
from layercache.errors import DecodeError

__all__ = ["MAX_PAYLOAD", "BadFrame", "Frame", "pack", "unpack"]

_MAGIC: Final = b"\xabLC"
_VERSION: Final = 1
_HEADER: Final = struct.Struct(">3sBBBHdddI")
_STAMP: Final = struct.Struct(">HQ")
_CHECK: Final = struct.Struct(">I")
MAX_PAYLOAD: Final = (1 << 32) - 1  # what `length` can say


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
    stages = ",".join(frame.stages).encode()
    header = _HEADER.pack(
        _MAGIC,
        _VERSION,
        0,
        len(stages),
        len(frame.stamps),
        frame.created_at,
        frame.fresh_until,
        frame.dead_at,
        len(frame.payload),
    )
    stamps = [_STAMP.pack(len(tag.encode()), stamp) + tag.encode() for tag, stamp in frame.stamps]
    body = b"".join((header, stages, *stamps, frame.payload))
    return body + _CHECK.pack(crc32(body, crc32(key)))


def unpack(data: bytes, key: bytes) -> Frame:
    """Return the parts of what is kept under the physical `key`, or raise `BadFrame`.

    The check comes first, so that what follows meets only what some writer meant to write: a
    frame of ours, or one of a program that has the format wrong.
    """
    if len(data) < _HEADER.size + _CHECK.size or data[:3] != _MAGIC:
        raise BadFrame("foreign")
    if data[3] != _VERSION:
        raise BadFrame("version")
    body = memoryview(data)[: -_CHECK.size]
    if crc32(body, crc32(key)) != _CHECK.unpack_from(data, len(body))[0]:
        raise BadFrame("altered")
    try:
        return _parts(body)
    except (struct.error, UnicodeDecodeError) as error:
        raise BadFrame("malformed") from error


def _parts(body: memoryview) -> Frame:
    _, _, flags, stages_length, count, created_at, fresh_until, dead_at, length = _HEADER.unpack_from(body)
    if flags:
        raise BadFrame("flags")
    offset = _HEADER.size + stages_length
    stages = bytes(body[_HEADER.size : offset]).decode().split(",")
    stamps = []
    for _ in range(count):
        tag_length, stamp = _STAMP.unpack_from(body, offset)
        offset += _STAMP.size
        stamps.append((bytes(body[offset : offset + tag_length]).decode(), stamp))
        offset += tag_length
    if len(body) - offset != length:
        raise BadFrame("length")
    return Frame(tuple(stages), created_at, fresh_until, dead_at, tuple(stamps), bytes(body[offset:]))
