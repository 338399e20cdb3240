"""Servers that refuse: what callers are told of each fault, what goes on working, and that it ends by itself."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import redis
from calling import answered, both_faces, one_cache, open_face
from face import Face
from fake_server import Client, Command, FakeServer, honestly
from waiting import until

from layercache import BackendError, BackendTimeout, CircuitOpen, KeyNotFound
from layercache.testing import Chaos, ValkeyServer

SECRETS = ("s3cret", "wr0ng", "0ther")

WRITES: dict[str, tuple[Any, ...]] = {
    "set": ("k", 2),
    "set_many": ({"k": 2, "l": 3},),
    "add": ("new", 1),
    "touch": ("k",),
    "incr": ("n",),
    "delete": ("k",),
    "delete_many": (["k", "l"],),
    "clear": (),
}


@contextmanager
def client_of(server: ValkeyServer, **options: Any) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url, **options) as client:
        yield client


def gauges(face: Face) -> dict[str, Any]:
    return face.cache.stats().layers[0].gauges


def told(call: Callable[[], object]) -> str:
    """What the caller of something that fails is told, in all."""
    with pytest.raises(BackendError) as caught:
        call()
    error: BaseException | None = caught.value
    said = []
    while error is not None:
        said.append(f"{error!r} {error}")
        error = error.__cause__ or error.__context__
    return "\n".join(said)


@both_faces
class TestLogins:
    """Each says why, and none says with what."""

    @pytest.mark.parametrize(
        ("given", "reason"),
        [
            ({}, "NOAUTH"),
            ({"password": "wr0ng"}, "WRONGPASS"),
            ({"username": "nobody", "password": "s3cret-default"}, "WRONGPASS"),
            ({"username": "reader", "password": "s3cret-reader", "prefix": "app"}, None),
            ({"username": "reader", "password": "s3cret-reader", "prefix": "theirs"}, "NOPERM"),
        ],
        ids=["none", "wrong", "unknown user", "a reader writes", "keys of others"],
    )
    def test_a_login_that_is_refused(
        self, caplog: pytest.LogCaptureFixture, kind: str, given: dict[str, Any], reason: str | None
    ) -> None:
        with ValkeyServer(requirepass="s3cret-default") as server:
            server.ask("ACL", "SETUSER", "reader", "on", ">s3cret-reader", "~app:*", "+@read", "+@connection")
            with open_face(kind, server.url, **given) as face:
                if reason is None:
                    assert face.get("k") is None
                    assert face.get_many(["k", "l"]) == {}
                else:
                    assert reason in told(lambda: face.get("k"))
                if reason == "NOAUTH":
                    return  # see test_a_write_without_a_login_is_told_why
                for verb, args in WRITES.items():
                    said = told(lambda verb=verb, args=args: getattr(face, verb)(*args))  # type: ignore[misc]
                    assert (reason or "NOPERM") in said
                    assert not any(secret in said for secret in SECRETS)
        assert not any(secret in caplog.text for secret in SECRETS)

    def test_a_write_without_a_login_is_told_why(self, kind: str) -> None:
        with ValkeyServer(requirepass="s3cret-default") as server, open_face(kind, server.url) as face:
            assert "NOAUTH" in told(lambda: face.set("k", 1))

    def test_a_server_that_comes_back_with_another_password_and_then_with_ours(self, kind: str) -> None:
        with (
            ValkeyServer(requirepass="s3cret") as server,
            open_face(kind, server.url, password="s3cret") as face,
        ):
            face.set("k", 1)
            for password, works in (("0ther", False), ("s3cret", True)):
                server.kill()
                server._options["requirepass"] = password
                server.start()
                if works:
                    until(lambda: answers(face))
                    face.set("k", 2)
                    assert face.get("k") == 2
                else:
                    until(lambda: "WRONGPASS" in told(lambda: face.get("k")))
                    said = told(lambda: face.get("k"))
                    assert "WRONGPASS" in said
                    assert not any(secret in said for secret in SECRETS)


def answers(face: Face) -> bool:
    try:
        face.get("k")
    except BackendError:
        return False
    return True


class TestOutOfMemory:
    """A server that evicts nothing: what needs room is refused, what is there can be read, and dropped."""

    @pytest.fixture
    def full(self, own_server: ValkeyServer) -> Callable[[Face], None]:
        def full(face: Face) -> None:
            face.set_many({"k": 1, "l": 2, "n": 1})
            own_server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
            own_server.ask("CONFIG", "SET", "maxmemory", 1)

        return full

    @both_faces
    @pytest.mark.parametrize("is_stamp_lost", [False, True], ids=["", "its stamp is lost"])
    def test_reads_and_drops_go_on(
        self, own_server: ValkeyServer, full: Callable[[Face], None], kind: str, is_stamp_lost: bool
    ) -> None:
        with open_face(kind, own_server.url) as first:
            full(first)
        if is_stamp_lost:
            own_server.ask("DEL", "layercache:%tag:default:*")
        with open_face(kind, own_server.url) as face:
            for verb in ("set", "set_many", "add"):
                assert "OOM" in told(lambda verb=verb: getattr(face, verb)(*WRITES[verb]))  # type: ignore[misc]
            assert face.get("k") == (None if is_stamp_lost else 1)
            assert face.get_many(["k", "l"]) == ({} if is_stamp_lost else {"k": 1, "l": 2})
            assert face.delete("k") is not is_stamp_lost
            face.clear()
            assert face.get_many(["k", "l", "n"]) == {}
            assert gauges(face)["circuit_openings"] == 0

            own_server.ask("CONFIG", "SET", "maxmemory", 0)
            face.set("k", 3)
            assert face.get("k") == 3

    @both_faces
    def test_what_is_refused_leaves_what_was_there(
        self, own_server: ValkeyServer, full: Callable[[Face], None], kind: str
    ) -> None:
        with open_face(kind, own_server.url) as face:
            full(face)
            for verb in ("set", "set_many", "touch", "incr"):
                with suppress(BackendError):
                    getattr(face, verb)(*WRITES[verb])

            assert face.get_many(["k", "l"]) in ({"k": 1, "l": 2}, {"k": 2, "l": 3})
            assert face.get("n") in (1, 2)

    def test_sets_that_went_together_are_each_told(
        self, own_server: ValkeyServer, full: Callable[[Face], None]
    ) -> None:
        async def main() -> list[Any]:
            world = one_cache(own_server.url)
            cache = world["default"]
            await cache.aset("k", 1)
            own_server.ask("CONFIG", "SET", "maxmemory", 1)
            results = await asyncio.gather(
                *(cache.aset(f"k{number}", number) for number in range(5)), return_exceptions=True
            )
            await world.aclose()
            return results

        results = asyncio.run(main())

        assert all(isinstance(result, BackendError) and "OOM" in str(result) for result in results)
        assert len(set(map(id, results))) == 5


@both_faces
def test_a_replica_is_read_from_and_refuses_writes(own_server: ValkeyServer, kind: str) -> None:
    with open_face(kind, own_server.url) as face:
        face.set_many({"k": 1, "l": 2, "n": 1})
        own_server.ask("REPLICAOF", "127.0.0.1", 1)

        for verb, args in WRITES.items():
            assert "READONLY" in told(lambda verb=verb, args=args: getattr(face, verb)(*args))  # type: ignore[misc]
            assert face.get_many(["k", "l", "n"]) == {"k": 1, "l": 2, "n": 1}
        assert gauges(face)["circuit_openings"] == 0

        own_server.ask("REPLICAOF", "NO", "ONE")
        face.set("k", 2)
        assert face.incr("n") == 2


class TestServersThatServeNobody:
    """They answer, but with an error that is everybody's: the circuit opens, and closes when that is over."""

    @both_faces
    @pytest.mark.parametrize("said", ["LOADING", "MASTERDOWN", "BUSY", "CLUSTERDOWN"])
    def test_as_a_fake_has_it(self, kind: str, said: str) -> None:
        async def misbehave(client: Client, command: Command, answer: bytes) -> None:
            client.say(b"-%b try again later\r\n" % said.encode())

        with FakeServer() as fake, open_face(kind, fake.url) as face:
            face.set("k", 1)
            fake.misbehave = misbehave

            assert said in told(lambda: face.get("k"))
            with pytest.raises(CircuitOpen, match=said):
                face.set("k", 2)
            before = reads(fake)
            for _ in range(20):
                with pytest.raises(CircuitOpen):
                    face.get("k")
            assert reads(fake) == before

            fake.misbehave = honestly
            assert answered(lambda: face.get("k")) == 1

    @both_faces
    def test_a_replica_without_its_primary(self, own_server: ValkeyServer, kind: str) -> None:
        with open_face(kind, own_server.url) as face:
            face.set("k", 1)
            own_server.ask("CONFIG", "SET", "replica-serve-stale-data", "no")
            own_server.ask("REPLICAOF", "127.0.0.1", 1)

            assert "MASTERDOWN" in told(lambda: face.get("k"))
            with pytest.raises(CircuitOpen, match="MASTERDOWN"):
                face.get("k")

            own_server.ask("REPLICAOF", "NO", "ONE")
            assert answered(lambda: face.get("k")) == 1

    @both_faces
    def test_a_server_that_is_busy_with_a_script(self, own_server: ValkeyServer, kind: str) -> None:
        own_server.ask("CONFIG", "SET", "lua-time-limit", 10)  # by the name that Redis 6.2 knows too

        def keep_busy() -> None:
            with client_of(own_server) as client, suppress(redis.ResponseError):
                client.eval("while true do end", 0)

        with open_face(kind, own_server.url, timeout="500ms") as face:
            face.set("k", 1)
            thread = threading.Thread(target=keep_busy)
            thread.start()
            try:
                until(lambda: "BUSY" in refused_ping(own_server))
                assert "BUSY" in told(lambda: face.get("k"))
                with pytest.raises(CircuitOpen, match="BUSY"):
                    face.set("k", 2)
            finally:
                own_server.ask("SCRIPT", "KILL")
                thread.join()

            assert answered(lambda: face.get("k")) == 1


def reads(fake: FakeServer) -> int:
    return sum(command[0].startswith(b"GET") for client in fake.clients for command in client.commands)


def refused_ping(server: ValkeyServer) -> str:
    try:
        return str(server.ask("PING"))
    except RuntimeError as error:
        return str(error)


# -- connections


CALLS: dict[str, Callable[[Face], Any]] = {
    "get": lambda face: face.get("k") == 1,
    "get_many": lambda face: face.get_many(["k", "n"]).keys() == {"k", "n"},
    "set": lambda face: face.set("k", 1) is None,
    "set_many": lambda face: face.set_many({"k": 1}) == [],
    "incr": lambda face: face.incr("n") >= 1,
    "big incr": lambda face: face.incr("n", 10**15) and face.decr("n", 10**15) >= 0,
    "add": lambda face: face.add("k", 1) is False,
    "touch": lambda face: face.touch("k", 50) is True,
    "get_or_set": lambda face: face.get_or_set("k", lambda: 2) == 1,
    "delete": lambda face: face.delete("no") is False,
    "delete_many": lambda face: face.delete_many(["no"]) == 0,
    "has_key": lambda face: face.has_key("k"),
    "ttl_left": lambda face: 0 < face.ttl_left("k") <= 60,
    "clear": lambda face: face.clear() is None,
}


class TestConnectionsThatAreKilled:
    @staticmethod
    def kill(server: ValkeyServer, face: Face) -> None:
        assert server.ask("CLIENT", "KILL", "TYPE", "normal") >= 1
        if face.runner is not None:  # a loop that turns learns of it
            face.runner.run(asyncio.sleep(0.02))

    @both_faces
    def test_between_calls_nobody_notices(self, own_server: ValkeyServer, kind: str) -> None:
        with open_face(kind, own_server.url) as face:
            face.set_many({"k": 1, "n": 0})
            for name, call in CALLS.items():
                self.kill(own_server, face)
                assert call(face), name
            assert gauges(face)["circuit_openings"] == 0

    def test_under_a_loop_that_stood_still_one_call_notices_and_counts_nothing(
        self, own_server: ValkeyServer
    ) -> None:
        with open_face("async", own_server.url) as face:
            face.set("n", 0)
            for expected in range(1, 6):
                own_server.ask("CLIENT", "KILL", "TYPE", "normal")
                with suppress(BackendError):
                    assert face.incr("n") == expected
                    continue
                assert face.incr("n") == expected
            assert gauges(face)["circuit_openings"] == 0

    @both_faces
    @pytest.mark.parametrize("verb", ["incr", "add", "touch", "set", "delete"])
    def test_an_answer_that_is_lost_is_told_and_nothing_is_done_twice(
        self, monkeypatch: pytest.MonkeyPatch, own_server: ValkeyServer, kind: str, verb: str
    ) -> None:
        monkeypatch.setattr(
            "layercache_redis.log.Log._start", lambda self: None
        )  # whose answers come by as well
        with Chaos(own_server.port) as chaos, open_face(kind, chaos.url) as face:
            face.set("n", 1)
            getattr(face, verb)(*WRITES[verb])  # the server knows the script now
            face.set_many({"k": 1, "n": 2})
            face.delete("new")
            executed = executed_scripts(own_server)
            chaos.cut(0, times=1)

            with pytest.raises(BackendError):
                getattr(face, verb)(*WRITES[verb])

            assert chaos.cuts == 1
            assert executed_scripts(own_server) == executed + 1
            assert face.get("n") == (3 if verb == "incr" else 2)
            assert gauges(face)["circuit_openings"] == 0

    @both_faces
    def test_before_it_is_executed_a_call_is_told_and_is_not_made_later(
        self, own_server: ValkeyServer, kind: str
    ) -> None:
        """The server holds writes back; the connection is killed before it goes on."""
        with open_face(kind, own_server.url, timeout="3s") as face:
            face.set("n", 1)
            own_server.ask("CLIENT", "PAUSE", 10_000, "WRITE")
            errors: list[BaseException] = []

            def is_held_back() -> bool:
                clients = own_server.ask("CLIENT", "LIST").splitlines()
                return any(" name=layercache:layercache " in line and " flags=b " in line for line in clients)

            def kill() -> None:
                until(is_held_back)
                own_server.ask("CLIENT", "KILL", "TYPE", "normal")
                own_server.ask("CLIENT", "UNPAUSE")

            killer = threading.Thread(target=kill)
            killer.start()
            try:
                face.incr("n")
            except BackendError as error:
                errors.append(error)
            killer.join()

            assert len(errors) == 1
            assert not isinstance(errors[0], BackendTimeout)
            assert face.get("n") == 1
            assert face.incr("n") == 2


def executed_scripts(server: ValkeyServer) -> int:
    said: str = server.ask("INFO", "commandstats")
    return sum(int(calls) for calls in re.findall(r"cmdstat_eval(?:sha)?:calls=(\d+)", said))


@both_faces
def test_scripts_are_forgotten_before_every_call(own_server: ValkeyServer, kind: str) -> None:
    with open_face(kind, own_server.url) as face:
        face.set_many({"k": 1, "n": 0})
        for name, call in CALLS.items():
            own_server.ask("SCRIPT", "FLUSH")
            assert call(face), name


def test_scripts_are_forgotten_before_sets_that_go_together(own_server: ValkeyServer) -> None:
    async def main() -> dict[str, Any]:
        world = one_cache(own_server.url)
        cache = world["default"]
        await cache.aset("k", 1)
        own_server.ask("SCRIPT", "FLUSH")
        await asyncio.gather(*(cache.aset(f"k{number}", number) for number in range(5)))
        found = await cache.aget_many([f"k{number}" for number in range(5)])
        await world.aclose()
        return found

    assert asyncio.run(main()) == {f"k{number}": number for number in range(5)}


class TestNoRoomForMoreClients:
    @contextmanager
    def no_room(self) -> Iterator[tuple[ValkeyServer, Callable[[], Any]]]:
        with ValkeyServer() as server:
            server.ask("CONFIG", "SET", "maxclients", 1)
            with client_of(server) as client:
                client.ping()
                yield server, lambda: client.config_set("maxclients", 100)

    @both_faces
    def test_callers_are_told_in_time_and_served_when_there_is_room(self, kind: str) -> None:
        with self.no_room() as (server, make_room), open_face(kind, server.url, timeout="500ms") as face:
            for _ in range(5):
                began = time.monotonic()
                with pytest.raises(BackendError):
                    face.get("k")
                assert time.monotonic() - began < 3

            make_room()
            until(lambda: answers(face))
            assert face.get("k") is None

    def test_the_reason_is_told(self) -> None:
        with self.no_room() as (server, _), open_face("sync", server.url) as face:
            assert "max number of clients" in told(lambda: face.get("k"))


class TestRestarts:
    @both_faces
    def test_a_server_that_comes_back_empty(self, own_server: ValkeyServer, kind: str) -> None:
        with open_face(kind, own_server.url) as face:
            face.set_many({"k": 1, "n": 5})
            own_server.kill()
            own_server.start()
            until(lambda: answers(face))

            assert face.get_many(["k", "n"]) == {}
            with pytest.raises(KeyNotFound):
                face.incr("n")
            assert face.touch("k") is False
            assert face.delete("k") is False
            assert face.add("k", 2) is True
            face.set("n", 6)
            assert face.incr("n") == 7
            assert face.get_many(["k", "n"]) == {"k": 2, "n": 7}

    @both_faces
    def test_a_server_that_comes_back_as_it_was_before_a_clear_it_forgot(
        self, own_server: ValkeyServer, kind: str
    ) -> None:
        """What was cleared stays away from who cleared it only until the server's word is all there is."""
        with open_face(kind, own_server.url) as face:
            face.set("k", "old")
            own_server.ask("SAVE")
            face.clear()
            face.set("l", "new")
            own_server.kill()
            own_server.start()
            until(lambda: answers(face))

            assert face.get("l") is None  # the server lost it
            face.set("l", "newer")
            until(lambda: face.get("l") == "newer")
            face.clear()
            assert face.get_many(["k", "l"]) == {}

    @both_faces
    def test_what_is_set_after_that_is_there_at_once(self, own_server: ValkeyServer, kind: str) -> None:
        with open_face(kind, own_server.url) as face:
            face.set("k", 1)
            face.get("k")  # the stamp is known now
            until(lambda: gauges(face).get("log_lag", 9) < 1)
            own_server.ask("SET", "layercache:%tag:default:*", "8 bytes.")

            face.set("k", 2)

            assert face.get("k") == 2
