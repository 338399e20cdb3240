"""Trained Zstandard dictionaries: what the values of one cache have in common, kept once.

A small value shrinks little by itself: there is nothing before it that it could repeat. A dictionary is trained from
values that are there and stands in for what came before. Frames name the dictionary they need by its id, so old
ones stay readable after a new one is trained, for as long as it is kept.

Rule: an id says which bytes a dictionary has. A dictionary that was altered on its way is refused: it would
turn sound frames into other values, and no check would see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from zlib import crc32

import zstandard

from layercache.errors import CacheError, DecodeError

__all__ = ["LARGEST_PAYLOAD", "Dictionaries", "Dictionary", "TooFewSamples", "UnknownDictionary", "train"]

LARGEST_PAYLOAD: Final = 64 * 1024
"""Payloads larger than this find enough to repeat in themselves: of 120 KB of JSON a dictionary takes off 4 % more,
for 80 % more time, and of 1 MB nothing."""

# The dictionary of 20 quotes lets others shrink to 23 %, that of 100 to 21 %, that of 1,000 to 20 %.
_FEWEST_SAMPLES: Final = 20
# One that holds more of its samples may be made for them alone: 64 KB from 100 KB of quotes let others shrink to 27 %.
_SHARE: Final = 3
_SMALLEST: Final = 256  # bytes of a dictionary; zstd makes no smaller ones
# what the format leaves to private use: the ids below may be registered, those above are reserved
_FIRST_ID: Final = 1 << 15
_IDS: Final = (1 << 31) - _FIRST_ID


class TooFewSamples(CacheError):
    """There is not enough to train a dictionary from.

    Attributes:
        count, size: how many samples there were that a dictionary is used for, and their bytes together.
    """

    def __init__(self, count: int, size: int) -> None:
        super().__init__(
            f"{count:,} samples of {size:,} bytes are too few to train a dictionary from; right are {_FEWEST_SAMPLES} "
            f"or more, better hundreds, of together {_SHARE * _SMALLEST:,} bytes or more "
            f"(empty ones, and those of more than {LARGEST_PAYLOAD:,} bytes, do not count)",
        )
        self.count, self.size = count, size


class UnknownDictionary(DecodeError):
    """A frame needs the dictionary `id`, which is not here."""

    def __init__(self, id: int) -> None:
        super().__init__(f"there is no zstd dictionary {id} here; add it first")
        self.id = id


class Dictionary:
    """One trained dictionary; safe to share between threads.

    Args:
        data: what `train` returned, else `DecodeError`.

    Attributes:
        id: what frames call it by.
        data: the same bytes.
    """

    def __init__(self, data: bytes) -> None:
        self.id, self.data = int.from_bytes(data[4:8], "little"), data
        if self.id != _id_of(data):
            raise DecodeError("not a zstd dictionary that `train` made, or altered since")
        self._parsed = _parsed(data)
        self._tables: dict[int, zstandard.ZstdCompressionDict] = {}  # by level, each ready for use
        try:
            self.decompressor()  # parses it; compressors refuse nothing that this takes
        except zstandard.ZstdError as error:
            raise DecodeError(f"not a zstd dictionary: {error}") from error

    def compressor(self, level: int) -> zstandard.ZstdCompressor:
        """Return a new compressor, for one thread; those of one level share their tables."""
        tables = self._tables.get(level)
        if tables is None:
            # at level 3 a compressor with tables of its own takes 450 KB, without them 45 KB
            tables = _parsed(self.data)
            tables.precompute_compress(level=level)
            tables = self._tables.setdefault(level, tables)
        return zstandard.ZstdCompressor(level=level, dict_data=tables)

    def decompressor(self) -> zstandard.ZstdDecompressor:
        """Return a new decompressor, for one thread."""
        return zstandard.ZstdDecompressor(dict_data=self._parsed)


class Dictionaries:
    """The dictionaries of one cache; safe to share between threads, as each method reads or writes one thing.

    Attributes:
        current: the one that new values are compressed with, or None.
    """

    def __init__(self) -> None:
        self.current: Dictionary | None = None
        self._by_id: dict[int, Dictionary] = {}  # only ever grows: values that need them may be anywhere

    def add(self, data: bytes) -> int:
        """Make a dictionary known, not yet current, and return its id; `DecodeError` unless `train` made it."""
        dictionary = Dictionary(data)
        return self._by_id.setdefault(dictionary.id, dictionary).id

    def use(self, id: int | None) -> None:
        """Compress new values with the dictionary `id`, or with none; `UnknownDictionary` unless it was added."""
        self.current = None if id is None else self.get(id)

    def get(self, id: int) -> Dictionary:
        """Return the dictionary `id`, or raise `UnknownDictionary`."""
        try:
            return self._by_id[id]
        except KeyError:
            raise UnknownDictionary(id) from None


def train(samples: Sequence[bytes], max_bytes: int = 32 * 1024, level: int = 3) -> bytes:
    """Return a dictionary for payloads like `samples`; equal samples give equal dictionaries.

    It takes up to a tenth of a second for each MB, a whole one at level 19; other threads run meanwhile.

    Args:
        samples: payloads as the stage gets them; fewer than 20, or too small ones, are `TooFewSamples`.
        max_bytes: 256 or more; the dictionary takes no more, and no more than a third of the samples. Between
            8 and 112 KB it makes little difference: quotes shrink to 20-21 %, a mixture of values to 26-28 %.
        level: the one that the dictionary will be used at.
    """
    if max_bytes < _SMALLEST:
        raise ValueError(f"max_bytes has to be {_SMALLEST} or more")
    used: list[Any] = [
        sample for sample in samples if 0 < len(sample) <= LARGEST_PAYLOAD
    ]  # empty ones end the process
    size = sum(map(len, used))
    if len(used) < _FEWEST_SAMPLES or size < _SHARE * _SMALLEST:
        raise TooFewSamples(len(used), size)
    trained = zstandard.train_dictionary(min(max_bytes, size // _SHARE), used, level=level).as_bytes()
    return trained[:4] + _id_of(trained).to_bytes(4, "little") + trained[8:]


def _id_of(data: bytes) -> int:
    """Return the id that these bytes have to carry, as the format wants it: after the magic number, little-endian."""
    return _FIRST_ID + crc32(data[8:], crc32(data[:4])) % _IDS


def _parsed(data: bytes) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_FULLDICT)
