"""What the management API answers, with values hidden and problems as RFC 9457 has them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import redis
from asking import BACKENDS, CACHES, OWN, Api, problem, settings
from worlds import follow, make_world

import layercache
import layercache.admin
from layercache import Caches, cached
from layercache.testing import ValkeyServer


@pytest.fixture
def far(server: redis.Redis, server_url: str) -> Iterator[tuple[Api, Caches]]:
    """On a chain that ends in a server."""
    with make_world("chain", server, server_url, stale_ttl=30) as world:
        follow(world["default"])
        yield Api(layercache.admin.app(world)), world


def test_the_caches_of_the_settings_are_listed_and_none_is_opened(api: Api, world: Caches) -> None:
    world["stock"].set("k", 1)
    world["stock"].get("k")
    world["stock"].get("nothing")

    told = api.get("/caches").json()

    assert told["environment"] == "development"
    default, stock = told["caches"]
    assert default == {
        "name": "default",
        "backend": "local",
        "type": "memory",
        "ttl": 300.0,
        "is_open": False,
        "hits": 0,
        "misses": 0,
        "hit_rate": None,
        "degraded": False,
    }
    assert (stock["is_open"], stock["hits"], stock["misses"], stock["hit_rate"]) == (True, 1, 1, 0.5)
    assert [cache.name for cache in world.opened] == ["stock"]


def test_stats_have_the_counters_and_three_windows(far: tuple[Api, Caches]) -> None:
    api, world = far
    api.get("/caches/default/stats")
    world["default"].get_or_set("k", lambda: 1)
    world["default"].get("k")

    told = api.get("/caches/default/stats").json()

    assert told["windows"].keys() == {"1m", "5m", "1h"}
    for counted in (told["total"], *told["windows"].values()):
        near, shared = counted["layers"]
        assert (near["type"], shared["type"]) == ("memory", "redis")
        assert near["reads"] is None
    minute = told["windows"]["1m"]
    assert (minute["hits"], minute["loads"]) == (1, 1)
    assert minute["load_times"]["count"] == 1
    assert minute["layers"][1]["reads"]["count"] >= 1
    assert 0 < minute["layers"][1]["reads"]["p95"] < 5
    assert minute["layers"][1]["gauges"]["circuits_open"] == 0


@pytest.mark.parametrize("key", ["quote:AAPL", "a/b?c=d%2F#e", "..", "삼성 전자", "a\nb", "100%", "/"])
def test_a_key_is_explained_and_deleted_whatever_it_is_made_of(api: Api, world: Caches, key: str) -> None:
    world["stock"].set(key, {"price": 189.5}, tags=["market"])
    path = f"/caches/stock/keys/{quote(key, safe='')}"
    if key == "..":
        path = "/caches/stock/keys/%2E%2E"

    told = api.get(path).json()

    assert (told["key"], told["would"]) == (key, "hit")
    (layer,) = told["layers"]
    assert layer["state"] == "fresh"
    assert layer["tags"] == [{"tag": "market", "is_current": True, "is_alive": True}]
    assert "get_or_set would hit" in told["text"]

    assert api.delete(path, headers=OWN).json() == {"key": key, "was_there": True}
    assert api.delete(path, headers=OWN).json() == {"key": key, "was_there": False}
    assert world["stock"].get(key) is None


def test_values_are_hidden_unless_the_settings_say_otherwise(api: Api, world: Caches) -> None:
    world["stock"].set("k", "secret")

    plain = api.get("/caches/stock/keys/k")
    assert "secret" not in plain.text
    assert problem(api.get("/caches/stock/keys/k?value=true")) == "values-hidden"

    with Caches(settings(show_values=True)) as open_world:
        open_world["stock"].set("k", {"n": [1, None]})
        open_world["stock"].set("long", "x" * 300_000)
        shown = Api(layercache.admin.app(open_world))
        assert shown.get("/caches/stock/keys/k").json()["value"] is None
        assert shown.get("/caches/stock/keys/k?value=true").json()["value"] == {"n": [1, None]}
        assert "too long" in shown.get("/caches/stock/keys/long?value=true").json()["value_note"]
        assert shown.get("/caches/stock/keys/no?value=true").json()["value_note"] == "there is none"


def test_keys_come_in_pages(api: Api, world: Caches) -> None:
    world["stock"].set_many({f"quote:{number:03}": 1 for number in range(250)} | {"news:1": 1})

    first = api.get("/caches/stock/keys?prefix=quote:&limit=200").json()
    assert first["keys"] == [f"quote:{number:03}" for number in range(200)]
    second = api.get("/caches/stock/keys", params={"prefix": "quote:", "cursor": first["cursor"]}).json()
    assert second["keys"] == [f"quote:{number:03}" for number in range(200, 250)]
    assert second["cursor"] is None


def test_the_most_common_beginnings_are_counted(api: Api, world: Caches, far: tuple[Api, Caches]) -> None:
    world["stock"].set_many({f"quote:{number}": 1 for number in range(30)} | {"news:1": 1, "plain": 1})
    for _ in range(7):
        world["stock"].get("news:1")

    told = api.get("/caches/stock/prefixes?limit=2").json()

    assert told["looked_at"] == 32
    assert told["prefixes"] == [
        {"prefix": "news:", "keys": 1, "hits": 7},
        {"prefix": "quote:", "keys": 30, "hits": 0},
    ]


def test_of_a_store_that_is_far_alone_the_beginnings_are_those_of_some_keys(server_url: str) -> None:
    backends = {"far": {"type": "redis", "url": server_url, "prefix": "prefixes"}}
    with Caches({"backends": backends, "caches": {"default": {"backend": "far"}}}) as world:
        world["default"].set_many({f"quote:{number}": 1 for number in range(30)})

        told = Api(layercache.admin.app(world)).get("/caches/default/prefixes").json()

        assert told["prefixes"] == [{"prefix": "quote:", "keys": 30, "hits": None}]
        world["default"].clear()


def test_tags_are_invalidated_hard_and_softly(far: tuple[Api, Caches]) -> None:
    api, world = far
    cache = world["default"]
    cache.set_many({"a": 1, "b": 2}, tags=["news"])

    soft = api.post("/caches/default/invalidate", json={"tags": ["news"], "soft": True}, headers=OWN)
    assert soft.json() == {"tags": ["news"], "soft": True}
    assert api.get("/caches/default/keys/a").json()["would"] == "serve stale and refresh"

    api.post("/caches/default/invalidate", json={"tags": ["news"]}, headers=OWN)
    assert api.get("/caches/default/keys/a").json()["would"] == "load"


def test_a_cache_is_cleared_and_others_are_not(api: Api, world: Caches) -> None:
    world["stock"].set("k", 1)
    world["default"].set("k", 1)

    assert api.post("/caches/stock/clear", headers=OWN).json() == {"cache": "stock"}

    assert world["stock"].get("k") is None
    assert world["default"].get("k") == 1


def test_what_the_functions_of_this_process_list_is_warmed() -> None:
    layercache.configure({"backends": BACKENDS, "caches": CACHES})
    api = Api(layercache.admin.app())

    @cached("quote:{symbol}", cache="stock", warm=["AAPL", "MSFT", "DOWN"])
    def price(symbol: str) -> int:
        if symbol == "DOWN":
            raise LookupError("the password is hunter2")
        return len(symbol)

    @cached("async:{symbol}", cache="stock", warm=["AAPL"])
    async def aprice(symbol: str) -> int:
        return len(symbol)

    @cached("other:{symbol}", warm=["AAPL"])
    def other(symbol: str) -> int:
        return len(symbol)

    answer = api.post("/caches/stock/warm", json={"concurrency": 2}, headers=OWN)

    reports = {name.rpartition(".")[2]: report for name, report in answer.json()["functions"].items()}
    assert reports.keys() == {"price", "aprice"}
    assert (reports["price"]["loaded"], reports["price"]["failed"]) == (2, {"quote:DOWN": "LookupError"})
    assert "hunter2" not in answer.text
    assert layercache.get_cache("stock").get("async:AAPL") == 4
    assert layercache.get_cache("default").get("other:AAPL") is None


def test_a_cache_is_warmed_by_one_at_a_time() -> None:
    layercache.configure({"backends": BACKENDS, "caches": CACHES})
    api = Api(layercache.admin.app())
    began, go_on = threading.Event(), threading.Event()

    @cached("slow:{symbol}", cache="stock", warm=["AAPL"])
    def slow(symbol: str) -> int:
        began.set()
        assert go_on.wait(10)
        return 1

    first = threading.Thread(target=lambda: api.post("/caches/stock/warm", headers=OWN))
    first.start()
    assert began.wait(10)
    try:
        assert problem(api.post("/caches/stock/warm", headers=OWN)) == "warming-already"
    finally:
        go_on.set()
        first.join()
    assert api.post("/caches/stock/warm", headers=OWN).status_code == 200
    del slow


def test_health_is_told_without_asking_a_store(server: redis.Redis) -> None:
    with ValkeyServer() as own:
        backends = {
            "local": {"type": "memory"},
            "far": {"type": "redis", "url": own.url},
            "forgiving": {"type": "redis", "url": own.url, "on_error": "miss"},
            "chain": {"type": "chain", "layers": ["local", "far"]},
        }
        caches = {"near": "local", "alone": "far", "miss": "forgiving", "both": "chain"}
        tables = {
            "backends": backends,
            "caches": {name: {"backend": backend} for name, backend in caches.items()},
        }
        with Caches(tables) as world:
            api = Api(layercache.admin.app(world))
            for name in ("near", "miss", "both", "alone"):
                world[name].get("k")
            healthy = api.get("/health")
            assert healthy.status_code == 200
            assert healthy.json() == {
                "live": True,
                "ready": True,
                "degraded": False,
                "caches": dict.fromkeys(("near", "miss", "both", "alone"), "ok"),
            }

            own.stop()
            for name in ("miss", "both"):
                world[name].get("k")
            with pytest.raises(layercache.BackendError):
                world["alone"].get("k")

            down = api.get("/health")
            assert down.status_code == 503
            assert down.json()["caches"] == {
                "near": "ok",
                "miss": "degraded",
                "both": "degraded",
                "alone": "down",
            }
            assert (down.json()["ready"], down.json()["degraded"]) == (False, True)

            assert problem(api.get("/caches/alone/keys")) == "backend-failed"
            assert problem(api.delete("/caches/alone/keys/k", headers=OWN)) == "backend-failed"
            assert api.get("/caches/alone/keys/k").json()["layers"][0]["state"] == "failed"


# -- problems


@pytest.mark.parametrize(
    ("method", "path", "more", "kind"),
    [
        ("GET", "/caches/stok/stats", {}, "unknown-cache"),
        ("GET", "/caches/stok/keys", {}, "unknown-cache"),
        ("DELETE", "/caches/stok/keys/k", {}, "unknown-cache"),
        ("GET", "/caches/stock/keys?limit=0", {}, "invalid-request"),
        ("GET", "/caches/stock/keys?limit=many", {}, "invalid-request"),
        ("GET", f"/caches/stock/keys/{'k' * 2000}", {}, "invalid-request"),
        ("GET", "/caches/stock/keys/", {}, "invalid-request"),
        ("POST", "/caches/stock/invalidate", {}, "invalid-request"),
        ("POST", "/caches/stock/invalidate", {"json": {"tags": []}}, "invalid-request"),
        ("POST", "/caches/stock/invalidate", {"json": {"tags": ["*"]}}, "invalid-request"),
        ("POST", "/caches/stock/invalidate", {"json": {"tags": ["t"], "sotf": True}}, "invalid-request"),
        ("POST", "/caches/stock/invalidate", {"content": "{"}, "invalid-request"),
        ("POST", "/caches/stock/warm", {"json": {"concurrency": 1000}}, "invalid-request"),
        ("GET", "/nope", {}, "not-found"),
        ("PUT", "/caches", {}, "wrong-method"),
    ],
)
def test_what_goes_wrong_is_a_problem(api: Api, method: str, path: str, more: Any, kind: str) -> None:
    answer = api(method, path, headers=OWN, **more)

    assert problem(answer) == kind
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_name_that_is_none_brings_the_nearest(api: Api) -> None:
    assert "did you mean 'stock'?" in api.get("/caches/stok/stats").json()["detail"]


def test_what_is_wrong_with_a_request_is_said_and_not_repeated(api: Api) -> None:
    answer = api.post("/caches/stock/invalidate", json={"tags": ["t" * 300]}, headers=OWN)

    assert answer.json()["faults"][0]["where"] == "body.tags.0"
    assert "ttt" not in answer.text


def test_a_wrong_method_is_told_the_right_ones(api: Api) -> None:
    assert api("PUT", "/caches/stock/keys/k").headers["allow"] == "DELETE, GET"
    assert api.get("/caches/stock/clear").headers["allow"] == "POST"
    assert problem(api.get("/caches/stock/clear")) == "wrong-method"


def test_a_cache_whose_package_is_missing_is_a_problem(
    world: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise layercache.MissingExtra("the backend 'redis'", "redis", "redis")

    monkeypatch.setattr(world, "_open", fail)

    assert problem(Api(layercache.admin.app(world)).get("/caches/stock/keys")) == "cache-unavailable"


def test_the_description_names_each_resource_with_examples(api: Api) -> None:
    told = api.get("/openapi.json").json()

    assert set(told["paths"]) == {
        "/caches",
        "/advice",
        "/caches/{name}/stats",
        "/caches/{name}/prefixes",
        "/caches/{name}/keys",
        "/caches/{name}/keys/{key}",
        "/caches/{name}/invalidate",
        "/caches/{name}/clear",
        "/caches/{name}/warm",
        "/health",
    }
    for operations in told["paths"].values():
        for operation in operations.values():
            assert operation["description"]
            assert operation["security"] == [{"token": []}]
            problems = [status for status in operation["responses"] if status >= "400" and status != "503"]
            assert problems
            for status in problems:
                assert "application/problem+json" in operation["responses"][status]["content"]
    assert told["components"]["schemas"]["Invalidation"]["examples"]
