"""A key space with its counters: what a cache reads from, and what a chain is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from layercache.core.port import Port
from layercache.entry import Entry
from layercache.spi import KeySpace

__all__ = ["Layer", "LayerStats"]


@dataclass(frozen=True, slots=True)
class LayerStats:
    """What one layer has done since it was opened, in this process.

    Attributes:
        name, type: of the backend, as in the settings.
        hits, misses: reads that found a living entry, and that did not.
        errors: operations of a chain that this layer of it failed; a backend alone raises them.
        degraded: whether the last operation failed, so that the layer is served around.
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

    The counters are plain attributes raised by `+= 1`: CPython changes threads between
    statements of a function only where it calls or jumps back, so none is lost under the GIL.
    """

    __slots__ = ("degraded", "errors", "hits", "misses", "name", "space", "type")

    def __init__(self, name: str, type_: str, space: KeySpace) -> None:
        self.name, self.type, self.space = name, type_, space
        self.hits = self.misses = self.errors = 0
        self.degraded = False

    async def read(self, port: Port, key: str) -> Entry | None:
        entry = await port.read(self.space, key)
        if entry is None:
            self.misses += 1
        else:
            self.hits += 1
        return entry

    async def read_many(self, port: Port, keys: list[str]) -> dict[str, Entry]:
        found = await port.read_many(self.space, keys)
        self.hits += len(found)
        self.misses += len(keys) - len(found)
        return found

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
