"""The proxy that fails on demand, between sockets of the test's own and a real server."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from waiting import until

from layercache.testing import Chaos, ValkeyServer

PING, PONG = b"PING\r\n", b"+PONG\r\n"


@pytest.fixture(scope="module")
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def port(valkey: ValkeyServer) -> int:
    valkey.ask("FLUSHALL")
    return valkey.port


@pytest.fixture
def chaos(port: int) -> Iterator[Chaos]:
    with Chaos(port) as chaos:
        yield chaos


def connect(chaos: Chaos) -> socket.socket:
    return socket.create_connection(("127.0.0.1", chaos.port), 5)


def ask(connection: socket.socket, request: bytes = PING) -> bytes:
    connection.sendall(request)
    return connection.recv(100)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_everything_is_passed_on(chaos: Chaos) -> None:
    value = os.urandom(3_000_000)
    with redis.Redis.from_url(chaos.url) as one, redis.Redis.from_url(chaos.url) as other:
        one.set("k", value)

        assert other.get("k") == value
        assert chaos.connections == 2
        assert chaos.requests > 2
        assert chaos.cuts == 0


def test_a_server_that_ends_a_connection_ends_it_for_the_client(chaos: Chaos) -> None:
    with connect(chaos) as one:
        assert ask(one, b"QUIT\r\n") == b"+OK\r\n"

        assert one.recv(1) == b""


def test_a_server_that_is_down_is_a_connection_that_is_reset() -> None:
    with ValkeyServer() as server, Chaos(server.port) as chaos:
        server.kill()

        # perhaps before we know that we are connected
        with pytest.raises(ConnectionResetError), connect(chaos) as one:
            one.recv(1)


class TestDown:
    def test_all_connections_are_reset_and_new_ones_refused_until_it_ends(self, chaos: Chaos) -> None:
        with connect(chaos) as one:
            assert ask(one) == PONG
            with chaos.down():
                with pytest.raises(ConnectionResetError):
                    one.recv(1)
                with pytest.raises(ConnectionRefusedError):
                    connect(chaos)

        with connect(chaos) as other:
            assert ask(other) == PONG

    def test_a_connection_that_nobody_has_taken_yet_is_reset_as_well(self, chaos: Chaos) -> None:
        for _ in range(50):
            with connect(chaos) as one, chaos.down(), pytest.raises(ConnectionResetError):
                one.recv(1)

    def test_nobody_else_is_given_the_port(self, chaos: Chaos) -> None:
        with chaos.down(), socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", chaos.port))


class TestFreeze:
    def test_what_is_sent_meanwhile_never_arrives_and_its_connection_stays_silent(
        self, chaos: Chaos, valkey: ValkeyServer
    ) -> None:
        with connect(chaos) as one, connect(chaos) as idle:
            assert ask(one) == ask(idle) == PONG
            with chaos.freeze(), connect(chaos) as late:
                one.sendall(b"SET k 1\r\n")
                late.sendall(b"SET k 2\r\n")
                until(lambda: chaos.requests == 4)

            assert ask(idle, b"GET k\r\n") == b"$-1\r\n"
            one.sendall(b"SET k 3\r\n")
            until(lambda: chaos.requests == 6)
            assert ask(idle, b"GET k\r\n") == b"$-1\r\n"
            one.setblocking(False)
            with pytest.raises(BlockingIOError):
                one.recv(1)

    def test_what_connects_meanwhile_never_reaches_the_server(self, chaos: Chaos) -> None:
        with connect(chaos) as one:
            assert ask(one) == PONG
            with chaos.freeze():
                late = connect(chaos)
                until(lambda: chaos.connections == 2)
            late.sendall(b"SET k 1\r\n")
            until(lambda: chaos.requests == 2)

            assert ask(one, b"GET k\r\n") == b"$-1\r\n"
            late.close()

    def test_nobody_learns_that_the_other_end_is_gone(self, port: int) -> None:
        with ValkeyServer() as server, Chaos(server.port) as chaos, connect(chaos) as one:
            assert ask(one) == PONG
            chaos.freeze()
            server.kill()
            one.sendall(PING)
            until(lambda: chaos.requests == 2)

            one.setblocking(False)
            with pytest.raises(BlockingIOError):
                one.recv(1)

    def test_what_is_on_its_way_is_lost_too(self, chaos: Chaos) -> None:
        with connect(chaos) as one, connect(chaos) as other:
            assert ask(one) == PONG
            chaos.delay("20ms")
            one.sendall(b"SET k 1\r\n")
            until(lambda: chaos.requests == 2)
            with chaos.freeze():
                time.sleep(0.3)  # longer than it takes to arrive
                chaos.delay(0)

            assert ask(other, b"GET k\r\n") == b"$-1\r\n"


class TestDelay:
    def test_each_way_takes_as_long(self, chaos: Chaos) -> None:
        with connect(chaos) as one:
            assert ask(one) == PONG
            with chaos.delay("20ms"):
                began = time.monotonic()
                assert ask(one) == PONG

            assert time.monotonic() - began >= 0.04

    def test_order_is_kept(self, chaos: Chaos) -> None:
        with connect(chaos) as one:
            with chaos.delay("20ms"):
                one.sendall(b"SET k 1\r\n")
                until(lambda: chaos.requests == 1)
            one.sendall(b"GET k\r\n")

            until(lambda: chaos.requests == 2)
            with one.makefile("rb") as answers:
                assert [answers.readline() for _ in range(3)] == [b"+OK\r\n", b"$1\r\n", b"1\r\n"]

    def test_of_several_connections_any_may_be_first_and_on_each_the_order_is_kept(
        self, chaos: Chaos, valkey: ValkeyServer
    ) -> None:
        with ExitStack() as opened, chaos.delay(0, jitter="10ms"):
            connections = [opened.enter_context(connect(chaos)) for _ in range(10)]
            for number in range(20):
                connections[number % 10].sendall(b"RPUSH order %d\r\n" % number)
            until(lambda: valkey.ask("LLEN", "order") == 20)

            order = [int(number) for number in valkey.ask("LRANGE", "order", 0, -1)]
            assert order != sorted(order)
            assert all(order.index(number) < order.index(number + 10) for number in range(10))

    def test_what_a_client_that_closes_had_on_its_way_arrives(
        self, chaos: Chaos, valkey: ValkeyServer
    ) -> None:
        chaos.delay("20ms")
        with connect(chaos) as one:
            one.sendall(b"SET k 1\r\n")

        until(lambda: valkey.ask("GET", "k") == "1")

    def test_what_a_client_that_resets_had_on_its_way_does_not(self, chaos: Chaos) -> None:
        with connect(chaos) as other:
            chaos.delay("50ms")
            one = connect(chaos)
            one.sendall(b"SET k 1\r\n")
            until(lambda: chaos.requests == 1)
            reset(one)

            assert ask(other, b"GET k\r\n") == b"$-1\r\n"  # it would have arrived before this was asked
            assert ask(other, b"GET k\r\n") == b"$-1\r\n"


class TestDrip:
    def test_so_much_each_way(self, chaos: Chaos) -> None:
        with connect(chaos) as one:
            with chaos.drip(1000):
                began = time.monotonic()
                assert ask(one, b"ECHO %b\r\n" % (b"x" * 45)) in b"$45\r\n" + b"x" * 45
                rest = b""
                while not rest.endswith(b"\r\n"):
                    rest += one.recv(100)

            assert time.monotonic() - began >= 0.08  # 50 bytes there, as many back but for the last drop

    def test_the_rest_comes_at_once_when_it_ends(self, chaos: Chaos) -> None:
        with redis.Redis.from_url(chaos.url) as one:
            one.set("k", b"x" * 100_000)
            with chaos.drip(100_000), connect(chaos) as other:
                other.sendall(b"GET k\r\n")
                assert other.recv(100)
                chaos.heal()
                received = 0
                while received < 99_000:
                    received += len(other.recv(100_000))

    def test_nothing_at_all_is_another_verb(self, chaos: Chaos) -> None:
        with pytest.raises(ValueError, match="`freeze`"):
            chaos.drip(0)


class TestCut:
    def test_in_the_middle_of_an_answer_to_what_was_done(self, chaos: Chaos) -> None:
        with connect(chaos) as one, connect(chaos) as other:
            assert ask(one) == PONG
            chaos.cut(3, times=1)

            assert ask(one, b"SET k 12345\r\n") == b"+OK"
            with pytest.raises(ConnectionResetError):
                one.recv(1)

            assert chaos.cuts == 1
            assert ask(other, b"GET k\r\n") == b"$5\r\n12345\r\n"

    def test_before_it(self, chaos: Chaos) -> None:
        with connect(chaos) as one, chaos.cut(0), pytest.raises(ConnectionResetError):
            ask(one)

    def test_a_request_that_is_cut_is_not_made(self, chaos: Chaos) -> None:
        with connect(chaos) as one, connect(chaos) as other:
            with chaos.cut(7, requests=True), pytest.raises(ConnectionResetError):
                ask(one, b"SET k 12345\r\n")

            assert ask(other, b"GET k\r\n") == b"$-1\r\n"

    def test_one_in_so_many_and_the_same_with_the_same_seed(self, port: int) -> None:
        def answers(seed: int) -> list[bytes]:
            with Chaos(port, seed=seed) as chaos:
                chaos.cut(one_in=4)
                found = []
                for _ in range(40):
                    with connect(chaos) as one:
                        try:
                            found.append(ask(one))
                        except ConnectionResetError:
                            found.append(b"")
                assert chaos.cuts == len([answer for answer in found if answer != PONG])
            return found

        found = answers(1)

        assert 3 <= len([answer for answer in found if answer != PONG]) <= 20
        assert len({len(answer) for answer in found}) > 3
        assert answers(1) == found
        assert answers(2) != found


def test_flapping_is_up_and_down_by_turns(chaos: Chaos) -> None:
    def connects() -> bool:
        try:
            with connect(chaos) as one:
                return ask(one) == PONG
        except OSError:
            return False

    with chaos.flap(up="5ms", down="5ms"):
        for _ in range(3):
            until(connects)
            until(lambda: not connects())

    assert connects()
    with chaos.flap("1h"), chaos.down():
        assert not connects()
    assert connects()


def test_healing_ends_all_of_it(chaos: Chaos) -> None:
    for begin in (
        chaos.down,
        chaos.freeze,
        chaos.cut,
        chaos.flap,
        lambda: chaos.delay(3600),
        lambda: chaos.drip(1),
    ):
        begin()
    chaos.heal()

    with connect(chaos) as one:
        assert ask(one) == PONG


def test_a_fault_that_has_been_healed_may_end_once_more(chaos: Chaos) -> None:
    with chaos.down(), chaos.freeze():
        chaos.heal()
        with connect(chaos) as one:
            assert ask(one) == PONG


def test_verbs_may_be_called_in_a_loop(chaos: Chaos) -> None:
    async def main() -> bytes:
        with chaos.down(), pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", chaos.port)
        reader, writer = await asyncio.open_connection("127.0.0.1", chaos.port)
        writer.write(PING)
        answer = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return answer

    assert asyncio.run(main()) == PONG


def test_closed_it_leaves_no_thread_and_no_socket(port: int) -> None:
    def held() -> tuple[int, int]:
        return threading.active_count(), len(list(Path("/dev/fd").iterdir()))

    before = held()
    for _ in range(5):
        with Chaos(port) as chaos:
            connections = [connect(chaos) for _ in range(5)]
            assert ask(connections[0]) == PONG
            chaos.freeze()
            connections.append(connect(chaos))
            connections[1].close()
            reset(connections[2])
            chaos.flap()
        for connection in connections:
            connection.close()
    chaos.close()

    assert held() == before


def test_a_verb_without_its_block_is_an_error_that_says_so() -> None:
    chaos = Chaos(1)

    with pytest.raises(RuntimeError, match="with Chaos"):
        chaos.down()
    chaos.close()
