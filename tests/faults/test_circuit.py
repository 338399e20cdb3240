"""The circuit: who pays for a server that fails (the first), who does not (all after), and how its return shows."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from calling import answered, both_faces, one_cache, open_face
from face import Face
from fake_server import Client, Command, FakeServer, honestly
from waiting import auntil, until, until_collected

from layercache import BackendError, BackendTimeout, Caches, CircuitOpen
from layercache.testing import ValkeyServer
from layercache_redis.aio import _LATE
from layercache_redis.circuit import Circuit
from layercache_redis.outages import Outages

TIMEOUT = 0.25
IN_TIME = 2.0  # a busy machine's word for it; 300 calls that each waited would take 75 s


def probing() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "probe of" in thread.name]


@pytest.fixture(autouse=True)
def _no_thread_is_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())  # worlds that other tests share follow their log meanwhile

    def left() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name.startswith("layercache")} - before

    yield
    until(lambda: not left())


# -- by itself


class Probe:
    """Stands for a server: fails until told otherwise; lets the circuit ask only when a test wants it to."""

    def __init__(self, *, is_held: bool = False) -> None:
        self.works, self.asked, self.waits = False, 0, list[float]()
        self.threads: set[int] = set()
        self._may_ask = threading.Semaphore(0 if is_held else 1_000_000)

    def __call__(self) -> None:
        self.asked += 1
        self.threads.add(threading.get_ident())
        if not self.works:
            raise ConnectionRefusedError("nobody is there")

    def pace(self, circuit: Circuit) -> None:
        """Have `circuit` wait for this test, instead of the seconds that are noted in `waits`."""
        ended = threading.Event()

        class Ended:
            set, is_set = ended.set, ended.is_set

            @staticmethod
            def wait(seconds: float) -> bool:
                self.waits.append(seconds)
                while not self._may_ask.acquire(timeout=0.01):
                    if ended.is_set():
                        return True
                return ended.is_set()

        circuit._ended = Ended()  # type: ignore[assignment]

    def let_ask(self, times: int = 1) -> None:
        self._may_ask.release(times)


@pytest.fixture
def probe() -> Probe:
    return Probe(is_held=True)


@pytest.fixture
def circuit(probe: Probe) -> Iterator[Circuit]:
    circuit = Circuit("far", "10.0.0.7:6379", probe, Outages())
    probe.pace(circuit)
    yield circuit
    circuit.end()


class TestByItself:
    def test_it_is_closed_at_first(self, circuit: Circuit) -> None:
        circuit.check()
        assert not circuit.is_open
        assert probing() == []

    def test_a_connection_that_cannot_be_made_opens_it(self, circuit: Circuit) -> None:
        circuit.failed(1.0, "connection refused")

        assert circuit.is_open
        with pytest.raises(CircuitOpen, match=r"backend 'far': 10\.0\.0\.7:6379 .* connection refused"):
            circuit.check()

    def test_a_slow_answer_does_not_while_what_was_sent_later_is_answered(self, circuit: Circuit) -> None:
        circuit.answered(2.0)
        circuit.failed(1.0, "no answer in time")

        assert not circuit.is_open

    def test_nor_when_something_older_was_answered_after_that(self, circuit: Circuit) -> None:
        circuit.answered(2.0)
        circuit.answered(0.5)
        circuit.failed(1.0, "no answer in time")

        assert not circuit.is_open

    def test_a_slow_answer_does_when_only_what_was_sent_before_was_answered(self, circuit: Circuit) -> None:
        circuit.answered(1.0)
        circuit.failed(2.0, "no answer in time")

        assert circuit.is_open

    def test_three_connections_in_a_row_that_end_without_an_answer_open_it(self, circuit: Circuit) -> None:
        circuit.ended(time.monotonic(), "reset")
        circuit.ended(time.monotonic(), "reset")
        assert not circuit.is_open
        circuit.answered(1.0)
        circuit.ended(time.monotonic(), "reset")
        circuit.ended(time.monotonic(), "reset")
        assert not circuit.is_open
        circuit.ended(time.monotonic(), "reset")

        assert circuit.is_open

    def test_an_answered_probe_closes_it(self, circuit: Circuit, probe: Probe) -> None:
        circuit.failed(1.0, "down")
        probe.let_ask(3)
        until(lambda: probe.asked == 3)
        assert circuit.is_open

        probe.works = True
        probe.let_ask()
        until(lambda: not circuit.is_open)

        circuit.check()
        assert probe.asked == 4
        assert circuit.openings == 1
        until(lambda: not probing())

    def test_once_closed_it_takes_three_ends_again(self, circuit: Circuit, probe: Probe) -> None:
        probe.works = True
        for _ in range(3):
            circuit.ended(time.monotonic(), "reset")
        probe.let_ask()
        until(lambda: not circuit.is_open)

        circuit.ended(time.monotonic(), "reset")
        circuit.ended(time.monotonic(), "reset")

        assert not circuit.is_open

    def test_the_latest_reason_is_told(self, circuit: Circuit, probe: Probe) -> None:
        circuit.failed(1.0, "no answer in time")
        probe.let_ask()

        until(lambda: "nobody is there" in _said(circuit))

    def test_probes_come_at_once_and_then_with_growing_pauses(self, circuit: Circuit, probe: Probe) -> None:
        circuit.failed(1.0, "down")
        probe.let_ask(11)
        until(lambda: len(probe.waits) == 12)

        longest = [min(0.005 * 2**turn, 0.5) for turn in range(12)]
        assert all(0.75 * most <= wait <= most for wait, most in zip(probe.waits, longest, strict=True)), (
            probe.waits
        )

    def test_flapping_is_met_with_patience(
        self, circuit: Circuit, probe: Probe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = [1000.0]
        monkeypatch.setattr("layercache_redis.circuit.monotonic", lambda: clock[0])
        probe.works = True

        def flap() -> None:
            circuit.failed(clock[0], "down again")
            probe.let_ask()
            until(lambda: not circuit.is_open)

        for _ in range(10):
            clock[0] += 0.5
            flap()
        assert probe.waits[-1] > 0.3

        clock[0] += 60
        flap()
        assert probe.waits[-1] <= 0.005
        assert circuit.openings == 11

    def test_many_who_fail_at_once_open_it_once(self, circuit: Circuit, probe: Probe) -> None:
        barrier = threading.Barrier(16)

        def fail() -> None:
            barrier.wait()
            circuit.failed(time.monotonic(), "down")

        threads = [threading.Thread(target=fail) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert circuit.openings == 1
        assert len(probing()) == 1
        probe.let_ask(5)
        until(lambda: probe.asked == 5)
        assert len(probe.threads) == 1
        assert threading.get_ident() not in probe.threads

    def test_its_end_ends_the_probing_and_nothing_opens_it_any_more(
        self, circuit: Circuit, probe: Probe
    ) -> None:
        circuit.failed(1.0, "down")
        circuit.end()
        until(lambda: not probing())
        assert probe.asked == 0

        other = Circuit("far", "elsewhere", probe, Outages())
        other.end()
        other.failed(1.0, "down")
        assert not other.is_open

    def test_where_no_thread_can_be_had_it_stays_closed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Open without a probe it would never close again; and the caller's error is the server's, not this."""
        circuit = Circuit("far", "10.0.0.7:6379", Probe(), Outages())

        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            circuit.failed(1.0, "down")
        assert not circuit.is_open

        circuit.failed(2.0, "down")
        assert circuit.is_open
        circuit.end()

    def test_a_reset_closes_it_as_new(self, probe: Probe) -> None:
        circuit = Circuit("far", "10.0.0.7:6379", probe, Outages())
        probe.pace(circuit)
        circuit.failed(1.0, "down")
        circuit.end()
        until(lambda: not probing())

        circuit.reset()
        probe.pace(circuit)

        circuit.check()
        circuit.failed(1.0, "down")
        assert circuit.is_open
        circuit.end()


def _said(circuit: Circuit) -> str:
    try:
        circuit.check()
    except CircuitOpen as error:
        return str(error)
    return ""


# -- with a server


class Connects:
    """Counts the connections that this process makes, by thread; those of loops are made by the same sockets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: list[int] = []
        connect = socket.socket.connect

        def counted(made: Any, *args: Any) -> Any:
            self.threads.append(threading.get_ident())
            return connect(made, *args)

        class Counted(socket.socket):
            connect = counted

        monkeypatch.setattr(socket, "socket", Counted)

    def of_this_thread(self) -> int:
        return self.threads.count(threading.get_ident())


FAULTS = pytest.mark.parametrize(
    ("fail", "come_back", "error"),
    [
        pytest.param(ValkeyServer.kill, ValkeyServer.start, BackendError, id="killed"),
        pytest.param(ValkeyServer.pause, ValkeyServer.resume, BackendTimeout, id="hangs"),
    ],
)


@both_faces
@FAULTS
class TestAServerThatFails:
    def test_the_first_call_pays_no_other_does_and_its_return_is_noticed(
        self,
        monkeypatch: pytest.MonkeyPatch,
        own_server: ValkeyServer,
        kind: str,
        fail: Callable[[ValkeyServer], Any],
        come_back: Callable[[ValkeyServer], Any],
        error: type[BackendError],
    ) -> None:
        with open_face(kind, own_server.url, timeout=TIMEOUT) as face:
            face.set("k", 1)
            fail(own_server)

            began = time.monotonic()
            with pytest.raises(error) as caught:
                first_error(face)
            assert time.monotonic() - began < IN_TIME
            assert not isinstance(caught.value, CircuitOpen)

            connects = Connects(monkeypatch)
            began = time.monotonic()
            for _ in range(50):
                for call in (
                    lambda: face.get("k"),
                    lambda: face.set("k", 2),
                    lambda: face.get_many(["k", "l"]),
                    lambda: face.incr("k"),
                    lambda: face.delete("k"),
                    lambda: face.clear(),
                ):
                    with pytest.raises(CircuitOpen):
                        call()
            assert time.monotonic() - began < IN_TIME  # of 300 calls
            assert connects.of_this_thread() == 0
            assert gauges(face)["circuits_open"] == 1

            come_back(own_server)
            before = connects.of_this_thread()
            assert answered(lambda: face.get("k")) in (None, 1)
            assert connects.of_this_thread() - before <= 1  # when the probe had been answered
            face.set("k", 3)
            assert face.get("k") == 3
            assert gauges(face)["circuits_open"] == 0
            assert gauges(face)["circuit_openings"] == 1

    def test_all_who_call_at_once_are_told_in_time(
        self,
        own_server: ValkeyServer,
        kind: str,
        fail: Callable[[ValkeyServer], Any],
        come_back: Callable[[ValkeyServer], Any],
        error: type[BackendError],
    ) -> None:
        with one_cache(own_server.url, timeout=TIMEOUT, max_connections=5) as world:
            cache = world["default"]
            outcomes: list[tuple[str, float]] = []

            def noted(began: float, result: object) -> None:
                outcomes.append((type(result).__name__, time.monotonic() - began))

            def call() -> None:
                for _ in range(3):
                    began = time.monotonic()
                    try:
                        noted(began, cache.get("k"))
                    except BackendError as caught:
                        noted(began, caught)

            async def acall() -> None:
                for _ in range(3):
                    began = time.monotonic()
                    try:
                        noted(began, await cache.aget("k"))
                    except BackendError as caught:
                        noted(began, caught)

            async def main() -> None:
                await cache.aset("k", 1)
                fail(own_server)
                await asyncio.gather(*(acall() for _ in range(20)))
                come_back(own_server)
                await world.aclose()

            if kind == "async":
                asyncio.run(main())
            else:
                cache.set("k", 1)
                fail(own_server)
                threads = [threading.Thread(target=call) for _ in range(20)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                come_back(own_server)

        assert len(outcomes) == 60
        assert {name for name, _ in outcomes} <= {"BackendError", "BackendTimeout", "CircuitOpen"}
        assert sum(name == "CircuitOpen" for name, _ in outcomes) >= 20
        assert max(took for _, took in outcomes) < IN_TIME


def first_error(face: Face) -> None:
    """A connection that was kept may end without the server being missed: then the next call misses it."""
    try:
        face.get("k")
    except BackendTimeout:
        raise
    except BackendError:
        if gauges(face)["circuits_open"]:
            raise
        first_error(face)


def gauges(face: Face) -> dict[str, Any]:
    return face.cache.stats().layers[0].gauges


class TestWhatIsNoOutage:
    @both_faces
    def test_one_slow_answer_while_others_are_answered(self, kind: str) -> None:
        async def misbehave(client: Client, command: Command, answer: bytes) -> None:
            if command[1].endswith(b":slow"):
                asked.set()
                await asyncio.Event().wait()
            client.say(answer)

        errors, openings, asked = list[BaseException](), list[int](), threading.Event()
        with FakeServer() as fake, one_cache(fake.url, timeout="2s") as world:
            cache = world["default"]
            cache.set("k", 1)
            fake.misbehave = misbehave
            if kind == "sync":

                def slow() -> None:
                    try:
                        cache.get("slow")
                    except BackendError as error:
                        errors.append(error)

                thread = threading.Thread(target=slow)
                thread.start()
                while thread.is_alive():
                    assert cache.get("k") == 1
                openings.append(gauges(Face(cache, None))["circuit_openings"])
            else:

                async def main() -> None:
                    await cache.aget("k")
                    slow = asyncio.create_task(cache.aget("slow"))
                    await auntil(asked.is_set)
                    # those that come before it is late stand in line behind it: see test_joined_writes
                    await asyncio.sleep(2 * _LATE)
                    while not slow.done():
                        assert await cache.aget("k") == 1
                    errors.append(slow.exception())  # type: ignore[arg-type]
                    openings.append(gauges(Face(cache, None))["circuit_openings"])
                    await world.aclose()

                asyncio.run(main())

            assert [type(error) for error in errors] == [BackendTimeout]
            assert openings == [0]

    @both_faces
    def test_one_slow_answer_alone_is_forgiven_by_the_probe(self, kind: str) -> None:
        """Nobody else asked, so nobody knows; the probe does, milliseconds later."""

        async def misbehave(client: Client, command: Command, answer: bytes) -> None:
            if client.number == 0:
                await asyncio.Event().wait()
            client.say(answer)

        with FakeServer() as fake, open_face(kind, fake.url, timeout="100ms", max_connections=1) as face:
            face.set("k", 1)
            fake.misbehave = misbehave
            with pytest.raises(BackendTimeout):
                face.get("k")
            until(lambda: not gauges(face)["circuits_open"])

    @both_faces
    def test_connections_that_end_now_and_then(self, kind: str) -> None:
        async def misbehave(client: Client, command: Command, answer: bytes) -> None:
            count[0] += 1
            if count[0] % 2:
                client.hang_up()
            else:
                client.say(answer)

        count = [0]
        with FakeServer() as fake, open_face(kind, fake.url) as face:
            for _ in range(10):
                fake.misbehave = misbehave
                with pytest.raises(BackendError):
                    while count[0] < 1000:
                        face.get("k")
                fake.misbehave = honestly
                until(lambda: tries(face))
            assert gauges(face)["circuit_openings"] == 0

    def test_one_connection_that_ends_under_many_callers(self) -> None:
        async def misbehave(client: Client, command: Command, answer: bytes) -> None:
            if client.number == 0:
                client.reset()
            else:
                client.say(answer)

        with FakeServer() as fake, one_cache(fake.url) as world:
            cache = world["default"]

            async def main() -> list[Any]:
                await cache.aset("k", 1)
                fake.misbehave = misbehave
                results = await asyncio.gather(*(cache.aget("k") for _ in range(6)), return_exceptions=True)
                openings = gauges(Face(cache, None))["circuit_openings"]
                found = [await cache.aget("k") for _ in range(3)]
                await world.aclose()
                return [openings, found, *map(type, results)]

            assert asyncio.run(main()) == [0, [1, 1, 1], *[BackendError] * 6]


def tries(face: Face) -> bool:
    try:
        face.get("k")
    except BackendError:
        return False
    return True


@both_faces
def test_three_connections_in_a_row_that_end_without_an_answer_open_it(kind: str) -> None:
    async def misbehave(client: Client, command: Command, answer: bytes) -> None:
        if command[0] == b"PING":
            client.say(answer)
        else:
            client.hang_up()

    with FakeServer(misbehave) as fake, open_face(kind, fake.url) as face:
        for before in range(3):
            assert gauges(face)["circuit_openings"] == 0
            with pytest.raises(BackendError, match="ended the connection"):
                face.get("k")
            assert before + 1 <= len(fake.clients)
        assert gauges(face)["circuit_openings"] == 1

        until(lambda: not gauges(face)["circuits_open"])
        fake.misbehave = honestly
        assert face.get("k") is None


class TestEnd:
    @FAULTS
    def test_close_ends_the_probing(
        self, own_server: ValkeyServer, fail: Callable[[ValkeyServer], Any], come_back: Any, error: Any
    ) -> None:
        with one_cache(own_server.url, timeout=TIMEOUT) as world:
            world["default"].set("k", 1)
            fail(own_server)
            until(
                lambda: not works(world) and probing()
            )  # a kept connection that ended may have been the first to fail

        until(lambda: not probing())

    def test_a_world_that_nobody_has_any_more_is_not_probed_for(
        self, own_server: ValkeyServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(
            logging.CRITICAL, "layercache.layer"
        )  # what is captured holds the error, and that all else
        worlds = [one_cache(own_server.url, timeout=TIMEOUT)]
        own_server.kill()
        until(lambda: not works(worlds[0]))
        assert probing()

        worlds.clear()

        until_collected(lambda: not probing())

    def test_one_that_has_closed_leaves_no_thread(self, own_server: ValkeyServer) -> None:
        with open_face("sync", own_server.url, timeout=TIMEOUT) as face:
            own_server.kill()
            until(lambda: not tries(face))
            own_server.start()
            answered(lambda: face.get("k"))
            until(lambda: not probing())


def works(world: Caches) -> bool:
    return tries(Face(world["default"], None))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_the_child_of_a_fork_has_circuits_of_its_own(own_server: ValkeyServer) -> None:
    """Closed at first, though no thread of its parent's came along that would close it; open when it fails itself."""
    with open_face("sync", own_server.url, timeout=TIMEOUT) as face:
        face.set("k", 1)
        own_server.pause()
        with pytest.raises(BackendTimeout):
            face.get("k")
        with pytest.raises(CircuitOpen):
            face.get("k")

        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 2
                with pytest.raises(BackendTimeout):  # by itself
                    face.get("k")
                code = 3
                with pytest.raises(CircuitOpen):
                    face.get("k")
                code = 4
                os.kill(own_server._process.pid, signal.SIGCONT)
                code = 5 if answered(lambda: face.get("k")) != 1 else 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert answered(lambda: face.get("k")) == 1
