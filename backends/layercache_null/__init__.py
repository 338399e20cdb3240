"""The null backend: keeps nothing, and still has keys and values checked. The template for others.

[testing.backends.nothing]
type = "null"
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from layercache.entry import Entry
from layercache.options import NormalCodec, options, stages
from layercache.spi import Backend, Change, Finding, KeyPage, KeySpace, Opening, Serializer

__all__ = ["NullBackend", "NullOptions"]


@options
class NullOptions:
    """Attributes:
    codecs: the serializer that values are checked with.
    """

    codecs: NormalCodec = stages("json")


class _NullSpace(KeySpace):
    """Every read is a miss; every write is done with."""

    def get(self, key: str) -> None:
        return None

    def set(self, key: str, entry: Entry) -> bool:
        return True

    def update(self, key: str, change: Change) -> Entry | None:
        return change(None)

    def delete(self, key: str) -> bool:
        return False

    def clear(self) -> None:
        pass

    def list_keys(self, prefix: str, limit: int, cursor: str) -> KeyPage:
        return KeyPage((), None)


class NullBackend(Backend):
    """Stores nothing; never blocks."""

    Options: ClassVar[type[Any]] = NullOptions

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self.serializer: Serializer = self.options.codecs[0].open()

    def key_space(self, cache: str) -> KeySpace:
        return _NullSpace()

    def examine(self, caches: Sequence[str]) -> Iterable[Finding]:
        yield Finding("ok", "storage", "stores nothing: every read is a miss, every load runs")
