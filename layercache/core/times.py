"""How long things took: a histogram with fixed bounds, so that those of two moments, or of many processes, add up."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["BOUNDS", "Histogram", "Times"]

BOUNDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
"""Seconds; each bucket holds what took more than the bound before it and at most its own, the last one the rest."""


@dataclass(frozen=True, slots=True)
class Times:
    """How long some things took.

    Attributes:
        counts: how many, by the buckets of `BOUNDS`, and of those beyond.
        seconds: all of them together.
    """

    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    seconds: float = 0.0

    @property
    def count(self) -> int:
        """How many things."""
        return sum(self.counts)

    @property
    def mean(self) -> float | None:
        """Seconds; None where there were none."""
        count = self.count
        return self.seconds / count if count else None

    def quantile(self, part: float) -> float | None:
        """Return the seconds that the `part` of them (0.5 is the median) took at most; None where there were none.
        Within its bucket each is taken to be as likely anywhere."""
        rank = part * self.count
        if rank <= 0:
            return None
        lower = 0.0
        for upper, count in zip(BOUNDS, self.counts, strict=False):
            if count >= rank:
                return lower + (upper - lower) * rank / count
            rank, lower = rank - count, upper
        return lower  # or more: the last bucket has no end

    def since(self, earlier: Times) -> Times:
        """Return what came after `earlier`, of the same histogram."""
        counts = tuple(now - then for now, then in zip(self.counts, earlier.counts, strict=True))
        return Times(counts, max(self.seconds - earlier.seconds, 0.0))

    def together(self, other: Times) -> Times:
        """Return these and those of another."""
        counts = tuple(one + two for one, two in zip(self.counts, other.counts, strict=True))
        return Times(counts, self.seconds + other.seconds)


class Histogram:
    """Counts how long things take; a quarter of a microsecond each.

    Attributes:
        heard: told of each as well: when it began, its seconds, and whether it failed.
    """

    __slots__ = ("_counts", "_seconds", "heard")

    def __init__(self) -> None:
        self.heard: Callable[[float, float, bool], None] | None = None
        self._counts = [0] * (len(BOUNDS) + 1)
        self._seconds = 0.0

    def add(self, seconds: float) -> None:
        """Count one; less than nothing, as when the clock was set back, is nothing."""
        index = bisect_left(BOUNDS, seconds)
        self._counts[index] += 1
        if seconds > 0.0:
            self._seconds += seconds

    def times(self) -> Times:
        """Return what was counted so far."""
        return Times(tuple(self._counts), self._seconds)
