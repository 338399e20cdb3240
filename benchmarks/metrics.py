"""What being seen costs: `python benchmarks/metrics.py`. The same calls without anything, with Prometheus' collector
registered, with OpenTelemetry's meters and tracers (its SDK, keeping everything), with alerts, and with the curve; in
turns, in one run. Each has a world of its own.

A hit counts itself in its record, whatever is on: the floor says what that one increment is. A load pays for its span.
"""

from __future__ import annotations

import time
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry
from rounds import async_rounds, print_table, statement_rounds

from layercache import Caches
from layercache.integrations.opentelemetry import instrument
from layercache.integrations.prometheus import Collector
from layercache.metrics import measured

KEY = "key:500"
FLOOR = """
record = records.get(key)
if record is not None and record.hit_until > now():
    value = record.value
"""


class Nowhere(SpanExporter):
    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def world(*, curve: bool = False, **alerts: Any) -> Caches:
    made = Caches({
        "backends": {"m": {"type": "memory", "miss_ratio_curve": curve}},
        "caches": {"default": {"backend": "m", "ttl": "1h"}},
        "alerts": alerts,
    })  # fmt: skip
    for number in range(1000):
        made["default"].set(f"key:{number}", "value")
    return made


def worlds() -> dict[str, Caches]:
    made = {
        "nothing": world(),
        "Prometheus": world(),
        "OpenTelemetry": world(),
        "alerts": world(hit_rate_under=0.1, memory_over=0.9, load_errors_over=0.5),
        "the curve": world(curve=True),
        "all of them": world(curve=True, hit_rate_under=0.1, memory_over=0.9, load_errors_over=0.5),
    }
    for name in ("Prometheus", "all of them"):
        CollectorRegistry().register(Collector(made[name]))
    for name in ("OpenTelemetry", "all of them"):
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(Nowhere()))
        instrument(
            made[name], meter_provider=MeterProvider([InMemoryMetricReader()]), tracer_provider=tracers
        )
    return made


def main() -> None:
    made = worlds()
    records = made["nothing"]["default"].near_records()
    names: dict[str, Any] = {"records": records, "key": KEY, "now": time.time}
    floor = "dict + inlined TTL check, uncounted"
    statements: dict[str, tuple[str, dict[str, Any]]] = {
        floor: (FLOOR, names),
        "the same and `record.hits += 1`": (FLOOR + "    record.hits += 1\n", names),
    }
    loads: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, each in made.items():
        statements[f"get, with {name}"] = ("cache.get(key)", {"cache": each["default"], "key": KEY})
        loads[f"refresh, with {name}"] = (
            "cache.refresh(key, load)",
            {"cache": each["default"], "key": KEY, "load": lambda: "value"},
        )
    print_table("A hit, by what is on", statement_rounds(statements, 50_000), floor)
    awaited = {f"aget, with {name}": (each["default"].aget, (KEY,)) for name, each in made.items()}
    print_table("An awaited hit, by what is on", async_rounds(awaited, 20_000), "aget, with nothing")
    print_table(
        "A load of a function that does nothing", statement_rounds(loads, 1_000), "refresh, with nothing"
    )
    looks = {
        "stats() of 1,000 entries": ("cache.stats()", {"cache": made["nothing"]["default"]}),
        "the same, with the curve": ("cache.stats()", {"cache": made["the curve"]["default"]}),
        "all that is measured": ("measured(world)", {"measured": measured, "world": made["nothing"]}),
    }
    print_table("A look at the counters", statement_rounds(looks, 200), "stats() of 1,000 entries")


if __name__ == "__main__":
    main()
