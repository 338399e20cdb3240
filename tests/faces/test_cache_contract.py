"""Every verb of the face, sync and async, over memory, Redis and a chain of both: one meaning."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

import pytest
from face import Face
from pydantic import BaseModel
from worlds import follow

from layercache import (
    MISSING,
    Cache,
    CacheClosed,
    Caches,
    EncodeError,
    InvalidKey,
    InvalidTtl,
    KeyNotFound,
    NotACounter,
)
from layercache.testing import Clock


class Quote(BaseModel):
    symbol: str
    price: Decimal
    at: datetime


@dataclass
class Point:
    x: int
    y: int


QUOTE = Quote(symbol="005930.KS", price=Decimal("71400.50"), at=datetime(2026, 11, 20, 6, 30, tzinfo=UTC))


def about(seconds: float) -> Any:
    """The server's clock goes on while the test's stands still."""
    return pytest.approx(seconds, abs=5.0)


class TestGetAndSet:
    def test_nothing_is_missing_rather_than_none(self, face: Face) -> None:
        assert face.get("k") is None
        assert face.get("k", MISSING) is MISSING

        face.set("k", None)

        assert face.get("k", MISSING) is None
        assert face.has_key("k") is True

    @pytest.mark.parametrize(
        "value",
        ["", "가격", 0, -1, 2**63, 1.5, True, False, [], {}, [1, [2, {"k": None}]], {"a": {"b": [1.5, "x"]}}],
        ids=repr,
    )
    def test_a_value_comes_back_as_it_was(self, face: Face, value: Any) -> None:
        face.set("k", value)

        found = face.get("k")

        assert found == value
        assert type(found) is type(value)

    def test_a_tuple_comes_back_a_list_from_everywhere(self, face: Face) -> None:
        face.set("k", (1, (2, 3)))

        assert face.get("k") == [1, [2, 3]]
        assert face.get_or_set("l", lambda: (4,)) == [4]
        assert face.get("l") == [4]

    def test_changing_what_came_back_or_went_in_never_changes_the_cache(self, face: Face) -> None:
        value = {"list": [1]}
        face.set("k", value)
        value["list"].append(2)
        face.get("k")["list"].append(3)
        loaded = face.get_or_set("k", dict)
        loaded["list"].append(4)

        assert face.get("k") == {"list": [1]}
        assert face.get_many(["k"]) == {"k": {"list": [1]}}

    def test_the_third_argument_is_the_ttl(self, face: Face, clock: Clock) -> None:
        face.set("k", "v", 300)
        assert face.ttl_left("k") == about(300)

        clock.advance(301)

        assert face.get("k") is None


class TestTimesToLive:
    @pytest.mark.parametrize(
        ("ttl", "left"),
        [(10, 10), (0.5, 0.5), (timedelta(minutes=2), 120), ("1h30m", 5400), ("45", 45), (None, None)],
        ids=repr,
    )
    def test_a_ttl_is_seconds_a_timedelta_text_or_none(self, face: Face, ttl: Any, left: Any) -> None:
        face.set("k", "v", ttl)

        assert face.ttl_left("k") == (None if left is None else about(left))

    def test_left_out_it_is_the_patterns_or_the_caches(self, face: Face) -> None:
        for key in ("quote:AAPL", "quote:index:KOSPI", "news:AAPL"):
            face.set(key, "v")

        assert face.ttl_left("quote:AAPL") == about(15)
        assert face.ttl_left("quote:index:KOSPI") == about(3600)
        assert face.ttl_left("news:AAPL") == about(300)

    def test_what_is_not_there_has_none_left(self, face: Face) -> None:
        assert face.ttl_left("k") == 0.0

    @pytest.mark.parametrize("ttl", [0, -1, "-5s", timedelta(0)], ids=repr)
    def test_zero_or_less_is_not_stored_and_what_was_there_is_gone(self, face: Face, ttl: Any) -> None:
        face.set("k", "old")
        face.set_many({"l": "old"})

        face.set("k", "new", ttl)
        face.set_many({"l": "new"}, ttl)

        assert face.get("k") is None
        assert face.get("l") is None
        assert face.add("m", "v", ttl) is True
        assert face.get("m") is None

    def test_touch_moves_the_end(self, face: Face, clock: Clock) -> None:
        face.set("k", "v", 10)

        assert face.touch("k", 60) is True
        clock.advance(30)

        assert face.get("k") == "v"
        assert face.ttl_left("k") == about(30)
        assert face.touch("k") is True
        assert face.ttl_left("k") == about(300)
        assert face.touch("k", None) is True
        assert face.ttl_left("k") is None

    def test_touch_of_nothing_is_false(self, face: Face) -> None:
        assert face.touch("k", 60) is False
        assert face.get("k") is None

    def test_touch_with_zero_drops_the_key(self, face: Face) -> None:
        face.set("k", "v")

        assert face.touch("k", 0) is True
        assert face.get("k") is None

    @pytest.mark.parametrize(
        "ttl", ["soon", "", True, float("nan"), [], "5 parsecs", 10**400], ids=lambda ttl: repr(ttl)[:9]
    )
    def test_what_is_no_ttl_is_refused_before_anything_is_stored(self, face: Face, ttl: Any) -> None:
        loads: list[int] = []
        for call in (
            lambda: face.set("k", "v", ttl),
            lambda: face.add("k", "v", ttl),
            lambda: face.touch("k", ttl),
            lambda: face.set_many({"k": "v"}, ttl),
            lambda: face.get_or_set("k", lambda: loads.append(1), ttl),
        ):
            with pytest.raises(InvalidTtl, match="right are seconds"):
                call()

        assert face.get("k") is None
        assert loads == []


class TestAddDeleteAndCounters:
    def test_add_stores_only_where_nothing_is(self, face: Face, clock: Clock) -> None:
        assert face.add("k", "first", 10) is True
        assert face.add("k", "second", 99) is False
        assert face.get("k") == "first"
        assert face.ttl_left("k") == about(10)

        clock.advance(11)

        assert face.add("k", "third") is True
        assert face.get("k") == "third"

    def test_delete_says_whether_it_was_there(self, face: Face) -> None:
        face.set("k", "v")

        assert face.delete("k") is True
        assert face.delete("k") is False
        assert face.get("k") is None

    def test_incr_and_decr_count_and_keep_the_ttl(self, face: Face) -> None:
        face.set("n", 41, 60)

        assert face.incr("n") == 42
        assert face.incr("n", 8) == 50
        assert face.decr("n", 60) == -10
        assert face.get("n") == -10
        assert face.ttl_left("n") == about(60)

    def test_incr_of_a_missing_key_is_a_value_error(self, face: Face) -> None:
        with pytest.raises(ValueError, match="set it first") as caught:
            face.incr("n")
        assert isinstance(caught.value, KeyNotFound)
        with pytest.raises(KeyNotFound):
            face.decr("n")
        assert face.get("n") is None

    @pytest.mark.parametrize("value", ["7", 1.5, True, None, [1]], ids=repr)
    def test_incr_of_what_is_no_int_is_refused_and_changes_nothing(self, face: Face, value: Any) -> None:
        face.set("n", value)

        with pytest.raises(NotACounter):
            face.incr("n")

        assert face.get("n") == value

    def test_incr_past_what_the_codec_carries_is_refused_and_changes_nothing(self, face: Face) -> None:
        face.set("n", 2**64 - 1)

        with pytest.raises(EncodeError, match="64 bits"):
            face.incr("n")

        assert face.get("n") == 2**64 - 1

    @pytest.mark.parametrize("delta", [1.5, "1", None, True], ids=repr)
    def test_a_delta_is_an_int(self, face: Face, delta: Any) -> None:
        face.set("n", 1)

        with pytest.raises(TypeError):
            face.incr("n", delta)

    def test_no_count_is_lost_between_threads(self, cache: Cache[Any]) -> None:
        cache.set("n", 0)
        threads = [threading.Thread(target=lambda: [cache.incr("n") for _ in range(50)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert cache.get("n") == 200


class TestManyAtOnce:
    def test_get_many_returns_only_hits_in_the_order_asked_for(self, face: Face) -> None:
        assert face.set_many({"a": 1, "b": None, "c": 3}, 60) == []

        found = face.get_many(["c", "missing", "b", "a", "c"])

        assert list(found.items()) == [("c", 3), ("b", None), ("a", 1)]
        assert face.ttl_left("a") == about(60)

    def test_delete_many_counts_what_was_there(self, face: Face) -> None:
        face.set_many({"a": 1, "b": 2})

        assert face.delete_many(["a", "b", "c", "a"]) == 2
        assert face.get_many(["a", "b"]) == {}

    def test_none_at_all_is_fine(self, face: Face) -> None:
        assert face.get_many([]) == {}
        assert face.set_many({}) == []
        assert face.delete_many(iter([])) == 0

    def test_a_lone_str_is_not_taken_for_its_letters(self, face: Face) -> None:
        with pytest.raises(TypeError, match="several keys"):
            face.get_many("abc")
        with pytest.raises(TypeError, match="several keys"):
            face.delete_many("abc")

    def test_clear_drops_this_cache_only(self, world: Caches, face: Face) -> None:
        face.set_many({str(number): number for number in range(50)})

        face.clear()

        assert face.get_many([str(number) for number in range(50)]) == {}


class TestGetOrSet:
    def test_it_loads_once_and_keeps_the_ttl(self, face: Face, clock: Clock) -> None:
        calls: list[int] = []

        def load() -> int:
            calls.append(1)
            return len(calls)

        assert [face.get_or_set("k", load, 60) for _ in range(3)] == [1, 1, 1]
        assert face.ttl_left("k") == about(60)

        clock.advance(61)

        assert face.get_or_set("k", load) == 2
        assert face.cache.stats().loads == 2

    def test_a_plain_value_will_do_as_in_django(self, face: Face) -> None:
        assert face.get_or_set("k", 7) == 7
        assert face.get("k") == 7

    def test_none_is_a_value_and_stored(self, face: Face) -> None:
        calls: list[int] = []

        assert face.get_or_set("k", lambda: calls.append(1)) is None
        assert face.get_or_set("k", lambda: calls.append(1)) is None
        assert calls == [1]

    def test_what_the_loader_raises_passes_and_nothing_is_stored(self, face: Face) -> None:
        def fail() -> None:
            raise LookupError("no such quote")

        for _ in range(2):
            with pytest.raises(LookupError, match="no such quote"):
                face.get_or_set("k", fail)

        assert face.has_key("k") is False
        assert face.cache.stats().load_failures == 2

    def test_what_cannot_be_kept_is_refused_in_every_backend_alike(self, face: Face) -> None:
        with pytest.raises(EncodeError):
            face.get_or_set("k", lambda: object())


class TestTypes:
    @pytest.mark.parametrize(
        ("type_", "value"),
        [
            (Quote, QUOTE),
            (list[Quote], [QUOTE, QUOTE]),
            (Point, Point(1, 2)),
            (datetime, QUOTE.at),
            (Decimal, Decimal("0.10")),
            (bytes, b"\x00\xff"),
            (set[int], {1, 2}),
            (Quote | None, None),
            (dict[int, Point], {1: Point(1, 2)}),
        ],
        ids=repr,
    )
    def test_typed_keeps_what_pydantic_knows(self, face: Face, type_: Any, value: Any) -> None:
        typed = face.typed(type_)

        typed.set("k", value)

        assert typed.get("k", MISSING) == value
        assert type(typed.get("k")) is type(value)
        assert typed.get_many(["k"]) == {"k": value}
        assert typed.get_or_set("other", lambda: value) == value

    def test_what_is_there_of_another_type_is_a_miss_and_is_healed(self, face: Face) -> None:
        face.set("k", {"symbol": "AAPL"})
        typed = face.typed(Quote)

        assert typed.get("k") is None
        assert typed.add("k", QUOTE) is True
        assert typed.get("k") == QUOTE
        assert face.cache.stats().undecodable >= 1

    def test_loading_over_it_is_one_miss_and_no_hit(self, face: Face) -> None:
        face.set("k", {"symbol": "AAPL"})

        assert face.typed(Quote).get_or_set("k", lambda: QUOTE) == QUOTE

        stats = face.cache.stats()
        assert (stats.hits, stats.misses, stats.undecodable) == (0, 1, 1)

    def test_a_value_of_another_type_is_refused(self, face: Face) -> None:
        with pytest.raises(EncodeError):
            face.typed(Quote).set("k", {"symbol": "AAPL"})

        assert face.get("k") is None

    def test_a_view_shares_keys_and_is_made_once(self, cache: Cache[Any]) -> None:
        assert cache.typed(list[int]) is cache.typed(list[int])
        cache.typed(int).set("n", 1)
        assert cache.get("n") == 1
        assert cache.typed(int).typed(int) is cache.typed(int)
        unhashable = Annotated[int, ["metadata"]]
        assert cache.typed(unhashable) is cache.typed(unhashable)
        assert cache.typed(unhashable).get("n") == 1


class TestBadInput:
    @pytest.mark.parametrize("key", ["", "k" * 1025, "가" * 342, 7, None, b"k", "\ud800"], ids=repr)
    def test_a_key_that_is_none_is_refused_by_every_verb(self, face: Face, key: Any) -> None:
        for call in (
            lambda: face.get(key),
            lambda: face.set(key, 1),
            lambda: face.add(key, 1),
            lambda: face.touch(key),
            lambda: face.delete(key),
            lambda: face.has_key(key),
            lambda: face.incr(key),
            lambda: face.ttl_left(key),
            lambda: face.get_many(["fine", key]),
            lambda: face.set_many({"fine": 1, key: 2}),
            lambda: face.delete_many(["fine", key]),
            lambda: face.get_or_set(key, lambda: 1),
        ):
            with pytest.raises(InvalidKey):
                call()

        assert face.get("fine") is None

    def test_the_longest_key_is_taken(self, face: Face) -> None:
        for key in ("k" * 1024, "가" * 341):
            face.set(key, "v")
            assert face.get(key) == "v"

    @pytest.mark.parametrize(
        "value",
        [object(), {1, 2}, b"x", {1: 2}, float("nan"), [float("inf")], 2**64, QUOTE, QUOTE.at],
        ids=lambda value: type(value).__name__,
    )
    def test_a_value_that_json_cannot_carry_is_refused_and_nothing_changes(
        self, face: Face, value: Any
    ) -> None:
        face.set("k", "old")

        for call in (
            lambda: face.set("k", value),
            lambda: face.set_many({"l": "fine", "k": value}),
            lambda: face.add("m", value),
        ):
            with pytest.raises(EncodeError):
                call()

        assert face.get_many(["k", "l", "m"]) == {"k": "old"}


class TestStatsAndClosing:
    def test_stats_count_hits_misses_and_loads(self, face: Face, kind: str) -> None:
        follow(face.cache)
        before = face.cache.stats()
        face.get("k")
        face.set("k", "v")
        face.get("k")
        face.get_many(["k", "l"])
        face.get_or_set("m", lambda: 1)

        stats = face.cache.stats()

        assert (stats.hits, stats.misses - before.misses, stats.loads) == (2, 3, 1)
        assert stats.hit_rate == pytest.approx(2 / (2 + stats.misses))
        assert stats.as_dict()["hit_rate"] == stats.hit_rate
        assert [layer.type for layer in stats.layers] == {"chain": ["memory", "redis"]}.get(kind, [kind])
        assert stats.layers[0].hits == 2

    def test_a_closed_cache_says_so_and_opens_anew(self, world: Caches, face: Face) -> None:
        face.set("k", "v", None)
        face.close()

        for call in (lambda: face.get("k"), lambda: face.set("k", 1), lambda: face.clear()):
            with pytest.raises(CacheClosed, match=r"get_cache\('default'\)"):
                call()

        again = Face(world["default"], face.runner)
        assert again.cache is not face.cache
        assert again.get("k") == "v"

    def test_it_is_one_object_that_says_what_it_is(self, world: Caches, cache: Cache[Any], kind: str) -> None:
        assert world["default"] is cache is world["DEFAULT"]
        assert repr(cache) == f"<Cache 'default' on '{kind}' ({kind})>"
        cache.set("k", 1)
        assert "k" in cache
        assert "l" not in cache
