"""The memory backend: its bounds, its times, what belongs to whom, and what threads can do to it."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from layercache import MISSING, Cache, Caches, ConfigError
from layercache.testing import Clock
from layercache_memory.policies.base import GONE

POLICIES = ("lazy-tinylfu", "lru", "s3-fifo")


def world(clock: Clock | None = None, **options: Any) -> Caches:
    settings = {
        "backends": {"m": {"type": "memory", **options}},
        "caches": {"default": {"backend": "m"}, "other": {"backend": "m"}},
    }
    return Caches(settings, **({} if clock is None else {"now": clock}))


def storage_of(cache: Cache[Any]) -> Any:
    return cache._layer.space._storage  # type: ignore[attr-defined]


def held(cache: Cache[Any]) -> tuple[int, int]:
    layer = cache.stats().layers[0]
    assert layer.entries is not None
    assert layer.bytes is not None
    return layer.entries, layer.bytes


def check_books(cache: Cache[Any]) -> None:
    """What the storage counts is what is there, and it keeps its bounds."""
    storage = storage_of(cache)
    records = [record for home in storage.homes for record in home.records.values()]
    assert storage.entries == len(records) <= storage.max_entries
    assert storage.units == sum(record.units for record in records) <= storage.max_units
    assert all(record.queue is not GONE for record in records)
    queues = [queue for queue in vars(storage.policy).values() if hasattr(queue, "living")]
    assert sum(queue.living for queue in queues) == len(records)
    for queue in queues:
        here = [record for record in queue.records if record.queue == queue.name]
        assert queue.living == len(here)
        if len(queues) == 2 and hasattr(storage.policy, "share"):
            assert queue.units == sum(record.units for record in here)


@pytest.fixture(params=POLICIES)
def eviction(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


class TestBounds:
    @given(
        sizes=st.lists(st.integers(0, 1500), max_size=60),
        keys=st.lists(st.integers(0, 15), min_size=60, max_size=60),
        eviction=st.sampled_from(POLICIES),
    )
    @settings(max_examples=60)
    def test_neither_is_ever_exceeded(self, sizes: list[int], keys: list[int], eviction: str) -> None:
        cache = world(max_entries=8, max_bytes="8KB", eviction=eviction)["default"]

        for size, key in zip(sizes, keys, strict=False):
            cache.set(f"k{key}", "x" * size if size % 2 else ["x" * size])
            entries, used = held(cache)
            assert entries <= 8
            assert used <= 8192
            check_books(cache)

        cache.clear()
        assert held(cache) == (0, 0)

    def test_nobody_makes_room_while_there_is_room(self, eviction: str) -> None:
        cache = world(max_entries=100, eviction=eviction)["default"]
        for number in range(100):
            cache.set(f"k{number}", number)
        for number in range(100):
            cache.set(f"k{number}", -number)

        assert cache.get_many(f"k{number}" for number in range(100)) == {f"k{n}": -n for n in range(100)}
        assert cache.stats().layers[0].evictions == 0

    def test_each_new_key_past_the_bound_makes_one_go(self, eviction: str) -> None:
        cache = world(max_entries=100, eviction=eviction)["default"]
        for number in range(250):
            cache.set(f"k{number}", number)

        assert held(cache)[0] == 100
        assert cache.stats().layers[0].evictions == 150

    def test_an_entry_that_would_drive_out_too_many_is_refused(self, eviction: str) -> None:
        cache = world(max_bytes="16KB", eviction=eviction)["default"]
        cache.set("small", 1)
        cache.set("large", "small so far")

        assert cache.set_many({"large": "x" * 5000}) == ["large"]

        assert cache.get("large", MISSING) is MISSING, "what was there is gone all the same"
        assert cache.get("small") == 1
        assert cache.stats().layers[0].gauges["refusals"] == 1

    def test_max_entry_bytes_draws_that_line(self) -> None:
        cache = world(max_entry_bytes="2KB")["default"]

        cache.set_many({"a": "x" * 1000, "b": "x" * 3000})

        assert cache.get_many(["a", "b"]) == {"a": "x" * 1000}
        with pytest.raises(ConfigError, match="max_entry_bytes"):
            world(max_bytes="1MB", max_entry_bytes="2MB")

    def test_bytes_are_those_of_key_payload_and_bookkeeping(self) -> None:
        cache = world()["default"]
        for value in ("x" * 1000, ["x" * 1000, {"nested": 1}], 7, {"a": "x" * 500, "b": "y" * 500}):
            cache.set("key", value)
            _, used = held(cache)
            payload = len(repr(value))
            assert payload * 0.9 <= used <= payload + 700, value

    def test_they_are_among_the_gauges(self) -> None:
        gauges = world(max_entries=100, max_bytes="16KB")["default"].stats().layers[0].gauges

        assert (gauges["max_entries"], gauges["max_bytes"]) == (100, 16 * 1024)

    def test_they_are_the_backends_and_the_keys_the_caches(self, eviction: str) -> None:
        caches = world(max_entries=10, eviction=eviction)
        for number in range(20):
            caches["default"].set(f"k{number}", "mine")
            caches["other"].set(f"k{number}", "theirs")

        mine = caches["default"].get_many(f"k{number}" for number in range(20))
        theirs = caches["other"].get_many(f"k{number}" for number in range(20))
        assert len(mine) + len(theirs) == 10
        assert set(mine.values()) <= {"mine"}
        assert set(theirs.values()) <= {"theirs"}
        check_books(caches["default"])

    def test_clear_gives_the_memory_back(self) -> None:
        cache = world(max_entries=20_000)["default"]
        cache.set("warm", ["up"])
        cache.clear()
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(20_000):
            cache.set(f"key {number}", f"value {number}" * 5, 60)
        grown = tracemalloc.get_traced_memory()[0] - before

        cache.clear()
        gc.collect()

        left = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert grown > 5_000_000
        assert left < grown / 100

    def test_an_unknown_policy_is_a_fault_that_names_those_there_are(self) -> None:
        with pytest.raises(
            ConfigError, match=r"backends\.m\.eviction: no eviction policy named 'lru2'.*'lru'"
        ):
            world(eviction="lru2")


class TestTimes:
    def test_expired_entries_are_reclaimed_when_they_are_met(self) -> None:
        clock = Clock()
        cache = world(clock)["default"]
        cache.set("k", "x" * 1000, 10)
        clock.advance(10)

        assert cache.get("k") is None
        assert held(cache) == (0, 0)

    def test_and_also_when_nobody_reads_them_again(self) -> None:
        clock = Clock()
        caches = world(clock)
        cache, other = caches["default"], caches["other"]
        for number in range(1000):
            cache.set(f"k{number}", number, 10 + number % 50)
        clock.advance(100)

        steps = 0
        while held(cache)[0] > 1:
            before = held(cache)[0]
            other.set("of another cache", steps)
            steps += 1
            assert before - held(cache)[0] <= 17, "a bounded number at a time"

        assert steps <= 100
        assert cache.stats().layers[0].gauges["expirations"] == 1000
        check_books(cache)

    def test_misses_reclaim_too(self) -> None:
        clock = Clock()
        cache = world(clock)["default"]
        for number in range(100):
            cache.set(f"k{number}", number, 10)
        clock.advance(20)

        for _ in range(20):
            cache.get("nothing there")

        assert held(cache) == (0, 0)

    @pytest.mark.parametrize("moved", ["touch", "set"])
    def test_a_deadline_that_moved_later_is_kept(self, moved: str) -> None:
        clock = Clock()
        cache = world(clock)["default"]
        for number in range(50):
            cache.set(f"k{number}", number, 10)
            cache.touch(f"k{number}", 500) if moved == "touch" else cache.set(f"k{number}", number, 500)
        clock.advance(100)
        cache.set("other", 1)

        assert held(cache)[0] == 51
        clock.advance(500)
        for _ in range(10):
            cache.get("nothing there")
        assert held(cache)[0] == 0

    def test_a_deadline_that_moved_earlier_is_met(self) -> None:
        clock = Clock()
        cache = world(clock)["default"]
        for number in range(50):
            cache.set(f"k{number}", number, "30d")
            cache.touch(f"k{number}", 10)
        clock.advance(20)
        for _ in range(10):
            cache.get("nothing there")

        assert held(cache)[0] == 0

    def test_max_ttl_bounds_every_life(self) -> None:
        cache = world(Clock(), max_ttl="1m")["default"]
        for value in ("text", 1, [1]):
            cache.set("k", value, None)
            assert cache.ttl_left("k") == 60
        cache.set("l", "text", 10)
        assert cache.ttl_left("l") == 10

    def test_keys_that_come_and_go_leave_nothing_behind(self) -> None:
        """Deleted records lie in queues and buckets until they are swept; they must not pile up."""
        cache = world()["default"]
        for number in range(20_000):
            cache.set("k", "x", 3600 + number % 7)
            cache.delete("k")

        storage = storage_of(cache)
        assert storage.deadlines.held <= 100
        assert (
            sum(len(queue.records) for queue in vars(storage.policy).values() if hasattr(queue, "records"))
            <= 200
        )


class TestTags:
    def test_the_index_holds_what_is_here_and_no_more(self) -> None:
        """Whatever was written, evicted, replaced, softened and dropped before."""
        clock = Clock()
        with world(clock, max_entries=100) as caches:
            cache = caches["default"]
            for number in range(20_000):
                cache.set(f"k{number % 317}", number, 5 + number % 60, tags=[f"t{number % 211}", "all"])
                if number % 97 == 0:
                    cache.invalidate(f"t{number % 13}", soft=number % 2 == 0)
                    cache.delete(f"k{number % 19}")
                    cache.set(f"k{number % 23}", "without tags")
                    clock.advance(1)

            space: Any = cache._layer.space
            carried: dict[str, set[str]] = {}
            for key, record in space.records.items():
                for tag, _ in record.origin.stamps:
                    carried.setdefault(tag, set()).add(key)
            assert space._tagged == carried
            assert len(space.records) <= 100
            assert len(space._tagged) <= 101
            check_books(cache)

            cache.invalidate("all")
            assert space._tagged == {}

    def test_what_is_dead_by_then_is_dropped_by_a_soft_invalidation_too(self) -> None:
        clock = Clock()
        with world(clock) as caches:
            cache = caches["default"]
            for key, ttl in {"short": 10, "long": 60}.items():
                cache.set(key, 1, ttl, tags=["t"])
            clock.advance(20)

            cache.invalidate("t", soft=True)

            assert held(cache)[0] == 1
            assert cache.peek("long") == 1


class TestEarlyRefreshes:
    """When one is due was drawn as the value was stored; until then nobody is told that there will be one."""

    @pytest.fixture(autouse=True)
    def _early(self, clock: Clock) -> Iterator[None]:
        self.clock, self.loads = clock, 0
        settings = {
            "backends": {"m": {"type": "memory"}},
            "caches": {"default": {"backend": "m", "ttl": 100, "refresh": "early"}},
        }
        with Caches(settings, now=clock) as self.world:
            self.cache = self.world["default"]
            yield

    def load(self, keys: list[str]) -> dict[str, int]:
        self.loads += 1
        self.clock.advance(0.01)
        return dict.fromkeys(keys, self.loads)

    def test_several_at_once_are_not_refreshed_each_time_they_are_read(self) -> None:
        for _ in range(5):
            assert self.cache.get_or_set_many(["a", "b"], self.load) == {"a": 1, "b": 1}

        assert (self.loads, self.cache.stats().refreshes) == (1, 0)

    def test_what_is_there_has_a_spread_once_it_is_due(self) -> None:
        self.cache.get_or_set_many(["a"], self.load)
        near = self.cache._layer.space.near
        assert near is not None
        due = near.records["a"].hit_until
        assert due < near.take("a", stale=False).fresh_until  # type: ignore[union-attr]
        assert near.take("a", stale=False).spread == 0.0  # type: ignore[union-attr]

        self.clock.now = due

        assert near.take("a", stale=False).spread > 0.0  # type: ignore[union-attr]


class TestPolicies:
    def test_a_key_in_use_survives_a_scan_of_others(self, eviction: str) -> None:
        cache = world(max_entries=100, eviction=eviction)["default"]
        for number in range(100):
            cache.set(f"used {number}", number)
        for round_ in range(30):
            for number in range(20):
                cache.get_or_set(f"used {number}", lambda number=number: number)
            for number in range(20):
                cache.set(f"scanned {round_}:{number}", number)

        survivors = len(cache.get_many(f"used {number}" for number in range(20)))
        assert survivors >= 19

    def test_who_has_expired_goes_first_however_often_it_was_read(self, eviction: str) -> None:
        clock = Clock()
        cache = world(clock, max_entries=50, eviction=eviction)["default"]
        for number in range(50):
            cache.set(f"old {number}", number, 3200)
        for _ in range(5):
            for number in range(50):
                cache.get(f"old {number}")
        clock.advance(3201)  # expired; the bucket of its deadline comes up two minutes later

        for number in range(50):
            cache.set(f"new {number}", number, 3200)

        assert len(cache.get_many(f"new {number}" for number in range(50))) == 50
        assert cache.stats().layers[0].gauges["expirations"] == 0, (
            "the policy chose them, not their deadlines"
        )

    def test_a_third_partys_policy_is_found_by_its_entry_point(
        self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "newest_first.py").write_text(
            "from layercache_memory.policies.base import Policy\n"
            "class NewestFirst(Policy):\n"
            "    def __init__(self): self.kept = []\n"
            "    def admit(self, record, *, full):\n"
            "        record.queue = 1; self.kept.append(record)\n"
            "    def make_room(self, entries, units, now):\n"
            "        gone = []\n"
            "        while self.kept and (entries > 0 or units > 0):\n"
            "            record = self.kept.pop(); record.queue = None; gone.append(record)\n"
            "            entries -= 1; units -= record.units\n"
            "        return gone\n"
            "    def remove(self, record): record.queue = None; self.kept.remove(record)\n"
            "    def clear(self): self.kept.clear()\n"
        )
        info = tmp_path / "newest-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: newest\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            "[layercache.evictions]\nnewest-first = newest_first:NewestFirst\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        cache = world(max_entries=2, eviction="newest-first")["default"]

        cache.set_many({"a": 1, "b": 2, "c": 3})

        assert cache.get_many(["a", "b", "c"]) == {"a": 1, "c": 3}

    def test_a_large_candidate_has_to_beat_all_that_would_go_for_it(self) -> None:
        cache = world(max_entries=1000, max_bytes="64KB")["default"]
        for number in range(150):
            cache.set(f"small {number}", "x" * 50, 60)
        for _ in range(3):
            for number in range(150):
                cache.get(f"small {number}")
        for number in range(30):
            cache.set(f"large {number}", "x" * 12_000, 60)

        # as many large ones as there were small ones would have emptied the cache several times over
        assert len(cache.get_many(f"small {number}" for number in range(150))) >= 60
        check_books(cache)


class TestSharing:
    def test_immutable_values_are_shared_and_others_are_not(self) -> None:
        cache = world()["default"]
        for value in ("text" * 100, 10**15, 1.5, None, True):
            cache.set("k", value)
            assert cache.get("k") is cache.get("k")
        for value in ([1, 2], {"a": 1}, {"a": [1]}, [[1]], (1, 2)):
            cache.set("k", value)
            assert cache.get("k") is not cache.get("k")
            cache.get("k").clear()
            assert cache.get("k") == (list(value) if isinstance(value, tuple) else value)

    def test_by_reference_readers_share_what_was_stored_here(self) -> None:
        shared = {
            "backends": {"m": {"type": "memory"}},
            "caches": {"default": {"backend": "m", "isolation": "reference"}},
        }
        cache = Caches(shared)["default"]
        given = {"a": (1, [2])}
        cache.set("k", given)

        assert cache.get("k") == {"a": [1, [2]]}, "in its normal form all the same"
        assert cache.get("k") is cache.get("k") is cache.get_many(["k"])["k"] is cache.get_or_set("k", dict)
        assert cache.get("k") is not given
        assert cache.touch("k", 60)
        assert cache.get("k") is cache.get("k")

    def test_and_each_type_has_an_object_of_its_own(self) -> None:
        shared = {
            "backends": {"m": {"type": "memory"}},
            "caches": {"default": {"backend": "m", "isolation": "reference"}},
        }
        cache = Caches(shared)["default"]
        sets = cache.typed(set[int])
        loaded = sets.get_or_set("k", lambda: {1, 2})

        assert sets.get("k") is sets.get("k") is loaded
        assert cache.get("k") == [1, 2]
        assert cache.typed(list[int]).get("k") == [1, 2]
        sets.set("k", {3})
        assert sets.get("k") == {3}

    def test_what_is_shared_is_counted_with_all_its_parts(self) -> None:
        shared = {
            "backends": {"m": {"type": "memory"}},
            "caches": {"default": {"backend": "m", "isolation": "reference"}},
        }
        cache = Caches(shared)["default"]
        cache.set("k", {"a": ["x" * 1000, "y" * 1000]})

        assert 4000 < held(cache)[1] < 5500, "payload and parts"

    def test_what_is_no_key_is_no_hit(self) -> None:
        from layercache import InvalidKey

        cache = world()["default"]
        cache.set("1", "x")
        for key in ([], {}, 1, None, "", b"1"):
            with pytest.raises(InvalidKey):
                cache.get(key)  # type: ignore[call-overload]
            with pytest.raises(InvalidKey):
                cache.get_or_set(key, lambda: 1)  # type: ignore[arg-type]

    def test_a_bound_method_stays_good_for_the_life_of_the_cache(self) -> None:
        cache = world()["default"]
        get = cache.get
        cache.set("k", 1)
        assert get("k") == 1
        cache.clear()
        assert get("k") is None


class Exact(RuleBasedStateMachine):
    """Random programs against an exact model of values and times. The backend may forget, and only for want of room;
    it never gives an expired value, another key's value, or one that was replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.caches = world(self.clock, max_entries=6, max_bytes="6KB")
        self.model: dict[tuple[str, str], tuple[Any, float]] = {}
        self.evictions = 0

    names = st.sampled_from(["default", "other"])
    keys = st.sampled_from([f"k{number}" for number in range(9)])
    values = st.one_of(
        st.text(max_size=3),
        st.integers(),
        st.lists(st.integers(0, 9), max_size=3),
        st.just("x" * 1200),
        st.just({"a": [1]}),
    ).filter(lambda value: not isinstance(value, int) or abs(value) < 2**63)

    @rule(name=names, key=keys, value=values, ttl=st.integers(1, 90))
    def set(self, name: str, key: str, value: Any, ttl: int) -> None:
        before = storage_of(self.caches["default"]).evictions
        living = {at for at, (_, end) in self.model.items() if end > self.clock()}
        self.caches[name].set(key, value, ttl)
        self.model[name, key] = (value, self.clock() + ttl)
        if len(living | {(name, key)}) <= 4 and "x" * 1200 not in [kept for kept, _ in self.model.values()]:
            stored = storage_of(self.caches["default"])
            assert stored.evictions == before or stored.entries >= 6, "room was made where none was needed"

    @rule(name=names, key=keys)
    def get(self, name: str, key: str) -> None:
        found = self.caches[name].get(key, MISSING)
        value, end = self.model.get((name, key), (MISSING, 0.0))
        if found is MISSING:
            self.model.pop((name, key), None)
        else:
            assert found == value
            assert end > self.clock()

    @rule(name=names, key=keys, ttl=st.integers(1, 90))
    def touch(self, name: str, key: str, ttl: int) -> None:
        if self.caches[name].touch(key, ttl):
            value, end = self.model[name, key]
            assert end > self.clock()
            self.model[name, key] = (value, self.clock() + ttl)

    @rule(name=names, key=keys)
    def delete(self, name: str, key: str) -> None:
        self.caches[name].delete(key)
        self.model.pop((name, key), None)

    @rule(name=names)
    def clear(self, name: str) -> None:
        self.caches[name].clear()
        self.model = {at: kept for at, kept in self.model.items() if at[0] != name}

    @rule(seconds=st.integers(1, 60))
    def advance(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @invariant()
    def the_books_are_right(self) -> None:
        check_books(self.caches["default"])


class TestExact(Exact.TestCase):  # type: ignore[misc, name-defined]
    settings = settings(max_examples=60, stateful_step_count=40)


@pytest.fixture
def tiny_switch_interval() -> Iterator[None]:
    """Threads change so often that what may interleave does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("tiny_switch_interval")
def test_eight_threads_never_see_a_wrong_value_and_leave_the_books_in_order(eviction: str) -> None:
    caches = world(max_entries=60, max_bytes="64KB", eviction=eviction)
    cache = caches["default"]
    wrong: list[Any] = []
    end = time.monotonic() + 1.5

    def work(seed: int) -> None:
        number = seed
        while time.monotonic() < end:
            number = (number * 48_271 + seed) % 2_147_483_647
            key = f"k{number % 97}"
            match number % 11:
                case 0:
                    cache.delete(key)
                case 1 | 2:
                    cache.set(key, key + "x" * (number % 300), 0.001 + number % 3)
                case 3:
                    cache.set(key, [key, number % 5], 60)
                case 4:
                    cache.set(key, {"key": [key]}, 60)
                case 5:
                    cache.touch(key, 30)
                case 6:
                    caches["other"].set(key, "other", 60)
                case _:
                    found = cache.get(key)
                    if isinstance(found, dict):
                        found = found["key"]
                    text = found[0] if isinstance(found, list) else found
                    if text is not None and text.rstrip("x") != key:
                        wrong.append((key, found))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    check_books(cache)
    caches["other"].clear()
    cache.clear()
    assert held(cache) == (0, 0)


def test_close_empties_it() -> None:
    caches = world()
    caches["default"].set("k", 1)
    caches.close()

    assert caches["default"].get("k") is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_the_child_of_a_fork_starts_empty_and_unlocked() -> None:
    cache = world()["default"]
    cache.set("k", "parent")

    with storage_of(cache).lock:  # held by a thread of the parent
        child = os.fork()
        if child == 0:
            try:
                empty = cache.get("k") is None
                cache.set("k", "child")
                loaded = cache.get_or_set("l", lambda: 1) == 1
                os._exit(0 if empty and loaded and cache.get("k") == "child" else 1)
            except BaseException:
                os._exit(2)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert cache.get("k") == "parent"
