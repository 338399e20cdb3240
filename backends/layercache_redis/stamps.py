"""Stamps: what an entry's validity is checked against; and those that this process knows. `stamping` asks the server.

A stamp is 64 bits in two parts: 48 by chance, which an invalidation draws anew, and 16 that count the soft ones
(docs/decisions/0012). An entry is valid while it carries the current stamp of each of its tags, stale where one differs
in the count alone, and else gone.

Rules:
1. A stamp that the server has lost is made anew and not as it was: it may have changed before. What carried it is gone.
2. A stamp lives longer than what carries it: the writes see to that.
3. A write carries what it takes for the cache's own; its script stores nothing where that is another by now.

Rules for what is known:
1. A stamp is known while the log is followed (`is_current`); else it is fetched with the value.
2. What the log says of a tag makes it unknown, not known: it may be older than what is fetched. Where it is what is
   known already, that stays.
3. What was fetched is kept only if the log has said nothing since the request was sent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from struct import Struct
from typing import Final

from layercache.entry import CACHE_TAG
from layercache.inline import chance

__all__ = ["STAMP_SIZE", "KnownStamps", "is_alive", "new_stamp", "packed_stamp", "stamp_of", "unpacked_stamp"]

_MOST: Final = 10_000
"""Tags to remember; with more, all are forgotten and fetched again as they come."""

_COUNT: Final = 16
"""Bits that count soft invalidations. A count that is full makes the next one hard (`invalidate.lua`)."""


_PACKED: Final = Struct(">Q")

STAMP_SIZE: Final = _PACKED.size
"""Bytes of a stamp as the server has it."""

_getrandbits: Final = chance.getrandbits

packed_stamp: Final = _PACKED.pack


def new_stamp() -> int:
    """Return a random stamp; 0 is none.

    Its count begins anywhere in the lower half: so 63 bits tell what is valid, and the next 32,768 soft invalidations
    at least are soft.
    """
    return (_getrandbits(48) or 1) << _COUNT | _getrandbits(_COUNT - 1)


def is_alive(stamp: int, current: int) -> bool:
    """Whether what carries `stamp` is there, and if only stale, where its tag has the `current` one by now."""
    return stamp >> _COUNT == current >> _COUNT


def unpacked_stamp(data: bytes) -> int:
    """Return the stamp that a script answered."""
    stamp: int = _PACKED.unpack(data)[0]
    return stamp


def stamp_of(data: bytes | None) -> int | None:
    """Return the stamp that is under a name of one; None for what is lost or none of ours."""
    return unpacked_stamp(data) if data is not None and len(data) == STAMP_SIZE else None


class KnownStamps:
    """Stamps by tag, shared by threads.

    Args:
        is_current: whether the log is followed closely enough to be believed.
    """

    def __init__(self, is_current: Callable[[], bool]) -> None:
        self._is_current = is_current
        self.version = 0
        """Moves with whatever makes a stamp unknown. Read it before a request; give it to `learn`."""
        self.reset()

    def reset(self) -> None:
        """Know nothing: in the child of a fork, where the lock may be held by a thread that is not there."""
        self._lock = threading.Lock()  # guards _known and version together
        self._known: dict[str, int] = {}

    def own(self) -> int | None:
        """Return the stamp of the cache itself, or None where it has to be fetched."""
        return self._known.get(CACHE_TAG) if self._is_current() else None

    def get(self, tag: str) -> int | None:
        """Return the stamp of `tag`, or None where it has to be fetched."""
        return self._known.get(tag) if self._is_current() else None

    def learn(self, stamps: Iterable[tuple[str, int]], version: int) -> None:
        """Keep `stamps`, fetched by a request that was sent at `version`."""
        with self._lock:
            if version == self.version:
                if len(self._known) > _MOST:
                    self._known.clear()
                self._known.update(stamps)

    def forget(self, tag: str | None = None, unless: int = 0) -> None:
        """Forget `tag`, unless what is known of it is the stamp it was just given; or all."""
        with self._lock:
            self.version += 1
            if tag is None:
                self._known.clear()
            elif self._known.get(tag) != unless:
                self._known.pop(tag, None)
