"""A chain over a server that fails in every way: what callers see meanwhile, what holds afterwards, and who pays."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from face import Face
from waiting import until

from layercache import Cache, Caches
from layercache.testing import Chaos, ValkeyServer


def settings(url: str, timeout: str = "100ms") -> dict[str, Any]:
    return {
        "backends": {
            "near": {"type": "memory"},
            "far": {"type": "redis", "url": url, "timeout": timeout},
            "both": {"type": "chain", "layers": ["near", "far"]},
        },
        "caches": {"default": {"backend": "both", "ttl": 60, "wait": "2s"}},
    }


@pytest.fixture
def chaos(own_server: ValkeyServer) -> Iterator[Chaos]:
    with Chaos(own_server.port) as chaos:
        yield chaos


def leases(server: ValkeyServer) -> int:
    """How many scripts were executed, of which a lease is one."""
    said = server.ask("INFO", "commandstats")
    return sum(int(calls) for calls in re.findall(r"cmdstat_eval(?:sha)?:calls=(\d+)", said))


def is_well(cache: Cache[Any]) -> bool:
    far = cache._layer.space.layers()[-1]
    hears = far.space.gauges().get("log_lag", 9) < 5
    return hears and not far.space.is_out and far.outbox.is_empty


def follow(*caches: Cache[Any]) -> None:
    """Have them hear of each other."""
    for cache in caches:
        cache.set("anything", 1)
    for cache in caches:
        until(lambda cache=cache: is_well(cache))


# -- faults


Fault = Callable[[ValkeyServer, Chaos], AbstractContextManager[Any]]


@contextmanager
def killed(server: ValkeyServer, chaos: Chaos) -> Iterator[None]:
    server.kill()
    yield
    server.start()


@contextmanager
def set_back(server: ValkeyServer, chaos: Chaos) -> Iterator[None]:
    server.ask("SAVE")
    server.kill()
    yield
    server.start()


@contextmanager
def hanging(server: ValkeyServer, chaos: Chaos) -> Iterator[None]:
    server.pause()
    yield
    server.resume()


@contextmanager
def out_of_memory(server: ValkeyServer, chaos: Chaos) -> Iterator[None]:
    server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    server.ask("CONFIG", "SET", "maxmemory", 1)
    yield
    server.ask("CONFIG", "SET", "maxmemory", 0)


@contextmanager
def read_only(server: ValkeyServer, chaos: Chaos) -> Iterator[None]:
    server.ask("REPLICAOF", "127.0.0.1", 1)
    yield
    server.ask("REPLICAOF", "NO", "ONE")


@contextmanager
def asking_for_a_password(server: ValkeyServer, chaos: Chaos) -> Iterator[None]:
    server.ask("CONFIG", "SET", "requirepass", "s3cret")
    server._options["requirepass"] = "s3cret"
    server.ask("CLIENT", "KILL", "TYPE", "normal")
    yield
    server.ask("CONFIG", "SET", "requirepass", "")
    del server._options["requirepass"]


FAULTS: dict[str, Fault] = {
    "killed": killed,
    "set back": set_back,
    "hanging": hanging,
    "out of memory": out_of_memory,
    "read-only": read_only,
    "asking for a password": asking_for_a_password,
    "in a black hole": lambda _, chaos: chaos.freeze(),
    "refusing connections": lambda _, chaos: chaos.down(),
    "flapping": lambda _, chaos: chaos.flap("5ms", "5ms"),
    "cut off in the middle of answers": lambda _, chaos: chaos.cut(2),
    "cut off now and then": lambda _, chaos: chaos.cut(one_in=3, requests=True),
}


@contextmanager
def both_faces_of(url: str, **options: str) -> Iterator[tuple[Cache[Any], list[Face]]]:
    with asyncio.Runner() as runner:
        world = Caches(settings(url, **options))
        cache = world["default"]
        try:
            yield cache, [Face(cache, None), Face(cache, runner)]
        finally:
            runner.run(world.aclose())


@pytest.mark.parametrize("fault", FAULTS)
def test_callers_see_values_and_what_they_changed_holds_afterwards(
    own_server: ValkeyServer, chaos: Chaos, fault: str
) -> None:
    with both_faces_of(chaos.url) as (cache, faces), Caches(settings(own_server.url)) as others:
        other = others["default"]
        follow(cache, other)
        old = dict.fromkeys(["set", "deleted", "tagged"], "old")
        cache.set_many({"known": 1, "set": "old", "deleted": "old"})
        cache.set("tagged", "old", tags=["t"])
        until(lambda: other.get_many(list(old)) == old)

        with FAULTS[fault](own_server, chaos):
            for number, face in enumerate(faces * 2):
                assert face.get("known") in (1, None)
                assert face.get("unknown") is None
                assert face.get_or_set(f"loaded {number}", lambda: 2) == 2
                face.set("set", "new")
                assert face.get("set") in ("new", None)
                face.delete("deleted")
                face.invalidate("t")
                assert face.get_many(["deleted", "tagged"]) == {}

        until(lambda: is_well(cache) and is_well(other), within=10)
        assert cache.get_many(["deleted", "tagged"]) == {}
        assert cache.get("set") in ("new", None)
        until(lambda: other.get_many(["deleted", "tagged"]) == {})  # within max_staleness
        until(lambda: other.get("set") in ("new", None))
        cache.set("known", 3)
        until(lambda: other.get("known") == 3)


@pytest.mark.parametrize("fault", ["in a black hole", "hanging", "refusing connections", "killed"])
def test_only_the_first_call_pays_and_it_is_logged_once(
    own_server: ValkeyServer,
    chaos: Chaos,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # all that reaches the proxy is of those who call
    monkeypatch.setattr("layercache_redis.log.Log._follow", lambda self: None)
    monkeypatch.setattr("layercache_redis.circuit.Circuit._probe_until_answered", lambda self, *args: None)
    loads: list[int] = []

    def load() -> str:
        loads.append(1)
        return "loaded"

    with both_faces_of(chaos.url, timeout="1s") as (cache, faces):  # by when the proxy has seen the request
        for face in faces:
            face.set("known", 1, tags=["t"])
        with FAULTS[fault](own_server, chaos):
            while not cache.stats().layers[1].gauges["circuits_open"]:
                cache.get("unknown")  # a connection may end without the server being missed
            touched = chaos.connections, chaos.requests
            for number, face in enumerate(faces * 10):
                assert face.get("known") == 1
                assert face.get_or_set(f"loaded {number}", load, tags=["t"]) == "loaded"
                face.set(f"set {number}", 1, tags=["t"])
                face.delete(f"set {number}")
                face.invalidate("u")

            assert (chaos.connections, chaos.requests) == touched
        assert len(loads) == 20
        assert cache.stats().layers[1].gauges["circuit_openings"] == 1
        said = [record.message for record in caplog.records if record.name == "layercache.layer"]
        assert [message.split(":")[0] for message in said] == ["layer 'far' failed; serving without it"]


def test_a_stamp_that_is_known_is_no_sign_that_the_server_answers_again(
    own_server: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    with Caches(settings(own_server.url)) as world:
        cache = world["default"]
        follow(cache)
        cache.set("k", 1, tags=["t"])
        far = cache._layer.space.layers()[-1].space
        until(lambda: far.stamps(["t"]) and far._commands.known.get("t") is not None)
        with killed(own_server, None):  # type: ignore[arg-type]
            for _ in range(3):
                cache.get("unknown")
                cache.set("k", 1, tags=["t"])
            said = [record.message for record in caplog.records if record.name == "layercache.layer"]

    assert [message.split(":")[0] for message in said] == ["layer 'far' failed; serving without it"]


class TestLeasesThatAreLost:
    """Nobody waits for a load that is over: what could not be given back is ended by what the server is owed."""

    @pytest.fixture
    def one(self, chaos: Chaos) -> Iterator[Cache[Any]]:
        with Caches(settings(chaos.url)) as world:
            yield world["default"]

    @pytest.fixture
    def other(self, own_server: ValkeyServer, one: Cache[Any]) -> Iterator[Cache[Any]]:
        with Caches(settings(own_server.url)) as world:
            follow(one, world["default"])
            yield world["default"]

    def check(self, chaos: Chaos, one: Cache[Any], other: Cache[Any]) -> None:
        chaos.heal()
        until(lambda: is_well(one))
        assert other.get_or_set("k", lambda: "loaded") in ("loaded", "mine")  # else it waits, in vain

    @pytest.mark.parametrize("fail", [Chaos.freeze, Chaos.down, lambda chaos: chaos.cut(0, requests=True)])
    def test_what_was_loaded_does_not_arrive(
        self, chaos: Chaos, one: Cache[Any], other: Cache[Any], fail: Callable[[Chaos], Any]
    ) -> None:
        def load() -> str:
            fail(chaos)
            return "mine"

        assert one.get_or_set("k", load) == "mine"

        self.check(chaos, one, other)

    @pytest.mark.parametrize("fail", [Chaos.freeze, Chaos.down, lambda chaos: chaos.cut(0, requests=True)])
    def test_a_loader_fails_and_its_lease_is_not_given_back(
        self, chaos: Chaos, one: Cache[Any], other: Cache[Any], fail: Callable[[Chaos], Any]
    ) -> None:
        def load() -> str:
            fail(chaos)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            one.get_or_set("k", load)

        self.check(chaos, one, other)

    def test_the_answer_that_grants_it_is_lost(
        self, own_server: ValkeyServer, chaos: Chaos, one: Cache[Any], other: Cache[Any]
    ) -> None:
        def load() -> str:
            chaos.heal()
            return "mine"

        one.get_or_set("another", lambda: 1)  # the server knows the script now
        granted = leases(own_server)
        chaos.cut(0)
        assert one.refresh("k", load) == "mine"  # which does not read first
        assert leases(own_server) > granted
        assert chaos.cuts >= 1

        self.check(chaos, one, other)

    def test_what_was_loaded_is_refused_here(self, chaos: Chaos, one: Cache[Any], other: Cache[Any]) -> None:
        def load() -> str:
            with chaos.down():
                one.invalidate("t")
            return "mine"

        assert one.get_or_set("k", load, tags=["t"]) == "mine"

        self.check(chaos, one, other)
