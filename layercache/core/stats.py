"""What caches and layers have counted since they were opened, in this process: what `Cache.stats()` returns."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final

from layercache.core.times import Times

if TYPE_CHECKING:
    from layercache.spi import Curve

__all__ = ["LEVELS", "CacheStats", "LayerStats"]

LEVELS: Final = frozenset(
    {"entries", "bytes", "max_entries", "max_bytes", "circuits_open", "log_lag", "owed"}
)
"""Gauges that say how it is now; all others only ever grow."""


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
        read_times, write_times: how long its operations took, of those that wait for a network or a disk; else None.
        write_errors: how many of the errors were of changes, and of storing what was loaded.
        curve: what the hit rate would be with less and more memory, where that is kept book of.
    """

    name: str
    type: str
    hits: int
    misses: int
    errors: int
    degraded: bool
    gauges: dict[str, int | float] = field(default_factory=dict)
    layers: tuple[LayerStats, ...] = ()
    read_times: Times | None = None
    write_times: Times | None = None
    write_errors: int = 0
    curve: Curve | None = None

    @property
    def hit_rate(self) -> float:
        """Hits among all reads, 0.0 to 1.0; 0.0 before the first."""
        reads = self.hits + self.misses
        return self.hits / reads if reads else 0.0

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

    def since(self, earlier: LayerStats) -> LayerStats:
        """Return what was counted after `earlier`; gauges that say how it is now stay as they are."""
        then = earlier.gauges
        gauges = {
            name: value if name in LEVELS else value - then.get(name, 0)
            for name, value in self.gauges.items()
        }
        return replace(
            self,
            hits=self.hits - earlier.hits,
            misses=self.misses - earlier.misses,
            errors=self.errors - earlier.errors,
            write_errors=self.write_errors - earlier.write_errors,
            gauges=gauges,
            layers=tuple(now.since(then) for now, then in zip(self.layers, earlier.layers, strict=True)),
            read_times=_after(self.read_times, earlier.read_times),
            write_times=_after(self.write_times, earlier.write_times),
        )

    def _count(self, gauge: str) -> int | None:
        value = self.gauges.get(gauge)
        return None if value is None else int(value)


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What one cache has done since it was opened, in this process.

    Attributes:
        name: of the cache.
        hits, misses: reads that gave a value, and that did not.
        stale_hits: calls that were given a stale value.
        loads, load_failures: loaders that returned, and that raised or were stopped at their `hard_timeout`.
        load_seconds: spent in loaders, in all.
        waits: calls that waited for a load of another caller.
        timeouts: calls that did not wait until a load was over: they raised `LoadTimeout`, or returned a stale value.
        refreshes: loads that were begun in the background.
        fills_refused: loaded values that were not stored, as they were changed or invalidated since the load began.
        undecodable: entries that were there but no value of the wanted type, counted as misses besides.
        layers: where the reads were answered: one layer, or those of the chain, nearest first.
        load_times: how long each load took, those that failed included.
    """

    name: str
    hits: int
    misses: int
    stale_hits: int
    loads: int
    load_failures: int
    load_seconds: float
    waits: int
    timeouts: int
    refreshes: int
    fills_refused: int
    undecodable: int
    layers: tuple[LayerStats, ...]
    load_times: Times = field(default_factory=Times)

    @property
    def hit_rate(self) -> float:
        """Hits among all reads, 0.0 to 1.0; 0.0 before the first."""
        reads = self.hits + self.misses
        return self.hits / reads if reads else 0.0

    def since(self, earlier: CacheStats) -> CacheStats:
        """Return what was counted after `earlier`, of the same cache."""
        counted = {
            each.name: max(getattr(self, each.name) - getattr(earlier, each.name), 0)
            for each in fields(self)
            if each.name not in {"name", "layers", "load_times"}
        }
        layers = tuple(now.since(then) for now, then in zip(self.layers, earlier.layers, strict=True))
        return replace(self, **counted, layers=layers, load_times=self.load_times.since(earlier.load_times))

    def as_dict(self) -> dict[str, Any]:
        """Return it all as plain dicts and lists, `hit_rate` included: for JSON."""
        return {**asdict(self), "hit_rate": self.hit_rate}


def _after(now: Times | None, then: Times | None) -> Times | None:
    return now if now is None or then is None else now.since(then)
