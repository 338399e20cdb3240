"""Connections that callers share: each gets his own answer or none, whoever leaves and whatever ends."""

from __future__ import annotations

import asyncio
import gc
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias

import pytest
import redis
import uvloop
from calling import answered, both_faces, one_cache, open_face
from fake_server import Client, Command, FakeServer, honestly, in_pieces
from waiting import PATIENCE, auntil, until

from layercache import BackendError, BackendTimeout, Cache, CacheClosed, Caches, CircuitOpen
from layercache.testing import Chaos
from layercache_redis import aio, sync
from layercache_redis.driver import forget_unsent
from layercache_redis.options import Place

Loops: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]

KEYS = [f"k{number}" for number in range(6)]


@pytest.fixture(autouse=True)
def _nobody_follows_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """All connections here are those of callers and probes."""
    monkeypatch.setattr("layercache_redis.log.Log._start", lambda self: None)


@pytest.fixture(params=["asyncio", "uvloop"])
def in_a_loop(request: pytest.FixtureRequest) -> Loops:
    """Runs a test in a loop of that kind; what reaches the loop's handler of exceptions fails it."""
    new_loop = asyncio.new_event_loop
    if request.param == "uvloop":
        new_loop = uvloop.new_event_loop

    def in_a_loop(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        unhandled: list[dict[str, Any]] = []

        async def guarded() -> Any:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
            async with asyncio.timeout(30):
                return await main()

        with asyncio.Runner(loop_factory=new_loop) as runner:
            result = runner.run(guarded())
        gc.collect()  # what was left open warns here, and warnings are errors
        assert unhandled == []
        return result

    return in_a_loop


@asynccontextmanager
async def fake_and_cache(**options: Any) -> AsyncIterator[tuple[FakeServer, Cache[Any]]]:
    async with FakeServer() as fake:
        world = one_cache(fake.url, **options)
        try:
            yield fake, world["default"]
        finally:
            await world.aclose()


def in_threads(calls: list[Callable[[], object]]) -> None:
    """Make all `calls` at once."""
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def place_of(fake: FakeServer) -> Place:
    return Place("127.0.0.1", fake.port)


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def moments(seconds: float) -> None:
    """Let the loop turn for some time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(0)


class TestTogether:
    def test_what_is_sent_in_one_turn_is_one_segment_on_one_connection(self, in_a_loop: Loops) -> None:
        async def main() -> None:
            async with fake_and_cache() as (fake, cache):
                await cache.aset_many({key: key.upper() for key in KEYS})
                (client,) = fake.clients
                before = len(client.segments)

                found = await asyncio.gather(*map(cache.aget, KEYS), cache.aget_many(KEYS))

                assert found == [*map(str.upper, KEYS), {key: key.upper() for key in KEYS}]
                assert len(client.segments) == before + 1
                assert len(fake.clients) == 1

        in_a_loop(main)

    def test_calls_that_wait_for_the_first_connection_share_it(self, in_a_loop: Loops) -> None:
        async def main() -> None:
            async with fake_and_cache() as (fake, cache):
                assert await asyncio.gather(*map(cache.aget, KEYS)) == [None] * len(KEYS)
                assert len(fake.clients) == 1
                assert [len(segment) for segment in fake.clients[0].segments] == [1, 3 * len(KEYS)]

        in_a_loop(main)

    def test_what_is_sent_in_other_turns_is_not_held_back(self, in_a_loop: Loops) -> None:
        async def main() -> None:
            async with fake_and_cache() as (fake, cache):
                for key in KEYS:
                    await cache.aget(key)

                assert [len(segment) for segment in fake.clients[0].segments] == [1] + [3] * len(KEYS)

        in_a_loop(main)

    def test_a_real_server_reads_once(self, cache: Cache[Any], server: redis.Redis, in_a_loop: Loops) -> None:
        keys = [f"k{number}" for number in range(200)]

        async def main() -> tuple[int, list[Any]]:
            await cache.aset_many({key: key for key in keys})
            before = server.info("stats")["total_reads_processed"]
            found = await asyncio.gather(*map(cache.aget, keys))
            after: int = server.info("stats")["total_reads_processed"]
            await cache.aclose()
            return after - before, found

        reads, found = in_a_loop(main)

        assert found == keys
        assert reads <= 10  # ours, this test's own, and those of logs that are followed meanwhile

    def test_large_and_small_are_each_answered_their_own(self, cache: Cache[Any], in_a_loop: Loops) -> None:
        values = {f"k{number}": f"{number} " * (1 if number % 3 else 60_000) for number in range(30)}

        async def main() -> Any:
            await asyncio.gather(*(cache.aset(key, value) for key, value in values.items()))
            found = await asyncio.gather(*map(cache.aget, values))
            await cache.aclose()
            return found

        assert in_a_loop(main) == list(values.values())


def test_tasks_that_begin_before_the_stamp_is_known_join_from_their_second_set_on(
    open_cache: Callable[[], Cache[Any]],
    server: redis.Redis,
    in_a_loop: Loops,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("layercache_redis.log.Log.is_current", lambda self: True)
    cache, tasks, sets = open_cache(), 20, 10

    async def sets_of(task: int) -> None:
        for number in range(sets):
            await cache.aset(f"k{task}", number)

    async def main() -> int:
        await cache.aclear()  # so that there is a stamp
        cache._layer.space._commands.known.forget()  # type: ignore[attr-defined]
        before = server.info("commandstats")["cmdstat_evalsha"]["calls"]
        await asyncio.gather(*map(sets_of, range(tasks)))
        after: int = server.info("commandstats")["cmdstat_evalsha"]["calls"]
        found = await cache.aget_many([f"k{task}" for task in range(tasks)])
        assert list(found.values()) == [sets - 1] * tasks
        await cache.aclose()
        return after - before

    # one by one at first, and once more when told the stamp; then two in a turn, and never again 400 in all
    assert in_a_loop(main) <= 2 * tasks + 2 * sets + tasks


class TestSetsOfOneTurn:
    """Where the stamp is known."""

    @pytest.fixture(autouse=True)
    def _the_log_is_believed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("layercache_redis.log.Log.is_current", lambda self: True)

    @asynccontextmanager
    async def known(self, **options: Any) -> AsyncIterator[tuple[FakeServer, Cache[Any]]]:
        async with fake_and_cache(**options) as (fake, cache):
            await cache.aset("known", 1)
            yield fake, cache

    def test_they_are_one_script_in_one_segment_with_what_else_is_sent(self, in_a_loop: Loops) -> None:
        async def main() -> None:
            async with self.known() as (fake, cache):
                before = len(fake.clients[0].segments)

                await asyncio.gather(cache.aget("known"), *(cache.aset(key, key) for key in KEYS))

                (segment,) = fake.clients[0].segments[before:]
                assert [command[0] for command in segment] == [b"GETRANGE", b"PTTL", b"EVALSHA"]
                assert list((await cache.aget_many(KEYS)).values()) == KEYS

        in_a_loop(main)

    def test_one_alone_is_sent_in_its_own_turn(self, in_a_loop: Loops) -> None:
        async def main() -> None:
            async with self.known() as (fake, cache):
                before = len(fake.clients[0].segments)
                for key in KEYS:
                    await cache.aset(key, key)

                assert [len(segment) for segment in fake.clients[0].segments[before:]] == [1] * len(KEYS)

        in_a_loop(main)

    def test_a_script_takes_no_more_than_250(self, in_a_loop: Loops) -> None:
        async def main() -> None:
            async with self.known() as (fake, cache):
                before = len(fake.clients[0].commands)
                await asyncio.gather(*(cache.aset(f"k{number}", number) for number in range(600)))

                sent = fake.clients[0].commands[before:]
                assert [int(command[2]) // 2 - 1 for command in sent] == [250, 250, 100]
                found = await cache.aget_many([f"k{number}" for number in range(600)])
                assert list(found.values()) == list(range(600))

        in_a_loop(main)

    def test_one_that_cannot_be_encoded_fails_nobody_elses(self, in_a_loop: Loops) -> None:
        async def main() -> None:
            async with self.known() as (_, cache):
                values = [1, {2}, 3]
                results = await asyncio.gather(
                    *(cache.aset(f"k{value}", value) for value in values), return_exceptions=True
                )

                assert [type(result).__name__ for result in results] == [
                    "NoneType",
                    "EncodeError",
                    "NoneType",
                ]
                assert await cache.aget_many(["k1", "k3"]) == {"k1": 1, "k3": 3}

        in_a_loop(main)

    def test_who_joins_after_the_connection_has_ended_is_not_forgotten(self, in_a_loop: Loops) -> None:
        """The first of the turn has sent, the loop has not written it yet."""

        async def ends(cache: Cache[Any]) -> None:
            space: Any = cache._layer.space
            space._aio._own.pools.direct._connections[0].close()

        async def main() -> None:
            async with self.known() as (_, cache):
                first, _, second = await asyncio.gather(
                    cache.aset("k0", 0), ends(cache), cache.aset("k1", 1), return_exceptions=True
                )

                assert isinstance(first, BackendError)
                assert second is None
                assert await cache.aget_many(["k0", "k1"]) == {"k1": 1}

        in_a_loop(main)

    def test_where_the_server_ends_the_connection_each_is_told_by_an_error_of_its_own(
        self, in_a_loop: Loops
    ) -> None:
        async def main() -> None:
            async with self.known() as (fake, cache):
                fake.misbehave = end
                results = await asyncio.gather(
                    *(cache.aset(key, key) for key in KEYS), return_exceptions=True
                )

                assert [type(result) for result in results] == [BackendError] * len(KEYS)
                assert len(set(map(id, results))) == len(KEYS)

        in_a_loop(main)

    def test_none_is_sent_where_the_circuit_is_open(self, in_a_loop: Loops) -> None:
        async def main() -> None:
            async with self.known(timeout="100ms") as (fake, cache):
                fake.misbehave = silence
                with pytest.raises(BackendTimeout):
                    await cache.aset("k0", 0)
                before = len(fake.clients[0].commands)

                results = await asyncio.gather(
                    *(cache.aset(key, key) for key in KEYS), return_exceptions=True
                )

                assert [type(result) for result in results] == [CircuitOpen] * len(KEYS)
                assert len(fake.clients[0].commands) == before

        in_a_loop(main)


@pytest.mark.parametrize("is_connected", [True, False], ids=["connected", "connecting"])
@pytest.mark.parametrize("answers_wait", [True, False], ids=["answers late", "answers at once"])
@pytest.mark.parametrize("sets_are_joined", [True, False], ids=["sets in one script", "sets one by one"])
def test_who_leaves_shifts_nobodys_answer(
    in_a_loop: Loops,
    monkeypatch: pytest.MonkeyPatch,
    is_connected: bool,
    answers_wait: bool,
    sets_are_joined: bool,
) -> None:
    """Six callers, each of them cancelled at each of the first turns of the loop; answers come in small pieces."""
    if sets_are_joined:  # as they are where the stamp is known
        monkeypatch.setattr("layercache_redis.log.Log.is_current", lambda self: True)

    async def program(fake: FakeServer, cache: Cache[Any], leaves: int, turn: int) -> None:
        gate = asyncio.Event()

        async def misbehave(client: Client, command: Command, answer: bytes) -> None:
            if answers_wait:
                await gate.wait()
            await in_pieces(client, command, answer)

        fake.misbehave = misbehave
        callers = [
            asyncio.create_task(cache.aset(key, [key, turn]) if number % 2 else cache.aget(key))
            for number, key in enumerate(KEYS)
        ]
        await turns(turn)
        callers[leaves].cancel()
        gate.set()
        results = await asyncio.gather(*callers, return_exceptions=True)

        for number, (key, result) in enumerate(zip(KEYS, results, strict=True)):
            own = None if number % 2 else [key]
            assert result == own or (number == leaves and isinstance(result, asyncio.CancelledError))
        for number, key in enumerate(KEYS):
            kept = await cache.aget(key)
            if number % 2:
                assert kept == [key, turn] or (number == leaves and kept[0] == key)
            else:
                assert kept == [key]

    async def main() -> None:
        async with FakeServer() as fake:
            world = one_cache(fake.url)
            await world["default"].aset_many({key: [key] for key in KEYS})
            for leaves in range(len(KEYS)):
                for turn in range(10):
                    if not is_connected:
                        await world.aclose()
                        world = one_cache(fake.url)
                    await program(fake, world["default"], leaves, turn)
            await world.aclose()

    in_a_loop(main)


class TestOneAnswerThatIsSlow:
    """The fake server withholds the answers on its first connection."""

    @asynccontextmanager
    async def held(self, **options: Any) -> AsyncIterator[tuple[FakeServer, Cache[Any], asyncio.Event]]:
        gate = asyncio.Event()

        async def misbehave(client: Client, command: Command, answer: bytes) -> None:
            if client.number == 0:
                await gate.wait()
            client.say(answer)

        async with fake_and_cache(**options) as (fake, cache):
            await cache.aset_many({key: key for key in KEYS})
            fake.misbehave = misbehave
            yield fake, cache, gate

    def test_others_are_served_on_another_connection(self, in_a_loop: Loops) -> None:
        async def main() -> None:
            async with self.held() as (fake, cache, gate):
                held = [asyncio.create_task(cache.aget("k0"))]
                await moments(0.02)
                held.append(asyncio.create_task(cache.aget("k1")))  # notices that it is late
                while len(fake.clients) < 2:
                    await asyncio.sleep(0)
                await moments(0.02)

                found = [await cache.aget(key) for key in KEYS * 5]
                assert found == KEYS * 5
                assert not held[0].done()

                gate.set()
                assert await asyncio.gather(*held) == ["k0", "k1"]
                assert len(fake.clients) == 2

        in_a_loop(main)

    def test_who_comes_later_is_not_held_up(self, in_a_loop: Loops) -> None:
        async def main() -> None:
            async with self.held() as (_, cache, gate):
                held = asyncio.create_task(cache.aget("k0"))
                await moments(0.05)
                later = asyncio.create_task(cache.aget("k1"))
                done, _ = await asyncio.wait({later}, timeout=5)

                gate.set()
                assert await asyncio.gather(held, later) == ["k0", "k1"]
                assert done

        in_a_loop(main)

    def test_a_connection_that_took_long_to_make_is_not_late_for_that(
        self, in_a_loop: Loops, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("layercache_redis.aio._LATE", 0.1)

        class GreetsSlowly(FakeServer):
            async def obey(self, client: Client, command: Command) -> None:
                if command[0] == b"CLIENT":
                    await asyncio.sleep(0.15)
                await super().obey(client, command)

        async def main() -> None:
            async with GreetsSlowly(one_by_one) as fake:
                world = one_cache(fake.url)
                first = [asyncio.create_task(world["default"].aget(key)) for key in KEYS]
                while not fake.clients or len(fake.clients[0].segments) < 2:
                    await asyncio.sleep(0)

                await world["default"].aget("k0")  # while the first wait for their answers

                assert await asyncio.gather(*first) == [None] * len(KEYS)
                assert len(fake.clients) == 1
                await world.aclose()

        in_a_loop(main)

    def test_no_more_than_max_connections_are_made(self, in_a_loop: Loops) -> None:
        async def main(most: int) -> int:
            async with self.held(max_connections=most) as (fake, cache, gate):

                async def misbehave(client: Client, command: Command, answer: bytes) -> None:
                    await gate.wait()
                    client.say(answer)

                fake.misbehave = misbehave
                held = []
                for key in KEYS * 3:
                    held.append(asyncio.create_task(cache.aget(key)))
                    await moments(0.01)
                gate.set()
                assert await asyncio.gather(*held) == KEYS * 3
                return len(fake.clients)

        assert in_a_loop(lambda: main(1)) == 1
        assert 2 <= in_a_loop(lambda: main(50)) <= 4

    def test_an_answer_that_comes_too_late_goes_to_nobody(self, in_a_loop: Loops) -> None:
        async def main() -> None:
            async with self.held(timeout="200ms", max_connections=1) as (fake, cache, gate):
                with pytest.raises(BackendTimeout):
                    await cache.aget("k0")
                gate.set()

                assert [await served(lambda key=key: cache.aget(key)) for key in KEYS] == KEYS  # type: ignore[misc]
                assert len([client for client in fake.clients if b"PING" not in client.commands[-1]]) == 1

        in_a_loop(main)


async def served(call: Callable[[], Awaitable[Any]], within: float = PATIENCE) -> Any:
    """As `answered`, in a loop."""
    end = time.monotonic() + within
    while True:
        try:
            return await call()
        except BackendError:
            assert time.monotonic() < end, "it never works again"
            await asyncio.sleep(0.001)


# -- answers that are none


async def garbage(client: Client, command: Command, answer: bytes) -> None:
    client.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def another_protocol(client: Client, command: Command, answer: bytes) -> None:
    client.say(b"$99999999999999999999999\r\nx")


async def end(client: Client, command: Command, answer: bytes) -> None:
    client.hang_up()


async def reset(client: Client, command: Command, answer: bytes) -> None:
    client.reset()


async def half_and_end(client: Client, command: Command, answer: bytes) -> None:
    client.say(answer[: len(answer) // 2])
    client.hang_up()


async def half_and_silence(client: Client, command: Command, answer: bytes) -> None:
    client.say(answer[: len(answer) // 2])
    await asyncio.Event().wait()


async def silence(client: Client, command: Command, answer: bytes) -> None:
    await asyncio.Event().wait()


async def one_too_many(client: Client, command: Command, answer: bytes) -> None:
    is_last = command[0] == b"EVALSHA" or b"%tag" in command[-1]  # of what is asked together
    client.say(answer + b"+surplus\r\n" if is_last else answer)


async def one_by_one(client: Client, command: Command, answer: bytes) -> None:
    await asyncio.sleep(0.002)
    client.say(answer)


WRONG = [garbage, another_protocol, end, reset, half_and_end, half_and_silence, silence, one_too_many]


@both_faces
class TestAnswersThatAreNone:
    TIMEOUT = 0.5

    @pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
    def test_once(self, kind: str, wrong: Any) -> None:
        """The call fails in time or is right, and so is every one after it, also of what was asked meanwhile."""
        with FakeServer() as fake, open_face(kind, fake.url, timeout=self.TIMEOUT) as face:
            for verb in ("get", "set", "get_many"):
                fake.misbehave = honestly
                answered(lambda: face.set_many({key: [key] for key in KEYS}))

                async def misbehave(client: Client, command: Command, answer: bytes) -> None:
                    fake.misbehave = honestly
                    await wrong(client, command, answer)

                fake.misbehave = misbehave
                calls = {
                    "get": lambda: face.get("k0") == ["k0"],
                    "set": lambda: face.set("k0", ["k0"]) is None,
                    "get_many": lambda: face.get_many(KEYS) == {key: [key] for key in KEYS},
                }
                began = time.monotonic()
                with suppress(BackendError):
                    assert calls[verb]()
                assert time.monotonic() - began < 4 * self.TIMEOUT

                for key in KEYS:
                    assert answered(lambda key=key: face.get(key)) == [key]  # type: ignore[misc]

    @pytest.mark.parametrize("wrong", WRONG[:-1], ids=lambda wrong: wrong.__name__)
    def test_for_a_while(self, kind: str, wrong: Any) -> None:
        with FakeServer() as fake, open_face(kind, fake.url, timeout=self.TIMEOUT) as face:
            answered(lambda: face.set_many({key: [key] for key in KEYS}))
            fake.misbehave = wrong

            for key in KEYS:
                began = time.monotonic()
                with pytest.raises(BackendError):
                    face.get(key)
                assert time.monotonic() - began < 4 * self.TIMEOUT

            fake.misbehave = honestly
            for key in KEYS:
                assert answered(lambda key=key: face.get(key)) == [key]  # type: ignore[misc]

    def test_what_was_not_sent_yet_is_given_up_with_the_call(
        self, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given_up: list[Any] = []
        for driver in (sync, aio):
            monkeypatch.setattr(driver, "forget_unsent", given_up.append)
        with FakeServer() as fake, open_face(kind, fake.url, timeout=self.TIMEOUT) as face:
            answered(lambda: face.get("k0"))
            fake.misbehave = silence

            with pytest.raises(BackendError):
                face.get("k0")

            # the connection that tasks share goes on for a while: an answer that is late only is for the others
            def ask() -> int:
                with suppress(BackendError):
                    face.get("k0")
                return len(given_up)

            until(ask)

    def test_a_connection_with_a_surplus_answer_is_dropped(self, kind: str) -> None:
        with FakeServer(one_too_many) as fake, open_face(kind, fake.url) as face:
            for _ in range(2):
                with suppress(BackendError):
                    face.get("k0")
            fake.misbehave = honestly
            answered(lambda: face.set("k0", 1))

            used = [client.number for client in fake.clients if client.commands[-1][0] == b"EVALSHA"]
            surplus = [client.number for client in fake.clients if client.commands[-1][0] == b"GET"]
            assert surplus
            assert used > surplus


@pytest.mark.parametrize("surplus", [b"+surplus\r\n", b":1\r\n", b"$-1\r\n"])
def test_what_comes_unasked_between_calls_shifts_no_threads_answer(surplus: bytes) -> None:
    with FakeServer() as fake, open_face("sync", fake.url) as face:
        face.set_many({key: key for key in KEYS})
        kept = face.cache._layer.space._sync.pool(place_of(fake))._idle[0]
        fake.between_commands(lambda: fake.clients[0].say(surplus))
        until(kept.is_stale)

        fake.misbehave = one_by_one
        assert [face.get(key) for key in KEYS] == KEYS
        face.set("k0", "new")
        assert face.get("k0") == "new"


@pytest.mark.parametrize("said", [b":1\r\n", b"HTTP/1.1 400 Bad Request\r\n"], ids=["surplus", "garbage"])
def test_what_comes_unasked_between_calls_ends_a_loops_connection(in_a_loop: Loops, said: bytes) -> None:
    async def main() -> None:
        async with fake_and_cache() as (fake, cache):
            await cache.aset_many({key: key for key in KEYS})
            fake.clients[0].say(said)
            await auntil(lambda: fake.clients[0] not in fake.connected)

            assert [await cache.aget(key) for key in KEYS] == KEYS
            assert len(fake.clients) == 2

    in_a_loop(main)


@both_faces
def test_garbage_ends_one_connection_and_opens_no_circuit(kind: str) -> None:
    async def misbehave(client: Client, command: Command, answer: bytes) -> None:
        await (garbage if client.number == 0 else honestly)(client, command, answer)

    with FakeServer() as fake, open_face(kind, fake.url) as face:
        face.set("k", 1)
        fake.misbehave = misbehave

        with pytest.raises(BackendError, match="Protocol error"):
            face.get("k")
        assert face.cache.stats().layers[0].gauges["circuit_openings"] == 0
        assert face.get("k") == 1


# -- deadlines


class TestDeadlines:
    TIMEOUT = 1.0
    IN_TIME = 1.7  # twice as long, less what a test lets pass first, is a deadline of its own

    def test_the_second_step_of_a_call_ends_at_its_deadline_behind_a_younger_call(self) -> None:
        async def main() -> float:
            async with fake_and_cache(timeout=self.TIMEOUT) as (fake, cache):
                await cache.aset("k", 1)
                gate = asyncio.Event()

                async def misbehave(client: Client, command: Command, answer: bytes) -> None:
                    await gate.wait()
                    fake.misbehave = silence
                    client.say(answer)  # the stamp, so there is a second step

                fake.misbehave = misbehave
                began = time.monotonic()
                older = asyncio.create_task(cache.aset("k", 2))
                await moments(self.TIMEOUT * 0.8)
                younger = asyncio.create_task(cache.aget("k"))
                await turns(3)
                gate.set()
                with pytest.raises(BackendTimeout):
                    await older
                took = time.monotonic() - began
                with pytest.raises(BackendTimeout):
                    await younger
                return took

        assert asyncio.run(main()) < self.IN_TIME

    def test_sending_and_waiting_share_one_deadline(self) -> None:
        with FakeServer() as fake, open_face("sync", fake.url, timeout=self.TIMEOUT) as face:
            face.set("k", 1)
            fake.between_commands(lambda: fake.clients[0].read_nothing_for(self.TIMEOUT * 0.75))
            fake.misbehave = silence

            began = time.monotonic()
            with pytest.raises(BackendTimeout):
                face.set("k", "x" * 16_000_000)  # more than the buffers of a socket hold
            assert time.monotonic() - began < self.IN_TIME


def test_a_thread_waits_no_longer_for_a_connection_than_for_an_answer() -> None:
    """All connections are held by calls that are not answered."""
    with FakeServer(silence) as fake, one_cache(fake.url, timeout="1s", max_connections=2) as world:
        cache, errors, began = world["default"], list[type](), time.monotonic()

        def call() -> None:
            try:
                cache.get("k")
            except BackendError as error:
                errors.append(type(error))

        in_threads([call] * 10)

        assert len(errors) == 10
        assert errors.count(BackendTimeout) >= 2
        assert time.monotonic() - began < 1.9


def test_max_connections_hold_when_connections_end() -> None:
    """Two connections end under their callers while four others wait for one."""

    async def both_at_once(client: Client, command: Command, answer: bytes) -> None:
        while len(fake.clients) < 2:
            await asyncio.sleep(0)
        client.say(answer)

    async def end_the_first_two(client: Client, command: Command, answer: bytes) -> None:
        if client.number < 2:
            while (
                not all_wait.is_set()
            ):  # which one of the two sees, before the other's end lets a caller go on
                if pool._waiting == 4:
                    all_wait.set()
                await asyncio.sleep(0)
            client.hang_up()
        else:
            await one_by_one(client, command, answer)

    def get() -> None:
        with suppress(BackendError):
            cache.get("k")

    with FakeServer(both_at_once) as fake, one_cache(fake.url, max_connections=2) as world:
        cache = world["default"]
        pool, all_wait = cache._layer.space._sync.pool(place_of(fake)), asyncio.Event()
        in_threads([get] * 2)
        assert len(fake.clients) == 2

        fake.misbehave = end_the_first_two
        in_threads([get] * 6)

        assert len(fake.clients) <= 4


# -- connections that end at any time


class Worker:
    """Makes calls and holds each answer against what it can be.

    A value begins with its key; a counter that only this worker raises is never above how often it tried.
    """

    def __init__(self, number: int) -> None:
        self._random, self._counter = random.Random(number), f"count {number}"
        self._tried = self._last = 0
        self.good = self.failed = 0
        self.wrong: list[Any] = []

    def steps(self, number: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Yield verbs with their arguments; send each result back, None for a call that failed."""
        for _ in range(number):
            key = f"k{self._random.randrange(20)}"
            match self._random.randrange(5):
                case 0:
                    yield "set", (key, f"{key} {self._random.random()}" + "x" * self._random.randrange(3000))
                case 1:
                    found = yield "get_many", ([key, "k0", "k1"],)
                    self._check(
                        found is None or all(value.startswith(f"{k} ") for k, value in found.items()), found
                    )
                case 2:
                    self._tried += 1
                    count = yield "incr", (self._counter,)
                    self._check(
                        count is None or self._last < count <= self._tried, (self._last, count, self._tried)
                    )
                    self._last = count or self._last
                case _:
                    value = yield "get", (key,)
                    self._check(value is None or value.startswith(f"{key} "), value)

    def _check(self, is_right: bool, what: Any) -> None:
        if not is_right:
            self.wrong.append(what)

    def work(self, cache: Cache[Any], number: int) -> None:
        result, steps = None, self.steps(number)
        with suppress(StopIteration):
            while True:
                verb, args = steps.send(result)
                result = self._outcome(lambda: getattr(cache, verb)(*args))  # noqa: B023

    async def awork(self, cache: Cache[Any], number: int) -> None:
        result, steps = None, self.steps(number)
        with suppress(StopIteration):
            while True:
                verb, args = steps.send(result)
                try:
                    result = await getattr(cache, f"a{verb}")(*args)
                    self.good += 1
                except BackendError:
                    result = None
                    self.failed += 1
                    await asyncio.sleep(0.002)

    def _outcome(self, call: Callable[[], Any]) -> Any:
        try:
            result = call()
        except BackendError:
            self.failed += 1
            time.sleep(0.002)
            return None
        self.good += 1
        return result


class TestConnectionsThatAreCutAtRandom:
    """Each value that is read is the key's own, and no counter counts twice."""

    @pytest.fixture
    def proxied(self, server: redis.Redis, prefix: str) -> Iterator[Callable[..., Caches]]:
        port = server.connection_pool.connection_kwargs["port"]
        with Chaos(port) as self.chaos:
            self.chaos.cut(one_in=30, requests=True)

            def world(workers: int) -> Caches:
                with one_cache(f"redis://127.0.0.1:{port}/0", prefix=prefix) as direct:
                    direct["default"].set_many({f"count {number}": 0 for number in range(workers)})
                return one_cache(self.chaos.url, prefix=prefix)

            yield world

    def check(self, workers: list[Worker]) -> None:
        assert [worker.wrong for worker in workers] == [[] for _ in workers]
        good, failed = sum(worker.good for worker in workers), sum(worker.failed for worker in workers)
        assert self.chaos.cuts >= 5
        assert failed
        assert good >= 50

    def test_under_threads(self, proxied: Callable[..., Caches]) -> None:
        workers = [Worker(number) for number in range(8)]
        with proxied(len(workers)) as world:
            in_threads([lambda worker=worker: worker.work(world["default"], 150) for worker in workers])  # type: ignore[misc]
        self.check(workers)

    def test_under_tasks(self, proxied: Callable[..., Caches], in_a_loop: Loops) -> None:
        workers = [Worker(number) for number in range(8)]

        async def main() -> None:
            world = proxied(len(workers))
            await asyncio.gather(*(worker.awork(world["default"], 150) for worker in workers))
            await world.aclose()

        in_a_loop(main)
        self.check(workers)

    def test_under_several_loops_and_threads_of_one_cache(self, proxied: Callable[..., Caches]) -> None:
        workers = [Worker(number) for number in range(8)]
        with proxied(len(workers)) as world:
            cache = world["default"]
            calls = [lambda worker=worker: worker.work(cache, 80) for worker in workers[:4]]
            calls += [lambda worker=worker: asyncio.run(worker.awork(cache, 80)) for worker in workers[4:]]
            in_threads(calls)
        self.check(workers)


# -- loops that come and go


class TestEnds:
    def test_two_loops_of_one_thread_take_turns(self, cache: Cache[Any]) -> None:
        async def once(number: int) -> Any:
            await cache.aset("k", number)
            return await cache.aget("k")

        with asyncio.Runner() as one, asyncio.Runner() as other:
            found = [runner.run(once(number)) for number, runner in enumerate([one, other] * 3)]

        assert found == list(range(6))

    def test_loops_that_ended_are_forgotten(self, cache: Cache[Any]) -> None:
        for _ in range(5):
            asyncio.run(cache.aget("k"))
        gc.collect()

        assert len(cache._layer.space._aio._loops) == 0

    def test_a_call_that_is_under_way_when_its_cache_is_closed_ends_and_leaves_nothing(
        self, in_a_loop: Loops
    ) -> None:
        with FakeServer() as fake:

            async def main() -> None:
                world = one_cache(fake.url)
                await world["default"].aset("k", 1)
                asked = threading.Event()

                async def never(client: Client, command: Command, answer: bytes) -> None:
                    asked.set()
                    await silence(client, command, answer)

                fake.misbehave = never
                calls = [asyncio.create_task(world["default"].aget("k")) for _ in range(3)]
                await auntil(asked.is_set)
                fake.misbehave = honestly

                await world.aclose()

                assert all(
                    isinstance(each, BackendError)
                    for each in await asyncio.gather(*calls, return_exceptions=True)
                )

            in_a_loop(main)
            until(lambda: not fake.connected)

    @pytest.mark.parametrize("is_connected", [True, False], ids=["connected", "connecting"])
    def test_a_cache_that_is_closed_at_any_turn_leaves_nothing(
        self, in_a_loop: Loops, is_connected: bool
    ) -> None:
        """While sets of two steps, and reads, are on their way."""
        with FakeServer() as fake:

            async def program(turn: int) -> None:
                world = one_cache(fake.url)
                cache = world["default"]
                if is_connected:
                    await cache.aget("k")
                calls = [asyncio.create_task(cache.aset(key, turn)) for key in KEYS[:2]]
                calls += [asyncio.create_task(cache.aget(key)) for key in KEYS[:2]]
                for _ in range(turn):
                    await asyncio.sleep(0.0002 if turn % 2 else 0)
                await world.aclose()
                for result in await asyncio.gather(*calls, return_exceptions=True):
                    assert not isinstance(result, BaseException) or isinstance(
                        result, BackendError | CacheClosed
                    ), result

            async def main() -> None:
                for turn in range(24):
                    await program(turn)

            in_a_loop(main)
            until(lambda: not fake.connected)

    @pytest.mark.parametrize("said", [b"+OK\r\n", b"-ERR max number of clients reached\r\n"])
    def test_a_connection_that_ends_after_the_greeting_fails_at_once(
        self, in_a_loop: Loops, said: bytes
    ) -> None:
        class Ends(FakeServer):
            async def obey(self, client: Client, command: Command) -> None:
                client.say(said)
                client.hang_up()

        async def main() -> None:
            async with Ends() as server:
                world = one_cache(server.url)
                calls = [asyncio.create_task(world["default"].aget("k")) for _ in range(3)]
                _, pending = await asyncio.wait(calls, timeout=5)
                await world.aclose()
                results = await asyncio.gather(*calls, return_exceptions=True)

                assert not pending
                assert all(isinstance(result, BackendError) for result in results), results

        in_a_loop(main)


def test_what_a_socket_has_not_sent_it_does_not_send_after_it_was_told_to_forget_it() -> None:
    """Else the system goes on sending it, and the server does it long after others have changed the key."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        client.sendall(b"x" * (1 << 19))

        forget_unsent(client)
        client.close()

        came = 0
        with server, pytest.raises(ConnectionResetError):
            while True:
                came += len(server.recv(1 << 16))
        assert came < 1 << 19
