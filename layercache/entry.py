"""A value with its times: fresh until `fresh_until`, then stale until `dead_at`, then dead.

Times are wall-clock seconds (`time.time`); `math.inf` means for ever. Rules of their arithmetic, which is all here:
1. Nothing lives longer than it was given when it was made: a clock that runs ahead shortens a life, or leaves it.
2. A shorter life ends both times earlier, never later; only a new ttl (`living_again`) makes a life longer.
3. What was softly invalidated was never fresh; its end stays.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final, Literal, TypeAlias

__all__ = ["CACHE_TAG", "MISSING", "Entry", "Freshness", "Missing", "Stamps"]


class _Missing(Enum):
    MISSING = "nothing is there"

    def __bool__(self) -> Literal[False]:
        return False

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing.MISSING
"""Nothing is there. None is a value, this is not; it is falsy."""

Missing: TypeAlias = Literal[_Missing.MISSING]

Stamps: TypeAlias = tuple[tuple[str, int], ...]
"""Pairs of a tag and the stamp that was current when the entry's load began."""

CACHE_TAG: Final = "*"
"""The tag that every entry of a cache carries without being told: its stamp is the cache's own."""


class Freshness(Enum):
    """What an entry is at a moment: fresh until `fresh_until`, then stale until `dead_at`, then dead."""

    FRESH = "fresh"
    STALE = "stale"
    DEAD = "dead"


class Entry:
    """What a backend keeps for one key. Never changed once made, so it can be shared.

    Attributes:
        payload: the normal form of the value, as the cache's serializer wrote it; None where
            `value` says it all.
        value: the value itself when it is immutable; a private dict or list of immutables, of which every
            reader takes a copy; else `MISSING`.
        created_at, fresh_until, dead_at: wall-clock seconds.
        stamps: what has to be current for the entry to be valid.
        spread: seconds before `fresh_until` over which early refreshes are spread: what the load took, times
            `early_beta`; 0 where it is not refreshed early.
    """

    __slots__ = ("created_at", "dead_at", "fresh_until", "payload", "spread", "stamps", "value")

    def __init__(
        self,
        payload: bytes | None,
        value: Any,
        created_at: float,
        fresh_until: float,
        dead_at: float,
        stamps: Stamps = (),
        spread: float = 0.0,
    ) -> None:
        self.payload = payload
        self.value = value
        self.created_at = created_at
        self.fresh_until = fresh_until
        self.dead_at = dead_at
        self.stamps = stamps
        self.spread = spread

    def freshness(self, now: float) -> Freshness:
        """Return what the entry is at `now`, seconds of the clock that its times are of."""
        if now < self.fresh_until:
            return Freshness.FRESH
        return Freshness.STALE if now < self.dead_at else Freshness.DEAD

    def left(self, now: float) -> float:
        """Return the seconds until the entry is dead; 0 or less when it is.

        Never more than it had when it was made: where the clock that wrote it runs ahead of
        ours, the difference would otherwise be added to its life.
        """
        return min(self.dead_at - now, self.dead_at - self.created_at)

    def living_at_most(self, seconds: float, now: float) -> Entry:
        """Return the entry with no more than `seconds` left from `now`, nor more than it has itself."""
        left = min(self.dead_at - now, self.dead_at - self.created_at, seconds)
        if left >= self.dead_at - now:
            return self
        # where the clock that wrote it runs ahead of ours, its times come back to ours
        created_at = min(self.created_at, now)
        fresh_until = min(self.fresh_until, now + left, created_at + (self.fresh_until - self.created_at))
        return Entry(self.payload, self.value, created_at, fresh_until, now + left, self.stamps, self.spread)

    def living_again(self, seconds: float, now: float, stale: float = 0.0) -> Entry:
        """Return the entry as if it had been made `now`, fresh for `seconds` and then stale for `stale` more."""
        end = now + seconds
        return Entry(self.payload, self.value, now, end, end + stale, self.stamps, self.spread)

    def made_stale(self) -> Entry:
        """Return the entry as one that was softly invalidated: stale until it is dead.

        It was never fresh, to be on the safe side of whoever has looked at the clock before.
        """
        return Entry(self.payload, self.value, self.created_at, 0.0, self.dead_at, self.stamps, self.spread)

    def early_at(self, draw: float) -> float:
        """Return when to refresh the entry, ahead of its end so that not all who read it do so at once.

        XFetch: Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015.

        Args:
            draw: from the exponential distribution with the mean 1.
        """
        return self.fresh_until - self.spread * draw if self.spread else self.fresh_until

    def __repr__(self) -> str:
        size = "shared" if self.payload is None else f"{len(self.payload)} B"
        return f"<Entry {size} fresh_until={self.fresh_until:.3f} dead_at={self.dead_at:.3f}>"
