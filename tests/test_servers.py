"""The servers of `layercache.testing` are what they say: real processes, asked here through a driver."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.sentinel import Sentinel

from layercache.testing import ValkeyCluster, ValkeySentinels, ValkeyServer, topologies
from layercache.testing.server import ServerRefused, server_binary

PASSWORD = "s3cret"


@pytest.fixture
def named_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A server program of another name, on PATH."""
    program = tmp_path / "other-server"
    program.write_text(f'#!/bin/sh\nexec "{server_binary()}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return program


class TestServer:
    def test_the_variable_names_the_program_by_path_or_by_its_name_on_path(
        self, named_program: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in (str(named_program), named_program.name):
            monkeypatch.setenv("LAYERCACHE_TEST_SERVER", name)

            with ValkeyServer() as server:
                assert server.binary == named_program
                assert server.answers()

    def test_the_argument_goes_before_the_variable(
        self, named_program: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LAYERCACHE_TEST_SERVER", "no-such-server")

        with ValkeyServer(named_program.name) as server:
            assert server.binary == named_program

    def test_a_program_that_is_not_there_is_said_to_be_absent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LAYERCACHE_TEST_SERVER", "no-such-server")

        for topology in (ValkeyServer, lambda: ValkeySentinels().start(), lambda: ValkeyCluster().start()):
            with pytest.raises(FileNotFoundError, match="no-such-server"):
                topology()

    def test_a_directive_that_the_program_does_not_know_is_an_error_with_its_log(self) -> None:
        server = ValkeyServer(no_such_directive=1)

        with pytest.raises(RuntimeError, match="no-such-directive"):
            server.start()
        assert not server.folder.exists()

    @pytest.mark.parametrize("unix_socket", [False, True], ids=["tcp", "unix"])
    def test_it_can_be_asked_without_a_driver(self, unix_socket: bool) -> None:
        with ValkeyServer(unix_socket=unix_socket, requirepass=PASSWORD) as server:
            assert server.ask("SET", "k", "삼성\r\n") == "OK"
            assert server.ask("GET", "k") == "삼성\r\n"
            assert server.ask("GET", "l") is None
            assert server.ask("EVAL", "return {1, {'a', false}, ''}", 0) == [1, ["a", None], ""]
            with pytest.raises(ServerRefused, match="WRONGTYPE"):
                server.ask("LPUSH", "k", 1)

    def test_bytes_that_are_no_text_come_and_go_as_they_are(self) -> None:
        with ValkeyServer() as server, redis.Redis.from_url(server.url) as client:
            client.set("k", b"\xff\x00")

            server.ask("SET", "l", server.ask("GET", "k"))

            assert client.get("l") == b"\xff\x00"

    def test_a_paused_one_is_silent_and_ends_like_any_other(self) -> None:
        server = ValkeyServer().start()
        server.pause()

        with pytest.raises(TimeoutError):
            server.ask("PING", within=0.05)
        server.stop()

        assert not server.answers()
        assert not server.folder.exists()


def seen_by(sentinels: ValkeySentinels) -> tuple[set[int], set[int]]:
    """The ports of the primaries and of the replicas in the eyes of the three sentinels, as the driver sees them."""
    primaries, replicas = set[int](), set[int]()
    for sentinel in sentinels.sentinels:
        watched = Sentinel([("127.0.0.1", sentinel.port)], min_other_sentinels=2)
        primaries.add(watched.discover_master("layercache")[1])
        replicas.update(port for _, port in watched.discover_slaves("layercache"))
        watched.sentinels[0].close()
    return primaries, replicas


def client_of(server: ValkeyServer, password: str | None = PASSWORD) -> redis.Redis:
    return redis.Redis(port=server.port, password=password)


@pytest.fixture(scope="module")
def sentinels() -> Iterator[ValkeySentinels]:
    with ValkeySentinels(password=PASSWORD) as sentinels:
        yield sentinels


@pytest.mark.slow
class TestSentinels:
    def test_all_agree_on_who_is_who(self, sentinels: ValkeySentinels) -> None:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels.sentinels)

        assert sentinels.url == f"redis+sentinel://{hosts}/layercache/0"
        assert seen_by(sentinels) == ({sentinels.primary.port}, {sentinels.replica.port})

    def test_a_failover_changes_the_primary_and_keeps_what_it_held(self, sentinels: ValkeySentinels) -> None:
        former, other = sentinels.primary, sentinels.replica
        with client_of(former) as before, client_of(other) as after:
            before.set("k", "held")
            assert before.wait(1, 5000) == 1

            sentinels.failover()

            assert (sentinels.primary, sentinels.replica) == (other, former)
            assert seen_by(sentinels) == ({other.port}, {former.port})
            assert after.get("k") == b"held"
            after.set("k", "taken")
            with pytest.raises(redis.ReadOnlyError):
                before.set("k", "refused")

    def test_a_primary_that_is_killed_is_replaced_and_comes_back_as_a_replica(
        self, sentinels: ValkeySentinels
    ) -> None:
        former, other = sentinels.primary, sentinels.replica

        former.kill()
        sentinels.settle()

        assert sentinels.primary is other
        with client_of(other) as client:
            client.set("k", "taken")

        former.start()
        sentinels.settle()

        assert sentinels.primary is other
        assert seen_by(sentinels) == ({other.port}, {former.port})

    def test_no_password_is_needed_unless_one_is_named_and_nothing_is_left(self) -> None:
        with ValkeySentinels() as sentinels:
            servers = [sentinels.primary, sentinels.replica, *sentinels.sentinels]
            with client_of(sentinels.primary, password=None) as client:
                client.set("k", 1)
            sentinels.sentinels[0].pause()

        assert not [server for server in servers if server.answers() or server.folder.exists()]


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyCluster]:
    with ValkeyCluster(password=PASSWORD) as cluster:
        yield cluster


@pytest.fixture
def driver(cluster: ValkeyCluster) -> Iterator[redis.RedisCluster]:
    with redis.RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port, password=PASSWORD) as driver:
        yield driver


@pytest.mark.slow
class TestCluster:
    def test_three_primaries_share_all_slots_evenly(
        self, cluster: ValkeyCluster, driver: redis.RedisCluster
    ) -> None:
        owners = [cluster.owner(slot) for slot in range(0, 16384, 128)]
        for number in range(100):
            driver.set(f"k{number}", number)

        assert cluster.url == "redis+cluster://" + ",".join(
            f"127.0.0.1:{node.port}" for node in cluster.nodes
        )
        assert {node.port for node in driver.get_primaries()} == {node.port for node in cluster.nodes}
        assert all(42 <= owners.count(node) <= 43 for node in cluster.nodes)
        assert [driver.get(f"k{number}") for number in range(100)] == [b"%d" % n for n in range(100)]

    def test_a_slot_that_moves_answers_ask_and_then_moved(
        self, cluster: ValkeyCluster, driver: redis.RedisCluster
    ) -> None:
        slot = cluster.slot_of("{moving}")
        source = cluster.owner(slot)
        target, bystander = (node for node in cluster.nodes if node is not source)
        keys = [f"{{moving}}{number}" for number in range(250)]
        for key in keys:
            driver.set(key, "held", px=60_000)

        cluster.begin_move(slot, source, target)

        with client_of(source) as behind, client_of(bystander) as aside:
            with pytest.raises(redis.exceptions.AskError, match=f"{slot} 127.0.0.1:{target.port}"):
                behind.get(keys[0])
            with pytest.raises(redis.exceptions.MovedError, match=f"{slot} 127.0.0.1:{source.port}"):
                aside.get(keys[0])
            assert [driver.get(key) for key in keys] == [b"held"] * 250

            cluster.end_move()

            for former in (behind, aside):
                with pytest.raises(redis.exceptions.MovedError, match=f"{slot} 127.0.0.1:{target.port}"):
                    former.get(keys[0])
        assert cluster.owner(slot) is target
        assert [driver.get(key) for key in keys] == [b"held"] * 250
        assert 0 < driver.pttl(keys[0]) <= 60_000

    def test_one_move_at_a_time_from_the_owner_to_another(self, cluster: ValkeyCluster) -> None:
        source, target, _ = cluster.nodes
        with pytest.raises(ValueError, match="slot 7"):
            cluster.begin_move(7, target, source)
        with pytest.raises(ValueError, match="slot 7"):
            cluster.begin_move(7, source, source)
        with pytest.raises(RuntimeError, match="begin_move"):
            cluster.end_move()
        cluster.begin_move(7, source, target)
        with pytest.raises(RuntimeError, match="slot 7"):
            cluster.begin_move(8, source, target)

        cluster.end_move()

        assert cluster.owner(7) is target

    def test_a_cluster_that_does_not_come_about_says_what_is_missing_and_leaves_nothing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(topologies, "_SETTLE_SECONDS", 0.1)
        cluster = ValkeyCluster()

        with pytest.raises(RuntimeError, match=r"cluster_state:ok.*\n--- redis://127"):
            cluster.start()

        assert len(cluster.nodes) == 3
        assert not [node for node in cluster.nodes if node.answers() or node.folder.exists()]
