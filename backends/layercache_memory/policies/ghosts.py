"""Which keys lately lost their place, and how long ago: 4 bytes a slot and no object.

A direct-mapped table: a key's hash names its slot, which holds a part of the hash, the side that it lost on
and the number of the loss. A younger loss overwrites an older one in its slot. Remembering what was evicted
is from 2Q and ARC (Megiddo & Modha 2003); the table is what it costs when it may forget a few.
"""

from __future__ import annotations

from array import array
from typing import Final

__all__ = ["CANDIDATE", "VICTIM", "Ghosts"]

CANDIDATE: Final = 0  # was pushed out of the window
VICTIM: Final = 1  # was pushed out of the main region

# A slot is 32 bits: 10 of the hash (one key in 1,024 is mistaken for another), 1 for the side, 21 for the
# number.
_NUMBER: Final = (1 << 21) - 1
_HASH: Final = (1 << 10) - 1
_LEAST: Final = 1 << 12  # slots: few enough to cost nothing, and many enough that small caches forget nobody
_MOST: Final = 1 << 20  # losses that a number tells apart


class Ghosts:
    """Losses of both sides, each counted by itself."""

    __slots__ = ("horizon", "losses", "mask", "slots")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.losses = [0, 0]
        self.horizon = 0
        self.mask = 0
        self.slots = array("I", [0])

    def fit(self, losses: int) -> None:
        """Remember so many losses of each side; a table that has to grow begins anew."""
        self.horizon = min(_MOST, losses)
        width = max(_LEAST, self.mask + 1)
        while width < 2 * self.horizon:
            width <<= 1
        if width > self.mask + 1:
            self.slots = array("I", bytes(4 * width))
            self.mask = width - 1

    def lost(self, hash_: int, side: int) -> None:
        """Remember that `side` lost a key."""
        number = self.losses[side] = self.losses[side] + 1 & _NUMBER
        self.slots[hash_ & self.mask] = (hash_ >> 32 & _HASH) << 22 | side << 21 | number

    def returned(self, hash_: int) -> tuple[int, int] | None:
        """Return the side on which the key lost and how many lost there since, or None; it is then forgotten."""
        at = hash_ & self.mask
        slot = self.slots[at]
        if not slot or slot >> 22 != hash_ >> 32 & _HASH:
            return None
        side = slot >> 21 & 1
        since = self.losses[side] - (slot & _NUMBER) & _NUMBER
        if since >= self.horizon:
            return None
        self.slots[at] = 0
        return side, since
