"""The two ports: what never suspends, what waits, and what refuses to wait for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import coroutine
from typing import Any

import pytest

from layercache import Cache, Caches, WouldDeadlock
from layercache.inline import run


@pytest.fixture
def cache() -> Cache[Any]:
    return Caches({"backends": {"m": {"type": "memory"}}, "caches": {"default": {"backend": "m"}}})["default"]


def test_an_inline_verb_that_suspends_raises_at_once() -> None:
    @coroutine
    def suspend() -> Any:
        yield

    async def verb() -> None:
        await suspend()

    with pytest.raises(RuntimeError, match="suspended"):
        run(verb())


def test_threads_share_one_flight(cache: Cache[Any]) -> None:
    together = threading.Barrier(8)
    calls: list[int] = []
    released = threading.Event()

    def load() -> str:
        calls.append(1)
        released.wait(10)
        return "v"

    def caller(results: list[Any]) -> None:
        together.wait(10)
        results.append(cache.get_or_set("k", load))

    results: list[Any] = []
    threads = [threading.Thread(target=caller, args=(results,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    _until(lambda: cache.stats().waits == 7)
    released.set()
    for thread in threads:
        thread.join(10)

    assert results == ["v"] * 8
    assert len(calls) == 1


def test_tasks_share_one_flight_and_a_cancelled_follower_sinks_nobody(cache: Cache[Any]) -> None:
    async def main() -> tuple[list[Any], int]:
        calls = 0
        released = asyncio.Event()

        async def load() -> str:
            nonlocal calls
            calls += 1
            await released.wait()
            return "v"

        tasks = [asyncio.create_task(cache.aget_or_set("k", load)) for _ in range(8)]
        while cache.stats().waits < 7:
            await asyncio.sleep(0)
        tasks[3].cancel()
        await asyncio.sleep(0)
        released.set()
        return await asyncio.gather(*tasks, return_exceptions=True), calls

    results, calls = asyncio.run(main())

    assert calls == 1
    assert isinstance(results.pop(3), asyncio.CancelledError)
    assert results == ["v"] * 7


def test_the_load_of_a_cancelled_leader_goes_on_for_its_followers(cache: Cache[Any]) -> None:
    async def main() -> tuple[Any, int]:
        calls = 0
        released = asyncio.Event()

        async def load() -> str:
            nonlocal calls
            calls += 1
            await released.wait()
            return "v"

        leader = asyncio.create_task(cache.aget_or_set("k", load))
        await asyncio.sleep(0)
        follower = asyncio.create_task(cache.aget_or_set("k", load))
        while cache.stats().waits < 1:
            await asyncio.sleep(0)
        leader.cancel()
        await asyncio.wait({leader})
        released.set()
        return await follower, calls

    assert asyncio.run(main()) == ("v", 1)


def test_a_load_that_nobody_waits_for_any_more_is_cancelled(cache: Cache[Any]) -> None:
    async def main() -> list[str]:
        heard: list[str] = []

        async def load() -> str:
            try:
                await asyncio.Event().wait()
            finally:
                heard.append("cancelled")
            return "v"

        callers = [asyncio.create_task(cache.aget_or_set("k", load)) for _ in range(2)]
        while cache.stats().waits < 1:
            await asyncio.sleep(0)
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        while not heard:
            await asyncio.sleep(0)
        assert await cache.aget_or_set("k", lambda: "another") == "another"
        return heard

    assert asyncio.run(main()) == ["cancelled"]


def test_a_thread_waits_for_a_load_that_an_event_loop_leads(cache: Cache[Any]) -> None:
    async def main() -> Any:
        released = asyncio.Event()

        async def load() -> str:
            await released.wait()
            return "from the loop"

        leader = asyncio.create_task(cache.aget_or_set("k", load))
        await asyncio.sleep(0)
        follower = asyncio.create_task(asyncio.to_thread(cache.get_or_set, "k", lambda: "from the thread"))
        while cache.stats().waits < 1:
            await asyncio.sleep(0)
        released.set()
        return await asyncio.gather(leader, follower)

    assert asyncio.run(main()) == ["from the loop", "from the loop"]


def test_a_sync_call_that_would_stop_its_own_loop_is_refused(cache: Cache[Any]) -> None:
    async def main() -> None:
        released = asyncio.Event()
        leader = asyncio.create_task(cache.aget_or_set("k", released.wait))
        await asyncio.sleep(0)
        with pytest.raises(WouldDeadlock, match=r"await aget_or_set\(\.\.\.\) instead"):
            cache.get_or_set("k", lambda: "v")
        released.set()
        await leader

    asyncio.run(main())


def test_a_loader_that_asks_for_its_own_key_is_refused(cache: Cache[Any]) -> None:
    with pytest.raises(WouldDeadlock, match="must not ask for its own key"):
        cache.get_or_set("k", lambda: cache.get_or_set("k", lambda: "v"))

    assert cache.get_or_set("k", lambda: "v") == "v"


def test_a_plain_loader_does_not_hold_up_the_event_loop(cache: Cache[Any]) -> None:
    async def main() -> list[Any]:
        released = threading.Event()

        def load() -> str:
            released.wait(10)
            return "v"

        loading = asyncio.create_task(cache.aget_or_set("k", load))
        await asyncio.sleep(0)
        released.set()  # reached only because the loop goes on while the loader waits
        return [await loading]

    assert asyncio.run(main()) == ["v"]


def test_an_async_loader_of_a_sync_call_is_refused(cache: Cache[Any]) -> None:
    async def load() -> str:
        return "v"

    with pytest.raises(TypeError, match=r"await aget_or_set\(\.\.\.\)"):
        cache.get_or_set("k", load)


def _until(claim: Callable[[], bool]) -> None:
    """Let other threads run until `claim` holds; the test's own time limit ends a claim that never does."""
    pause = threading.Event()
    while not claim():
        pause.wait(0.001)
