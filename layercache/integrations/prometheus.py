"""The counters of a world of caches as Prometheus takes them. Its package comes with the extra `prometheus`.

    REGISTRY.register(layercache.integrations.prometheus.Collector())

Rule: what is measured, `layercache.metrics` says; here it is only spelled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from layercache.caches import Caches
from layercache.core.times import BOUNDS, Times
from layercache.default import default_world
from layercache.errors import MissingExtra
from layercache.metrics import METRICS, Metric, measured

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.core import Metric as Family
    from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
    from prometheus_client.registry import Collector as BaseCollector
except ImportError as error:
    raise MissingExtra("the metrics for Prometheus", "prometheus_client", "prometheus") from error

__all__ = ["Collector", "exposition"]


class Collector(BaseCollector):
    """Collects from the caches that are open.

    Args:
        caches: the world that it is about; None: the one behind `get_cache`, as it is at each collection.
    """

    def __init__(self, caches: Caches | None = None) -> None:
        self._caches = caches

    def describe(self) -> Iterable[Family]:
        """Return the families without samples; opens no cache."""
        return [_family(metric) for metric in METRICS]  # so that registering it opens nothing

    def collect(self) -> Iterator[Family]:
        """Yield the families with what was counted until now."""
        world = default_world() if self._caches is None else self._caches
        families = {metric.name: _family(metric) for metric in METRICS}
        for sample in measured(world):
            family, value = families[sample.metric.name], sample.value
            if isinstance(value, Times):
                family.add_metric(sample.labels, _buckets(value), value.seconds)
            else:
                family.add_metric(sample.labels, value)
        return iter(families.values())


def exposition(caches: Caches | None = None) -> tuple[str, str]:
    """Return the metrics as text, and its media type."""
    registry = CollectorRegistry()
    registry.register(Collector(caches))
    return generate_latest(registry).decode(), CONTENT_TYPE_LATEST


def _family(metric: Metric) -> Any:
    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
    return kinds[metric.kind](metric.name, metric.help, labels=metric.labels)


def _buckets(times: Times) -> list[Any]:
    """Return the buckets as Prometheus counts them: each with those before it."""
    buckets: list[Any] = []
    total = 0
    for bound, count in zip((*map(str, BOUNDS), "+Inf"), times.counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets
