"""Metrics and spans of caches for OpenTelemetry. Its package, `opentelemetry-api`, comes with the extra
`opentelemetry`; what sends them anywhere is the application's choice.

    instrument()                    # the caches of get_cache
    instrument(caches).remove()     # those of a world, and no longer

Metrics are those of `layercache.metrics`, read from the counters when a reader collects. Each load, and each operation
of a far layer, gives a span and a point of the duration, in the moment; a hit near gives neither. Nothing is patched.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from time import monotonic, perf_counter
from typing import Any, Final
from weakref import ref

from layercache._version import __version__
from layercache.caches import Caches
from layercache.core.times import BOUNDS, Times
from layercache.default import default_world, watch_default
from layercache.errors import MissingExtra
from layercache.metrics import DURATION, METRICS, Metric, Sample, measured

try:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter
    from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider, get_tracer
except ImportError as error:
    raise MissingExtra("the instrumentation for OpenTelemetry", "opentelemetry", "opentelemetry") from error

__all__ = ["Instrumentation", "instrument"]

_NAME: Final = "layercache"
_FRESH: Final = 10.0  # seconds that what was read for one instrument serves the others of the same collection


def instrument(
    caches: Caches | None = None,
    *,
    meter_provider: MeterProvider | None = None,
    tracer_provider: TracerProvider | None = None,
    keys: bool = False,
) -> Instrumentation:
    """Report what caches do, until `remove()`.

    Args:
        caches: the world; None: the one behind `get_cache`, whatever its settings are.
        meter_provider, tracer_provider: of the application; None: the global ones.
        keys: whether spans of loads name their keys, which may be nobody's business. Metrics never do.
    """
    return Instrumentation(caches, meter_provider, tracer_provider, keys=keys)


class Instrumentation:
    """What `instrument` has begun."""

    def __init__(
        self,
        caches: Caches | None,
        meter_provider: MeterProvider | None,
        tracer_provider: TracerProvider | None,
        *,
        keys: bool,
    ) -> None:
        # meters keep their callbacks for ever; a world that nobody has any more is not to be kept by that
        self._world = None if caches is None else ref(caches)
        self._keys = keys
        self._tracer = get_tracer(_NAME, __version__, tracer_provider)
        self._is_removed = False
        self._lock = threading.Lock()  # guards the three below
        self._samples: list[Sample] = []
        self._read_at = 0.0
        self._served: set[str] = set()
        meter = get_meter(_NAME, __version__, meter_provider)
        self._durations = meter.create_histogram(
            _spelled(DURATION), DURATION.unit, DURATION.help, explicit_bucket_boundaries_advisory=BOUNDS
        )
        kinds = {"counter": meter.create_observable_counter, "gauge": meter.create_observable_gauge}
        for metric in METRICS:
            if metric.kind in kinds:
                kinds[metric.kind](
                    _spelled(metric), [partial(self._observed, metric)], metric.unit, metric.help
                )
        self._watch(self)

    def remove(self) -> None:
        """Report nothing any more."""
        self._is_removed = True
        self._watch(None)

    def _watch(self, watcher: Instrumentation | None) -> None:
        if self._world is None:
            watch_default(watcher)
        elif (world := self._world()) is not None:
            world.watch(watcher)

    # -- metrics

    def _observed(self, metric: Metric, _: CallbackOptions) -> Iterable[Observation]:
        if self._is_removed:
            return []
        return [
            Observation(sample.value, dict(zip(metric.labels, sample.labels, strict=True)))
            for sample in self._read_for(metric)
            if sample.metric is metric and not isinstance(sample.value, Times)
        ]

    def _read_for(self, metric: Metric) -> list[Sample]:
        """Return what was measured: the same for each instrument, until one of them asks again."""
        with self._lock:
            if metric.name in self._served or monotonic() - self._read_at > _FRESH:
                world = default_world() if self._world is None else self._world()
                self._samples = [] if world is None else measured(world)
                self._read_at = monotonic()
                self._served.clear()
            self._served.add(metric.name)
            return self._samples

    # -- as a watcher

    @contextmanager
    def loading(self, cache: str, keys: Sequence[str], *, background: bool) -> Generator[None, None, None]:
        """A span around a loader, under which are those that the loader itself begins."""
        about: dict[str, Any] = {
            "layercache.cache": cache,
            "layercache.keys": len(keys),
            "layercache.background": background,
        }
        if self._keys:
            about["layercache.key"] = list(keys)
        began = perf_counter()
        try:
            with self._tracer.start_as_current_span("layercache load", attributes=about):
                yield
        finally:
            self._took(perf_counter() - began, cache, "", "load")

    def operated(
        self, cache: str, layer: str, type_: str, op: str, began: float, seconds: float, *, failed: bool
    ) -> None:
        """A span of an operation that is over."""
        about = {"layercache.cache": cache, "layercache.layer": layer, "layercache.type": type_}
        start = int(began * 1e9)
        span = self._tracer.start_span(
            f"layercache {op}", kind=SpanKind.CLIENT, attributes=about, start_time=start
        )
        if failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(start + max(int(seconds * 1e9), 0))
        self._took(seconds, cache, layer, op)

    def _took(self, seconds: float, *labels: str) -> None:
        about: Mapping[str, str] = dict(zip(DURATION.labels, labels, strict=True))
        self._durations.record(max(seconds, 0.0), about)


def _spelled(metric: Metric) -> str:
    """Return the metric's name as OpenTelemetry has names: the unit is no part of them."""
    return metric.name.removesuffix("_seconds").replace(f"{_NAME}_", f"{_NAME}.", 1)
