"""What a near layer does about the news of the log: other processes' changes, in the order they were made."""

from __future__ import annotations

from layercache.core.tickets import Tickets
from layercache.entry import CACHE_TAG
from layercache.spi import KeySpace

__all__ = ["Hearing"]


class Hearing:
    """A `Listener` for one near layer: what changed far away is dropped here, and is not filled from before the change.

    It runs on the log's thread and calls the sync side, so the layer is one that never blocks.
    """

    def __init__(self, space: KeySpace, tickets: Tickets) -> None:
        self._space, self._tickets = space, tickets

    def written(self, key: str) -> None:
        with self._tickets.writing((key,)):
            self._space.delete(key)

    def invalidated(self, tag: str, stamp: int, soft: bool) -> None:
        self._tickets.void_tags((tag,))
        self._space.invalidate((tag,), soft)

    def restamped(self, tag: str, stamp: int) -> None:
        """What is near is as right as it was. The first write of a cache makes its stamp, which is such news."""

    def retrained(self) -> None:
        """What is near is not compressed."""

    def lost_track(self) -> None:
        self._tickets.void_tags((CACHE_TAG,))
        with self._tickets.clearing():
            self._space.clear()

    def lost_writes(self) -> None:
        pass

    def confirmed(self, until: float) -> None:
        pass

    def outage_began(self) -> None:
        pass

    def outage_ending(self) -> None:
        pass
