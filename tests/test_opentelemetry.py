"""Metrics and spans as OpenTelemetry takes them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any
from weakref import ref

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel

import layercache
from layercache import Caches, metrics
from layercache.core.stats import LEVELS
from layercache.integrations.opentelemetry import Instrumentation, instrument

MEMORY = {"backends": {"m": {"type": "memory"}}, "caches": {"default": {"backend": "m"}}}


class Seen:
    """The application's side: what reaches its reader and its exporter."""

    def __init__(self) -> None:
        self.reader, self.exporter = InMemoryMetricReader(), InMemorySpanExporter()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))

    def instrument(self, caches: Caches | None = None, **options: Any) -> Instrumentation:
        return instrument(caches, meter_provider=self.meters, tracer_provider=self.tracers, **options)

    def spans(self) -> list[ReadableSpan]:
        found = list(self.exporter.get_finished_spans())
        self.exporter.clear()
        return found

    def points(self, name: str) -> list[Any]:
        told = self.reader.get_metrics_data()
        if told is None:
            return []
        return [
            point
            for resource in told.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def value(self, name: str, **labels: str) -> Any:
        found = [point for point in self.points(name) if labels.items() <= dict(point.attributes).items()]
        assert len(found) <= 1
        return getattr(found[0], "value", found[0]) if found else None


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def world() -> Iterator[Caches]:
    with Caches(MEMORY) as world:
        yield world


@pytest.fixture
def chain(server_url: str) -> Iterator[Caches]:
    far = {"type": "redis", "url": server_url, "prefix": "opentelemetry"}
    layers = {"type": "chain", "layers": ["m", "far"]}
    settings = {
        "backends": {"m": {"type": "memory"}, "far": far, "chain": layers},
        "caches": {"stock": {"backend": "chain"}},
    }
    with Caches(settings) as world:
        yield world
        world["stock"].clear()


class TestMetrics:
    def test_the_counters_are_read_when_they_are_collected(self, seen: Seen, world: Caches) -> None:
        seen.instrument(world)
        world["default"].get_or_set("k", lambda: 1)

        assert seen.value("layercache.reads", result="hit") == 0
        world["default"].get("k")
        assert seen.value("layercache.reads", cache="default", result="hit") == 1
        assert seen.value("layercache.loads", cache="default", result="loaded") == 1
        assert seen.value("layercache.entries", layer="m") == 1

    def test_durations_are_a_histogram_with_our_bounds(self, seen: Seen, chain: Caches) -> None:
        seen.instrument(chain)
        chain["stock"].get_or_set("k", lambda: 1)
        chain["stock"].get("k")

        load = seen.value("layercache.operation_duration", op="load")
        assert load.count == 1
        assert tuple(load.explicit_bounds) == layercache.core.times.BOUNDS
        assert seen.value("layercache.operation_duration", layer="far", op="read").count >= 1
        assert seen.value("layercache.operation_duration", layer="far", op="write").count == 1
        assert seen.value("layercache.operation_duration", layer="m") is None

    def test_one_collection_counts_once(
        self, seen: Seen, world: Caches, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks: list[None] = []
        monkeypatch.setattr(
            "layercache.integrations.opentelemetry.measured",
            lambda world: looks.append(None) or metrics.measured(world),
        )
        seen.instrument(world)

        seen.points("layercache.reads")
        seen.points("layercache.reads")

        assert len(looks) == 2

    def test_a_cache_and_its_views_are_one(self, seen: Seen, world: Caches) -> None:
        class Quote(BaseModel):
            price: float

        seen.instrument(world)
        world["default"].typed(Quote).get_or_set("k", lambda: Quote(price=1.0))
        world["default"].typed(dict).get("k")

        assert seen.value("layercache.reads", cache="default", result="hit") == 1
        assert len(seen.points("layercache.loads")) == 2  # loaded and failed
        assert len(seen.spans()) == 1

    def test_keys_are_never_labels(self, seen: Seen, chain: Caches) -> None:
        seen.instrument(chain, keys=True)
        chain["stock"].get_or_set("quote:AAPL", lambda: 1)

        assert "quote:AAPL" not in str(seen.reader.get_metrics_data())


class TestSpans:
    def test_a_load_is_one_and_those_of_the_loader_are_under_it(self, seen: Seen, world: Caches) -> None:
        seen.instrument(world)

        def load() -> int:
            with seen.tracers.get_tracer("the application").start_as_current_span("SELECT"):
                return 1

        world["default"].get_or_set("k", load)
        world["default"].get("k")

        inner, outer = seen.spans()
        assert (inner.name, outer.name) == ("SELECT", "layercache load")
        assert inner.parent is not None
        assert inner.parent.span_id == outer.context.span_id
        assert dict(outer.attributes or {}) == {
            "layercache.cache": "default",
            "layercache.keys": 1,
            "layercache.background": False,
        }

    @pytest.mark.parametrize("is_async", [False, True])
    def test_of_async_callers_too(self, seen: Seen, world: Caches, is_async: bool) -> None:
        seen.instrument(world)

        def load() -> int:
            with seen.tracers.get_tracer("the application").start_as_current_span("SELECT"):
                return 1

        async def aload() -> int:
            await asyncio.sleep(0)
            return load()

        async def main() -> None:
            with seen.tracers.get_tracer("the application").start_as_current_span("GET /"):
                await world["default"].aget_or_set("k", aload if is_async else load)

        asyncio.run(main())

        inner, load_, request = seen.spans()
        assert [inner.name, load_.name, request.name] == ["SELECT", "layercache load", "GET /"]
        assert inner.parent is not None
        assert inner.parent.span_id == load_.context.span_id
        assert load_.parent is not None
        assert load_.parent.span_id == request.context.span_id

    def test_a_load_that_fails_says_so_and_raises_what_it_raised(self, seen: Seen, world: Caches) -> None:
        seen.instrument(world)

        def fail() -> None:
            raise OSError("down")

        with pytest.raises(OSError, match="down"):
            world["default"].get_or_set("k", fail)

        (span,) = seen.spans()
        assert span.status.status_code is trace.StatusCode.ERROR
        assert seen.value("layercache.loads", result="failed") == 1

    def test_far_operations_are_spans_and_near_ones_are_not(self, seen: Seen, chain: Caches) -> None:
        seen.instrument(chain)
        stock = chain["stock"]
        stock.set("k", 1)
        stock.get("another")  # looks near first

        write, read = seen.spans()
        assert (write.name, read.name) == ("layercache write", "layercache read")
        assert dict(read.attributes or {}) == {
            "layercache.cache": "stock",
            "layercache.layer": "far",
            "layercache.type": "redis",
        }
        assert read.kind is trace.SpanKind.CLIENT
        assert read.start_time is not None
        assert read.end_time is not None
        assert read.start_time <= read.end_time

    def test_what_a_server_fails_is_an_error(self, seen: Seen) -> None:
        far = {"type": "redis", "url": "redis://127.0.0.1:1", "on_error": "miss"}
        settings = {"backends": {"far": far}, "caches": {"stock": {"backend": "far"}}}
        with Caches(settings) as world:
            seen.instrument(world)
            world["stock"].get("k")

            (span,) = seen.spans()
            assert span.status.status_code is trace.StatusCode.ERROR

    @pytest.mark.parametrize("keys", [False, True])
    def test_keys_are_named_only_where_that_is_wanted(self, seen: Seen, world: Caches, keys: bool) -> None:
        seen.instrument(world, keys=keys)
        world["default"].get_or_set_many(["a", "b"], lambda keys: dict.fromkeys(keys, 1))

        (span,) = seen.spans()
        attributes = dict(span.attributes or {})
        assert attributes["layercache.keys"] == 2
        assert attributes.get("layercache.key") == (("a", "b") if keys else None)


class TestOnAndOff:
    def test_removed_it_reports_nothing_any_more(self, seen: Seen, world: Caches) -> None:
        instrumentation = seen.instrument(world)
        world["default"].get_or_set("a", lambda: 1)
        seen.spans()

        instrumentation.remove()
        world["default"].get_or_set("b", lambda: 1)

        assert seen.spans() == []
        assert seen.points("layercache.reads") == []

    def test_caches_and_views_that_are_opened_later_are_seen(self, seen: Seen, world: Caches) -> None:
        cache = world["default"]
        seen.instrument(world)
        cache.get_or_set("a", lambda: 1)
        cache.typed(int).get_or_set("b", lambda: 1)
        cache.close()
        world["default"].get_or_set("c", lambda: 1)

        assert len(seen.spans()) == 3

    def test_without_a_world_it_is_about_the_default_one_whatever_its_settings(self, seen: Seen) -> None:
        instrumentation = seen.instrument()
        try:
            for _ in range(2):
                layercache.configure(MEMORY)
                layercache.get_cache().get_or_set("k", lambda: 1)
            assert len(seen.spans()) == 2
            assert seen.value("layercache.loads", result="loaded") == 1
            with Caches(MEMORY) as other:
                other["default"].get_or_set("k", lambda: 1)
            assert seen.spans() == []
        finally:
            instrumentation.remove()
        layercache.get_cache().get_or_set("another", lambda: 1)
        assert seen.spans() == []

    def test_a_world_that_nobody_has_any_more_is_not_kept(self, seen: Seen) -> None:
        world = Caches(MEMORY)
        world["default"].get_or_set("k", lambda: 1)
        seen.instrument(world)
        kept = ref(world)
        del world
        gc.collect()

        assert kept() is None
        assert seen.points("layercache.reads") == []


def test_the_hit_path_is_the_same_functions(seen: Seen, world: Caches) -> None:
    cache = world["default"]
    before: dict[str, Callable[..., Any]] = {
        verb: vars(cache)[verb] for verb in ("get", "aget", "get_or_set")
    }
    seen.instrument(world)

    assert {verb: vars(cache)[verb] for verb in before} == before


def test_what_grows_is_a_counter_and_what_does_not_is_a_gauge() -> None:
    of_gauges = metrics._GAUGES
    assert {gauge for gauge, metric in of_gauges.items() if metric.kind == "gauge"} == LEVELS
    assert len({metric.name for metric in metrics.METRICS}) == len(metrics.METRICS)
