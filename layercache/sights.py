"""What is seen of a store from outside: what a key space has under a key, which keys it has, and what more
memory would do. Part of `spi`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from layercache.entry import Entry

__all__ = ["Curve", "KeyPage", "Lapse", "LeaseSight", "Sight", "TagSight"]


class TagSight(NamedTuple):
    """A stamp that an entry carries, beside the one that its tag has now.

    Attributes:
        tag: `*` is the whole cache.
        carried: by the entry.
        current: None where it is lost, which makes what carries any invalid.
        is_alive: whether what carries it is there: as it is, or stale where the tag was invalidated softly.
    """

    tag: str
    carried: int
    current: int | None
    is_alive: bool = False

    @property
    def is_current(self) -> bool:
        return self.carried == self.current


class LeaseSight(NamedTuple):
    """A lease that somebody holds.

    Attributes:
        holder: the beginning of the token; "" where nobody loads, and loads are held back after one that failed.
        left: seconds that it lasts at most.
    """

    holder: str
    left: float


class Sight(NamedTuple):
    """What a key space has under one key, seen from outside.

    Attributes:
        entry: as it is kept, alive and valid or not; its value may be left out. None: none is there, or to be read.
        size: bytes that it takes; None where that is not known.
        stages: that its bytes went through; () where it is kept as a value.
        dictionary: that it was compressed with, by its id.
        tags: whose stamps it carries.
        lease: of the key, where somebody holds it.
        fault: why what is there cannot be read; "" where it can.
    """

    entry: Entry | None = None
    size: int | None = None
    stages: tuple[str, ...] = ()
    dictionary: int | None = None
    tags: tuple[TagSight, ...] = ()
    lease: LeaseSight | None = None
    fault: str = ""


class KeyPage(NamedTuple):
    """Some of the keys of a cache.

    Attributes:
        keys: of entries that are there; sorted where that costs nothing.
        cursor: brings the next ones; None where there are no more.
    """

    keys: tuple[str, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Lapse:
    """Reads that found nothing as the ttl had ended, of keys that begin alike. Counts are estimates from a sample.

    Attributes:
        prefix: up to and with the first colon.
        ttl: seconds, of the last of them.
        reads: of such keys, in all.
        lapsed: how many found that the ttl had ended.
        median, most: seconds after the end within which half of these, and nine in ten, came.
    """

    prefix: str
    ttl: float
    reads: float
    lapsed: float
    median: float
    most: float


@dataclass(frozen=True, slots=True)
class Curve:
    """What share of the reads would have been hits with less memory, and with more: a miss-ratio curve, the other way
    up, as an LRU cache would have it.

    Attributes:
        points: pairs of a multiple of the memory there is, ascending, and the share, 0.0 to 1.0.
        entries: how many the memory there is has room for.
        reads: that it was learnt from; older ones count less.
        sampled: how many of these were looked at.
        lapses: where the ttl is what makes for misses, not the memory; the most first.
    """

    points: tuple[tuple[float, float], ...]
    entries: int
    reads: int
    sampled: int
    lapses: tuple[Lapse, ...] = ()

    def at(self, memory: float) -> float:
        """Return the share with so many times the memory there is; between two points, on the line from one to the
        other."""
        lower = (0.0, 0.0)
        for point in self.points:
            if memory <= point[0]:
                part = (memory - lower[0]) / (point[0] - lower[0])
                return lower[1] + part * (point[1] - lower[1])
            lower = point
        return lower[1]
