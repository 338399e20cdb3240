"""The outbox: invalidations that a layer is owed, as they did not reach it.

Rules:
1. A change that fails leaves an invalidation of what it changes: a delete of the keys, new stamps for the tags; never
   the values, as to repeat a delete is always safe, and to repeat a write is not.
2. What is owed is withheld: until it is delivered this process does not read it from that layer.
3. It is bounded. One that overflows owes a clear, which is more than all that was in it.
4. What is owed once more while it is being delivered stays owed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from layercache.core.port import Port
from layercache.entry import CACHE_TAG, Entry
from layercache.spi import KeySpace

__all__ = ["Outbox", "Owed"]

log = logging.getLogger("layercache.layer")

_AT_ONCE = 1000
"""Keys that are dropped by one operation of the store."""


class Owed(NamedTuple):
    """The invalidation that takes the place of a change which does not arrive.

    Attributes:
        keys: that are to be dropped.
        tags: that are to have new stamps; `*` for the whole cache.
        soft: whether these are to be made stale, not dropped.
    """

    keys: Collection[str] = ()
    tags: Collection[str] = ()
    soft: bool = False


class Outbox:
    """What one layer of one cache is owed.

    Args:
        cache, layer: their names, for logs.
        most: how many keys and tags it holds before it overflows.
        lock: guards it; held for a few instructions.
        noticed: called, on whichever thread, when something is owed.

    Attributes:
        is_empty: read by every operation, without the lock.
        overflows: how often there was too much in it.
    """

    def __init__(
        self,
        cache: str,
        layer: str,
        most: int,
        lock: AbstractContextManager[Any],
        noticed: Callable[[], None],
    ) -> None:
        self._cache, self._layer, self._most, self._noticed = cache, layer, most, noticed
        self.overflows = 0
        self.reset(lock)

    def reset(self, lock: AbstractContextManager[Any]) -> None:
        """Owe nothing: in the child of a fork, whose parent delivers what it owes."""
        self._lock = lock  # guards what follows
        self.is_empty = True
        self._turn = 0  # counts what was ever owed; what is delivered is settled up to a turn
        self._keys: dict[str, int] = {}
        self._tags: dict[str, tuple[int, bool]] = {}  # with whether softly
        self._everything = 0  # 0: no clear is owed

    def __len__(self) -> int:
        """Return how many invalidations are owed; a clear is one."""
        return 1 if self._everything else len(self._keys) + len(self._tags)

    # -- owing

    def owe(self, owed: Owed) -> None:
        """Remember what did not reach the layer."""
        with self._lock:
            self._turn += 1
            self._keys.update(dict.fromkeys(owed.keys, self._turn))
            for tag in owed.tags:
                # once it is to be dropped, to be stale is not enough
                is_soft = owed.soft and self._tags.get(tag, (0, True))[1]
                self._tags[tag] = self._turn, is_soft
            if CACHE_TAG in owed.tags:
                self._everything = self._turn
            self._bound()
            self.is_empty = False
        self._noticed()

    def _bound(self) -> None:
        if not self._everything and len(self._keys) + len(self._tags) > self._most:
            self._everything = self._turn
            self.overflows += 1
            log.warning(
                "more than %d invalidations of cache %r did not reach %r: it will be cleared there",
                self._most, self._cache, self._layer,
            )  # fmt: skip
        if self._everything:  # which is all of it, and more
            self._keys.clear()
            self._tags.clear()

    # -- withholding

    def withholds(self, key: str, entry: Entry | None = None, past: Collection[str] = ()) -> bool:
        """Whether the layer's word on `key` is of the past.

        Args:
            entry: what it has answered, if it was asked.
            past: the `tags()` that were owed when it was; they may have been delivered since, but after the answer.
        """
        if self.is_empty and not past:
            return False
        if self._everything or key in self._keys:
            return True
        return entry is not None and any(tag in self._tags or tag in past for tag, _ in entry.stamps)

    def tags(self) -> Collection[str]:
        """Return the tags that are owed: what is asked for now, and carries one, is of the past."""
        return list(self._tags) if self._tags else ()

    def owes(self, keys: Collection[str] = (), tags: Collection[str] = ()) -> bool:
        """Whether one of these did not reach the layer yet; `*` among the tags is a clear."""
        if self.is_empty:
            return False
        if self._everything:
            return True
        return any(key in self._keys for key in keys) or any(tag in self._tags for tag in tags)

    # -- delivering

    async def deliver(self, port: Port, space: KeySpace) -> None:
        """Give the store what it is owed, until nothing is; raises `BackendError` where it fails, and owes the rest."""
        while not self.is_empty:
            with self._lock:
                turn, everything = self._turn, bool(self._everything)
                keys, tags = list(self._keys), dict(self._tags)
            if everything:
                await port.clear(space)
            for first in range(0, len(keys), _AT_ONCE):
                await port.delete_many(space, keys[first : first + _AT_ONCE])
            for soft in (False, True):
                alike = [tag for tag, (_, is_soft) in tags.items() if is_soft is soft]
                if alike:
                    await port.invalidate(space, alike, soft)
            self._settle(turn)

    def _settle(self, turn: int) -> None:
        with self._lock:
            self._keys = {key: at for key, at in self._keys.items() if at > turn}
            self._tags = {tag: owed for tag, owed in self._tags.items() if owed[0] > turn}
            if self._everything <= turn:
                self._everything = 0
            self.is_empty = not (self._keys or self._tags or self._everything)
