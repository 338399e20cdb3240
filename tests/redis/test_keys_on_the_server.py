"""What stands on the server: keys of one prefix, with an end, and nothing of anybody else touched."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from layercache import Cache, Caches, KeyNotFound

PREFIXES = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from(":*?[]{}\n %c"), min_size=1, max_size=6
)


def test_a_key_reads_prefix_cache_key(cache: Cache[Any], server: redis.Redis, prefix: str) -> None:
    cache.set("quote:005930.KS", 1)
    cache.set("news {삼성}\n*", 2)

    assert {key.decode() for key in server.scan_iter(match=f"{prefix}*")} == {
        f"{prefix}:c:quote:005930.KS",
        f"{prefix}:c:news%20%7B삼성%7D%0A*",
        f"{prefix}:%tag:c:*",
        f"{prefix}:%log",
    }


def test_every_key_has_an_end_unless_none_was_asked_for(
    cache: Cache[Any], server: redis.Redis, prefix: str
) -> None:
    cache.set("set", 1)
    cache.set_many({"many": 1}, 30)
    cache.add("added", 1)
    cache.get_or_set("loaded", lambda: 1)
    cache.set("count", 1)
    cache.incr("count")
    cache.set("touched", 1, None)
    cache.touch("touched", 30)
    cache.set("for ever", 1, None)

    left = {key: server.pttl(key) for key in server.scan_iter(match=f"{prefix}*")}

    # what is for ever needs its stamp for as long
    endless = {key for key, px in left.items() if px == -1}
    assert endless == {f"{prefix}:c:for%20ever".encode(), f"{prefix}:%tag:c:*".encode()}
    assert 0 < left.pop(f"{prefix}:%log".encode()) <= 86_400_000
    assert all(0 < px <= 60_000 for key, px in left.items() if key not in endless)


@given(
    prefixes=st.lists(PREFIXES, min_size=2, max_size=2, unique=True),
    key=st.sampled_from(["k", "a:b", "*", "{x}", "a\nb", "c:k"]),
)
@settings(max_examples=40)
def test_two_applications_never_see_count_or_clear_each_others_keys(
    server_url: str, prefixes: list[str], key: str
) -> None:
    run = uuid4().hex[:8]  # what other examples left behind is not this one's

    def world(prefix: str) -> Caches:
        far = {"type": "redis", "url": server_url, "prefix": run + prefix, "timeout": "10s"}
        return Caches({"backends": {"far": far}, "caches": {"c": {"backend": "far"}}})

    with world(prefixes[0]) as one, world(prefixes[1]) as other:
        one["c"].set(key, "one", 10)
        assert other["c"].get(key) is None
        other["c"].set(key, "other", 10)

        one["c"].clear()

        assert one["c"].get(key) is None
        assert other["c"].get(key) == "other"
        other["c"].clear()


def test_clear_leaves_foreign_keys_alone(cache: Cache[Any], server: redis.Redis, prefix: str) -> None:
    foreign = [f"{prefix}:cc:k", f"{prefix}", f"{prefix}x:c:k", f"{prefix}:C:k"]
    for key in foreign:
        server.set(key, "theirs", px=60_000)
    cache.set_many({str(number): number for number in range(1500)})

    cache.clear()

    assert [server.get(key) for key in foreign] == [b"theirs"] * len(foreign)
    assert cache.get_many(map(str, range(1500))) == {}


def test_the_server_is_never_flushed(cache: Cache[Any], server: redis.Redis) -> None:
    before = {name: server.info("commandstats").get(f"cmdstat_{name}") for name in ("flushdb", "flushall")}

    cache.set("k", 1)
    cache.clear()
    cache.close()

    assert {name: server.info("commandstats").get(f"cmdstat_{name}") for name in before} == before


class TestWhatIsNotOurs:
    """Foreign, altered or misplaced content under a key of ours is a miss, is counted, and the next write heals it."""

    @pytest.fixture(params=["junk", "empty", "altered", "misplaced", "list", "other codec"])
    def spoilt(
        self,
        request: pytest.FixtureRequest,
        cache: Cache[Any],
        open_cache: Any,
        server: redis.Redis,
        prefix: str,
    ) -> str:
        at, elsewhere = f"{prefix}:c:k", f"{prefix}:c:elsewhere"
        cache.set("k", 41)
        frame = server.get(at)
        match request.param:
            case "junk":
                server.set(at, "hello", keepttl=True)
            case "empty":
                server.set(at, "", keepttl=True)
            case "altered":
                server.set(at, frame[:-6] + b"9" + frame[-5:], keepttl=True)
            case "misplaced":
                cache.set("elsewhere", 7)
                server.set(at, server.get(elsewhere), keepttl=True)
            case "list":
                server.delete(at)
                server.rpush(at, "a", "b")
            case "other codec":
                compressing = open_cache(codecs=["json", {"type": "gzip", "min_bytes": 0}])
                compressing.set("k", "x" * 500)
        return at

    def test_it_is_a_miss_and_counted(self, spoilt: str, cache: Cache[Any]) -> None:
        assert cache.get("k", "missing") == "missing"
        assert cache.get_many(["k"]) == {}
        assert cache.ttl_left("k") == 0.0
        assert cache.stats().layers[0].gauges["foreign"] == 3
        assert cache.stats().misses == 2

    def test_set_heals_it(self, spoilt: str, cache: Cache[Any]) -> None:
        cache.set("k", "new")
        assert cache.get("k") == "new"

    def test_add_heals_it(self, spoilt: str, cache: Cache[Any]) -> None:
        assert cache.add("k", "new") is True
        assert cache.get("k") == "new"

    def test_get_or_set_heals_it(self, spoilt: str, cache: Cache[Any]) -> None:
        assert cache.get_or_set("k", lambda: "new") == "new"
        assert cache.get("k") == "new"

    def test_to_incr_and_touch_it_is_not_there(self, spoilt: str, cache: Cache[Any]) -> None:
        with pytest.raises(KeyNotFound):
            cache.incr("k")
        assert cache.touch("k") is False


class TestClocksThatDisagree:
    """A skewed clock can shorten a life, but never lengthen it past the server's."""

    @pytest.mark.parametrize("skew", [-3600.0, 3600.0])
    def test_between_writer_and_reader(
        self, open_cache: Any, server: redis.Redis, prefix: str, skew: float
    ) -> None:
        writer = open_cache(now=lambda: time.time() + skew)
        reader = open_cache()
        writer.set("k", "v", 50)

        left = reader.ttl_left("k")

        assert left is not None
        assert left <= server.pttl(f"{prefix}:c:k") / 1000 + 0.1 <= 50.1
        assert reader.get("k") == ("v" if skew > 0 else None)

    def test_what_the_server_ended_early_is_not_prolonged_by_the_frame(
        self, cache: Cache[Any], server: redis.Redis, prefix: str
    ) -> None:
        cache.set("k", "v", 3600)
        server.pexpire(f"{prefix}:c:k", 5000)

        left = cache.ttl_left("k")

        assert left is not None
        assert left <= 5.0
        cache.touch("k", None)
        assert server.pttl(f"{prefix}:c:k") == -1


def test_a_value_over_the_limit_is_refused_and_one_read_is_not_expanded(open_cache: Any) -> None:
    from layercache import ValueTooLarge

    small = open_cache(codecs=["json", "zstd"], max_value_bytes="1KB")
    large = open_cache(codecs=["json", "zstd"])
    small.set("k", "old")

    with pytest.raises(ValueTooLarge, match="max_value_bytes = 1,024"):
        small.set("k", "x" * 2000)
    with pytest.raises(ValueTooLarge):
        small.set_many({"l": 1, "k": "x" * 2000})
    assert small.get_many(["k", "l"]) == {"k": "old"}

    large.set("k", "x" * 2000)
    assert small.get("k") is None
    assert large.get("k") == "x" * 2000
