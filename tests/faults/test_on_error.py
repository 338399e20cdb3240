"""A Redis backend alone, whose server is gone: it says so, or with `on_error = "miss"` finds and stores nothing."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from face import Face

from layercache import BackendError, Caches, KeyNotFound
from layercache.testing import ValkeyServer


def world(server: ValkeyServer, **options: Any) -> Caches:
    far = {"type": "redis", "url": server.url, "timeout": "200ms", **options}
    return Caches({"backends": {"far": far}, "caches": {"default": {"backend": "far"}}})


def test_by_default_every_verb_says_so(own_server: ValkeyServer, runner: asyncio.Runner | None) -> None:
    with world(own_server) as caches:
        cache = Face(caches["default"], runner)
        cache.set("k", 1)
        own_server.kill()

        for verb, *args in (
            ("get", "k"), ("get_many", ["k"]), ("set", "k", 2), ("set_many", {"k": 2}), ("add", "l", 2), ("touch", "k"),
            ("incr", "k"), ("delete", "k"), ("delete_many", ["k"]), ("has_key", "k"), ("ttl_left", "k"), ("clear",),
        ):  # fmt: skip
            with pytest.raises(BackendError):
                getattr(cache, verb)(*args)

        assert caches["default"].stats().layers[0].errors == 12


def test_with_miss_nothing_is_there_and_nothing_is_stored(
    own_server: ValkeyServer, runner: asyncio.Runner | None, caplog: pytest.LogCaptureFixture
) -> None:
    loads: list[int] = []

    def load() -> int:
        loads.append(1)
        return 7

    with world(own_server, on_error="miss") as caches, caplog.at_level(logging.WARNING, "layercache"):
        cache = Face(caches["default"], runner)
        cache.set("k", 1)
        assert cache.get("k") == 1
        own_server.kill()

        assert cache.get("k", "nothing") == "nothing"
        assert cache.get_many(["k"]) == {}
        assert cache.set("k", 2) is None
        assert cache.set_many({"k": 2, "l": 3}) == ["k", "l"]
        assert cache.add("l", 2) is False
        assert cache.touch("k") is False
        with pytest.raises(KeyNotFound):
            cache.incr("k")
        assert cache.delete("k") is False
        assert cache.delete_many(["k"]) == 0
        assert cache.has_key("k") is False
        assert cache.ttl_left("k") == 0.0
        assert cache.clear() is None
        for change in (cache.clear, lambda **strict: cache.delete("k", **strict)):
            with pytest.raises(BackendError):
                change(strict=True)
        assert [cache.get_or_set("k", load), cache.get_or_set("k", load)] == [7, 7]

        assert len(loads) == 2
        assert [record.message.split(":")[0] for record in caplog.records] == [
            "layer 'far' failed; serving without it"
        ]
        (layer,) = caches["default"].stats().layers
        assert layer.degraded is True
        assert layer.errors >= 14
