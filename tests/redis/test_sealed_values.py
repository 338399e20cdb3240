"""Sealed values on a server that somebody else can write to: a miss and a count, never another value, no code run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis
from face import Face as Verbs
from far import FACES, Far

from layercache import CacheError, Caches, KeyNotFound
from layercache.codecs.frame import pack, unpack
from layercache.codecs.pickle import PickleOptions, PickleStage

OLD, NEW = "old:ABCDEFGHIJ0123456789abcdefghijklmnop", "new:0123456789abcdefghijklmnopqrstuvwxyz"
PICKLE = PickleStage(PickleOptions())

ran: list[str] = []


class Bomb:
    def __reduce__(self) -> Any:
        return ran.append, ("boom",)


@pytest.fixture(params=["sign", "encrypt"])
def seal(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def opened(server_url: str, seal: str) -> Iterator[Callable[..., Caches]]:
    """Worlds over one prefix: `far` on the server, `chained` with memory before it."""
    prefix, worlds = f"seals-{uuid4().hex[:8]}", []

    def open_world(*keys: str, codecs: Any = None) -> Caches:
        far = {
            "type": "redis", "url": server_url, "prefix": prefix, "timeout": "10s",
            "codecs": codecs or ["pickle", {"type": "zstd", "min_bytes": 64}, seal], "seal_keys": keys or [NEW],
        }  # fmt: skip
        near = {"type": "memory", "codecs": ["pickle"]}
        layered = {"type": "chain", "layers": ["near", "far"]}
        world = Caches(
            {
                "backends": {"far": far, "near": near, "layered": layered}
                if codecs is None
                else {"far": far},
                "caches": {"far": {"backend": "far"}, "other": {"backend": "far"}}
                | ({"chained": {"backend": "layered"}} if codecs is None else {}),
            }
        )
        worlds.append(world)
        return world

    yield open_world
    for world in worlds:
        world.close()
    ran.clear()


def unverified(cache: Any) -> float:
    gauges: float = cache.stats().layers[-1].gauges["unverified"]
    return gauges


def at(cache: Any, key: str) -> bytes:
    return Far(cache).names.value(key)


def forged(server: redis.Redis, cache: Any, key: str, **parts: Any) -> None:
    """Change parts of what is under `key`, with the checksum put right."""
    where = at(cache, key)
    frame = unpack(server.get(where), where)
    server.set(where, pack(frame._replace(**parts), where), keepttl=True)


def test_a_frame_moved_to_another_key_or_cache_is_a_miss_and_counted(opened, server):
    world = opened()
    cache, other = world["far"], world["other"]
    cache.set("admin", {"name": "root"})
    frame = unpack(server.get(at(cache, "admin")), at(cache, "admin"))
    other.set("x", 1)
    for where in (at(cache, "guest"), at(other, "admin")):
        stamps = (
            unpack(server.get(at(other, "x")), at(other, "x")).stamps if b"other" in where else frame.stamps
        )
        server.set(where, pack(frame._replace(stamps=stamps), where), ex=100)

    assert cache.get("guest") is None
    assert other.get("admin") is None
    assert (unverified(cache), unverified(other)) == (1, 1)
    assert cache.get("admin") == {"name": "root"}


def test_a_life_that_somebody_prolonged_is_a_miss(opened, server):
    cache = opened()["far"]
    cache.set("k", 1, 100)

    forged(server, cache, "k", fresh_until=10**11, dead_at=10**11)

    assert cache.get("k") is None
    assert unverified(cache) == 1


def test_what_somebody_else_put_there_is_never_unpickled(opened, server):
    cache = opened()["chained"]
    cache.set("k", 1)
    where = at(opened()["far"], "k").replace(b":far:", b":chained:")
    frame = unpack(server.get(where), where)
    for stages, payload in (
        (("pickle",), PICKLE.dumps(Bomb())),
        (frame.stages, PICKLE.dumps(Bomb())),
        (frame.stages, frame.payload[:60] + PICKLE.dumps(Bomb())),
    ):
        server.set(where, pack(frame._replace(stages=stages, payload=payload), where), ex=100)
        reader = opened()["chained"]

        assert reader.get("k") is None
        assert reader.get_many(["k"]) == {}
        assert reader.get_or_set("k", lambda: 2) == 2
        assert unverified(reader) > 0
    assert ran == []


def test_keys_rotate_without_a_miss(opened):
    opened(OLD)["far"].set("a", 1)
    during = opened(NEW, OLD)["far"]
    assert during.get("a") == 1
    during.set("b", 2)

    assert opened(OLD, NEW)["far"].get("b") == 2
    after = opened(NEW)["far"]
    assert (after.get("a"), after.get("b")) == (None, 2)
    assert unverified(after) == 1


def test_what_an_old_key_sealed_is_sealed_anew_by_whatever_changes_it(opened):
    opened(OLD)["far"].set("n", 1)

    assert opened(NEW, OLD)["far"].incr("n") == 2

    assert opened(NEW)["far"].get("n") == 2


@pytest.mark.parametrize("name", ["far", "chained"])
def test_the_verbs_that_change_what_is_there_seal_it_anew(opened, name):
    cache = opened()[name]
    cache.set("k", {"a": (1, 2)}, 10)
    cache.set("n", 5, 60)

    assert cache.touch("k", 500)
    assert 400 < cache.ttl_left("k") <= 500
    assert cache.touch("k", None)
    assert cache.ttl_left("k") is None
    assert (cache.incr("n", 3), cache.decr("n")) == (8, 7)
    assert 50 < cache.ttl_left("n") <= 60
    assert not cache.add("n", 1)

    fresh = opened()[name]
    assert fresh.get_many(["k", "n"]) == {"k": {"a": (1, 2)}, "n": 7}
    assert unverified(fresh) == 0
    with pytest.raises(KeyNotFound):
        cache.incr("m")
    assert not cache.touch("m")


def test_counting_is_exact_whoever_counts(opened):
    worlds = [opened()["far"] for _ in range(3)]
    worlds[0].set("n", 0)
    threads = [
        threading.Thread(target=lambda cache=cache: [cache.incr("n") for _ in range(20)]) for cache in worlds
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert worlds[0].get("n") == 60


def test_a_frame_from_before_a_clear_cannot_be_stamped_anew(opened, server):
    cache = opened()["far"]
    cache.set("k", "before")
    where = at(cache, "k")
    frame = unpack(server.get(where), where)
    cache.clear()
    cache.set("k", "after")
    stamps = unpack(server.get(where), where).stamps

    server.set(where, pack(frame._replace(stamps=stamps), where), ex=100)

    assert cache.get("k") is None
    assert unverified(cache) == 1


def test_no_dictionary_is_trained_nor_believed(opened, server):
    world = opened()
    cache = world["far"]

    with pytest.raises(CacheError, match="would lie unsealed on the server"):
        world.backend("far").train_dictionary("far", 100)
    server.set(Far(cache).names.dictionary(), b"40000")
    cache.set("k", "x" * 500)

    assert cache.get("k") == "x" * 500


class TestClassesThatAreNotHere:
    """What another process pickled, and this one has no code for, is a miss on every way."""

    @pytest.mark.parametrize("name", ["far", "chained"])
    @pytest.mark.parametrize("kind", FACES)
    def test_it_is_a_miss(self, opened, name, kind, monkeypatch):
        import asyncio

        class Gone:
            pass

        Gone.__qualname__ = "Gone"
        monkeypatch.setitem(globals(), "Gone", Gone)
        opened()[name].set("k", {"it": Gone()})
        monkeypatch.delitem(globals(), "Gone")
        with asyncio.Runner() as runner:
            world = opened()
            cache = Verbs(world[name], None if kind == "sync" else runner)
            for _ in range(3):  # the second time it would be near
                assert cache.get("k") is None
                assert cache.get_many(["k"]) == {}
            assert cache.get_or_set("k", lambda: 5) == 5
            assert cache.get("k") == 5
            runner.run(world.aclose())


def test_each_reader_of_a_chain_unpickles_its_own(opened):
    cache = opened()["chained"]
    cache.set("k", {"a": [1]})

    cache.get("k")["a"].append(2)

    assert cache.get("k") == {"a": [1]}


def test_encrypted_values_cannot_be_read_on_the_server(opened, server, seal):
    cache = opened()["far"]
    cache.set("k", "hunter2")

    assert (b"hunter2" in server.get(at(cache, "k"))) is (seal == "sign")
