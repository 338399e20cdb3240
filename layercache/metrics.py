"""What is measured: one list of metrics, and their samples, for whoever shows them elsewhere.

Rule: everything is read from the counters when somebody looks, so that nothing else pays for it; keys are never labels.
A cache and its typed views are one. What a backend says of all its caches together is told once, by the backend's
name, so that sums are right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from layercache.caches import Caches
    from layercache.core.stats import CacheStats, LayerStats
    from layercache.core.times import Times

__all__ = ["DURATION", "METRICS", "Metric", "Sample", "measured"]

_Kind: TypeAlias = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One thing that is measured.

    Attributes:
        name: in words with underscores between, without the suffix that Prometheus wants of counters.
        kind: "counter", which only ever grows, "gauge", or "histogram".
        labels: the names of what tells its samples apart.
        help: one sentence.
        unit: of UCUM: "s", "By", or "1".
    """

    name: str
    kind: _Kind
    labels: tuple[str, ...]
    help: str
    unit: str = "1"


class Sample(NamedTuple):
    """What was measured.

    Attributes:
        labels: the values of the metric's labels.
        value: `Times` for a histogram.
    """

    metric: Metric
    labels: tuple[str, ...]
    value: float | Times


_CACHE: Final = ("cache",)
_LAYER: Final = ("cache", "layer")
_BACKEND: Final = ("layer",)  # of all its caches together

_REQUESTS: Final = Metric(
    "layercache_requests",
    "counter",
    (*_LAYER, "op", "result"),
    "Reads of each layer by whether they were a hit, a miss or an error, and writes of far layers by whether they are "
    "done or were an error.",
)
_READS: Final = Metric(
    "layercache_reads",
    "counter",
    (*_CACHE, "result"),
    "Reads of a cache as a whole, by whether they were a hit or a miss.",
)
_LOADS: Final = Metric(
    "layercache_loads",
    "counter",
    (*_CACHE, "result"),
    "Loads, by whether the loader returned (loaded), or raised or was stopped (failed).",
)
DURATION: Final = Metric(
    "layercache_operation_duration_seconds",
    "histogram",
    (*_LAYER, "op"),
    "What reads and writes of far layers took, and loads, whose layer is empty.",
    "s",
)
_DEGRADED: Final = Metric(
    "layercache_degraded", "gauge", _BACKEND, "Whether the last operation of the backend failed."
)
_PREDICTED: Final = Metric(
    "layercache_predicted_hit_ratio",
    "gauge",
    (*_BACKEND, "memory"),
    "What share of the reads an LRU cache with so many times the memory would have answered.",
)
_OTHERS: Final = Metric(
    "layercache_backend_gauge",
    "gauge",
    (*_LAYER, "gauge"),
    "What a backend of a third party says of itself.",
)

_CALLS: Final = {
    "stale_hits": Metric("layercache_stale_hits", "counter", _CACHE, "Calls that were given a stale value."),
    "waits": Metric(
        "layercache_load_waits", "counter", _CACHE, "Calls that waited for a load of another caller."
    ),
    "timeouts": Metric(
        "layercache_load_timeouts", "counter", _CACHE, "Calls that did not wait until a load was over."
    ),
    "refreshes": Metric(
        "layercache_refreshes", "counter", _CACHE, "Loads that were begun in the background."
    ),
    "fills_refused": Metric(
        "layercache_fills_refused", "counter", _CACHE, "Loaded values that were of the past by then."
    ),
    "undecodable": Metric(
        "layercache_undecodable",
        "counter",
        _CACHE,
        "Entries that were no value of the wanted type, and so misses.",
    ),
}
"""By the attribute of `CacheStats`."""

_GAUGES: Final = {
    "owed": Metric("layercache_owed", "gauge", _LAYER, "Invalidations that have not reached the layer yet."),
    "outbox_overflows": Metric(
        "layercache_outbox_overflows", "counter", _LAYER, "How often what is owed became a clear."
    ),
    "bypasses": Metric(
        "layercache_bypasses",
        "counter",
        _LAYER,
        "Reads that passed the layer over, as it could not be relied on.",
    ),
    "foreign": Metric(
        "layercache_foreign",
        "counter",
        _LAYER,
        "Reads that found something else than a frame of this cache, and so a miss.",
    ),
    "entries": Metric("layercache_entries", "gauge", _BACKEND, "Entries that are kept now."),
    "bytes": Metric("layercache_bytes", "gauge", _BACKEND, "Bytes that they take.", "By"),
    "max_entries": Metric("layercache_max_entries", "gauge", _BACKEND, "How many entries are kept at most."),
    "max_bytes": Metric("layercache_max_bytes", "gauge", _BACKEND, "Bytes that they may take.", "By"),
    "evictions": Metric("layercache_evictions", "counter", _BACKEND, "Entries that made room for others."),
    "expirations": Metric("layercache_expirations", "counter", _BACKEND, "Entries whose time was over."),
    "refusals": Metric("layercache_refusals", "counter", _BACKEND, "Entries that were too large to be kept."),
    "circuits_open": Metric(
        "layercache_circuits_open", "gauge", _BACKEND, "Servers that are left alone now."
    ),
    "circuit_openings": Metric(
        "layercache_circuit_openings", "counter", _BACKEND, "How often a server began to be left alone."
    ),
    "log_entries": Metric(
        "layercache_log_entries", "counter", _BACKEND, "Entries of the log that were heard."
    ),
    "log_losses": Metric(
        "layercache_log_losses",
        "counter",
        _BACKEND,
        "How often track of the log was lost, and all forgotten.",
    ),
    "log_set_backs": Metric(
        "layercache_log_set_backs", "counter", _BACKEND, "How often of these as the server had lost writes."
    ),
    "log_lag": Metric(
        "layercache_log_lag_seconds",
        "gauge",
        _BACKEND,
        "Since what is known of other processes was confirmed.",
        "s",
    ),
}
"""By the name of the layer's gauge."""

METRICS: Final = (
    _READS, _REQUESTS, _LOADS, *_CALLS.values(), DURATION, _DEGRADED, *_GAUGES.values(), _PREDICTED, _OTHERS,
)  # fmt: skip


def measured(caches: Caches) -> list[Sample]:
    """Return a sample of everything, of the caches that are open."""
    samples: dict[tuple[str, tuple[str, ...]], Sample] = {}
    for cache in caches.opened:
        stats = cache.stats()
        for sample in (*_of_cache(stats), *_of_layers(stats)):
            samples.setdefault((sample.metric.name, sample.labels), sample)
    return list(samples.values())


def _of_cache(stats: CacheStats) -> Iterator[Sample]:
    cache = stats.name
    yield Sample(_READS, (cache, "hit"), stats.hits)
    yield Sample(_READS, (cache, "miss"), stats.misses)
    yield Sample(_LOADS, (cache, "loaded"), stats.loads)
    yield Sample(_LOADS, (cache, "failed"), stats.load_failures)
    for attribute, metric in _CALLS.items():
        yield Sample(metric, (cache,), getattr(stats, attribute))
    yield Sample(DURATION, (cache, "", "load"), stats.load_times)


def _of_layers(stats: CacheStats) -> Iterable[Sample]:
    for layer in stats.layers:
        here = (stats.name, layer.name)
        yield Sample(_REQUESTS, (*here, "read", "hit"), layer.hits)
        yield Sample(_REQUESTS, (*here, "read", "miss"), layer.misses)
        yield Sample(_REQUESTS, (*here, "read", "error"), layer.errors - layer.write_errors)
        if layer.write_times is not None:
            done = max(layer.write_times.count - layer.write_errors, 0)
            yield Sample(_REQUESTS, (*here, "write", "done"), done)
            yield Sample(_REQUESTS, (*here, "write", "error"), layer.write_errors)
        for op, times in (("read", layer.read_times), ("write", layer.write_times)):
            if times is not None:
                yield Sample(DURATION, (*here, op), times)
        yield Sample(_DEGRADED, (layer.name,), float(layer.degraded))
        yield from _of_backend(stats, layer)


def _of_backend(stats: CacheStats, layer: LayerStats) -> Iterator[Sample]:
    for gauge, value in layer.gauges.items():
        metric = _GAUGES.get(gauge)
        if metric is None:
            yield Sample(_OTHERS, (stats.name, layer.name, gauge), value)
        else:
            yield Sample(metric, (stats.name, layer.name)[-len(metric.labels) :], value)
    if layer.curve is not None:
        for memory, hit_rate in layer.curve.points:
            yield Sample(_PREDICTED, (layer.name, f"{memory:g}"), hit_rate)
