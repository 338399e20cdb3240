"""Django's cache API over layercache: each verb means what it means there, on both faces, wherever the cache is."""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.core.cache import InvalidCacheBackendError, caches
from django.core.cache.backends import base
from django.core.cache.backends.base import CacheKeyWarning
from django.utils.safestring import SafeString, mark_safe
from django_worlds import shut
from waiting import PATIENCE, until

from layercache import EncodeError, InvalidKey, MissingExtra, UnknownCache, get_cache
from layercache.integrations.django import LayerCacheBackend


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and other.x == self.x

    __hash__ = None  # type: ignore[assignment]


VALUES = [
    None, 0, False, "", "text", b"\x00bytes", 2**70, 1.5, Decimal("1.10"), (1, (2,)), [1, (2,)], {1: {2, 3}},
    {"a": [1]}, OrderedDict(b=1, a=2), datetime(2026, 1, 1, tzinfo=UTC), Point(3), [Point(1)],
]  # fmt: skip


def left(key: str, alias: str = "default") -> float | None:
    made = caches[alias].make_key(key)
    return get_cache("site").ttl_left(made)


class TestValues:
    def test_any_value_comes_back_as_it_was(self, face):
        cache = face()
        values = dict(enumerate(VALUES))
        cache.set_many(values)
        for number, value in values.items():
            cache.set(f"alone-{number}", value)

        assert cache.get_many(values) == values
        for number, value in values.items():
            for key in (number, f"alone-{number}"):
                back = cache.get(key, "nothing")
                assert (back, type(back)) == (value, type(value))

    def test_what_is_safe_in_templates_stays_so(self, face):
        face().set("k", mark_safe("<b>"))

        assert type(face().get("k")) is SafeString

    def test_what_a_reader_changes_is_its_own(self, face):
        given = {"a": [Point(1)]}
        face().set("k", given)
        given["a"].clear()
        face().get("k")["a"].append(2)

        assert face().get("k") == {"a": [Point(1)]}

    def test_what_cannot_be_pickled_is_refused(self, face):
        with pytest.raises(EncodeError):
            face().set("k", threading.Lock())


class TestVerbs:
    def test_what_is_not_there_is_the_default(self, face):
        cache = face()

        assert cache.get("k") is None
        assert cache.get("k", "default") == "default"
        assert not cache.has_key("k")
        assert not cache.delete("k")
        assert not cache.touch("k")

    def test_none_is_a_value(self, face):
        cache = face()
        cache.set("k", None)

        assert cache.get("k", "default") is None
        assert cache.has_key("k")
        assert not cache.add("k", 1)
        assert cache.get_or_set("k", 1) is None
        assert cache.get_many(["k"]) == {"k": None}

    def test_add_stores_only_where_nothing_is(self, face):
        cache = face()

        assert cache.add("k", 1)
        assert not cache.add("k", 2)
        assert cache.get("k") == 1

    def test_several_at_once_go_by_the_keys_that_were_given(self, face):
        cache = face()

        assert cache.set_many({"a": 1, "b": Point(2), 3: 4}, 100) == []
        assert cache.get_many(["a", "b", 3, "none"]) == {"a": 1, "b": Point(2), 3: 4}
        assert cache.get_many(key for key in "ab") == {"a": 1, "b": Point(2)}
        assert left("a") == pytest.approx(100, abs=5)
        assert cache.delete_many(key for key in "ax") is None
        assert cache.get_many("ab") == {"b": Point(2)}
        assert (cache.get_many([]), cache.set_many({}), cache.delete_many([])) == ({}, [], None)

    @pytest.mark.parametrize("kind", ["sync", "async"])
    def test_what_could_not_be_stored_is_named_as_it_was_given(self, open_world, kind):
        open_world("memory")
        cache, values = caches["default"], {"a": 1, "large": b"x" * 100_000}

        refused = cache.set_many(values) if kind == "sync" else asyncio.run(cache.aset_many(values))

        assert (refused, cache.get_many(values)) == (["large"], {"a": 1})

    def test_counters_keep_their_time(self, face):
        cache = face()
        cache.set("n", 41, 50)

        assert cache.incr("n") == 42
        assert cache.incr("n", 10) == 52
        assert cache.decr("n", 2) == 50
        assert cache.get("n") == 50
        assert left("n") == pytest.approx(50, abs=5)
        for verb in ("incr", "decr", "incr_version", "decr_version"):
            with pytest.raises(ValueError):
                getattr(cache, verb)("none")
        cache.set("text", "a")
        with pytest.raises(TypeError):
            cache.incr("text")

    def test_clear_drops_all_of_this_cache_and_nothing_else(self, face):
        face().set("k", 1)
        face("prefixed").set("k", 2)
        face("json").set("k", 3)

        assert face().clear() is None

        assert face().get("k") is None
        assert face("prefixed").get("k") is None
        assert face("json").get("k") == 3

    def test_close_at_the_end_of_a_request_costs_nothing_that_was_stored(self, face):
        cache = face()
        cache.set("k", 1)

        cache.close()

        assert cache.get("k") == 1


class TestTimeouts:
    def test_what_is_left_out_is_the_timeout_of_the_alias_else_the_cache_s_own(self, face):
        for alias, seconds in (("default", 90), ("minute", 60), ("endless", None)):
            face(alias).clear()
            self._assert_default(face(alias), alias, seconds)

    def _assert_default(self, cache, alias, seconds):
        expected = None if seconds is None else pytest.approx(seconds, abs=5)
        cache.set("set", 1)
        cache.set_many({"many": 1})
        cache.add("add", 1)
        cache.get_or_set("loaded", 1)
        cache.set("touched", 1, 5)
        cache.touch("touched")

        for key in ("set", "many", "add", "loaded", "touched"):
            assert left(key, alias) == expected, key

    def test_none_is_for_ever(self, face):
        cache = face()
        cache.set("set", 1, None)
        cache.set_many({"many": 1}, timeout=None)
        cache.add("add", 1, None)
        cache.get_or_set("loaded", lambda: 1, None)
        cache.set("touched", 1, 5)
        cache.touch("touched", None)

        assert [left(key) for key in ("set", "many", "add", "loaded", "touched")] == [None] * 5

    def test_zero_or_less_is_gone_at_once(self, face):
        for timeout in (0, -1, -0.5):
            self._assert_gone(face(), timeout)

    def _assert_gone(self, cache, timeout):
        cache.set_many({"set": 1, "many": 1, "touched": 1})
        cache.set("set", 2, timeout)
        cache.set_many({"many": 2}, timeout)
        assert cache.touch("touched", timeout)
        assert cache.add("add", 1, timeout)
        assert cache.get_or_set("loaded", lambda: 1, timeout) == 1

        assert cache.get_many(["set", "many", "touched", "add", "loaded"]) == {}

    def test_a_default_of_zero_keeps_nothing(self, face):
        cache = face("never")
        cache.set("k", 1)

        assert cache.get("k") is None
        cache.set("k", 1, 30)
        assert cache.get("k") == 1

    def test_when_its_time_is_over_it_is_gone(self, open_world, clock):
        open_world("memory")
        cache = caches["default"]
        cache.set("k", 1, 2)
        cache.set("touched", 1, 2)
        cache.touch("touched", 5)
        clock.advance(2)

        assert cache.get_many(["k", "touched"]) == {"touched": 1}
        assert cache.add("k", 2)

    def test_fractions_of_a_second_count(self, face):
        face().set("k", 1, 20.5)

        assert 15 < left("k") <= 20.5


class TestKeysAndVersions:
    def test_keys_are_made_by_prefix_and_version(self, face):
        face().set("k", 1)
        face("prefixed").set("k", 2)
        face("second").set("k", 3)
        face("named").set("k", 4)

        found = get_cache("site").get_many([":1:k", "mine:1:k", ":2:k", "N!1!K"])
        assert found == {":1:k": 1, "mine:1:k": 2, ":2:k": 3, "N!1!K": 4}
        assert [face(alias).get("k") for alias in ("default", "prefixed", "second", "named")] == [1, 2, 3, 4]

    def test_a_key_function_may_be_named_by_its_path(self, face):
        face("shouting").set("k", 1)

        assert get_cache("site").get("!1!K") == 1
        assert face("shouting").get_many(["k"]) == {"k": 1}

    def test_every_verb_takes_a_version(self, face):
        cache = face()
        cache.set("k", 1, version=1)
        cache.set_many({"k": 2}, version=2)
        cache.add("k", 3, version=3)
        cache.get_or_set("k", 4, version=4)

        assert [cache.get("k", version=version) for version in range(6)] == [None, 1, 2, 3, 4, None]
        assert face("second").get("k") == 2
        assert cache.incr("k", 10, version=2) == 12
        assert cache.decr("k", version=2) == 11
        assert cache.get_many(["k"], version=2) == {"k": 11}
        assert cache.has_key("k", version=3)
        assert cache.touch("k", 5, version=3)
        assert cache.delete("k", version=3)
        cache.delete_many(["k"], version=4)
        assert [cache.has_key("k", version=version) for version in (1, 2, 3, 4)] == [True, True, False, False]

    def test_a_value_moves_between_versions(self, face):
        cache = face()
        cache.set("k", Point(1))

        assert cache.incr_version("k") == 2
        assert (cache.get("k"), cache.get("k", version=2)) == (None, Point(1))
        assert face("second").get("k") == Point(1)
        assert cache.incr_version("k", 3, version=2) == 5
        assert cache.decr_version("k", 4, version=5) == 1
        assert cache.get("k") == Point(1)

    def test_a_key_that_memcached_would_not_take_warns_and_works(self, face):
        for key in ("a" * 300, "tab\t", "über und über"):
            self._assert_warns(face(), key)

    def _assert_warns(self, cache, key):
        for verb, arguments in (
            ("set", (key, 1)), ("get", (key,)), ("add", (key, 1)), ("touch", (key,)), ("incr", (key,)),
            ("has_key", (key,)), ("get_many", ([key],)), ("set_many", ({key: 1},)), ("get_or_set", (key, 1)),
            ("incr_version", (key,)), ("delete", (key,)), ("delete_many", ([key],)),
        ):  # fmt: skip
            with pytest.warns(CacheKeyWarning):
                getattr(cache, verb)(*arguments)
        with pytest.warns(CacheKeyWarning):
            assert cache.get(key, version=2) == 1

    def test_a_key_longer_than_the_cache_takes_is_refused_as_django_does(self, face):
        with pytest.warns(CacheKeyWarning), pytest.raises(InvalidKey) as caught:
            face().set("a" * 2000, 1)

        assert isinstance(caught.value, ValueError)

    def test_odd_keys_are_different_keys(self, face):
        keys = ["a", "A", "a:b", "a*", "{a}", "a%3Ab", "1", "가격", "🙂", "a" * 200]
        face().set_many({key: key for key in keys})

        assert face().get_many(keys) == {key: key for key in keys}


class TestLoading:
    def test_a_default_may_be_a_value_or_what_gives_one(self, face):
        cache = face()

        assert cache.get_or_set("value", 1) == 1
        assert cache.get_or_set("called", lambda: Point(2)) == Point(2)
        assert cache.get_or_set("optional", lambda context=5: context) == 5
        assert cache.get_or_set("value", 3) == cache.get("value") == 1
        with pytest.raises(TypeError):
            cache.get_or_set("none")

    def test_what_a_default_raises_is_raised_and_nothing_stored(self, face):
        def fail():
            raise LookupError("gone")

        with pytest.raises(LookupError, match="gone"):
            face().get_or_set("k", fail)
        assert not face().has_key("k")

    def test_of_many_threads_one_calls_the_default(self, world):
        calls, may_go_on, before = [], threading.Event(), get_cache("site").stats().waits

        def load():
            calls.append(1)
            assert may_go_on.wait(PATIENCE)
            return Point(1)

        with ThreadPoolExecutor(4) as pool:  # each with a backend object of its own, as Django makes them
            futures = [pool.submit(lambda: caches["default"].get_or_set("k", load)) for _ in range(4)]
            until(lambda: get_cache("site").stats().waits == before + 3)
            may_go_on.set()

            assert [future.result() for future in futures] == [Point(1)] * 4
        assert calls == [1]

    def test_of_many_tasks_one_awaits_the_default(self, world):
        calls = []

        async def load():
            calls.append(threading.get_ident())
            await asyncio.sleep(0)
            return Point(1)

        async def main():
            cache = caches["default"]
            found = await asyncio.gather(*(cache.aget_or_set("k", load) for _ in range(5)))
            found.append(await cache.aget_or_set("sync", lambda: calls.append(threading.get_ident()) or 1))
            await shut(world)
            return found

        assert asyncio.run(main()) == [Point(1)] * 5 + [1]
        # a plain function runs on the loop's thread too, as with Django
        assert calls == [threading.get_ident()] * 2


def test_no_async_verb_hops_to_a_thread(world, monkeypatch):
    def refused(*args, **kwargs):
        raise AssertionError("a thread, or a verb that blocks")

    monkeypatch.setattr(base, "sync_to_async", refused)
    monkeypatch.setattr(asyncio, "to_thread", refused)
    monkeypatch.setattr("layercache.face.run", refused)  # nor does it block the loop

    async def main():
        cache = caches["default"]
        await cache.aset("k", 1)
        await cache.aset_many({"a": 1})
        await cache.aadd("b", 1)
        assert await cache.aget_many(["k", "a", "b"]) == {"k": 1, "a": 1, "b": 1}
        assert await cache.aincr("k") + await cache.adecr("k") == 3
        assert await cache.aincr_version("k") + await cache.adecr_version("k", version=2) == 3
        assert await cache.atouch("k")
        assert await cache.ahas_key("k")
        assert await cache.aget_or_set("k", 2) == 1
        assert await cache.adelete("k")
        await cache.adelete_many(["a"])
        await cache.aclear()
        await cache.aclose()
        assert await cache.aget("b") is None
        await shut(world)

    asyncio.run(main())


class TestSettings:
    def test_a_location_that_is_not_defined_says_which_there_are(self, open_world):
        open_world("memory")

        with pytest.raises(UnknownCache, match="did you mean 'site'"):
            LayerCacheBackend("sites", {}).get("k")

    def test_without_a_location_it_is_the_default_cache(self, world):
        with pytest.raises(UnknownCache, match="no cache named 'default'"):
            LayerCacheBackend("", {}).get("k")

    @pytest.mark.parametrize(
        ("location", "params", "message"),
        [
            ("site", {"OPTIONS": {"MAX_ENTRIES": 5}}, r"OPTIONS \('MAX_ENTRIES'\) say nothing"),
            ("site", {"TIMEOUT": "soon"}, "TIMEOUT: 'soon' is no duration"),
            (["redis://a"], {}, "LOCATION is the name of one cache"),
        ],
    )
    def test_what_cannot_be_right_is_refused_at_once(self, location, params, message):
        with pytest.raises(InvalidCacheBackendError, match=message):
            LayerCacheBackend(location, params)

    def test_what_json_cannot_carry_is_refused_by_a_json_cache(self, open_world):
        open_world("memory")
        cache = caches["json"]
        cache.set("k", {"a": (1, 2)})

        assert cache.get("k") == {"a": [1, 2]}
        for value in (Point(1), datetime(2026, 1, 1, tzinfo=UTC), {1: 2}, b"x"):
            with pytest.raises(EncodeError):
                cache.set("k", value)

    def test_tags_and_figures_are_those_of_the_cache_itself(self, world):
        cache = caches["default"]
        cache.layercache.set(cache.make_key("k"), 1, tags=["news"])
        before = cache.layercache.stats().hits
        assert cache.get("k") == 1

        cache.layercache.invalidate("news")

        assert cache.get("k") is None
        assert cache.layercache.stats().hits == before + 1

    def test_without_django_the_extra_is_named(self, monkeypatch):
        monkeypatch.delitem(sys.modules, "layercache.integrations.django")
        monkeypatch.setitem(sys.modules, "django.core.cache.backends.base", None)

        with pytest.raises(MissingExtra, match=r"layercache-framework\[django\]"):
            importlib.import_module("layercache.integrations.django")

    def test_threads_share_what_is_stored(self, world):
        caches["default"].set("k", 1)

        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: caches["default"].get("k")).result() == 1
