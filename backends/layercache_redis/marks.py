"""Marks: which tags were invalidated lately, for loads that tell their tags late.

What was loaded may be from before an invalidation of such a tag, and would carry the stamp from after it.

Rules:
1. Every invalidation leaves a number in the bucket of its tag, in the step that changes the stamp (`marks.lua`); what
   was loaded is stored only if none of its buckets holds one beyond that of its lease.
2. In a cluster, where that is no single step, a bucket is pending before and until after it.
3. The marks have a name by chance: those that were lost and made anew are others, and by them nothing is stored that
   was loaded before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from zlib import crc32

from layercache.entry import CACHE_TAG, Stamps
from layercache_redis.calls import Calls, Taken
from layercache_redis.scripts import MARK, STAMP
from layercache_redis.stamps import STAMP_SIZE, new_stamp, unpacked_stamp
from layercache_redis.wire import Command, Refusal, Steps

__all__ = ["Marks", "bucket_of", "mark_of"]

_BUCKETS: Final = 256
"""Of tags that were invalidated. Another tag of the same bucket, while a load tells its tags late, costs no
more than that what was loaded is not stored."""


class Marks:
    """The marks of one cache."""

    def __init__(self, calls: Calls) -> None:
        self._calls, self._names = calls, calls.names

    def note(self, tags: Sequence[str], pending: str) -> Steps[None]:
        """Note in a cluster that `tags` are being invalidated, or were; elsewhere the script does it."""
        buckets = [bucket_of(tag) for tag in tags if tag != CACHE_TAG]
        if self._calls.cluster and buckets:
            yield from self._mark(pending, buckets)

    def _mark(self, pending: str, buckets: Sequence[bytes]) -> Steps[None]:
        stamp = new_stamp()
        command = self._calls.call(
            MARK, (self._names.marks,), 0, Taken(stamp, stamp, 0), "", pending, *buckets
        )
        for reply in (yield from self._calls.evaluated([command])):
            self._calls.checked(reply)

    def late_stamps(self, tags: Sequence[str], mark: bytes | None) -> Steps[Stamps | None]:
        """Return the stamps of `tags` that were not known when the lease with that `mark` was granted;
        None where they cannot be told, as one of them may have been invalidated since."""
        if mark is None:
            yield from self._mark("0", ())
            return None  # from now on there are marks
        asked = [self._calls.stamp_script(STAMP, tag, new_stamp(), "") for tag in tags]
        marks: Command = ("HMGET", self._names.marks, "*", *(bucket_of(tag) for tag in tags))
        if self._calls.cluster:  # the stamps first: they go to several servers, in no order
            stamps = yield from self._calls.evaluated(asked)
            (noted,) = yield [marks]
        else:
            *stamps, noted = yield [*asked, marks]
            if any(type(reply) is Refusal and reply.code == "NOSCRIPT" for reply in stamps):
                yield from self._calls.evaluated(asked)
                *stamps, noted = yield [*asked, marks]
        if type(noted) is Refusal and noted.code == "WRONGTYPE":
            return None
        current, *numbers = self._calls.checked(noted)
        name, count = mark[:STAMP_SIZE], mark[STAMP_SIZE:]
        if current != name or any(number is not None and not _is_until(number, count) for number in numbers):
            return None
        return tuple(
            (tag, unpacked_stamp(self._calls.checked(stamp))) for tag, stamp in zip(tags, stamps, strict=True)
        )


def bucket_of(tag: str) -> bytes:
    """Return the field of the hash of marks that `tag` shares with others."""
    return b"%d" % (crc32(tag.encode()) % _BUCKETS)


def mark_of(reply: Any) -> bytes | None:
    """Return what the hash of marks says of itself, None where there is none."""
    if type(reply) is not list or not isinstance(reply[0], bytes) or len(reply[0]) != STAMP_SIZE:
        return None
    return reply[0] + (reply[1] or b"0")


def _is_until(number: bytes, count: bytes) -> bool:
    """Whether what a bucket holds is no later than `count`; one that is pending may be."""
    return number.isdigit() and int(number) <= int(count)
