"""The counters of a world of caches as Prometheus takes them. Its package comes with the extra `prometheus`.

    REGISTRY.register(layercache.integrations.prometheus.Collector())

Rule: they are read when they are collected, so that nothing else pays for it. Keys are never labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from layercache.caches import Caches, default_caches
from layercache.core.layer import LayerStats
from layercache.core.times import BOUNDS, Times
from layercache.errors import MissingExtra
from layercache.face import CacheStats

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
    from prometheus_client.registry import Collector as BaseCollector
except ImportError as error:
    raise MissingExtra("the metrics for Prometheus", "prometheus_client", "prometheus") from error

__all__ = ["Collector", "exposition"]

_CACHES: Final[Mapping[str, tuple[str, str]]] = {
    "loads": ("layercache_loads", "Loaders that returned."),
    "load_failures": ("layercache_load_failures", "Loaders that raised or were stopped."),
    "stale_hits": ("layercache_stale_hits", "Calls that were given a stale value."),
    "waits": ("layercache_waits", "Calls that waited for a load of another caller."),
    "timeouts": ("layercache_timeouts", "Calls that did not wait until a load was over."),
    "refreshes": ("layercache_refreshes", "Loads that were begun in the background."),
    "fills_refused": ("layercache_fills_refused", "Loaded values that were of the past by then."),
}

_GAUGES: Final[Mapping[str, tuple[str, str]]] = {
    "entries": ("layercache_entries", "Entries that are kept now, of all caches of the backend."),
    "bytes": ("layercache_bytes", "Bytes that they take."),
    "circuits_open": ("layercache_circuits_open", "Servers that are left alone now."),
    "log_lag": ("layercache_log_lag_seconds", "Since what is known of other processes was confirmed."),
    "owed": ("layercache_owed_invalidations", "Invalidations that have not reached the layer yet."),
}


class Collector(BaseCollector):
    """Collects from the caches that are open.

    Args:
        caches: the world that it is about; None: the one behind `get_cache`, as it is at each collection.
    """

    def __init__(self, caches: Caches | None = None) -> None:
        self._caches = caches

    def describe(self) -> Iterable[Metric]:
        return ()  # so that registering it opens nothing

    def collect(self) -> Iterator[Metric]:
        world = default_caches() if self._caches is None else self._caches
        found = [cache.stats() for cache in world.opened]
        yield _requests(found)
        for attribute, (name, help_) in _CACHES.items():
            counter = CounterMetricFamily(name, help_, labels=["cache"])
            for stats in found:
                counter.add_metric([stats.name], getattr(stats, attribute))
            yield counter
        yield _load_times(found)
        yield _operation_times(found)
        yield from _gauges(found)


def exposition(caches: Caches | None = None) -> tuple[str, str]:
    """Return the metrics as text, and its media type."""
    registry = CollectorRegistry()
    registry.register(Collector(caches))
    return generate_latest(registry).decode(), CONTENT_TYPE_LATEST


def _requests(found: Iterable[CacheStats]) -> Metric:
    requests = CounterMetricFamily(
        "layercache_requests", "Reads by what they found.", labels=["cache", "layer", "op", "result"]
    )
    for stats, layer in _layers(found):
        for result, count in (("hit", layer.hits), ("miss", layer.misses), ("error", layer.errors)):
            # an error may be one of a write as well: they are counted together
            requests.add_metric(
                [stats.name, layer.name, "any" if result == "error" else "read", result], count
            )
    return requests


def _load_times(found: Iterable[CacheStats]) -> Metric:
    family = HistogramMetricFamily("layercache_load_duration_seconds", "What loads took.", labels=["cache"])
    for stats in found:
        family.add_metric([stats.name], _buckets(stats.load_times), stats.load_times.seconds)
    return family


def _operation_times(found: Iterable[CacheStats]) -> Metric:
    family = HistogramMetricFamily(
        "layercache_operation_duration_seconds", "What far operations took.", labels=["cache", "layer", "op"]
    )
    for stats, layer in _layers(found):
        for op, times in (("read", layer.read_times), ("write", layer.write_times)):
            if times is not None:
                family.add_metric([stats.name, layer.name, op], _buckets(times), times.seconds)
    return family


def _gauges(found: Iterable[CacheStats]) -> Iterator[Metric]:
    for gauge, (name, help_) in _GAUGES.items():
        family = GaugeMetricFamily(name, help_, labels=["cache", "layer"])
        for stats, layer in _layers(found):
            if gauge in layer.gauges:
                family.add_metric([stats.name, layer.name], layer.gauges[gauge])
        yield family


def _layers(found: Iterable[CacheStats]) -> Iterator[tuple[CacheStats, LayerStats]]:
    for stats in found:
        for layer in stats.layers:
            yield stats, layer


def _buckets(times: Times) -> list[Any]:
    """Return the buckets as Prometheus counts them: each with those before it."""
    buckets: list[Any] = []
    total = 0
    for bound, count in zip((*map(str, BOUNDS), "+Inf"), times.counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets
