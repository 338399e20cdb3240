"""Event loops: one after the other, several at once, of each kind, and what is left of those that have ended."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop
from inside import chain, connections, far_gauges, fill, follow, kernel_threads, sockets, threads
from waiting import PATIENCE, until

from layercache import Cache, Caches

NewLoop = Callable[[], asyncio.AbstractEventLoop]
LOOPS: dict[str, NewLoop] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def own(prefix: str, request: pytest.FixtureRequest) -> str:
    """A prefix, and so a name of connections, of this test alone."""
    return f"{prefix}-{request.node.name}"


@pytest.fixture
def world(server_url: str, own: str) -> Iterator[Caches]:
    with chain(server_url, own) as world:
        follow(world["default"])
        yield world


def nothing_under_way(cache: Cache[Any]) -> bool:
    layers = [cache._layer, *cache._layer.space.layers()]
    return not len(cache._flights) and not sum(len(layer.tickets) for layer in layers)


async def use(cache: Cache[Any], name: str) -> None:
    """What tasks of a service do: read, write, load, and be served what is stale while it is refreshed."""

    async def load() -> str:
        await asyncio.sleep(0)
        return name

    await asyncio.gather(*(cache.aset(f"{name}:{number}", number) for number in range(20)))
    assert await cache.aget_many([f"{name}:1", f"{name}:2"]) == {f"{name}:1": 1, f"{name}:2": 2}
    loaded = await asyncio.gather(*(cache.aget_or_set(f"{name}:loaded", load) for _ in range(20)))
    assert loaded == [name] * 20
    await cache.aset(f"{name}:stale", "old", 0.001)
    while await cache.aget(f"{name}:stale") is not None:
        await asyncio.sleep(0.001)
    assert await cache.aget_or_set(f"{name}:stale", load) == "old"
    while await cache.aget(f"{name}:stale") is None:
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("kind", LOOPS)
def test_each_loop_in_turn_gives_back_what_it_had(
    cache: Cache[Any], server_url: str, own: str, kind: str
) -> None:
    """As `asyncio.run` several times in one process."""
    before = (connections(server_url, own), sockets(), threads(), kernel_threads())

    for number in range(3):

        async def main(name: str) -> None:
            await use(cache, name)
            assert len(connections(server_url, own) - before[0]) >= 1
            assert asyncio.all_tasks() == {asyncio.current_task()}

        with asyncio.Runner(loop_factory=LOOPS[kind]) as runner:
            runner.run(main(f"run {number}"))
        assert sockets() <= before[1]
        until(lambda: connections(server_url, own) == before[0])

    # what a test before has left to the collector may end meanwhile
    assert not Counter(threads()) - Counter(before[2])
    assert kernel_threads() <= before[3]
    assert nothing_under_way(cache)
    gc.collect()  # what was left open would warn, and warnings are errors


def test_a_loop_that_is_stopped_amid_loads_gives_back_what_it_had(
    cache: Cache[Any], server_url: str, own: str
) -> None:
    before = (connections(server_url, own), sockets())
    begun: list[int] = []

    async def load() -> None:
        begun.append(1)
        await asyncio.Event().wait()

    async def main() -> None:
        await cache.aset("stale", "old", 0.001)
        while await cache.aget("stale") is not None:
            await asyncio.sleep(0.001)
        await cache.aget_or_set("stale", load)
        left = [asyncio.create_task(cache.aget_or_set("k", load)) for _ in range(3)]
        while len(begun) < 2:
            await asyncio.sleep(0)
        assert len(left) == 3

    asyncio.run(main())

    assert sockets() <= before[1]
    until(lambda: connections(server_url, own) == before[0])
    assert nothing_under_way(cache)
    assert cache.get_or_set("k", lambda: "v", wait=5) == "v"  # the leases were given back, too


def test_loops_on_threads_of_their_own_share_one_world(cache: Cache[Any], server_url: str, own: str) -> None:
    before = (connections(server_url, own), sockets(), kernel_threads())
    fill(cache, "k", "old")
    together = threading.Barrier(5)
    failures: list[BaseException] = []
    loads: list[int] = []

    async def load() -> str:
        loads.append(1)
        await asyncio.sleep(0.01)
        return "once"

    async def main(name: str) -> None:
        await use(cache, name)
        assert await cache.aget("k") == "old"
        together.wait(PATIENCE)
        assert await cache.aget_or_set("of all", load) == "once"
        together.wait(PATIENCE)  # and then another thread writes
        together.wait(PATIENCE)
        assert await cache.aget("k") == "new"

    def on_a_loop(new_loop: NewLoop, name: str) -> None:
        try:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(main(name))
        except BaseException as error:
            failures.append(error)
            together.abort()

    kinds = [*LOOPS.values()] * 2
    running = [threading.Thread(target=on_a_loop, args=(kind, f"loop {n}")) for n, kind in enumerate(kinds)]
    for thread in running:
        thread.start()
    try:
        together.wait(PATIENCE)
        together.wait(PATIENCE)
        assert len(connections(server_url, own) - before[0]) >= 4  # each loop has its own
        cache.set("k", "new")
        together.wait(PATIENCE)
    finally:
        for thread in running:
            thread.join()

    assert failures == []
    assert loads == [1]
    assert sockets() <= before[1]
    until(lambda: connections(server_url, own) == before[0])
    until(lambda: kernel_threads() <= before[2])
    assert nothing_under_way(cache)
    assert far_gauges(cache)["circuit_openings"] == 0


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # asyncio's, of whoever closes loops like that
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_load_on_a_loop_that_was_closed_under_it_holds_nobody_up() -> None:
    """Without a cancellation, as `loop.close()` alone does: it can neither go on nor end."""
    with Caches({"backends": {"m": {"type": "memory"}}, "caches": {"default": {"backend": "m"}}}) as world:
        cache = world["default"]
        loop = asyncio.new_event_loop()
        left: list[asyncio.Task[None]] = []

        async def load() -> None:
            await asyncio.Event().wait()

        async def main() -> None:
            left.append(asyncio.create_task(cache.aget_or_set("k", load)))
            while not len(cache._flights):
                await asyncio.sleep(0)
            await asyncio.sleep(0)

        loop.set_exception_handler(lambda *_: None)  # that a task was destroyed while it was pending
        loop.run_until_complete(main())
        loop.close()

        assert cache.get_or_set("k", lambda: "v") == "v"
        assert cache.get_or_set_many(["k", "l"], lambda keys: dict.fromkeys(keys, "w")) == {
            "k": "v",
            "l": "w",
        }
        assert len(cache._flights) == 0
        left.clear()
        gc.collect()


def test_refreshes_go_on_after_as_many_as_there_may_be_were_under_way_at_once() -> None:
    settings = {"backend": "m", "ttl": 0.001, "stale_ttl": 60}
    with Caches({"backends": {"m": {"type": "memory"}}, "caches": {"default": settings}}) as world:
        cache = world["default"]

        async def main() -> None:
            may_end = asyncio.Event()

            async def load() -> str:
                await may_end.wait()
                return "new"

            async def ask(number: int) -> Any:
                return await cache.aget_or_set(f"k{number}", load)

            await cache.aset_many({f"k{number}": "old" for number in range(400)})
            while await cache.aget("k399") is not None:
                await asyncio.sleep(0.001)
            for number in range(300):
                assert await ask(number) == "old"
            at_once = cache.stats().refreshes
            assert at_once < 300  # no more at a time
            may_end.set()
            while len(cache._flights):
                await asyncio.sleep(0)

            assert await ask(350) == "old"

            assert cache.stats().refreshes == at_once + 1
            while len(cache._flights):
                await asyncio.sleep(0)

        asyncio.run(main())
