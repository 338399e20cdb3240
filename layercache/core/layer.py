"""A key space with its counters: what a cache reads from, and what a chain is made of."""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from layercache.core.port import Port
from layercache.entry import Entry
from layercache.errors import BackendError
from layercache.spi import Change, KeySpace

__all__ = ["Layer", "LayerStats"]

log = logging.getLogger("layercache.layer")

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class LayerStats:
    """What one layer has done since it was opened, in this process.

    Attributes:
        name, type: of the backend, as in the settings.
        hits, misses: reads that found a living entry, and that did not.
        errors: operations that its store failed.
        degraded: whether the last operation failed.
        gauges: what the backend says of itself without I/O, such as `entries`, `bytes`, `evictions`.
        layers: of a chain, nearest first.
    """

    name: str
    type: str
    hits: int
    misses: int
    errors: int
    degraded: bool
    gauges: dict[str, int | float] = field(default_factory=dict)
    layers: tuple[LayerStats, ...] = ()

    @property
    def entries(self) -> int | None:
        """How many entries it holds now; None where it cannot tell without I/O."""
        return self._count("entries")

    @property
    def bytes(self) -> int | None:
        """How many bytes they take; None where it cannot tell without I/O."""
        return self._count("bytes")

    @property
    def evictions(self) -> int | None:
        """How many made room for others; None where it cannot tell."""
        return self._count("evictions")

    def _count(self, gauge: str) -> int | None:
        value = self.gauges.get(gauge)
        return None if value is None else int(value)


class Layer:
    """One key space and what it answered.

    Rule: a store that fails is counted, and logged once when that begins and once when it ends; where the layer is
    `forgiving` the operation then finds nothing and stores nothing, else its `BackendError` is raised.

    The counters are plain attributes raised by `+= 1`: CPython changes threads between
    statements of a function only where it calls or jumps back, so none is lost under the GIL.
    """

    __slots__ = ("degraded", "errors", "forgiving", "hits", "misses", "name", "space", "type")

    def __init__(self, name: str, type_: str, space: KeySpace, *, forgiving: bool = False) -> None:
        self.name, self.type, self.space, self.forgiving = name, type_, space, forgiving
        self.hits = self.misses = self.errors = 0
        self.degraded = False

    async def read(self, port: Port, key: str) -> Entry | None:
        try:
            entry = await port.read(self.space, key)
        except BackendError as error:
            self._failed(error)
            entry = None
        else:
            if self.degraded:
                self._answers_again()
        if entry is None:
            self.misses += 1
        else:
            self.hits += 1
        return entry

    async def read_many(self, port: Port, keys: list[str]) -> dict[str, Entry]:
        nothing: dict[str, Entry] = {}
        found = await self._tried(port.read_many(self.space, keys), nothing)
        self.hits += len(found)
        self.misses += len(keys) - len(found)
        return found

    async def look(self, port: Port, key: str) -> Entry | None:
        """As `read`, for who only wants to know: it counts neither a hit nor a miss."""
        return await self._tried(port.read(self.space, key), None)

    async def write(self, port: Port, key: str, entry: Entry) -> bool:
        return await self._tried(port.write(self.space, key, entry), False)

    async def write_many(self, port: Port, entries: Mapping[str, Entry]) -> list[str]:
        return await self._tried(port.write_many(self.space, entries), list(entries))

    async def update(self, port: Port, key: str, change: Change) -> Entry | None:
        """As the key space's. Where that fails and is forgiven, nothing is there to change: an increment says so."""
        answered, changed = await self.try_update(port, key, change)
        if not answered:
            change(None)
        return changed

    async def try_update(self, port: Port, key: str, change: Change) -> tuple[bool, Entry | None]:
        """Return whether the store answered, and what it stored."""
        return await self._tried(_answer(port.update(self.space, key, change)), (False, None))

    async def delete(self, port: Port, key: str) -> bool:
        return await self._tried(port.delete(self.space, key), False)

    async def delete_many(self, port: Port, keys: Sequence[str]) -> int:
        return await self._tried(port.delete_many(self.space, keys), 0)

    async def clear(self, port: Port) -> None:
        await self._tried(port.clear(self.space), None)

    async def _tried(self, operation: Coroutine[Any, Any, R], otherwise: R) -> R:
        try:
            result = await operation
        except BackendError as error:
            self._failed(error)
            return otherwise
        if self.degraded:
            self._answers_again()
        return result

    def _failed(self, error: BackendError) -> None:
        self.errors += 1
        if not self.degraded:
            self.degraded = True
            serving = "; serving without it" if self.forgiving else ""
            log.warning("layer %r failed%s: %s", self.name, serving, error)
        if not self.forgiving:
            raise error

    def _answers_again(self) -> None:
        self.degraded = False
        log.warning("layer %r answers again", self.name)

    def stats(self) -> LayerStats:
        """Return the counters. Hits without a lock are counted by the records themselves, once for a chain and its
        nearest layer."""
        gauges = dict(self.space.gauges())
        near = self.space.near
        near_hits = near.hits() if near is not None else 0
        layers = self.space.layers()
        return LayerStats(
            self.name,
            self.type,
            self.hits + near_hits,
            self.misses,
            self.errors,
            self.degraded,
            gauges=gauges,
            layers=tuple(layer.stats() for layer in layers),
        )


async def _answer(update: Coroutine[Any, Any, Entry | None]) -> tuple[bool, Entry | None]:
    return True, await update
