"""The counters as Prometheus takes them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from worlds import follow

import layercache
from layercache import Caches
from layercache.integrations.prometheus import Collector, exposition

SETTINGS = {
    "backends": {"m": {"type": "memory"}, "chain": {"type": "chain", "layers": ["m", "far"]}},
    "caches": {"stock": {"backend": "chain"}, "unused": {"backend": "m"}},
}


def test_each_layer_of_each_open_cache_is_told(server_url: str) -> None:
    far = {"type": "redis", "url": server_url, "prefix": "prometheus", "timeout": "10s"}
    settings = {**SETTINGS, "backends": {**SETTINGS["backends"], "far": far}}
    with Caches(settings) as world:
        registry = CollectorRegistry()
        registry.register(Collector(world))
        follow(world["stock"])
        world["stock"].get_or_set("quote:AAPL", lambda: 1)
        world["stock"].get("quote:AAPL")

        def sample(name: str, **labels: str) -> float | None:
            return registry.get_sample_value(name, {"cache": "stock", **labels})

        assert sample("layercache_requests_total", layer="m", op="read", result="hit") == 1
        assert sample("layercache_reads_total", result="hit") == 1
        assert sample("layercache_loads_total", result="loaded") == 1
        assert sample("layercache_operation_duration_seconds_count", layer="", op="load") == 1
        assert sample("layercache_operation_duration_seconds_bucket", layer="", op="load", le="30.0") == 1
        assert sample("layercache_operation_duration_seconds_count", layer="far", op="read") >= 1
        assert sample("layercache_operation_duration_seconds_count", layer="m", op="read") is None
        assert (
            sample("layercache_requests_total", layer="far", op="write", result="done") == 2
        )  # following, and the fill
        assert registry.get_sample_value("layercache_entries", {"layer": "m"}) == 1
        assert registry.get_sample_value("layercache_circuits_open", {"layer": "far"}) == 0

        text, media_type = exposition(world)
        assert "unused" not in text
        assert "quote:AAPL" not in text
        assert media_type.startswith("text/plain")
        world["stock"].clear()


def test_without_a_world_it_is_about_the_default_one() -> None:
    layercache.configure({"backends": {"m": {"type": "memory"}}, "caches": {"default": {"backend": "m"}}})
    registry = CollectorRegistry()
    registry.register(Collector())
    layercache.get_cache().get("k")

    labels = {"cache": "default", "layer": "m", "op": "read", "result": "miss"}
    assert registry.get_sample_value("layercache_requests_total", labels) == 1
