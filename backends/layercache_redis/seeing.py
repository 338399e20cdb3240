"""What an operator sees of one cache on the server: what is under a key, and which keys there are.

Rule: nothing is written, no stamp is made anew where one is lost, and nothing is counted. What is asked for is bounded:
of a long value its beginning, of many keys as many as some steps of SCAN look at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from redis.exceptions import RedisError

from layercache.codecs.frame import FIXED_HEAD, BadFrame, Frame, own_stamp_of, seen, unpack
from layercache.codecs.pipeline import Pipeline
from layercache.entry import CACHE_TAG, MISSING, Entry
from layercache.errors import InvalidOption
from layercache.keys import logical_key, physical_key
from layercache.spi import KeyPage, LeaseSight, Sight, TagSight
from layercache_redis.calls import Calls
from layercache_redis.driver import translated
from layercache_redis.options import RedisOptions
from layercache_redis.stamps import STAMP_SIZE, is_alive, packed_stamp, stamp_of
from layercache_redis.wire import Steps

__all__ = ["Seeing"]

_SEEN: Final = 1 << 20
"""Bytes of a frame that are looked at; of a longer one the checksum is not."""

_STEPS: Final = 10
_COUNT: Final = 1000  # keys that one SCAN looks at, half a millisecond of the server's time

_TOKEN: Final = 12  # bytes
_GLOB: Final = re.compile(r"[*?\[\]\\]")


class Seeing:
    """The looks at one cache."""

    def __init__(self, calls: Calls, options: RedisOptions, pipeline: Pipeline) -> None:
        self._calls, self._names, self._now = calls, calls.names, calls.setting.now
        self._options, self._pipeline = options, pipeline

    # -- one key

    def explain(self, key: str) -> Steps[Sight]:
        at = self._names.value(key)
        lease = self._names.lease(at)
        length, frame, px, held, held_px = yield [
            ("STRLEN", at),
            ("GETRANGE", at, 0, _SEEN),
            ("PTTL", at),
            ("GET", lease),
            ("PTTL", lease),
        ]
        holder, held_px = self._calls.string(held), self._calls.checked(held_px)
        if self._calls.checked(px) == -2:
            stamps = (yield from self._stamps([CACHE_TAG])) if holder else {}
            return Sight(lease=_lease(holder, held_px, stamps.get(CACHE_TAG)))
        found = self._calls.string(frame)
        if found is None:
            return Sight(fault="it is of another type than a string")
        try:
            parts = unpack(found, at) if len(found) == length else seen(found)
        except BadFrame as error:
            return Sight(size=length, fault=f"it is no frame of this key ({error.reason})")
        current = yield from self._stamps([CACHE_TAG, *(tag for tag, _ in parts.stamps)])
        lease_seen = _lease(holder, held_px, current[CACHE_TAG])
        return self._sight(parts, length, px, current, lease_seen)

    def _sight(
        self,
        parts: Frame,
        size: int,
        px: int,
        current: Mapping[str, int | None],
        lease: LeaseSight | None,
    ) -> Sight:
        """Return what a frame says, and what the server says of it: `px` it lives, `current` are the stamps."""
        entry = Entry(
            None, MISSING, parts.created_at, parts.fresh_until, parts.dead_at, parts.stamps, parts.spread
        )
        if px >= 0:
            entry = entry.living_at_most(px / 1000, self._now())
        last = self._pipeline.transforms.get(parts.stages[-1])
        unknown = [name for name in parts.stages if name not in self._stages()]
        return Sight(
            entry,
            size,
            parts.stages,
            None if last is None else last.dictionary_of(parts.payload),
            tuple(_tag(tag, stamp, current[tag]) for tag, stamp in parts.stamps),
            lease,
            f"this cache has no stage {', '.join(unknown)}" if unknown else "",
        )

    def _stages(self) -> set[str]:
        return {self._pipeline.serializer.name, *self._pipeline.transforms, *self._pipeline.seals}

    def _stamps(self, tags: Sequence[str]) -> Steps[Mapping[str, int | None]]:
        """Return the current stamps as the server has them, whatever this process takes them for."""
        wanted = list(dict.fromkeys(tags))
        replies = yield [("GET", self._names.stamp(tag)) for tag in wanted]
        return {tag: stamp_of(self._calls.string(reply)) for tag, reply in zip(wanted, replies, strict=True)}

    # -- many keys

    def list_keys(self, prefix: str, limit: int, cursor: str) -> KeyPage:
        """Return keys that begin with `prefix`, of one server after the other.

        A page may hold a few more than `limit`, and a key may come twice: so it is with SCAN. What a clear has left
        behind is not among them; what one of its tags has made invalid, may be. Connects for itself, as tools do.
        """
        from layercache_redis.client import connected  # what it imports, a service does not need

        number, at = _read_cursor(cursor)
        pattern = _literal(self._names.values + physical_key(prefix)) + "*"
        try:
            with connected(self._options) as reached:
                servers = [reached.primaries[name] for name in sorted(reached.primaries)]
                if number >= len(servers):
                    raise InvalidOption("there are fewer servers than when this listing began; begin again")
                stamp = stamp_of(reached.whole.get(self._names.stamp(CACHE_TAG)))
                found: dict[str, None] = {}
                count = limit
                for _ in range(_STEPS):
                    count = max(10, min(_COUNT, count))
                    at, names = servers[number].scan(at, match=pattern, count=count)
                    here = self._valid(servers[number], names, stamp)
                    found |= dict.fromkeys(here)
                    # most of what is there may be others'; of what is left to find, so many have to be looked at
                    count = count * (limit - len(found)) // len(here) if here else 4 * count
                    if at == 0:
                        number += 1
                    if number == len(servers):
                        return KeyPage(tuple(found), None)
                    if len(found) >= limit:
                        break
                return KeyPage(tuple(found), f"{number}.{at}")
        except RedisError as error:
            raise translated(self._calls.setting.backend, error) from error

    def _valid(self, server: Any, names: Sequence[bytes], stamp: int | None) -> list[str]:
        if not names or stamp is None:
            return []
        with server.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.getrange(name, 0, FIXED_HEAD)
            heads = pipeline.execute(raise_on_error=False)
        begins = len(self._names.values.encode())
        return [
            logical_key(name[begins:].decode())
            for name, head in zip(names, heads, strict=True)
            if isinstance(head, bytes) and own_stamp_of(head) == stamp
        ]


def _tag(tag: str, carried: int, current: int | None) -> TagSight:
    return TagSight(tag, carried, current, current is not None and is_alive(carried, current))


def _lease(holder: bytes | None, px: int, stamp: int | None) -> LeaseSight | None:
    """Return what a lease says; None for one that a clear has voided."""
    if not holder or holder[-STAMP_SIZE:] != (b"" if stamp is None else packed_stamp(stamp)):
        return None
    token = holder[:-STAMP_SIZE]
    return LeaseSight(token[:4].hex() if len(token) == _TOKEN else token.hex(), max(px, 0) / 1000)


def _literal(text: str) -> str:
    """Return a pattern of SCAN that matches `text` alone."""
    return _GLOB.sub(lambda match: f"\\{match[0]}", text)


def _read_cursor(cursor: str) -> tuple[int, int]:
    """Return the number of the server, and what it is to be sent."""
    if not cursor:
        return 0, 0
    server, _, at = cursor.partition(".")
    if not (server.isdecimal() and at.isdecimal() and cursor.isascii() and len(cursor) <= 32):
        raise InvalidOption("a cursor is what the page before came with; it is none of these")
    number = int(at)
    if number >= 1 << 64:
        raise InvalidOption("a cursor is what the page before came with; it is none of these")
    return int(server), number
