"""Changes of an entry that a key space applies atomically: add, touch, increment.

Each is a `spi.Change`: called with the entry that is there, it returns the one to store, or None. They are
classes, so that a backend with a native command for one of them can tell them apart.
"""

from __future__ import annotations

from layercache.codecs.normal import NormalForm
from layercache.entry import MISSING, Entry
from layercache.errors import KeyNotFound, NotACounter

__all__ = ["Add", "Increment", "Touch"]


class Add:
    """Store `entry` where nothing is that `form` can read."""

    def __init__(self, entry: Entry, form: NormalForm) -> None:
        self.entry, self.form = entry, form

    def __call__(self, entry: Entry | None) -> Entry | None:
        return self.entry if entry is None or self.form.readable(entry) is MISSING else None


class Touch:
    """Let what is there live `ttl` seconds from `now`."""

    def __init__(self, ttl: float, now: float) -> None:
        self.ttl, self.now = ttl, now

    def __call__(self, entry: Entry | None) -> Entry | None:
        return entry and entry.living_again(self.ttl, self.now)


class Increment:
    """Add `delta` to the integer that is there; its times stay.

    Raises `KeyNotFound` when nothing is there, `NotACounter` when it is no integer, and `EncodeError` when
    the codec cannot carry the sum.
    """

    def __init__(self, key: str, delta: int, form: NormalForm) -> None:
        self.key, self.delta, self.form = key, delta, form

    def __call__(self, entry: Entry | None) -> Entry:
        count = MISSING if entry is None else self.form.readable(entry)
        if entry is None or count is MISSING:
            raise KeyNotFound(self.key)
        if type(count) is not int:
            raise NotACounter(self.key, type(count).__name__)
        payload, value = self.form.encode(count + self.delta)
        return Entry(payload, value, entry.created_at, entry.fresh_until, entry.dead_at, entry.stamps)
