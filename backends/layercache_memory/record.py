"""One entry in memory, laid out for the hit path.

A reader finds the record in a dict, compares `hit_until` with the clock, raises `hits` and takes `value`:
no lock, no list. Why that is safe under the GIL:

- A dict lookup sees a record whole or not at all; a record that was dropped meanwhile stays what it was.
- A record is changed in place only by its key space, under the lock, and only to a value of the same `kind`;
  `value` is written before `hit_until` and the other times. A reader that sees the new end sees the new value;
  one that sees the old end and the new value was overtaken by a `set` that is still under way, and may
  return either.
- `hits += 1` may lose a count between threads, never make one up: nobody else writes it. Who wants to know
  how often a record was hit since then remembers `seen`.

Free-threaded Python would keep the first two (its dicts lock per object on a miss of the lock-free lookup,
and single attribute loads and stores are atomic) and would lose more counts; `hits` would have to become
per-thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

from layercache.entry import Stamps

__all__ = ["Home", "Kind", "Origin", "Record"]

Kind: TypeAlias = Callable[[Any], Any] | None
"""How a value of its own is made for each reader: None where the value is immutable and shared."""


class Home(Protocol):
    """Where records are found: the key space of one cache."""

    records: dict[str, Record]
    retired_hits: int

    def untag(self, record: Record) -> None:
        """Forget that `record` carries tags."""
        ...

    def forget_tags(self) -> None:
        """Forget which keys carry which tags; all entries are gone."""
        ...

    def hits(self) -> int: ...


class Origin(NamedTuple):
    """What many records have in common, kept once for all of them.

    Attributes:
        home: the key space that they are found in.
        life: seconds from their making to `dead_at`, `math.inf` for ever.
        stamps: the tags that they carry. What is invalidated is dropped here, or made stale, so the stamps themselves
            are all 0.
    """

    home: Home
    life: float
    stamps: Stamps


class Record:
    """Attributes:
    key: in the key space of its cache.
    value: what `kind` makes the reader's value from: the value itself, a container of
        immutables to copy, or a payload to decode.
    kind: None, `dict.copy`, `list.copy`, or the serializer's `loads`.
    hit_until, fresh_until, dead_at: wall-clock seconds, `math.inf` for ever. `hit_until` is before `fresh_until` where
        the value is to be refreshed early: then whoever reads it looks closer.
    origin: what it has in common with others.
    units: what it takes, in units of 16 bytes, when it was stored.
    hits: how often it was read.
    seen: how many of the hits the policy knows.
    queue: where the policy keeps it; None once it is out.
    """

    __slots__ = (
        "dead_at",
        "fresh_until",
        "hit_until",
        "hits",
        "key",
        "kind",
        "origin",
        "queue",
        "seen",
        "units",
        "value",
    )

    key: str
    value: Any
    kind: Kind
    hit_until: float
    fresh_until: float
    dead_at: float
    origin: Origin
    units: int
    hits: int
    seen: int
    queue: int | None
