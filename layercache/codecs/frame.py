"""The frame: what a byte store keeps for one key.

    magic    3 bytes   ab 'L' 'C'
    version  1 byte    1
    times    3 x 6     created_at, fresh_until, dead_at: milliseconds of the wall clock, all bits set for ever
    head     2 bytes   where the payload begins
             1         the spread of early refreshes, 0 for none, else 2^((n-1)/12) ms: n of 255 is 39 minutes
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
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final, NamedTuple, TypeAlias, cast
from zlib import crc32

from layercache.entry import CACHE_TAG, Stamps
from layercache.errors import DecodeError, EncodeError

__all__ = [
    "FIXED_HEAD",
    "MAX_PAYLOAD",
    "BadFrame",
    "Frame",
    "head_of",
    "is_of_another_version",
    "own_stamp_of",
    "pack",
    "pack_times",
    "sealed_with",
    "sealed_with_parts",
    "seen",
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
_KEY: Final = struct.Struct(">I")  # the length of a key, where it is bound in
_FOR_EVER: Final = (1 << 48) - 1
_LONGEST_SPREAD: Final = 2 ** (254 / 12)  # milliseconds, that one byte can say
_LATEST: Final = 2.8e11  # seconds: beyond 8,900 years is for ever, and before 1970 nothing was
_UP: Final = 0.001  # milliseconds: 130.045 * 1000 is a little less than 130045
FIXED_HEAD: Final = _NAMES_AT
_MOST_HEAD: Final = 0xFFFF + 64
MAX_PAYLOAD: Final = (1 << 32) - 1  # what a store's own string lengths can say


class BadFrame(DecodeError):
    """Bytes that are no frame of this key, with the reason as a word for a counter."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a frame of this key: {reason}")
        self.reason = reason


_Parts: TypeAlias = tuple[tuple[str, ...], float, float, float, Stamps, bytes, float]
"""A frame as `pack` takes it: a plain tuple is made in a fifth of the time."""


class Frame(NamedTuple):
    """The parts of a frame; `stages` are the ones that were applied, in order."""

    stages: tuple[str, ...]
    created_at: float
    fresh_until: float
    dead_at: float
    stamps: Stamps
    payload: bytes
    spread: float = 0.0


# as the class itself does it, but for the Python around it, which takes as long
_frame: Final = cast("Callable[[_Parts], Frame]", partial(tuple.__new__, Frame))


def pack(frame: Frame | _Parts, key: bytes) -> bytes:
    """Return the bytes to keep under the physical `key`; `EncodeError` for tags of too many bytes."""
    stages, created_at, fresh_until, dead_at, stamps, payload, spread = frame
    head = _head(stages, stamps, _spelt_spread(spread) if spread else 0)
    times = pack_times(created_at, fresh_until, dead_at)
    check = crc32(payload, crc32(head, crc32(key))) ^ crc32(times)
    return b"".join((_OPENING, times, head, payload, _CHECK.pack(check)))


def sealed_with_parts(frame: Frame | _Parts, key: bytes) -> bytes:
    """Return what a seal binds its payload to: the physical `key`, and all that stands before the payload in the frame
    that `pack` would make: version, times, stages, stamps. No two frames that differ in any of it have the same."""
    stages, created_at, fresh_until, dead_at, stamps, _, spread = frame
    head = _head(stages, stamps, _spelt_spread(spread) if spread else 0)
    return b"".join((_KEY.pack(len(key)), key, _OPENING, pack_times(created_at, fresh_until, dead_at), head))


def sealed_with(data: bytes, key: bytes) -> bytes:
    """Return the same of a frame that `unpack` has read."""
    return b"".join((_KEY.pack(len(key)), key, data[: _payload_at(data)]))


def pack_times(created_at: float, fresh_until: float, dead_at: float) -> bytes:
    """Return how a frame spells its times, seconds of the wall clock: rounded down to milliseconds."""
    if 0.0 <= created_at <= fresh_until <= dead_at < _LATEST:  # nearly always, and then in half the time
        created, fresh = int(created_at * 1000 + _UP), int(fresh_until * 1000 + _UP)
        dead = fresh if dead_at == fresh_until else int(dead_at * 1000 + _UP)
    else:
        created, fresh, dead = _ms(created_at), _ms(fresh_until), _ms(dead_at)
    return (created << 96 | fresh << 48 | dead).to_bytes(_TIMES_SIZE)


def _ms(seconds: float) -> int:
    return _FOR_EVER if seconds >= _LATEST else max(0, int(seconds * 1000 + _UP))


def _spelt_spread(seconds: float) -> int:
    # in steps of 6 %: early refreshes are a matter of chance in any case
    return 1 + round(12 * math.log2(min(max(1.0, seconds * 1000), _LONGEST_SPREAD)))


def _spread(spelt: int) -> float:
    return float(2 ** ((spelt - 1) / 12) / 1000)


@lru_cache(maxsize=256)  # entries without tags all have the same
def _head(stages: tuple[str, ...], stamps: Stamps, spread: int) -> bytes:
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
    return _HEAD.pack(begins, spread, len(names), count, own) + names + tags


def unpack(data: bytes, key: bytes) -> Frame:
    """Return the parts of what is kept under the physical `key`, or raise `BadFrame`.

    The check comes first, so that what follows meets only what some writer meant to write: a
    frame of ours, or one of a program that has the format wrong.
    """
    begins = _payload_at(data)
    times, head, payload = data[_TIMES_AT:_HEAD_AT], data[_HEAD_AT:begins], data[begins:-4]
    check = crc32(payload, crc32(head, crc32(key))) ^ crc32(times)
    if check != int.from_bytes(data[-4:]):
        raise BadFrame("altered")
    return _parts(times, head, payload)


def _parts(times: bytes, head: bytes, payload: bytes) -> Frame:
    stages, stamps, spread = _read_head(head)
    all_times = int.from_bytes(times)
    fresh, dead = all_times >> 48 & _FOR_EVER, all_times & _FOR_EVER
    fresh_until = math.inf if fresh == _FOR_EVER else fresh / 1000
    dead_at = math.inf if dead == _FOR_EVER else dead / 1000
    return _frame((stages, (all_times >> 96) / 1000, fresh_until, dead_at, stamps, payload, spread))


def seen(data: bytes) -> Frame:
    """Return the parts of a frame that begins with `data`, unchecked, and of its payload what there is; `BadFrame`
    where its head is not whole, for which the first `_MOST_HEAD` bytes always do."""
    begins = _payload_at(data)
    return _parts(data[_TIMES_AT:_HEAD_AT], data[_HEAD_AT:begins], data[begins:])


def own_stamp_of(data: bytes) -> int:
    """Return the cache's stamp that a frame carries which begins with `data`, `FIXED_HEAD` bytes or more; 0 for none,
    and for what is no frame."""
    if data[:_TIMES_AT] != _OPENING or len(data) < FIXED_HEAD:
        return 0
    own: int = _HEAD.unpack_from(data, _HEAD_AT)[-1]
    return own


def unpack_stamps(data: bytes) -> Stamps:
    """Return the stamps of a frame that begins with `data`, unchecked; `BadFrame` where its head is not whole."""
    _, stamps, _ = _read_head(head_of(data))
    return stamps


def head_of(data: bytes) -> bytes:
    """Return the head of a frame: its stages, its stamps and its spread."""
    return data[_HEAD_AT : _payload_at(data)]


def is_of_another_version(data: bytes) -> bool:
    """Whether `data` seems to be a frame of a version that is not read here, but may be elsewhere."""
    return (
        data[:_VERSION_AT] == _OPENING[:_VERSION_AT] and data[_VERSION_AT:_TIMES_AT] != _OPENING[_VERSION_AT:]
    )


def _payload_at(data: bytes) -> int:
    if data[:_TIMES_AT] != _OPENING or len(data) < _NAMES_AT + 4:
        raise BadFrame("version" if is_of_another_version(data) else "foreign")
    begins = data[_HEAD_AT] << 8 | data[_HEAD_AT + 1]
    if not _NAMES_AT <= begins <= len(data) - 4:
        raise BadFrame("length")
    return begins


@lru_cache(maxsize=256)
def _read_head(head: bytes) -> tuple[tuple[str, ...], Stamps, float]:
    """Return the stages, the stamps and the spread."""
    _, spread, length, count, own = _HEAD.unpack_from(head)
    names, tags = head[_HEAD.size : _HEAD.size + length], head[_HEAD.size + length :]
    if len(names) < length:
        raise BadFrame("length")
    try:
        stages = tuple(names.decode().split(","))
    except UnicodeDecodeError as error:
        raise BadFrame("malformed") from error
    stamps = (((CACHE_TAG, own),) if own else ()) + _tags(tags, count)
    return stages, stamps, _spread(spread) if spread else 0.0


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
