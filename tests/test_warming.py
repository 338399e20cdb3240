"""Warming: what is loaded, what is kept, and what goes on by itself until it is to end."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis
from waiting import PATIENCE, auntil, until
from worlds import make_world

import layercache
from layercache import Cache, Caches, InvalidKey, InvalidOption, InvalidTtl, WarmReport, cached, current_load
from layercache.core.policy import Overrides
from layercache.core.warming import Item, Round
from layercache.inline import run
from layercache.testing import Clock

SETTINGS = {
    "backends": {"local": {"type": "memory"}},
    "caches": {"default": {"backend": "local", "ttl": 60}},
}
SOON = "1ms"


class Source:
    """Where values come from: counts its loads by key, and fails for the keys that are `down`."""

    def __init__(self) -> None:
        self.loads: list[str] = []
        self.down: set[str] = set()

    def load(self, key: str) -> str:
        self.loads.append(key)
        if key in self.down:
            raise LookupError(f"no {key}")
        return f"value of {key}"

    async def aload(self, key: str) -> str:
        await asyncio.sleep(0)
        return self.load(key)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def cache(clock: Clock) -> Iterator[Cache[Any]]:
    with Caches(SETTINGS, now=clock) as caches:
        yield caches["default"]


Warm = Callable[..., WarmReport]


@pytest.fixture(params=["sync", "async", "async, plain loader"])
def warm(request: pytest.FixtureRequest, source: Source) -> Warm:
    """Warms `keys` of a cache from the source, on each face."""

    def warm(cache: Cache[Any], keys: Any, **options: Any) -> WarmReport:
        if request.param == "sync":
            return cache.warm(source.load, keys, **options)
        loader = source.aload if request.param == "async" else source.load
        return asyncio.run(cache.awarm(loader, keys, **options))

    return warm


class TestOnce:
    def test_what_is_not_there_is_loaded_and_what_is_fresh_is_kept(
        self, cache: Cache[Any], source: Source, warm: Warm
    ) -> None:
        cache.set("b", "there")

        report = warm(cache, ["a", "b", "c", "a"])

        assert (report.loaded, report.kept, report.failed) == (2, 1, {})
        assert sorted(source.loads) == ["a", "c"]
        assert cache.get_many(["a", "b", "c"]) == {"a": "value of a", "b": "there", "c": "value of c"}

    @pytest.mark.parametrize("kind", ["redis", "chain", "null"])
    def test_on_every_backend(
        self, kind: str, server: redis.Redis, server_url: str, source: Source, warm: Warm
    ) -> None:
        with make_world(kind, server, server_url) as world:
            first, again = warm(world["default"], ["a", "b"]), warm(world["default"], ["a", "b"])

        assert (first.loaded, first.kept) == (2, 0)
        assert (again.loaded, again.kept) == ((2, 0) if kind == "null" else (0, 2))

    def test_what_is_stale_is_loaded(
        self, cache: Cache[Any], clock: Clock, source: Source, warm: Warm
    ) -> None:
        warm(cache, ["a"], ttl=10, stale_ttl=60)
        clock.advance(11)

        assert warm(cache, ["a"], ttl=10, stale_ttl=60).loaded == 1
        assert source.loads == ["a", "a"]

    def test_what_fails_is_told_by_key_and_the_others_go_on(
        self, cache: Cache[Any], source: Source, warm: Warm
    ) -> None:
        source.down = {"a", "c"}

        report = warm(cache, list("abcd"))

        assert report.loaded == 2
        assert {key: str(error) for key, error in report.failed.items()} == {"a": "no a", "c": "no c"}
        assert all(type(error) is LookupError for error in report.failed.values())
        assert "a" not in cache

    def test_a_failure_is_one_even_where_a_stale_value_could_be_served(
        self, cache: Cache[Any], clock: Clock, source: Source, warm: Warm
    ) -> None:
        warm(cache, ["a"], ttl=10, stale_ttl=60)
        clock.advance(11)
        source.down = {"a"}

        assert list(warm(cache, ["a"], ttl=10, stale_ttl=60).failed) == ["a"]
        assert cache.peek("a") == "value of a"

    def test_values_live_as_they_are_told(self, cache: Cache[Any], warm: Warm) -> None:
        warm(cache, ["a"], ttl=lambda value: len(value), tags=["news"])

        assert cache.ttl_left("a") == len("value of a")
        cache.invalidate("news")
        assert "a" not in cache

    def test_a_loader_finds_its_load(self, cache: Cache[Any]) -> None:
        def load(key: str) -> str:
            under_way = current_load()
            assert under_way is not None
            under_way.ttl = 7
            return under_way.key

        cache.warm(load, ["a", "b"])

        assert (cache.get("a"), cache.ttl_left("b")) == ("a", 7)

    def test_a_typed_view_stores_what_it_can_restore(self, cache: Cache[Any]) -> None:
        report = cache.typed(int).warm(lambda key: "no int", ["a"])  # type: ignore[arg-type,return-value]

        assert type(report.failed["a"]) is layercache.EncodeError

    def test_nothing_is_fine(self, cache: Cache[Any], warm: Warm) -> None:
        report = warm(cache, [], refresh_every=SOON)

        assert (report.loaded, report.kept, report.failed, report.schedule) == (0, 0, {}, None)

    def test_as_many_are_loaded_at_a_time_as_is_wanted(self, cache: Cache[Any]) -> None:
        together, most = threading.Barrier(3), 0
        inside: list[str] = []

        def load(key: str) -> str:
            nonlocal most
            inside.append(key)
            most = max(most, len(inside))
            together.wait(PATIENCE)
            inside.remove(key)
            return key

        assert cache.warm(load, list("abcdefghi"), concurrency=3).loaded == 9
        assert most == 3

    def test_so_it_is_with_tasks(self, cache: Cache[Any]) -> None:
        most = 0
        inside: list[str] = []

        async def load(key: str) -> str:
            nonlocal most
            inside.append(key)
            await auntil(lambda: len(inside) >= 3 or most == 3)
            most = max(most, len(inside))
            inside.remove(key)
            return key

        assert asyncio.run(cache.awarm(load, list("abcdefghi"), concurrency=3)).loaded == 9
        assert most == 3

    def test_what_stops_the_program_stops_warming(self, cache: Cache[Any]) -> None:
        def load(key: str) -> str:
            raise SystemExit(3)

        for concurrency in (1, 4):
            with pytest.raises(SystemExit):
                cache.warm(load, list("abcdefgh"), concurrency=concurrency)

    @pytest.mark.parametrize(
        ("keys", "options", "error"),
        [
            (["a", ""], {}, InvalidKey),
            ("a", {}, TypeError),
            (["a"], {"concurrency": 0}, InvalidOption),
            (["a"], {"concurrency": True}, InvalidOption),
            (["a"], {"refresh_every": 0}, InvalidTtl),
            (["a"], {"refresh_every": "forever"}, InvalidTtl),
            (["a"], {"stale_tll": 5}, InvalidOption),
        ],
    )
    def test_what_cannot_be_right_is_refused_before_any_load(
        self, cache: Cache[Any], source: Source, warm: Warm, keys: Any, options: Any, error: Any
    ) -> None:
        with pytest.raises(error):
            warm(cache, keys, **options)

        assert source.loads == []

    def test_a_report_says_what_came_of_it(self) -> None:
        error = LookupError("no such symbol")

        assert repr(WarmReport(3, 1, {}, 0.125)) == "<WarmReport: 3 loaded, 1 kept, 0 failed, 0.12 s>"
        assert repr(WarmReport(0, 0, {"a": error}, 1.0)) == (
            "<WarmReport: 0 loaded, 0 kept, 1 failed ('a': LookupError('no such symbol')), 1.00 s>"
        )
        assert "2 failed ('a': LookupError('no such symbol'), …)" in repr(
            WarmReport(0, 0, {"a": error, "b": error}, 1.0)
        )
        WarmReport(0, 0, {}, 0.0).cancel()


class TestWhatAnotherHostHasRefreshed:
    """A round of a schedule keeps what was loaded since the last one."""

    def round(self, cache: Cache[Any], source: Source, every: float | None, **options: Any) -> str:
        ttl = options.pop("ttl", layercache.DEFAULT)
        item = Item("a", lambda: source.load("a"), Overrides(ttl, options))
        over = Round(cache._loading, [item], every)
        run(over.work(cache._inline))
        assert len(over.loaded) + len(over.kept) == 1
        return "loaded" if over.loaded else "kept"

    @pytest.mark.parametrize(("age", "comes_to"), [(8.9, "kept"), (9.1, "loaded")])
    @pytest.mark.parametrize("options", [{}, {"ttl": 20}, {"stale_ttl": 50}])
    def test_what_is_younger_than_the_interval_is_kept(
        self, cache: Cache[Any], clock: Clock, source: Source, age: float, comes_to: str, options: Any
    ) -> None:
        self.round(cache, source, None, **options)
        clock.advance(age)

        assert self.round(cache, source, 10, **options) == comes_to

    @pytest.mark.parametrize(("left", "comes_to"), [(20, "loaded"), (22, "kept")])
    def test_a_ttl_that_jitter_has_shortened_is_taken_for_no_age(
        self, cache: Cache[Any], source: Source, left: int, comes_to: str
    ) -> None:
        cache.set("a", "there", ttl=left)  # a just loaded value may have half of the 60 seconds

        assert self.round(cache, source, 10, jitter=0.5) == comes_to

    @pytest.mark.parametrize(("left", "comes_to"), [(10, "loaded"), (12, "kept")])
    def test_where_its_age_cannot_be_told_it_has_to_last_until_the_next(
        self, cache: Cache[Any], source: Source, left: int, comes_to: str
    ) -> None:
        cache.set("a", "there", ttl=left)

        assert self.round(cache, source, 10, ttl=lambda value: 60) == comes_to

    def test_what_is_fresh_is_kept_where_the_interval_is_longer_than_the_ttl(
        self, cache: Cache[Any], source: Source
    ) -> None:
        cache.set("a", "there", ttl=1)

        assert self.round(cache, source, 1000) == "kept"


class TestSchedules:
    def test_rounds_go_on_and_load_what_has_aged(
        self, cache: Cache[Any], clock: Clock, source: Source
    ) -> None:
        schedule = cache.warm(source.load, ["a", "b"], refresh_every=SOON).schedule
        assert schedule is not None
        until(lambda: schedule.rounds >= 2)
        assert schedule.loads == 0

        clock.advance(1)
        until(lambda: schedule.loads == 2)
        rounds = schedule.rounds
        until(lambda: schedule.rounds >= rounds + 2)

        assert schedule.loads == 2
        assert sorted(source.loads) == ["a", "a", "b", "b"]
        assert cache.ttl_left("a") == 60

    def test_on_the_loop_too(self, cache: Cache[Any], clock: Clock, source: Source) -> None:
        async def main() -> None:
            schedule = (await cache.awarm(source.aload, ["a", "b"], refresh_every=SOON)).schedule
            assert schedule is not None
            await auntil(lambda: schedule.rounds >= 2)
            assert schedule.loads == 0
            clock.advance(1)
            await auntil(lambda: schedule.loads == 2)
            assert sorted(source.loads) == ["a", "a", "b", "b"]
            schedule.cancel()

        asyncio.run(main())

    def test_a_load_that_fails_is_counted_logged_once_and_ends_nothing(
        self, cache: Cache[Any], clock: Clock, source: Source, caplog: pytest.LogCaptureFixture
    ) -> None:
        schedule = cache.warm(source.load, ["a", "b"], refresh_every=SOON).schedule
        assert schedule is not None
        source.down = {"a"}
        clock.advance(1)
        until(lambda: schedule.failures >= 3)
        assert [record.message for record in caplog.records] == [
            "keeping 'a' warm fails; it is tried again every 1ms"
        ]
        assert caplog.records[0].exc_info
        assert cache.get("a") == "value of a"

        source.down = set()
        until(lambda: len(caplog.records) == 2)
        assert caplog.records[1].message == "keeping 'a' warm works again"
        rounds = schedule.rounds
        until(lambda: schedule.rounds >= rounds + 2)
        assert len(caplog.records) == 2
        assert schedule.is_running
        assert schedule.loads == 2

        source.down = {"b"}
        clock.advance(1)
        until(lambda: len(caplog.records) == 3)
        source.down = {"a"}
        clock.advance(1)
        until(lambda: len(caplog.records) == 5)
        assert caplog.records[4].message.startswith(("keeping 'a' warm fails", "keeping 'b' warm works"))

    @pytest.mark.parametrize("end", ["report", "schedule", "cache", "world"])
    def test_it_is_over_when_it_is_cancelled_or_the_cache_is_closed(self, source: Source, end: str) -> None:
        with Caches(SETTINGS) as caches:
            cache = caches["default"]
            report = cache.typed(str).warm(source.load, ["a"], refresh_every="1h")
            schedule: Any = report.schedule
            assert schedule.is_running
            assert repr(report).endswith("s, then <Schedule: 1 keys every 1h>>")

            {
                "report": report.cancel,
                "schedule": schedule.cancel,
                "cache": cache.close,
                "world": caches.close,
            }[end]()
            schedule._thread.join(PATIENCE)

            assert not schedule._thread.is_alive()
            assert not schedule.is_running
            assert repr(schedule) == "<Schedule: 1 keys every 1h, over>"
            assert not cache.schedules
            schedule.cancel()

    @pytest.mark.parametrize("end", ["report", "another thread", "cache", "loop"])
    def test_on_the_loop_as_well(self, source: Source, end: str) -> None:
        caches = Caches(SETTINGS)
        cache = caches["default"]

        async def main() -> Any:
            report = await cache.awarm(source.aload, ["a"], refresh_every="1h")
            schedule: Any = report.schedule
            await asyncio.sleep(0)  # it has begun, and sleeps
            if end == "another thread":
                await asyncio.to_thread(report.cancel)
            elif end != "loop":
                {"report": report.cancel, "cache": cache.close}[end]()
            if end != "loop":
                await asyncio.wait([schedule._task], timeout=PATIENCE)
                assert schedule._task.cancelled()
            return schedule

        schedule = asyncio.run(main())

        assert schedule._task.done()
        assert not schedule.is_running
        assert not cache.schedules
        schedule.cancel()
        caches.close()

    def test_a_load_that_is_under_way_holds_up_no_cancel_and_is_the_last(self, clock: Clock) -> None:
        loading, goes_on = threading.Event(), threading.Event()
        loads: list[str] = []

        def load(key: str) -> str:
            loads.append(key)
            if len(loads) > 3:
                loading.set()
                assert goes_on.wait(PATIENCE)
            return key

        with Caches(SETTINGS, now=clock) as caches:
            report = caches["default"].warm(load, list("abc"), refresh_every=SOON, concurrency=1)
            schedule: Any = report.schedule
            clock.advance(1)
            assert loading.wait(PATIENCE)

            report.cancel()
            goes_on.set()
            schedule._thread.join(PATIENCE)

        assert not schedule._thread.is_alive()
        assert len(loads) == 4

    def test_one_that_was_begun_as_the_cache_was_closed_ends_by_itself(self, source: Source) -> None:
        with Caches(SETTINGS) as caches:
            cache = caches["default"]
            cache.close()

            schedule: Any = cache.warm(source.load, ["a"], refresh_every=SOON).schedule

            schedule._thread.join(PATIENCE)
            assert not schedule._thread.is_alive()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
    @pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
    def test_the_child_of_a_fork_runs_none(self, cache: Cache[Any], source: Source) -> None:
        schedule = cache.warm(source.load, ["a"], refresh_every=SOON).schedule
        assert schedule is not None
        until(lambda: schedule.rounds)

        child = os.fork()
        if child == 0:
            fine = False
            try:
                fine = not schedule.is_running and not cache.schedules and threading.active_count() == 1
                schedule.cancel()
            finally:
                os._exit(0 if fine else 1)
        _, status = os.waitpid(child, 0)

        assert os.waitstatus_to_exitcode(status) == 0
        assert schedule.is_running

    @pytest.mark.parametrize("ends", ["sleeps", "hangs"])
    def test_the_interpreter_ends_whatever_it_does(self, ends: str) -> None:
        script = f"""
import threading, time
from layercache import cache
first = threading.Event()
again = threading.Event()
def load(key):
    if first.is_set():
        again.set()
        if {ends == "hangs"}:
            threading.Event().wait()
    first.set()
    return key
cache.warm(load, ["a"], refresh_every="1ms" if {ends == "hangs"} else "1h", ttl=lambda value: "1ms")
if {ends == "hangs"}:
    assert again.wait(30)
"""
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
        )

        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


WARMER = """
import sys, redis
from layercache import Caches
url, prefix, number = sys.argv[1:]
server = redis.Redis.from_url(url)
far = {"type": "redis", "url": url, "prefix": prefix, "timeout": "5s"}
with Caches({"backends": {"far": far}, "caches": {"default": {"backend": "far", "ttl": 60}}}) as caches:
    server.rpush(f"{prefix}-ready", number)
    while server.llen(f"{prefix}-ready") < 2:
        pass
    def load(key):
        server.rpush(f"{prefix}-loads", key)
        return key
    report = caches["default"].warm(load, [f"k{n}" for n in range(40)], concurrency=4)
    assert not report.failed, report
    print(report.loaded, report.kept)
"""


def test_of_two_processes_that_warm_the_same_keys_one_loads_each(
    server: redis.Redis, server_url: str
) -> None:
    prefix = f"t{uuid4().hex[:12]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WARMER, server_url, prefix, number], stdout=subprocess.PIPE, text=True
        )
        for number in "12"
    ]
    counts = [tuple(map(int, process.communicate(timeout=60)[0].split())) for process in processes]
    loads = [key.decode() for key in server.lrange(f"{prefix}-loads", 0, -1)]
    for key in server.scan_iter(match=f"{prefix}*", count=1000):
        server.delete(key)

    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(loads) == sorted(f"k{number}" for number in range(40))
    assert sum(loaded for loaded, _ in counts) == 40
    assert [loaded + kept for loaded, kept in counts] == [40, 40]


class TestDecorated:
    @pytest.fixture(autouse=True)
    def _world(self) -> None:
        layercache.configure(SETTINGS)

    def test_the_calls_that_it_lists_are_loaded(self, source: Source) -> None:
        @cached("{symbol}:{period}", warm=["A", ("B", "1y"), {"period": "1h", "symbol": "C"}, "A", ("A",)])
        def f(symbol: str, period: str = "1d") -> str:
            return source.load(f"{symbol} {period}")

        f("B", "1y")
        report = f.warm()

        assert (report.loaded, report.kept, report.failed, report.schedule) == (2, 1, {}, None)
        assert sorted(source.loads) == ["A 1d", "B 1y", "C 1h"]
        assert f("C", "1h") == "value of C 1h"
        assert len(source.loads) == 3

    def test_of_an_async_function_too(self, source: Source) -> None:
        @cached("{symbol}", warm=["A", "B"], ttl=lambda value, symbol: 100 if symbol == "A" else 200)
        async def f(symbol: str) -> str:
            return await source.aload(symbol)

        async def main() -> None:
            assert (await f.warm(concurrency=1)).loaded == 2
            assert (await f.warm()).kept == 2

        asyncio.run(main())
        left = layercache.cache.ttl_left("A"), layercache.cache.ttl_left("B")
        assert left == (pytest.approx(100, abs=5), pytest.approx(200, abs=5))

    def test_a_method_is_warmed_for_its_object(self, source: Source) -> None:
        class Service:
            def __init__(self, name: str) -> None:
                self.name = name

            @cached("{symbol}", warm=["A"])
            def quote(self, symbol: str) -> str:
                return source.load(f"{self.name} {symbol}")

            @staticmethod
            @cached("static:{symbol}", warm=["A"])
            def at(symbol: str) -> str:
                return source.load(symbol)

        assert Service("one").quote.warm(concurrency=2).loaded == 1
        assert Service("other").quote.warm().kept == 1
        at: Any = Service.at
        assert at.warm().loaded == 1
        assert source.loads == ["one A", "A"]
        with pytest.raises(TypeError, match="quote is a method: it is warmed where it is bound to an object"):
            Service.quote.warm()

    def test_what_it_lists_is_kept_warm_where_that_is_asked_for(self, source: Source) -> None:
        clock = Clock()
        world = Caches(SETTINGS, now=clock)

        @world["default"].cached("{symbol}", warm=["A"], refresh_every=SOON)
        def f(symbol: str) -> str:
            return source.load(symbol)

        schedule = f.warm().schedule
        assert schedule is not None
        clock.advance(1)
        until(lambda: schedule.loads == 1)

        world.close()
        assert not schedule.is_running

    @pytest.mark.parametrize(
        ("warm", "message"),
        [
            (
                [("A", "1d", "more")],
                r"warm lists \('A', '1d', 'more'\), which .*f cannot be called with: too many",
            ),
            ([{"symbl": "A"}], "cannot be called with: missing a required argument: 'symbol'"),
            ([()], "missing a required argument"),
            ([object()], "a object cannot be part of a key"),
            ("AAPL", r"warm takes several calls, such as \['AAPL'\]"),
        ],
    )
    def test_what_does_not_fit_is_said_at_decoration(self, warm: Any, message: str) -> None:
        def f(symbol: str, period: str = "1d") -> str:
            raise AssertionError

        with pytest.raises((TypeError, InvalidKey), match=message):
            cached("{symbol}", warm=warm)(f)

    def test_so_is_an_interval_that_is_none_or_has_nothing_to_refresh(self) -> None:
        with pytest.raises(InvalidTtl, match="refresh_every is more than 0 seconds"):
            cached(warm=["A"], refresh_every=-1)
        with pytest.raises(InvalidOption, match="refresh_every keeps warm what `warm` lists"):
            cached(refresh_every="1m")

    def test_a_function_that_lists_nothing_cannot_be_warmed(self) -> None:
        @cached()
        def f() -> int:
            raise AssertionError

        with pytest.raises(InvalidOption, match=r"there is nothing to warm; name calls of .*f in @cached"):
            f.warm()
