"""The chain: what it fills, in which order it writes, and what callers see when its far layer fails."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from shifting import ServerClock
from waiting import until
from worlds import follow

from layercache import Cache, Caches, ValueTooLarge
from layercache.errors import BackendError
from layercache.spi import KeySpace
from layercache.testing import Clock, ValkeyServer


def settings(url: str, near: dict[str, Any] | None = None, **far: Any) -> dict[str, Any]:
    return {
        "backends": {
            "near": {"type": "memory", **(near or {})},
            "far": {
                "type": "redis",
                "url": url,
                "prefix": "chain",
                "timeout": "2s",
                "max_staleness": "1h",
                **far,
            },
            "both": {"type": "chain", "layers": ["near", "far"]},
        },
        "caches": {
            "default": {"backend": "both", "ttl": 60},
            "far": {"backend": "far"},
            "near": {"backend": "near"},
        },
    }


def spaces(world: Caches) -> list[KeySpace]:
    return [layer.space for layer in world["default"]._layer.space.layers()]


@pytest.fixture
def clock(own_server: ValkeyServer) -> Iterator[Clock]:
    with redis.Redis.from_url(own_server.url) as client:
        yield ServerClock(client, "*")


def heard(world: Caches) -> float:
    return world["default"].stats().layers[1].gauges["log_entries"]


class TestFilling:
    def test_what_is_found_far_away_is_near_from_then_on(
        self, own_server: ValkeyServer, clock: Clock
    ) -> None:
        with (
            Caches(settings(own_server.url), now=clock) as one,
            Caches(settings(own_server.url), now=clock) as other,
        ):
            follow(other["default"])
            before = heard(other)
            one["default"].set("k", [1], 40)
            one["default"].set("l", 2, None)
            # news of a write drops what was read between it and the news
            until(lambda: heard(other) >= before + 2)
            clock.advance(15)

            assert other["default"].get("k") == [1]
            assert other["default"].get_many(["k", "l"]) == {"k": [1], "l": 2}

            near, _ = spaces(other)
            assert near.get("k").dead_at <= clock() + 25.01  # type: ignore[union-attr]
            assert near.get("l").dead_at == float("inf")  # type: ignore[union-attr]
            assert [layer.hits for layer in other["default"].stats().layers] == [1, 2]

    def test_no_longer_than_the_near_layers_own_limit(self, own_server: ValkeyServer, clock: Clock) -> None:
        limited = settings(own_server.url, near={"max_ttl": "10s"})
        with Caches(limited, now=clock) as world:
            follow(world["default"])
            world["default"].set("k", 1, 60)
            near, far = spaces(world)
            assert near.get("k").left(clock()) <= 10  # type: ignore[union-attr]

            clock.advance(11)

            assert near.get("k") is None
            assert world["default"].get("k") == 1
            assert far.get("k").left(clock()) > 40  # type: ignore[union-attr]

    def test_what_the_near_layer_cannot_hold_is_served_from_farther_away(
        self, own_server: ValkeyServer, clock: Clock
    ) -> None:
        small = settings(own_server.url, near={"max_bytes": "1KB"})
        with Caches(small, now=clock) as world:
            assert world["default"].set_many({"k": "x" * 5000, "l": "small"}) == []

            assert world["default"].get("k") == "x" * 5000
            assert spaces(world)[0].get("k") is None

    def test_what_the_far_layer_refuses_is_nowhere(self, own_server: ValkeyServer) -> None:
        with Caches(settings(own_server.url, max_value_bytes="1KB")) as world:
            follow(world["default"])
            world["default"].set("k", "old")

            with pytest.raises(ValueTooLarge):
                world["default"].set("k", "x" * 5000)

            assert [space.get("k").value or space.get("k").payload for space in spaces(world)] == [
                "old",
                b'"old"',
            ]  # type: ignore[union-attr]

    def test_a_change_decided_far_away_reaches_the_near_layer(self, own_server: ValkeyServer) -> None:
        with Caches(settings(own_server.url)) as one, Caches(settings(own_server.url)) as other:
            one["default"].set("n", 1)
            other["default"].get("n")

            one["default"].incr("n")

            assert other["default"].incr("n") == 3
            # news of what the other one did may still drop it, so it is near in the end
            until(lambda: other["default"].get("n") == 3 and spaces(other)[0].get("n") is not None)
            assert spaces(other)[0].get("n").payload == b"3"  # type: ignore[union-attr]

    def test_clear_empties_every_layer(self, own_server: ValkeyServer) -> None:
        with Caches(settings(own_server.url)) as world:
            world["default"].set_many({"k": 1, "l": 2})

            world["default"].clear()

            assert [space.get_many(["k", "l"]) for space in spaces(world)] == [{}, {}]


class TestOrder:
    """Far first: while a write is under way, nobody finds near what is not far."""

    @pytest.mark.parametrize("verb", ["set", "delete", "clear", "touch", "incr", "add"])
    def test_writes_reach_the_far_layer_first(
        self, own_server: ValkeyServer, verb: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Caches(settings(own_server.url)) as world:
            if verb != "add":
                world["default"].set("k", 1)
            follow(world["default"])
            order: list[str] = []
            for name, space in zip(("near", "far"), spaces(world), strict=True):
                for operation in ("set", "set_many", "fill", "update", "delete", "delete_many", "clear"):
                    monkeypatch.setattr(space, operation, traced(name, getattr(space, operation), order))

            getattr(world["default"], verb)(*{"clear": [], "set": ["k", 2], "add": ["k", 2]}.get(verb, ["k"]))

            assert order[0] == "far"
            assert "near" in order[1:]


def traced(name: str, operation: Any, order: list[str]) -> Any:
    def call(*args: Any) -> Any:
        order.append(name)
        return operation(*args)

    return call


class TestOutage:
    @pytest.fixture
    def world(self, own_server: ValkeyServer) -> Iterator[Caches]:
        with Caches(settings(own_server.url, timeout="100ms")) as world:
            yield world

    @pytest.fixture(params=["killed", "frozen"])
    def outage(self, request: pytest.FixtureRequest, own_server: ValkeyServer, world: Caches) -> Any:
        follow(world["default"])
        world["default"].set("known", [1], tags=["tagged"])
        own_server.kill() if request.param == "killed" else own_server.pause()
        return lambda: own_server.start() if request.param == "killed" else own_server.resume()

    def test_callers_see_values_and_never_an_error(self, world: Caches, outage: Any) -> None:
        cache = world["default"]

        assert cache.get("known") == [1]
        assert cache.get("unknown") is None
        cache.set("k", 2)
        assert cache.get("k") == 2
        assert cache.get_or_set("loaded", lambda: 3) == 3
        assert cache.add("added", 4) is True
        assert cache.incr("added") == 5
        assert cache.get_many(["known", "k", "added", "unknown"]) == {"known": [1], "k": 2, "added": 5}
        assert cache.delete("k") is True
        cache.clear()
        assert cache.get("known") is None

    def test_the_async_face_as_well(self, world: Caches, outage: Any) -> None:
        cache = world["default"]

        async def main() -> list[Any]:
            await cache.aset("k", 2)
            return [
                await cache.aget("known"),
                await cache.aget("unknown"),
                await cache.aget("k"),
                await cache.aget_or_set("loaded", lambda: 3),
                await cache.aincr("k"),
                await cache.adelete("k"),
            ]

        assert asyncio.run(main()) == [[1], None, 2, 3, 3, True]

    @pytest.mark.parametrize("verb", ["delete", "delete_many", "clear", "invalidate"])
    def test_a_strict_change_says_that_it_did_not_arrive_and_arrives_later(
        self, world: Caches, outage: Any, verb: str
    ) -> None:
        cache = world["default"]
        arguments: dict[str, list[Any]] = {
            "delete": ["known"], "delete_many": [["known"]], "clear": [], "invalidate": ["tagged"],
        }  # fmt: skip

        with pytest.raises(BackendError):
            getattr(cache, verb)(*arguments[verb], strict=True)
        with pytest.raises(BackendError):
            asyncio.run(getattr(cache, f"a{verb}")(*arguments[verb], strict=True))

        assert cache.get("known") is None, "it is gone here"
        outage()
        until(lambda: cache.stats().layers[1].gauges["owed"] == 0)
        assert spaces(world)[1].get("known") is None
        getattr(cache, verb)(*arguments[verb], strict=True)

    def test_it_is_counted_and_logged_once_when_it_begins_and_once_when_it_ends(
        self, world: Caches, outage: Any, own_server: ValkeyServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        cache = world["default"]
        with caplog.at_level(logging.INFO, "layercache.layer"):
            for number in range(3):
                cache.get(f"unknown {number}")
            assert [record.message.split(":")[0] for record in caplog.records] == [
                "layer 'far' failed; serving without it"
            ]
            near, far = cache.stats().layers
            assert (near.errors, near.degraded) == (0, False)
            assert (far.errors, far.degraded) == (3, True)

            outage()
            end = time.monotonic() + 5
            while cache.stats().layers[1].degraded:  # a thread of its own notices: ask until it has
                cache.get("unknown")
                assert time.monotonic() < end
            cache.get("unknown")

        assert [record.message for record in caplog.records][1:] == ["layer 'far' answers again"]
        assert cache.stats().layers[1].degraded is False

    def test_of_a_server_that_refuses_writes_alone_reads_do_not_say_that_it_ended(
        self, own_server: ValkeyServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        with Caches(settings(own_server.url)) as world:
            cache = world["default"]
            cache.set("known", 1)
            own_server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
            with caplog.at_level(logging.INFO, "layercache.layer"):
                own_server.ask("CONFIG", "SET", "maxmemory", 1)
                for number in range(3):
                    cache.set(f"k{number}", 1)
                    cache.get(f"unknown {number}")
                    assert cache.get_or_set(f"loaded {number}", lambda: 1) == 1
                assert [record.message.split(":")[0] for record in caplog.records] == [
                    "layer 'far' failed; serving without it"
                ]
                assert cache.stats().layers[1].degraded

                own_server.ask("CONFIG", "SET", "maxmemory", 0)
                cache.set("k", 1)

            assert [record.message for record in caplog.records][1:] == ["layer 'far' answers again"]
            assert not cache.stats().layers[1].degraded

    def test_alone_the_backend_says_so(self, world: Caches, outage: Any) -> None:
        with pytest.raises(BackendError):
            world["far"].get("k")


def test_what_a_callers_own_code_raises_is_no_outage(own_server: ValkeyServer) -> None:
    with Caches(settings(own_server.url)) as world:
        cache: Cache[Any] = world["default"]
        cache.set("n", "text")

        with pytest.raises(TypeError):
            cache.incr("n")
        with pytest.raises(ZeroDivisionError):
            cache.get_or_set("k", lambda: 1 / 0)

        assert [layer.errors for layer in cache.stats().layers] == [0, 0]
