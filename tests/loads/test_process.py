"""Loads among the threads and tasks of one process, over each kind of backend."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from fleet import Fleet
from waiting import until
from worlds import follow, make_world

from layercache import Cache, Caches
from layercache.errors import LoadTimeout, RecursiveLoad
from layercache.testing import Clock, ValkeyServer


@pytest.fixture(params=["memory", "redis", "chain"])
def world(request: pytest.FixtureRequest, server: redis.Redis, server_url: str) -> Iterator[Caches]:
    with make_world(request.param, server, server_url) as world:
        yield world
        world["default"].clear()


@pytest.fixture
def clock(world: Caches) -> Clock:
    clock: Clock = world.clock  # type: ignore[attr-defined]
    return clock


def left(cache: Cache[Any]) -> tuple[int, int]:
    """How many flights and tickets there are."""
    layers = [cache._layer, *cache._layer.space.layers()]
    return len(cache._flights), sum(len(layer.tickets) for layer in layers)


class Held:
    """A loader that goes on when it is told to."""

    def __init__(self, value: Any = "v") -> None:
        self.value, self.calls = value, 0
        self.may_end = threading.Event()

    def __call__(self) -> Any:
        self.calls += 1
        self.may_end.wait()
        return self.value

    async def acall(self) -> Any:
        self.calls += 1
        while not self.may_end.is_set():
            await asyncio.sleep(0)
        return self.value

    def reaches(self, threads: list[threading.Thread], cache: Cache[Any], *, waits: int) -> None:
        """Let `threads` ask for it, and end once so many of their calls wait for it."""
        for thread in threads:
            thread.start()
        until(lambda: cache.stats().waits == waits)
        self.may_end.set()
        for thread in threads:
            thread.join()


class TestOneLoad:
    def test_for_64_threads(self, cache: Cache[Any]) -> None:
        load, results = Held(), []
        threads = [
            threading.Thread(target=lambda: results.append(cache.get_or_set("k", load))) for _ in range(64)
        ]
        load.reaches(threads, cache, waits=63)

        assert results == ["v"] * 64
        assert load.calls == 1
        assert left(cache) == (0, 0)

    def test_for_64_tasks(self, world: Caches, cache: Cache[Any]) -> None:
        load = Held()

        async def main() -> list[Any]:
            tasks = [asyncio.create_task(cache.aget_or_set("k", load.acall)) for _ in range(64)]
            while cache.stats().waits < 63:
                await asyncio.sleep(0)
            load.may_end.set()
            results = await asyncio.gather(*tasks)
            assert left(cache) == (0, 0)
            await world.aclose()
            return results

        assert asyncio.run(main()) == ["v"] * 64
        assert load.calls == 1

    def test_for_threads_and_the_tasks_of_two_loops_together(self, cache: Cache[Any]) -> None:
        load, results = Held(), []

        async def tasks() -> None:
            results.extend(await asyncio.gather(*(cache.aget_or_set("k", load.acall) for _ in range(8))))

        threads = [threading.Thread(target=lambda: asyncio.run(tasks())) for _ in range(2)]
        threads += [
            threading.Thread(target=lambda: results.append(cache.get_or_set("k", load))) for _ in range(8)
        ]
        load.reaches(threads, cache, waits=23)

        assert results == ["v"] * 24
        assert load.calls == 1
        assert left(cache) == (0, 0)


class TestLeavers:
    def test_a_cancelled_leader_leaves_the_load_to_its_followers(
        self, world: Caches, cache: Cache[Any]
    ) -> None:
        load = Held()

        async def main() -> list[Any]:
            leader = asyncio.create_task(cache.aget_or_set("k", load.acall))
            while not load.calls:
                await asyncio.sleep(0)
            followers = [asyncio.create_task(cache.aget_or_set("k", load.acall)) for _ in range(3)]
            while cache.stats().waits < 3:
                await asyncio.sleep(0)
            leader.cancel()
            await asyncio.wait({leader})
            assert leader.cancelled()
            load.may_end.set()
            results = await asyncio.gather(*followers)
            await world.aclose()
            return results

        assert asyncio.run(main()) == ["v"] * 3
        assert load.calls == 1
        assert left(cache) == (0, 0)

    @pytest.mark.parametrize("turns", range(8))
    def test_cancelled_in_any_turn_of_the_loop_a_lone_caller_leaves_nothing(
        self, world: Caches, cache: Cache[Any], turns: int
    ) -> None:
        async def load() -> str:
            await asyncio.Event().wait()
            return "never"

        async def main() -> Any:
            caller = asyncio.create_task(cache.aget_or_set("k", load))
            for _ in range(turns):
                await asyncio.sleep(0)
            caller.cancel()
            await asyncio.wait({caller})
            while any("Leading" in repr(task) for task in asyncio.all_tasks()):
                await asyncio.sleep(0)
            assert left(cache) == (0, 0)
            result = await cache.aget_or_set(
                "k", lambda: "next"
            )  # neither a flight nor a lease is in its way
            await world.aclose()
            return result

        assert asyncio.run(main()) == "next"

    def test_a_loop_that_ends_strands_nobody(self, cache: Cache[Any], clock: Clock) -> None:
        """A refresh that was begun in the last turn of a loop is cancelled before its first step."""
        cache.get_or_set("stale", lambda: "old", ttl=10, stale_ttl=60)
        clock.advance(11)

        async def served() -> Any:
            return await cache.aget_or_set("stale", Held().acall, stale_ttl=60)

        for _ in range(3):
            assert asyncio.run(served()) == "old"
            assert len(cache._flights) == 0


class TestErrors:
    def test_pass_unwrapped_even_those_that_python_keeps_for_itself(self, cache: Cache[Any]) -> None:
        def stop() -> None:
            raise StopIteration(3)

        with pytest.raises(StopIteration) as stopped:
            cache.get_or_set("k", stop)

        assert stopped.value.value == 3
        assert left(cache) == (0, 0)

    def test_what_is_no_exception_ends_the_call_too(self, cache: Cache[Any]) -> None:
        """Such as what pytest.fail raises in the loader of a test."""

        class Stopped(BaseException):
            pass

        calls = 0

        async def stop(*keys: Any) -> Any:
            nonlocal calls
            calls += 1
            raise Stopped

        def stop_here(*keys: Any) -> Any:
            raise Stopped

        with pytest.raises(Stopped):
            asyncio.run(cache.aget_or_set("k", stop))
        with pytest.raises(Stopped):
            asyncio.run(cache.aget_or_set_many(["k", "l"], stop))
        with pytest.raises(Stopped):
            cache.get_or_set("k", stop_here)
        assert calls <= 3
        assert left(cache) == (0, 0)

    @pytest.mark.skipif(
        sys.version_info >= (3, 12),
        reason="there a loader's frame keeps those that called it, and these the flight: for the collector to find",
    )
    def test_of_a_loader_hold_no_frames_in_circles(self, cache: Cache[Any]) -> None:
        class NoQuote(Exception):
            pass

        def fail() -> None:
            raise NoQuote

        gc.collect()
        gc.disable()
        try:
            with pytest.raises(NoQuote):
                cache.get_or_set("k", fail)
            assert not any(type(each) is NoQuote for each in gc.get_objects())
        finally:
            gc.enable()

    def test_reach_threads_that_wait_each_as_its_own(self, cache: Cache[Any]) -> None:
        may_end = threading.Event()
        errors: list[BaseException] = []

        def fail() -> None:
            may_end.wait()
            raise LookupError("no quote")

        def call() -> None:
            try:
                cache.get_or_set("k", fail)
            except LookupError as error:
                errors.append(error)

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        until(lambda: cache.stats().waits == 7)
        may_end.set()
        for thread in threads:
            thread.join()

        assert len({id(error) for error in errors}) == 8
        assert [str(error) for error in errors] == ["no quote"] * 8


class TestStaleValues:
    def put(self, cache: Cache[Any], clock: Clock, key: str = "k") -> None:
        cache.get_or_set(key, lambda: "old", ttl=10, stale_ttl=60)
        clock.advance(11)

    def test_no_other_verb_sees_them(self, cache: Cache[Any], clock: Clock) -> None:
        self.put(cache, clock)

        assert cache.get("k", "none") == "none"
        assert cache.get_many(["k"]) == {}
        assert not cache.has_key("k")
        assert cache.ttl_left("k") == 0.0
        assert not cache.touch("k")
        assert cache.peek("k") == "old"
        assert cache.add("k", "new")
        assert cache.get("k") == "new"

    def test_a_counter_that_is_stale_is_not_there(self, cache: Cache[Any], clock: Clock) -> None:
        cache.get_or_set("n", lambda: 5, ttl=10, stale_ttl=60)
        clock.advance(11)

        with pytest.raises(ValueError, match="no 'n'"):
            cache.incr("n")

    def test_are_served_at_once_while_the_load_goes_on(self, cache: Cache[Any], clock: Clock) -> None:
        self.put(cache, clock)
        load = Held("new")

        for _ in range(20):
            assert cache.get_or_set("k", load, stale_ttl=60) == "old"
        load.may_end.set()
        until(lambda: cache.get("k") == "new")

        stats = cache.stats()
        assert (load.calls, stats.refreshes, stats.stale_hits) == (1, 1, 20)
        until(lambda: left(cache) == (0, 0))

    def test_a_failing_loader_is_logged_once_and_retried_no_oftener_than_it_says(
        self, cache: Cache[Any], clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.put(cache, clock)
        calls = 0

        def fail() -> None:
            nonlocal calls
            calls += 1
            raise LookupError("no quote")

        with caplog.at_level(logging.WARNING, "layercache.loading"):
            for round_ in range(1, 4):
                for _ in range(10):
                    assert cache.get_or_set("k", fail, stale_ttl=600, retry_after=5) == "old"
                    until(lambda: len(cache._flights) == 0)
                assert calls == round_
                assert cache.stats().load_failures == round_
                clock.advance(5.1)
            assert [record.message for record in caplog.records] == [
                "loading 'k' fails; its stale value is served meanwhile"
            ]
            assert cache.get_or_set("k", lambda: "new", stale_ttl=600) == "old"
            until(lambda: cache.get("k") == "new")
            until(lambda: len(caplog.records) == 2)

        assert caplog.records[1].message == "loading 'k' works again"

    def test_beyond_their_time_the_error_is_the_callers(self, cache: Cache[Any], clock: Clock) -> None:
        self.put(cache, clock)
        clock.advance(60)

        with pytest.raises(ZeroDivisionError):
            cache.get_or_set("k", lambda: 1 // 0, stale_ttl=60)

    @pytest.mark.parametrize("kind", ["memory", "redis", "chain"])
    def test_early_refresh_replaces_a_value_before_its_end(self, kind: str, fleet: Fleet) -> None:
        cache = Caches(fleet.settings(kind))["default"]
        follow(cache)  # near layers are emptied when that begins, and what is read anew is less early

        def slow() -> str:
            time.sleep(0.01)  # what the load takes, which decides how early
            return "old"

        options: dict[str, Any] = {"ttl": 600, "refresh": "early", "early_beta": 1e9}
        assert cache.get_or_set("k", slow, **options) == "old"

        assert cache.get("k") == "old"  # fresh, and so for every verb
        until(lambda: cache.get_or_set("k", lambda: "new", **options) == "new")
        assert cache.stats().stale_hits == 0
        until(lambda: left(cache) == (0, 0))


class TestTimeOuts:
    def test_soft(self, cache: Cache[Any], clock: Clock) -> None:
        cache.get_or_set("k", lambda: "old", ttl=10, stale_ttl=60)
        clock.advance(11)
        load = Held("new")

        assert cache.get_or_set("k", load, refresh="off", soft_timeout=0.01, stale_ttl=60) == "old"
        load.may_end.set()
        until(lambda: cache.get("k") == "new")
        assert load.calls == 1
        until(lambda: left(cache) == (0, 0))

    def test_hard_on_a_thread_lets_the_load_go_on(self, cache: Cache[Any]) -> None:
        load = Held()

        for _ in range(3):
            with pytest.raises(LoadTimeout) as timeout:
                cache.get_or_set("k", load, hard_timeout=0.01)
        load.may_end.set()
        until(lambda: cache.get("k") == "v")

        assert (timeout.value.key, timeout.value.seconds) == ("k", 0.01)
        assert load.calls == 1  # no thread is begun beside one that hangs
        until(lambda: left(cache) == (0, 0))  # the value is there a moment before its flight is over

    def test_hard_in_a_loop_ends_the_load(self, world: Caches, cache: Cache[Any]) -> None:
        ended: list[str] = []

        async def load() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("ended")

        async def main() -> Any:
            with pytest.raises(LoadTimeout):
                await cache.aget_or_set("k", load, hard_timeout=0.01)
            while not ended:
                await asyncio.sleep(0)
            result = await cache.aget_or_set("k", lambda: "next")
            await world.aclose()
            return result

        assert asyncio.run(main()) == "next"
        assert left(cache) == (0, 0)

    def test_a_loaders_own_time_out_is_its_own(self, world: Caches, cache: Cache[Any]) -> None:
        async def load() -> None:
            raise TimeoutError("upstream")

        async def main() -> None:
            with pytest.raises(TimeoutError, match="upstream"):
                await cache.aget_or_set("k", load, hard_timeout=5)
            await world.aclose()

        asyncio.run(main())

    def test_a_follower_waits_no_longer_than_it_says(self, cache: Cache[Any]) -> None:
        load = Held()
        leader = threading.Thread(target=lambda: cache.get_or_set("k", load))
        leader.start()
        until(lambda: load.calls)

        with pytest.raises(LoadTimeout):
            cache.get_or_set("k", load, wait=0.01)
        load.may_end.set()
        leader.join()


class TestNesting:
    def test_loaders_load_other_keys(self, cache: Cache[Any]) -> None:
        def outer() -> list[Any]:
            return [cache.get_or_set("inner", lambda: 1), cache.get_or_set("inner", lambda: 2)]

        assert cache.get_or_set("outer", outer) == [1, 1]

    def test_a_loader_that_asks_for_its_own_key_is_told(self, cache: Cache[Any]) -> None:
        with pytest.raises(RecursiveLoad, match="'k'"):
            cache.get_or_set("k", lambda: cache.get_or_set("k", lambda: 1))
        assert left(cache) == (0, 0)

    def test_so_it_is_through_threads_and_tasks(self, world: Caches, cache: Cache[Any]) -> None:
        async def main() -> None:
            def on_a_thread() -> Any:
                return cache.get_or_set("k", lambda: 1)

            async def own() -> Any:
                return await asyncio.to_thread(on_a_thread)

            with pytest.raises(RecursiveLoad):
                await cache.aget_or_set("k", own)
            await world.aclose()

        asyncio.run(main())
        assert left(cache) == (0, 0)


class TestFarStoresThatFail:
    """What is loaded reaches the caller, whatever becomes of the store meanwhile."""

    @pytest.fixture
    def far(self, server_url: str) -> Iterator[tuple[ValkeyServer, Cache[Any]]]:
        with ValkeyServer() as server:
            backend = {"type": "redis", "url": server.url, "timeout": "200ms"}
            settings = {"backends": {"far": backend}, "caches": {"default": {"backend": "far"}}}
            with Caches(settings) as world:
                yield server, world["default"]

    def test_the_loaded_value_is_returned_where_it_cannot_be_stored(
        self, far: tuple[ValkeyServer, Cache[Any]]
    ) -> None:
        server, cache = far

        def load() -> str:
            server.pause()
            return "v"

        assert cache.get_or_set("k", load) == "v"
        assert cache.stats().fills_refused == 1
        assert cache.stats().layers[0].errors > 0
        assert left(cache) == (0, 0)

    def test_the_loaders_error_is_raised_where_the_lease_cannot_be_given_back(
        self, far: tuple[ValkeyServer, Cache[Any]]
    ) -> None:
        server, cache = far

        def fail() -> None:
            server.pause()
            raise LookupError("no quote")

        with pytest.raises(LookupError):
            cache.get_or_set("k", fail)
        assert left(cache) == (0, 0)


class TestHoldingBack:
    @pytest.mark.parametrize("kind", ["memory", "redis", "chain"])
    def test_refresh_is_not_held_back_by_a_failure(self, fleet: Fleet, kind: str) -> None:
        cache = Caches(fleet.settings(kind, ttl=0.05, stale_ttl=60, retry_after=60))["default"]
        cache.get_or_set("k", lambda: "old")
        until(lambda: cache.get("k") is None)
        assert cache.get_or_set("k", lambda: 1 // 0) == "old"
        until(lambda: cache.stats().load_failures == 1 and left(cache) == (0, 0))

        assert cache.refresh("k", lambda: "new", ttl=60) == "new"
        assert cache.get("k") == "new"

    def test_nobody_is_held_back_once_the_stale_value_is_dead(self, cache: Cache[Any], clock: Clock) -> None:
        cache.get_or_set("k", lambda: "old", ttl=10, stale_ttl=60)
        clock.advance(11)
        assert cache.get_or_set("k", lambda: 1 // 0, stale_ttl=60, retry_after=600) == "old"
        until(lambda: cache.stats().load_failures == 1 and left(cache) == (0, 0))
        clock.advance(60)
        assert cache.peek("k") is None

        assert cache.get_or_set("k", lambda: "new", wait=5) == "new"

    def test_with_refresh_off_too_the_next_try_waits(self, cache: Cache[Any], clock: Clock) -> None:
        cache.get_or_set("k", lambda: "old", ttl=10, stale_ttl=60)
        clock.advance(11)
        calls = 0

        def fail() -> None:
            nonlocal calls
            calls += 1
            raise LookupError("no quote")

        for _ in range(3):
            assert cache.get_or_set("k", fail, refresh="off", retry_after=5) == "old"
            assert cache.get_or_set_many(["k"], lambda keys: fail(), refresh="off", retry_after=5) == {
                "k": "old"
            }

        assert calls == 1


def test_after_a_hard_time_out_the_next_caller_loads_anew(world: Caches, cache: Cache[Any]) -> None:
    async def main() -> list[Any]:
        async def hang() -> None:
            await asyncio.Event().wait()

        async def load() -> str:
            return "v"

        with pytest.raises(LoadTimeout):
            await cache.aget_or_set("k", hang, hard_timeout=0.05)
        result = await cache.aget_or_set("k", load, hard_timeout=0.05)
        await world.aclose()
        return result

    assert asyncio.run(main()) == "v"
    assert cache.stats().timeouts + cache.stats().load_failures >= 1
