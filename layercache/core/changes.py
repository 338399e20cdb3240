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
    """Store `entry` where nothing is that is fresh and that `form` can read."""

    def __init__(self, entry: Entry, form: NormalForm, now: float) -> None:
        self.entry, self.form, self.now = entry, form, now

    def __call__(self, entry: Entry | None) -> Entry | None:
        there = _fresh(entry, self.now)
        return self.entry if there is None or self.form.readable(there) is MISSING else None


class Touch:
    """Let what is there and fresh be so for `ttl` seconds from `now`, and stale for `stale_ttl` more."""

    def __init__(self, ttl: float, now: float, stale_ttl: float = 0.0) -> None:
        self.ttl, self.now, self.stale_ttl = ttl, now, stale_ttl

    def __call__(self, entry: Entry | None) -> Entry | None:
        there = _fresh(entry, self.now)
        return there and there.living_again(self.ttl, self.now, self.stale_ttl)


class Increment:
    """Add `delta` to the integer that is there and fresh; its times stay.

    Raises `KeyNotFound` when nothing is, `NotACounter` when it is no integer, and `EncodeError` when
    the codec cannot carry the sum.
    """

    def __init__(self, key: str, delta: int, form: NormalForm, now: float) -> None:
        self.key, self.delta, self.form, self.now = key, delta, form, now

    def __call__(self, entry: Entry | None) -> Entry:
        entry = _fresh(entry, self.now)
        count = MISSING if entry is None else self.form.readable(entry)
        if entry is None or count is MISSING:
            raise KeyNotFound(self.key)
        if type(count) is not int:
            raise NotACounter(self.key, type(count).__name__)
        payload, value = self.form.encode(count + self.delta)
        return Entry(payload, value, entry.created_at, entry.fresh_until, entry.dead_at, entry.stamps)


def _fresh(entry: Entry | None, now: float) -> Entry | None:
    return entry if entry is not None and entry.fresh_until > now else None
