"""What is seen of a store from outside: what a key space has under a key, and which keys it has. Part of `spi`."""

from __future__ import annotations

from typing import NamedTuple

from layercache.entry import Entry

__all__ = ["KeyPage", "LeaseSight", "Sight", "TagSight"]


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
