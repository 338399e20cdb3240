"""explain and list_keys: what is seen of a cache from outside, whichever layers it is made of."""

from __future__ import annotations

import asyncio
import base64
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import redis
from waiting import PATIENCE
from worlds import follow, make_world

from layercache import Cache, Caches, CannotList, InvalidKey, InvalidOption
from layercache.core.explaining import LayerSight
from layercache.spi import KeySpace
from layercache.testing import Clock

KEY = "quote:AAPL"
FACES = ("sync", "async")


@contextmanager
def face(side: str) -> Iterator[asyncio.Runner | None]:
    with asyncio.Runner() if side == "async" else nullcontext() as runner:
        yield runner


@pytest.fixture(params=["memory", "redis", "chain"])
def world(request: pytest.FixtureRequest, server: redis.Redis, server_url: str) -> Iterator[Caches]:
    with make_world(request.param, server, server_url, ttl=60, stale_ttl=30) as world:
        follow(world["default"])
        yield world
        world["default"].clear()


@pytest.fixture
def clock(world: Caches) -> Clock:
    clock: Clock = world.clock  # type: ignore[attr-defined]
    return clock


@pytest.fixture
def chain(server: redis.Redis, server_url: str) -> Iterator[Cache[Any]]:
    with make_world("chain", server, server_url, ttl=60, stale_ttl=30) as world:
        follow(world["default"])
        yield world["default"]


def far(cache: Cache[Any]) -> LayerSight:
    return cache.explain(KEY).layers[-1]


# -- what is there, and what would be done


@pytest.mark.parametrize("side", FACES)
def test_what_is_fresh_is_a_hit(cache: Cache[Any], side: str) -> None:
    cache.set(KEY, 189.5, tags=["market"])

    with face(side) as runner:
        found = cache.explain(KEY) if runner is None else runner.run(cache.aexplain(KEY))

    assert (found.cache, found.key, found.would) == ("default", KEY, "hit")
    for layer in found.layers:
        assert layer.state == "fresh"
        assert layer.fresh_left == pytest.approx(60, abs=5)
        assert layer.ttl_left == pytest.approx(90, abs=5)
        assert layer.age == pytest.approx(0, abs=5)
        assert layer.size > 0
        assert {tag.tag for tag in layer.tags} >= {"market"}


def test_what_is_not_there_is_loaded(cache: Cache[Any]) -> None:
    found = cache.explain(KEY)

    assert (found.would, found.why) == ("load", "no layer has it")
    assert {layer.state for layer in found.layers} == {"absent"}


def test_what_is_stale_is_served_and_refreshed(cache: Cache[Any], clock: Clock) -> None:
    cache.set(KEY, 1)
    clock.advance(70)

    found = cache.explain(KEY)

    assert found.would == "serve stale and refresh"
    assert {layer.state for layer in found.layers} == {"stale"}
    assert all(layer.ttl_left == pytest.approx(20, abs=5) for layer in found.layers)


def test_where_refresh_is_off_what_is_stale_is_loaded(server: redis.Redis, server_url: str) -> None:
    with make_world("memory", server, server_url, ttl=60, stale_ttl=30, refresh="off") as world:
        world["default"].set(KEY, 1)
        world.clock.advance(70)  # type: ignore[attr-defined]

        assert world["default"].explain(KEY).would == "load"


def test_what_it_says_it_would_do_is_what_is_done(cache: Cache[Any], clock: Clock) -> None:
    loaded: list[int] = []

    def load() -> int:
        loaded.append(1)
        return len(loaded)

    for would, wait in (("load", 0), ("hit", 50), ("hit", 50), ("load", 70)):
        assert cache.explain(KEY).would == would, wait
        before = len(loaded)
        cache.get_or_set(KEY, load)
        assert (len(loaded) > before) is (would == "load")
        clock.advance(wait)
    assert cache.explain(KEY).would == "serve stale and refresh"


def test_who_finds_a_load_under_way_here_would_wait_for_it(cache: Cache[Any]) -> None:
    loading, go_on = threading.Event(), threading.Event()

    def load() -> int:
        loading.set()
        assert go_on.wait(PATIENCE)
        return 1

    caller = threading.Thread(target=cache.get_or_set, args=(KEY, load))
    caller.start()
    assert loading.wait(PATIENCE)
    try:
        found = cache.explain(KEY)
    finally:
        go_on.set()
        caller.join()

    assert (found.would, found.loading) == ("wait for the holder", True)
    assert cache.explain(KEY).would == "hit"


def test_who_finds_another_process_loading_would_wait_for_it(chain: Cache[Any]) -> None:
    """The lease is seen with its holder and its end; a stale value would be served meanwhile."""
    space = chain._layer.space.layers()[-1].space
    space.lease_many([KEY], b"tokentoken12", 20.0)

    found = chain.explain(KEY)

    assert found.would == "wait for the holder"
    lease = found.layers[-1].lease
    assert lease is not None
    assert lease.holder == b"toke".hex()
    assert lease.left == pytest.approx(20, abs=5)
    assert "lease held by" in str(found)

    space.release_many([KEY], b"tokentoken12", 5.0)
    held = chain.explain(KEY).layers[-1].lease
    assert held.holder == ""
    assert "held back" in str(chain.explain(KEY))


def test_a_lease_that_a_clear_has_voided_is_none(chain: Cache[Any]) -> None:
    chain._layer.space.layers()[-1].space.lease_many([KEY], b"tokentoken12", 20.0)

    chain.clear()

    assert far(chain).lease is None
    assert chain.explain(KEY).would == "load"


def test_an_invalidated_tag_is_named(chain: Cache[Any]) -> None:
    chain.set(KEY, 1, tags=["market", "us"])

    chain.invalidate("market")

    assert far(chain).state == "invalid"
    current = {tag.tag: tag.is_current for tag in far(chain).tags}
    assert current == {"*": True, "market": False, "us": True}
    assert "market (invalidated)" in str(chain.explain(KEY))
    assert chain.explain(KEY).would == "load"


def test_a_soft_invalidation_leaves_it_stale(chain: Cache[Any]) -> None:
    chain.set(KEY, 1, tags=["market"])

    chain.invalidate("market", soft=True)

    found = chain.explain(KEY)
    assert {layer.state for layer in found.layers} == {"stale"}
    assert found.would == "serve stale and refresh"
    assert "market (invalidated softly)" in str(found)


def test_a_cleared_cache_is_seen_as_such(cache: Cache[Any]) -> None:
    cache.set(KEY, 1)

    cache.clear()

    assert {layer.state for layer in cache.explain(KEY).layers} <= {"absent", "invalid"}
    assert cache.explain(KEY).would == "load"


def test_stages_and_sizes_are_those_of_the_frame(chain: Cache[Any], server: redis.Redis) -> None:
    chain.set(KEY, {"text": "x" * 5000})

    layer = far(chain)

    assert layer.stages == ("json", "zstd")
    assert layer.size == server.strlen(_name(chain)) < 1000
    assert layer.dictionary is None


def _name(cache: Cache[Any]) -> bytes:
    space: Any = cache._layer.space.layers()[-1].space
    name: bytes = space._commands.names.value(KEY)
    return name


def test_a_value_too_long_to_be_looked_at_whole_is_explained(chain: Cache[Any]) -> None:
    space: Any = chain._layer.space.layers()[-1].space
    chain.set(KEY, base64.b64encode(random.Random(1).randbytes(1_200_000)).decode())
    assert far(chain).size > 1 << 20

    assert far(chain).state == "fresh"
    assert space.explain(KEY).entry.payload is None


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda server, name: server.set(name, b"something else"), "no frame"),
        (lambda server, name: server.setrange(name, server.strlen(name) - 6, b"!"), "altered"),
        (lambda server, name: (server.delete(name), server.rpush(name, "x")), "another type"),
    ],
)
def test_what_is_no_entry_of_ours_is_unreadable_and_nothing_counts_it(
    chain: Cache[Any], server: redis.Redis, spoil: Any, fault: str
) -> None:
    chain.set(KEY, {"price": 1})
    chain._layer.space.layers()[0].space.delete(KEY)
    spoil(server, _name(chain))
    before = chain.stats()

    layer = far(chain)

    assert layer.state == "unreadable"
    assert fault in layer.note
    assert chain.stats().layers[-1].gauges["foreign"] == before.layers[-1].gauges["foreign"]


def test_looking_counts_nothing_and_leaves_the_lost_stamp_lost(
    chain: Cache[Any], server: redis.Redis
) -> None:
    chain.set(KEY, 1)
    before = chain.stats()
    space: Any = chain._layer.space.layers()[-1].space
    server.delete(space._commands.names.stamp("*"))

    assert far(chain).state == "invalid"
    assert "lost" in str(chain.explain(KEY))
    chain.explain(KEY, value=True)
    chain.list_keys()

    after = chain.stats()
    assert (after.hits, after.misses) == (before.hits, before.misses)
    assert [(layer.hits, layer.misses) for layer in after.layers] == [
        (layer.hits, layer.misses) for layer in before.layers
    ]
    assert server.get(space._commands.names.stamp("*")) is None


def test_the_value_comes_only_when_it_is_asked_for(cache: Cache[Any]) -> None:
    cache.set(KEY, {"price": 189.5})

    assert "189.5" not in repr(cache.explain(KEY))
    assert cache.explain(KEY, value=True).value == {"price": 189.5}
    assert "value: {'price': 189.5}" in str(cache.explain(KEY, value=True))
    assert not cache.explain("nothing", value=True).value


def test_a_layer_that_fails_is_said_to(server: redis.Redis, server_url: str) -> None:
    backends = {
        "near": {"type": "memory"},
        "far": {"type": "redis", "url": "redis://127.0.0.1:1/0"},
        "chain": {"type": "chain", "layers": ["near", "far"]},
    }
    with Caches(
        {"backends": backends, "caches": {"default": {"backend": "chain"}, "alone": {"backend": "far"}}}
    ) as w:
        found = w["default"].explain(KEY)
        assert [layer.state for layer in found.layers] == ["absent", "failed"]
        assert found.would == "load"
        assert "does not answer" in found.why
        assert w["alone"].explain(KEY).layers[0].state == "failed"


def test_a_near_layer_that_nobody_vouches_for_is_passed_over(chain: Cache[Any], clock: Clock) -> None:
    chain.set(KEY, 1)
    near = chain._layer.space.near
    assert near is not None
    near.trusted_until = 0.0

    found = chain.explain(KEY)

    assert not found.layers[0].is_asked
    assert (found.would, found.why) == ("hit", "it is fresh in redis")
    assert "passed over" in str(found)


def test_a_key_that_is_none_is_refused(cache: Cache[Any]) -> None:
    with pytest.raises(InvalidKey):
        cache.explain("")


# -- keys


@pytest.mark.parametrize("side", FACES)
def test_pages_together_have_every_key(cache: Cache[Any], side: str) -> None:
    keys = {f"quote:{number}" for number in range(500)} | {"news:1", "odd*[?]\\ key"}
    cache.set_many(dict.fromkeys(keys, 1))

    with face(side) as runner:

        def listed(prefix: str) -> list[str]:
            found: list[str] = []
            cursor = ""
            while True:
                page = (
                    cache.list_keys(prefix, limit=50, cursor=cursor)
                    if runner is None
                    else runner.run(cache.alist_keys(prefix, limit=50, cursor=cursor))
                )
                assert len(page.keys) < 250  # a server gives some more than it is asked for
                found += page.keys
                if page.cursor is None:
                    return found
                cursor = page.cursor

        assert set(listed("")) == keys
        assert set(listed("news:")) == {"news:1"}
        assert set(listed("odd*[")) == {"odd*[?]\\ key"}
        assert listed("nothing") == []


def test_what_others_have_on_the_server_is_not_listed_and_bounds_a_page(
    chain: Cache[Any], server: redis.Redis
) -> None:
    chain.set(KEY, 1)
    names = [f"{_name(chain).decode()[:13]}:other:{number}" for number in range(20_000)]
    server.mset(dict.fromkeys(names, "x"))
    try:
        pages, cursor = [], ""
        while cursor is not None:
            page = chain.list_keys(cursor=cursor)
            pages.append(page.keys)
            cursor = page.cursor
    finally:
        server.delete(*names)

    assert {key for keys in pages for key in keys} == {KEY}
    assert 3 <= len(pages) <= 12, "each looks at some thousand keys"


def test_in_an_outage_a_chain_lists_what_is_near(server: redis.Redis, server_url: str) -> None:
    backends = {
        "near": {"type": "memory"},
        "far": {"type": "redis", "url": "redis://127.0.0.1:1/0"},
        "chain": {"type": "chain", "layers": ["near", "far"]},
    }
    with Caches({"backends": backends, "caches": {"default": {"backend": "chain"}}}) as world:
        world["default"].set(KEY, 1)

        assert world["default"].list_keys().keys == (KEY,)


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": 10_001}])
def test_a_limit_out_of_bounds_is_refused(cache: Cache[Any], wrong: Any) -> None:
    with pytest.raises(InvalidOption):
        cache.list_keys(**wrong)


def test_a_store_that_cannot_list_says_so() -> None:
    class Plain(KeySpace):
        def get(self, key: str) -> None: ...
        def set(self, key: str, entry: Any) -> bool: ...  # type: ignore[empty-body]
        def update(self, key: str, change: Any) -> None: ...
        def delete(self, key: str) -> bool: ...  # type: ignore[empty-body]
        def clear(self) -> None: ...

    with pytest.raises(CannotList, match="memory, redis and chain"):
        Plain().list_keys("", 1, "")
    assert Plain().explain("k").entry is None
