"""How often keys were asked for, in two rows of small counters that forget.

A count-min sketch (Cormode & Muthukrishnan 2005) with conservative update and halving, as in TinyLFU
(Einziger, Friedman & Manes 2017). Rows of bytes, because Python's `bytearray` reads and writes them
fastest; counters stop at 15.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Sketch"]

_HALVED: Final = bytes(count >> 1 for count in range(256))
_MOST: Final = 15
_LEAST: Final = 1 << 12  # counters of a row: small caches can afford to mistake nobody
_BYTES_PER_ENTRY: Final = 6  # of each row
_PERIOD: Final = 24  # the counters are halved every 24 notes an entry
_SAMPLE: Final = 8192  # counters that are summed to estimate what halving left


class Sketch:
    """Grows with the number of entries that it serves; hashes are those of `str`, 64 bits and well mixed."""

    __slots__ = ("capacity", "mask", "noted", "row0", "row1")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.capacity = 16
        self.mask = _LEAST - 1
        self.row0, self.row1 = bytearray(_LEAST), bytearray(_LEAST)
        self.noted = 0

    def fit(self, entries: int) -> None:
        """Be wide enough for so many entries. A row doubled by itself estimates what it did before."""
        while self.mask + 1 < entries * _BYTES_PER_ENTRY:
            self.row0 = self.row0 * 2
            self.row1 = self.row1 * 2
            self.mask = 2 * self.mask + 1
        self.capacity = max(16, entries)

    def note(self, hash_: int) -> None:
        """Count a use of a key, by its hash."""
        row0, row1, mask = self.row0, self.row1, self.mask
        i, j = hash_ & mask, hash_ >> 32 & mask
        a, b = row0[i], row1[j]
        low = a if a < b else b
        if low < _MOST:  # only the smaller counter grows (conservative update)
            if a == low:
                row0[i] = low + 1
            if b == low:
                row1[j] = low + 1
            self.noted += 1
            if self.noted >= _PERIOD * self.capacity:
                self._halve()

    def estimate(self, hash_: int) -> int:
        """Return about how often a key was used: never fewer than since the counters were last halved."""
        a, b = self.row0[hash_ & self.mask], self.row1[hash_ >> 32 & self.mask]
        return a if a < b else b

    def _halve(self) -> None:
        self.row0, self.row1 = self.row0.translate(_HALVED), self.row1.translate(_HALVED)
        part = min(self.mask + 1, _SAMPLE)  # a full sum would stall whoever holds the lock
        left = sum(self.row0[:part]) + sum(self.row1[:part])
        self.noted = left * (self.mask + 1) // (2 * part)
