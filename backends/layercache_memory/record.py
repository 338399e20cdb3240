"""One entry in memory, laid out for the hit path.

A reader finds the record in a dict, compares `fresh_until` with the clock, raises `hits` and takes `value`:
no lock, no list. Why that is safe under the GIL:

- A dict lookup sees a record whole or not at all; a record that was dropped meanwhile stays what it was.
- A record is changed in place only by `Storage`, under its lock, and only to a value of the same `kind`;
  `value` is written before `fresh_until` and `dead_at`. A reader that sees the new end sees the new value;
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
from typing import Any, Protocol, TypeAlias

from layercache.entry import Stamps

__all__ = ["Home", "Kind", "Record"]

Kind: TypeAlias = Callable[[Any], Any] | None
"""How a value of its own is made for each reader: None where the value is immutable and shared."""


class Home(Protocol):
    """Where records are found: the key space of one cache."""

    records: dict[str, Record]
    retired_hits: int


class Record:
    """Attributes:
    key: in the key space of its cache.
    value: what `kind` makes the reader's value from: the value itself, a container of
        immutables to copy, or a payload to decode.
    kind: None, `dict.copy`, `list.copy`, or the serializer's `loads`.
    fresh_until, dead_at: wall-clock seconds, `math.inf` for ever.
    created_at: likewise, when it was made.
    stamps: what it was valid under when it was made.
    size: bytes, counted when it was stored.
    hits: how often it was read.
    seen: how many of the hits the policy knows.
    queue: where the policy keeps it; None once it is out.
    home: the key space that it is found in.
    due: the end of the span in which its deadline is looked at.
    """

    __slots__ = (
        "created_at",
        "dead_at",
        "due",
        "fresh_until",
        "hits",
        "home",
        "key",
        "kind",
        "queue",
        "seen",
        "size",
        "stamps",
        "value",
    )

    key: str
    value: Any
    kind: Kind
    fresh_until: float
    dead_at: float
    created_at: float
    stamps: Stamps
    size: int
    hits: int
    seen: int
    queue: int | None
    home: Home
    due: float
