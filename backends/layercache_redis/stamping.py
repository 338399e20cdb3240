"""Stamps on the server: asked for, given anew, and seen to live as long as what carries them. The rules are those of
`stamps`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from layercache.entry import CACHE_TAG, Stamps
from layercache_redis.calls import Calls, Taken
from layercache_redis.marks import Marks, bucket_of
from layercache_redis.scripts import INVALIDATE, STAMP
from layercache_redis.stamps import KnownStamps, new_stamp, packed_stamp, stamp_of, unpacked_stamp
from layercache_redis.wire import Command, Steps

__all__ = ["STAMP_LIFE", "Stamping", "Wanted", "longest_of"]

STAMP_LIFE: Final = 30 * 86_400_000
"""Milliseconds that a stamp lives at least, prolonged by writes; with its stamp an entry is gone."""

_MOST_TAGS: Final = 10_000


class Wanted(NamedTuple):
    """Stamps that somebody wants.

    Attributes:
        known: those that need not be asked for.
        unknown: the tags of the others.
        version: of `KnownStamps`, at which this was so.
    """

    known: Mapping[str, int]
    unknown: Sequence[str]
    version: int


class Stamping:
    """The stamps of one cache and its tags.

    Attributes:
        known: those that need not be asked for.
    """

    def __init__(self, calls: Calls, known: KnownStamps, marks: Marks) -> None:
        self.calls, self.known, self._marks = calls, known, marks
        self._names, self._now = calls.names, calls.setting.now
        # by tag: a stamp, and until when it is known to live
        self._lasting: dict[str, tuple[int, float]] = {}

    # -- for reads

    def stamps(self, tags: Sequence[str]) -> Steps[Stamps]:
        """Return the current stamps of the cache and of `tags`, for an entry whose load begins now."""
        named = [CACHE_TAG, *tags]
        wanted, asking = self.wanted(named)
        replies = (yield from self.calls.evaluated(asking)) if asking else []
        found = self.found(wanted, replies)
        return tuple((tag, found[tag]) for tag in named)

    def wanted(self, tags: Sequence[str]) -> tuple[Wanted, list[Command]]:
        """Return what is wanted to have the stamps of `tags`, and what asks for those that are not known; `found` is to
        be given the replies."""
        version = self.known.version
        known = {tag: stamp for tag in tags if (stamp := self.known.get(tag)) is not None}
        unknown = [tag for tag in tags if tag not in known]
        asking = [self.calls.stamp_script(STAMP, tag, new_stamp(), "") for tag in unknown]
        return Wanted(known, unknown, version), asking

    def found(self, wanted: Wanted, replies: Sequence[Any]) -> dict[str, int]:
        """Return the stamps that were wanted, by tag, and keep those that were asked for."""
        given = {
            tag: unpacked_stamp(self.calls.checked(reply))
            for tag, reply in zip(wanted.unknown, replies, strict=True)
        }
        if given:
            self.known.learn(given.items(), wanted.version)
        return {**wanted.known, **given}

    def current(self, tags: Iterable[str]) -> Steps[dict[str, int | None]]:
        """Return what stamps `tags` have, None for those that are lost; one round trip where some are unknown."""
        version = self.known.version
        current: dict[str, int | None] = {tag: self.known.get(tag) for tag in tags}
        unknown = [tag for tag, stamp in current.items() if stamp is None]
        if unknown:
            replies = yield [("GET", self._names.stamp(tag)) for tag in unknown]
            for tag, reply in zip(unknown, replies, strict=True):
                current[tag] = stamp_of(self.calls.string(reply))
            self.known.learn([(tag, stamp) for tag in unknown if (stamp := current[tag])], version)
        return current

    def learnt(self, reply: Any, version: int) -> int | None:
        """Return the cache's own stamp, as the server said in `reply` to what was asked at `version`."""
        stamp = stamp_of(self.calls.string(reply))
        if stamp is not None:
            self.known.learn([(CACHE_TAG, stamp)], version)
        return stamp

    # -- for writes

    def to_write(self, own: int | None = None) -> Steps[Taken]:
        """Return what to take for the cache's stamp. Where it is not known, a new one is proposed, which the script
        refuses if there is another; in a cluster the script cannot see it, so it is asked for."""
        version, own = self.known.version, own or self.known.own()
        if own is None and self.calls.cluster:
            ((_, own),) = yield from self.stamps([])
        if own is not None:
            return Taken(own, new_stamp(), version)
        proposed = new_stamp()
        return Taken(proposed, proposed, version)

    def corrected(self, reply: bytes, taken: Taken) -> Taken:
        """Return what to take for the stamp after a script has said that it is not what was `taken` for it."""
        current = unpacked_stamp(reply)
        # known from now on: of many tasks that begin at once, each would else make the others forget it again
        self.known.learn([(CACHE_TAG, current)], taken.version)
        return Taken(current, new_stamp(), self.known.version)

    def learn_taken(self, taken: Taken) -> None:
        """A script has stored what carries that stamp, so it is the current one."""
        if self.known.own() != taken.stamp:
            self.known.learn([(CACHE_TAG, taken.stamp)], taken.version)

    # -- new ones

    def clear(self) -> Steps[None]:
        """A new stamp for the cache: what is there is of no use from now on, and goes when its time is over."""
        yield from self.invalidate([CACHE_TAG])

    def invalidate(self, tags: Sequence[str], soft: bool = False) -> Steps[None]:
        """Give each of `tags` a new stamp: one that counts a soft invalidation more, or another. The cache's own is
        always another."""
        if not tags:
            return
        for tag in tags:
            self.known.forget(tag)
        version = self.known.version
        fresh = {tag: new_stamp() for tag in tags}
        yield from self._marks.note(tags, "1")
        counts = [b"1" if soft and tag != CACHE_TAG else b"" for tag in fresh]
        commands = [
            self.calls.stamp_script(
                INVALIDATE, tag, stamp, "", self._names.in_log(tag), bucket_of(tag), count
            )
            for (tag, stamp), count in zip(fresh.items(), counts, strict=True)
        ]
        replies = yield from self.calls.evaluated(commands)
        given = {tag: self.calls.checked(reply) for tag, reply in zip(fresh, replies, strict=True)}
        yield from self._marks.note(tags, "0")
        if self.calls.cluster:
            pairs: list[tuple[bytes, bytes]] = []
            for tag, stamp in given.items():
                kind = b"t" if stamp == packed_stamp(fresh[tag]) else b"o"
                pairs += [(kind, self._names.in_log(tag)), (b"s", stamp)]
            (reply,) = yield [self.calls.log_entry(self._names.stamp(tags[0]), pairs)]
            self.calls.checked(reply)
        # what others fetched meanwhile may be the former stamps
        known = {tag: unpacked_stamp(stamp) for tag, stamp in given.items()}
        for tag, now in known.items():
            self.known.forget(tag, unless=now)
        self.known.learn(known.items(), version + len(known))

    # -- how long they live

    def prolonged(self, stamp: int, px: int) -> int | str:
        """Return to how many milliseconds a script has to prolong the cache's `stamp`, for an entry that lives for
        `px`: 0 for ever, '' where it lives as long."""
        return "" if self._lasts(CACHE_TAG, stamp, px) else _life(px)

    def assure(self, stamps: Stamps, px: int) -> Steps[None]:
        """See to it that `stamps` live longer than an entry of `px` milliseconds, 0 for ever.

        A script prolongs the cache's own with the write, where it can see it; others take a round trip, once in a long
        while.
        """
        now = self._now()
        short = {tag: stamp for tag, stamp in stamps if not self._lasts(tag, stamp, px)}
        if not short:
            return
        commands = [
            self.calls.stamp_script(STAMP, tag, new_stamp(), _life(px))
            for tag in short
            if self.calls.cluster or tag != CACHE_TAG
        ]
        if commands:
            for reply in (yield from self.calls.evaluated(commands)):
                self.calls.checked(reply)
        self.seen_to_last(short, px, now)

    def seen_to_last(self, stamps: Mapping[str, int], px: int, now: float) -> None:
        """Remember how long stamps will live on the server at least, which an entry of `px` milliseconds asked for."""
        lasts = math.inf if px == 0 else now + 0.75 * _life(px) / 1000
        if len(self._lasting) > _MOST_TAGS:
            self._lasting.clear()
        self._lasting.update((tag, (stamp, lasts)) for tag, stamp in stamps.items())

    def _lasts(self, tag: str, stamp: int, px: int) -> bool:
        """Whether the stamp of `tag` was seen to live longer than an entry that is stored now."""
        known, until = self._lasting.get(tag, (0, 0.0))
        return known == stamp and (math.inf if px == 0 else self._now() + px / 1000) <= until


def _life(px: int) -> int:
    """Return the milliseconds that a stamp has to live for the sake of an entry of `px`, 0 for ever: more than is
    needed, so that it need not be looked at for a while."""
    return 0 if px == 0 else max(STAMP_LIFE, 2 * px)


def longest_of(pxs: Sequence[int]) -> int:
    """Return the longest of some lives in milliseconds; 0, for ever, is longer than all."""
    return 0 if 0 in pxs else max(pxs)
