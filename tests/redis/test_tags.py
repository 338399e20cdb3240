"""Tags fail closed: whatever the server evicts, nobody sees a value from before an invalidation. And nothing grows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from far import Far
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from waiting import until
from worlds import follow

from layercache import MISSING, Cache, Caches
from layercache.entry import CACHE_TAG
from layercache.testing import ValkeyServer

Opener = Callable[..., Cache[Any]]


def backends(url: str, prefix: str) -> dict[str, Any]:
    far = {"type": "redis", "url": url, "prefix": prefix, "timeout": "10s"}
    both = {"type": "chain", "layers": ["near", "far"]}
    return {"near": {"type": "memory"}, "far": far, "both": both}


class Node:
    """One process: a near layer in front of the server."""

    def __init__(self, world: Caches) -> None:
        self.cache = world["c"]
        follow(self.cache)

    @property
    def far(self) -> Any:
        return self.cache._layer.space.layers()[1].space

    def stamp(self, tag: str) -> bytes:
        at: bytes = self.far._commands.names.stamp(tag)
        return at

    @property
    def marks(self) -> bytes:
        at: bytes = self.far._commands.names.marks
        return at


@pytest.fixture
def open_node(server_url: str, prefix: str) -> Iterator[Callable[[], Node]]:
    worlds: list[Caches] = []

    def open_node() -> Node:
        settings = {"backends": backends(server_url, prefix), "caches": {"c": {"backend": "both", "ttl": 60}}}
        worlds.append(Caches(settings))
        return Node(worlds[-1])

    yield open_node
    for world in worlds:
        world.close()


class TestOverAChain:
    @pytest.mark.parametrize("lost", [["t"], [CACHE_TAG], ["t", CACHE_TAG]], ids=repr)
    def test_what_carried_a_stamp_that_is_lost_is_a_miss_to_whoever_has_nothing_near(
        self, open_node: Callable[[], Node], server: redis.Redis, lost: list[str]
    ) -> None:
        one, other = open_node(), open_node()
        one.cache.set("k", "old", tags=["t"])

        server.delete(*map(one.stamp, lost))
        newcomer = open_node()

        assert newcomer.cache.get("k") is None
        assert newcomer.cache.get_many(["k"]) == {}
        assert newcomer.cache.peek("k") is None
        assert other.cache.get_or_set("k", lambda: "new", tags=["t"]) in {"old", "new"}
        assert newcomer.cache.get_or_set("k", lambda: "new", tags=["t"]) == "new"

    @pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
    @pytest.mark.parametrize("when", ["before it is invalidated", "after it is invalidated"])
    def test_what_is_near_is_gone_all_the_same_once_its_tag_is_invalidated(
        self, open_node: Callable[[], Node], server: redis.Redis, when: str, soft: bool
    ) -> None:
        one, other = open_node(), open_node()
        one.cache.set("k", "old", tags=["t"])
        assert one.cache.hit("k") == "old"

        if when == "before it is invalidated":
            server.delete(one.stamp("t"))
        other.cache.invalidate("t", soft=soft)
        if when == "after it is invalidated":
            server.delete(one.stamp("t"))

        assert until(lambda: one.cache.hit("k") is MISSING)
        for node in (one, other, open_node()):
            assert node.cache.get("k") is None
        one.cache.set("k", "new", tags=["t"])
        assert until(lambda: open_node().cache.get("k") == "new")

    @pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
    @pytest.mark.parametrize("tags", [["t"], lambda _: ["t"]], ids=["told before", "told by the value"])
    @pytest.mark.parametrize("lost", ["tag", "cache", "marks", "all"])
    @pytest.mark.parametrize("first", ["evicted", "invalidated"])
    def test_a_load_that_began_before_it_is_not_stored_as_fresh(
        self, open_node: Callable[[], Node], server: redis.Redis, soft: bool, tags: Any, lost: str, first: str
    ) -> None:
        one, other = open_node(), open_node()
        one.cache.invalidate("another")  # there are marks
        names = {"tag": [one.stamp("t")], "cache": [one.stamp(CACHE_TAG)], "marks": [one.marks]}
        names["all"] = [name for each in names.values() for name in each]

        def load() -> str:
            acts: list[Callable[[], Any]] = [
                lambda: server.delete(*names[lost]),
                lambda: other.cache.invalidate("t", soft=soft),
            ]
            for act in acts if first == "evicted" else reversed(acts):
                act()
            return "old"

        assert one.cache.get_or_set("k", load, tags=tags) == "old"

        for node in (one, other):
            assert node.cache.hit("k") is MISSING
            assert node.cache.get("k") is None


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["set", "load", "invalidate", "soften", "clear", "evict", "evict all"]),
        st.sampled_from("tu"),
        st.booleans(),
    ),
    max_size=20,
)


@pytest.fixture
def pair(open_cache: Opener) -> list[Far]:
    """Two processes that follow no log, so that they see at once what the server has."""
    return [Far(open_cache()).stop_following() for _ in range(2)]


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=ACTS)
def test_whatever_is_evicted_and_when_a_read_finds_what_is_true_or_nothing(
    pair: list[Far], server: redis.Redis, acts: list[tuple[str, str, bool]]
) -> None:
    pair[0].cache.delete_many(["t", "u"])
    truth = dict.fromkeys("tu", 0)  # what is right under a key, which has the name of its tag
    for act, tag, by_the_other in acts:
        far = pair[by_the_other]
        match act:
            case "set":
                far.cache.set(tag, truth[tag], tags=[tag, "both"])
            case "load":
                far.cache.get_or_set(tag, lambda tag=tag: truth[tag], tags=[tag], refresh="off")
            case "invalidate" | "soften":
                truth[tag] += 1
                far.cache.invalidate(tag, soft=act == "soften")
            case "clear":
                truth.update({each: version + 1 for each, version in truth.items()})
                far.cache.clear()
            case "evict":
                server.delete(far.names.stamp(tag))
            case _:
                server.delete(far.stamp_at, *map(far.names.stamp, "tu"))
        for each in pair:
            assert each.cache.get_many(["t", "u"]).items() <= truth.items()


# -- nothing grows


def test_the_server_keeps_a_stamp_for_each_tag_and_no_sets() -> None:
    with (
        ValkeyServer() as own,
        Caches({"backends": backends(own.url, "p"), "caches": {"c": {"backend": "both"}}}) as world,
        redis.Redis.from_url(own.url) as server,
    ):
        cache, tags = world["c"], [f"t{number}" for number in range(20)]
        for number in range(0, 2_000, 100):
            values = dict.fromkeys((f"k{each}" for each in range(number, number + 100)), 1)
            cache.set_many(values, tags=[tags[number // 100], "all"])
            cache.invalidate(tags[number // 200])
            cache.invalidate("all", soft=True)
        cache.delete_many(f"k{number}" for number in range(2_000))

        kinds = Counter(server.type(name) for name in server.scan_iter(count=1000))

        # 21 tags and the cache have a stamp; then there are the log, and marks of which there are 256
        assert kinds == {b"string": 22, b"stream": 1, b"hash": 1}
        assert server.hlen("p:%marks:c") <= 256 + 2
        assert sum(server.memory_usage(name) for name in server.scan_iter("p:%tag:*")) < 22 * 200
