"""Every kind of address, on both faces: one server in the plain, over TLS and a socket, sentinels, a cluster."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
import redis
import trustme
from face import Face
from far import Leasing
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from shifting import ServerClock
from tls import tls_proxy
from users import Users
from waiting import until

from layercache import BackendError, Cache, Caches, CircuitOpen
from layercache.config import read_settings
from layercache.entry import MISSING, Entry
from layercache.inline import run
from layercache.spi import Backend
from layercache.testing import BackendContract, Clock, ValkeyCluster, ValkeySentinels, ValkeyServer
from layercache.testing.contract import open_backend
from layercache_redis.options import Place, RedisOptions
from layercache_redis.topology import topology_of
from layercache_redis.wire import Command, Refusal

PASSWORD = "s3cret"


@pytest.fixture(scope="module")
def tls_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    authority, file = trustme.CA(), tmp_path_factory.mktemp("tls") / "authority.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(file)
    with ValkeyServer() as server, tls_proxy(context, server.port) as port:
        yield {"url": f"rediss://localhost:{port}/0", "tls_ca_file": str(file)}


@pytest.fixture(scope="module")
def unix_address() -> Iterator[dict[str, Any]]:
    with ValkeyServer(unix_socket=True) as server:
        yield {"url": server.url}


@pytest.fixture(scope="module")
def sentinels() -> Iterator[ValkeySentinels]:
    with ValkeySentinels(password=PASSWORD) as sentinels:
        yield sentinels


@pytest.fixture(scope="module")
def sentinel_address(sentinels: ValkeySentinels) -> dict[str, Any]:
    return {"url": sentinels.url, "password": PASSWORD}


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyCluster]:
    with ValkeyCluster(password=PASSWORD) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def cluster_address(cluster: ValkeyCluster) -> dict[str, Any]:
    return {"url": cluster.url, "password": PASSWORD}


@pytest.fixture(scope="module")
def tcp_address(server_url: str) -> dict[str, Any]:
    return {"url": server_url}


@contextmanager
def world_at(address: dict[str, Any], **options: Any) -> Iterator[Caches]:
    """A world of one cache there, under a prefix that no other has unless one is named."""
    far = {"type": "redis", "timeout": "10s", "prefix": f"t{uuid4().hex[:12]}", **address, **options}
    with Caches({"backends": {"far": far}, "caches": {"default": {"backend": "far", "ttl": 60}}}) as world:
        yield world


@contextmanager
def chain_at(address: dict[str, Any], **options: Any) -> Iterator[Caches]:
    """As `world_at`, with memory before it."""
    backends = {
        "near": {"type": "memory"},
        "far": {"type": "redis", "timeout": "10s", **address, **options},
        "chain": {"type": "chain", "layers": ["near", "far"]},
    }
    with Caches({"backends": backends, "caches": {"default": {"backend": "chain", "ttl": 60}}}) as world:
        yield world


class TestEveryVerb:
    @pytest.fixture(
        params=[
            "tcp",
            "tls",
            "unix",
            pytest.param("sentinel", marks=pytest.mark.slow),
            pytest.param("cluster", marks=pytest.mark.slow),
        ]
    )
    def face(self, request: pytest.FixtureRequest, runner: asyncio.Runner | None) -> Iterator[Face]:
        with world_at(request.getfixturevalue(f"{request.param}_address")) as world:
            yield Face(world["default"], runner)
            world["default"].clear()

    def test_set_get_has_key_delete(self, face: Face) -> None:
        assert face.get("k") is None
        face.set("k", {"price": [1, None]})

        assert face.get("k") == {"price": [1, None]}
        assert face.has_key("k") is True
        assert face.delete("k") is True
        assert face.delete("k") is False
        assert face.has_key("k") is False

    def test_add_touch_ttl_left(self, face: Face) -> None:
        assert face.add("k", 1, 10) is True
        assert face.add("k", 2) is False
        assert face.touch("k", 500) is True
        assert face.touch("l", 500) is False

        assert face.get("k") == 1
        assert face.ttl_left("k") == pytest.approx(500, abs=5)

    def test_incr_decr(self, face: Face) -> None:
        face.set("n", 5)

        assert face.incr("n") == 6
        assert face.decr("n", 10) == -4
        assert face.get("n") == -4

    def test_many(self, face: Face) -> None:
        values = {f"k{number}": number for number in range(300)}

        assert face.set_many(values) == []
        assert face.get_many([*values, "none"]) == values
        assert face.delete_many([*list(values)[100:], "none"]) == 200
        assert face.get_many(list(values)) == dict(list(values.items())[:100])

    def test_get_or_set(self, face: Face) -> None:
        assert face.get_or_set("k", lambda: [1]) == [1]
        assert face.get_or_set("k", lambda: [2]) == [1]

    def test_clear(self, face: Face) -> None:
        face.set_many({"k": 1, "l": 2})

        face.clear()

        assert face.get_many(["k", "l"]) == {}
        face.set("k", 3)
        assert face.get("k") == 3


class Shifting(BackendContract):
    """The contract, on servers whose expiries are moved along."""

    clock: ServerClock

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def opened(self, client: Any, address: dict[str, Any]) -> Backend:
        self.clock = ServerClock(client, "contract:*")
        return open_backend("redis", now=self.clock, prefix="contract", timeout="10s", **address)


@pytest.mark.slow
class TestContractOverSentinels(Shifting):
    @pytest.fixture
    def backend(self, sentinels: ValkeySentinels, sentinel_address: dict[str, Any]) -> Iterator[Backend]:
        with redis.Redis(port=sentinels.primary.port, password=PASSWORD) as client:
            backend = self.opened(client, sentinel_address)
            yield backend
            backend.close()


@pytest.mark.slow
class TestContractOverACluster(Shifting):
    @pytest.fixture
    def backend(self, cluster: ValkeyCluster, cluster_address: dict[str, Any]) -> Iterator[Backend]:
        with redis.RedisCluster(port=cluster.nodes[0].port, password=PASSWORD, host="127.0.0.1") as client:
            backend = self.opened(client, cluster_address)
            yield backend
            backend.close()


@pytest.mark.slow
class TestLeasesAndStamps:
    """What spans slots in a cluster: a value and its lease are in one, stamps and the log in others."""

    @pytest.fixture(params=["sentinel", "cluster"])
    def backend(self, request: pytest.FixtureRequest) -> Iterator[Backend]:
        address = request.getfixturevalue(f"{request.param}_address")
        prefix = f"t{uuid4().hex[:12]}"
        backend = open_backend("redis", now=time.time, prefix=prefix, timeout="10s", **address)
        yield backend
        backend.close()

    @pytest.fixture
    def space(self, backend: Backend, runner: asyncio.Runner | None) -> Iterator[Leasing]:
        yield Leasing(backend.key_space("c"), runner)
        if runner is not None:
            runner.run(backend.aclose())

    def test_one_holder_fills_and_the_others_find_it(self, space: Leasing) -> None:
        granted = space.lease("k", b"one", 30)
        busy = space.lease("k", b"other", 30)

        assert (granted.state, granted.entry, busy.state) == ("granted", None, "busy")
        assert space.fill("k", b"other", entry(2, granted.stamps)) is False
        assert space.fill("k", b"one", entry(1, granted.stamps)) is True
        fresh = space.lease("k", b"other", 30)
        assert (fresh.state, fresh.entry.payload) == ("fresh", b"1")
        assert space.get("k").payload == b"1"

    @pytest.mark.parametrize("verb", ["set", "set_many", "delete", "delete_many"])
    def test_a_write_voids_the_lease(self, space: Leasing, verb: str) -> None:
        lease = space.lease("k", b"one", 30)

        written = {"set": ["k", entry(2)], "set_many": [{"k": entry(2)}], "delete_many": [["k"]]}
        getattr(space, verb)(*written.get(verb, ["k"]))

        assert space.fill("k", b"one", entry(1, lease.stamps)) is False
        found = space.get("k")
        assert (found and found.payload) == (b"2" if verb.startswith("set") else None)

    @pytest.mark.parametrize("verb", ["clear", "invalidate"])
    def test_what_was_loaded_before_an_invalidation_is_not_there_after_it(
        self, space: Leasing, verb: str
    ) -> None:
        stamps = space.stamps(["t"])
        lease = space.lease("k", b"one", 30)

        getattr(space, verb)(*([] if verb == "clear" else [["t"]]))
        space.fill("k", b"one", entry(1, stamps))

        assert lease.state == "granted"
        assert space.get("k") is None
        assert space.get_many(["k"]) == {}
        assert space.lease("k", b"two", 30).entry is None

    def test_tags_of_many_slots_are_invalidated_each_by_itself(self, space: Leasing) -> None:
        tags = [f"tag{number}" for number in range(8)]
        for tag in tags:
            lease = space.lease(tag, b"one", 30)
            assert lease.state == "granted"
            assert space.fill(tag, b"one", entry(1, space.stamps([tag]))) is True

        space.invalidate(tags[:4])

        assert sorted(space.get_many(tags)) == tags[4:]

        space.invalidate(tags[4:6], soft=True)

        left = space.get_many(tags)
        assert [left[tag].fresh_until > time.time() for tag in tags[4:]] == [False, False, True, True]
        assert space.stamps(["tag7"]) == space.stamps(["tag7"])
        assert space.stamps(["tag0"]) != space.stamps(["tag7"])


def entry(value: int, stamps: Any = ()) -> Entry:
    now = time.time()
    return Entry(b"%d" % value, MISSING, now, now + 60, now + 60, stamps)


@pytest.mark.slow
class TestClusterKeys:
    def test_the_keys_of_one_cache_are_on_all_nodes(
        self, cluster: ValkeyCluster, cluster_address: dict[str, Any], runner: asyncio.Runner | None
    ) -> None:
        values = {f"k{number}": number for number in range(300)}
        with world_at(cluster_address, prefix="spread") as world:
            face = Face(world["default"], runner)
            face.set_many(values)

            held = [node.ask("KEYS", "spread:default:k*") for node in cluster.nodes]

            assert all(len(names) > 50 for names in held)
            assert sorted(name for names in held for name in names) == sorted(
                f"spread:default:{k}" for k in values
            )
            assert face.get_many(list(values)) == values
            assert face.delete_many(list(values)) == 300

    def test_scripts_that_nodes_have_forgotten_are_sent_whole(
        self, cluster: ValkeyCluster, cluster_address: dict[str, Any], runner: asyncio.Runner | None
    ) -> None:
        values = {f"k{number}": number for number in range(30)}
        with world_at(cluster_address) as world:
            face = Face(world["default"], runner)
            for turn in range(2):
                for node in cluster.nodes:
                    node.ask("SCRIPT", "FLUSH")

                assert face.set_many(values) == []
                face.set("n", turn)
                assert face.incr("n") == turn + 1
                assert face.get_or_set("loaded", lambda: 7) == 7
            face.clear()
            assert face.get_many(list(values)) == {}

    def test_another_world_hears_of_a_clear_through_the_log(self, cluster_address: dict[str, Any]) -> None:
        with world_at(cluster_address, prefix="log") as one, world_at(cluster_address, prefix="log") as other:
            cache = other["default"]
            one["default"].set("k", 1)
            assert cache.get("k") == 1
            until(lambda: gauge(cache, "log_lag", 9) < 1)  # from here on it believes what it knows
            heard = gauge(cache, "log_entries")

            one["default"].clear()

            until(lambda: gauge(cache, "log_entries") > heard)
            assert cache.get("k") is None
            assert gauge(cache, "log_losses") == 0

    def test_a_log_of_several_streams_is_on_several_nodes_and_heard_from_all(
        self, cluster: ValkeyCluster, cluster_address: dict[str, Any]
    ) -> None:
        keys = [f"k{number}" for number in range(40)]
        with (
            chain_at(cluster_address, prefix="shards", log_shards=6) as one,
            chain_at(cluster_address, prefix="shards", log_shards=6) as other,
        ):
            cache, near = one["default"], other["default"]
            for world in (one, other):
                until(lambda world=world: gauge(world["default"], "log_lag", 9) < 1)
            for turn, change in enumerate((lambda: cache.delete_many(keys), cache.clear)):
                assert cache.set_many(dict.fromkeys(keys, turn), tags=["tag"]) == []
                until(lambda turn=turn: near.get_many(keys) == dict.fromkeys(keys, turn))
                change()
                until(lambda: near.get_many(keys) == {})

        told = {node.port: node.ask("KEYS", "shards:%log*") for node in cluster.nodes}
        assert sum(map(len, told.values())) == 6
        assert all(told.values())
        on_first = next(node for node in cluster.nodes if "shards:%log" in told[node.port])
        assert on_first.ask("KEYS", "shards:%shards*") == ["shards:%shards:{shards:%log}"]


def gauge(cache: Cache[Any], name: str, otherwise: float = 0.0) -> float:
    cache.get("anything")  # who asks nothing follows nothing
    return cache.stats().layers[-1].gauges.get(name, otherwise)


def keys_of_slot(cluster: ValkeyCluster, prefix: str, slot: int, count: int) -> list[str]:
    """Names of keys of the default cache that are in that slot."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        if key_slot(f"{prefix}:default:{number}".encode()) == slot:
            found.append(str(number))
        number += 1
    return found


@pytest.fixture
def move(cluster: ValkeyCluster) -> Iterator[Callable[[int], Callable[[], None]]]:
    """Begins to move a slot to a node that has no scripts; returns what ends it."""
    ends: list[Callable[[], None]] = []

    def begin(slot: int) -> Callable[[], None]:
        source = cluster.owner(slot)
        target = next(node for node in cluster.nodes if node is not source)
        target.ask("SCRIPT", "FLUSH")
        cluster.begin_move(slot, source, target)
        ends.append(cluster.end_move)

        def end() -> None:
            ends.pop()()

        return end

    yield begin
    for end in ends:  # a test that failed half-way
        end()


@pytest.mark.slow
class TestMovingSlots:
    SLOT = 4711

    def test_what_has_moved_is_read_while_its_slot_has_not_and_after(
        self,
        cluster: ValkeyCluster,
        cluster_address: dict[str, Any],
        move: Any,
        runner: asyncio.Runner | None,
    ) -> None:
        keys = keys_of_slot(cluster, "reads", self.SLOT, 5)
        with world_at(cluster_address, prefix="reads") as world:
            face = Face(world["default"], runner)
            values = {key: int(key) for key in keys}
            face.set_many({**values, "elsewhere": 0})

            end = move(self.SLOT)  # every key answers ASK

            assert [face.get(key) for key in keys] == list(values.values())
            assert face.get_many([*keys, "elsewhere"]) == {**values, "elsewhere": 0}

            end()  # and now MOVED

            assert [face.get(key) for key in keys] == list(values.values())
            assert face.get_many([*keys, "elsewhere"]) == {**values, "elsewhere": 0}
            face.set(keys[0], -1)
            assert face.incr(keys[0]) == 0
            assert face.delete_many(keys) == 5

    def test_threads_and_tasks_read_and_write_all_the_while(
        self, cluster: ValkeyCluster, cluster_address: dict[str, Any], move: Any
    ) -> None:
        keys = keys_of_slot(cluster, "moves", self.SLOT, 80)
        with (
            world_at(cluster_address, prefix="moves", timeout="1s") as world,
            Counters(world["default"], keys) as users,
        ):
            users.until_each_went_round()

            move(self.SLOT)()  # ASK for some tens of milliseconds, which writes have to sit out

            users.until_each_went_round()
        assert users.wrong == []
        assert users.errors == []

    def test_the_log_is_followed_to_where_its_slot_went(
        self, cluster: ValkeyCluster, cluster_address: dict[str, Any], move: Any
    ) -> None:
        with (
            world_at(cluster_address, prefix="mlog") as one,
            world_at(cluster_address, prefix="mlog") as other,
        ):
            cache = other["default"]
            one["default"].set("k", 1)
            assert cache.get("k") == 1
            until(lambda: gauge(cache, "log_lag", 9) < 1)

            move(key_slot(b"mlog:%log"))()
            heard = gauge(cache, "log_entries")
            one["default"].clear()

            until(lambda: gauge(cache, "log_entries") > heard or gauge(cache, "log_losses"))
            until(lambda: cache.get("k") is None)


class Counters(Users):
    """Two threads and two tasks, each of which counts in keys of its own and reads others'.

    Attributes:
        wrong: what was read where its only writer had just written something else, or is another key's.
        errors: what they say.
    """

    def __init__(self, cache: Cache[Any], keys: Sequence[str]) -> None:
        super().__init__(threads=2, tasks=2)
        self._cache = cache
        self._shares = [keys[number::4] for number in range(4)]
        self._counts = dict.fromkeys(keys, 0)
        self._rounds = [0] * 4  # how often each went through its keys
        self.wrong: list[Any] = []
        self.errors: list[str] = []

    def until_each_went_round(self) -> None:
        before = list(self._rounds)
        until(lambda: all(now > then + 1 for now, then in zip(self._rounds, before, strict=True)))

    def in_a_thread(self, number: int) -> None:
        cache = self._cache
        for key, value, others in self._turns(number):
            try:
                cache.set(key, value)
                self._judge(value, cache.get(key), cache.get_many(others))
            except BackendError as error:
                self.errors.append(str(error))

    async def in_a_task(self, number: int) -> None:
        cache = self._cache
        for key, value, others in self._turns(number):
            try:
                await cache.aset(key, value)
                self._judge(value, await cache.aget(key), await cache.aget_many(others))
            except BackendError as error:
                self.errors.append(str(error))

    def _turns(self, number: int) -> Iterator[tuple[str, list[Any], Sequence[str]]]:
        while not self.ended.is_set():
            for key in self._shares[number]:
                self._counts[key] += 1
                yield key, [key, self._counts[key]], self._shares[(number + 1) % 4][:5]
            self._rounds[number] += 1

    def _judge(self, written: list[Any], found: Any, others: dict[str, Any]) -> None:
        if found != written:
            self.wrong.append((written, found))
        self.wrong += [(key, value) for key, value in others.items() if value[0] != key]


@pytest.mark.slow
class TestSentinels:
    def test_those_that_are_down_or_hang_are_passed_over(
        self, sentinels: ValkeySentinels, sentinel_address: dict[str, Any], runner: asyncio.Runner | None
    ) -> None:
        down, hanging, _ = sentinels.sentinels
        down.kill()
        hanging.pause()
        try:
            with world_at(sentinel_address) as world:
                face = Face(world["default"], runner)
                face.set("k", 1)
                began = time.monotonic()
                found = [face.get("k") for _ in range(20)]
                took = time.monotonic() - began
        finally:
            down.start()
            hanging.resume()
            sentinels.settle()

        assert found == [1] * 20
        assert took < 5, "who answered is asked first from then on"

    def test_a_service_that_none_knows_is_an_error_that_says_so(
        self, sentinels: ValkeySentinels, runner: asyncio.Runner | None
    ) -> None:
        with world_at({"url": sentinels.url.replace("/layercache/", "/other/")}) as world:
            face = Face(world["default"], runner)

            with pytest.raises(BackendError, match="knows no service 'other'"):
                face.get("k")

    def test_they_are_not_asked_while_the_service_is_left_alone(
        self, sentinels: ValkeySentinels, sentinel_address: dict[str, Any], runner: asyncio.Runner | None
    ) -> None:
        with world_at(sentinel_address, timeout="100ms") as world:
            face = Face(world["default"], runner)
            face.set("k", 1)
            everybody = (sentinels.primary, *sentinels.sentinels)
            for server in everybody:
                server.pause()
            try:
                with pytest.raises(BackendError):
                    face.get("k")
                took = [seconds_of_a_failure(face) for _ in range(20)]
            finally:
                for server in everybody:
                    server.resume()
            until(lambda: answered(face))
        sentinels.settle()

        assert sum(took) < 1.5

    def test_nor_where_none_has_ever_answered(self, runner: asyncio.Runner | None) -> None:
        with (
            ValkeyServer() as silent,
            world_at({"url": f"redis+sentinel://127.0.0.1:{silent.port}/s"}, timeout="100ms") as world,
        ):
            silent.pause()
            face = Face(world["default"], runner)
            seconds_of_a_failure(face)

            took = [seconds_of_a_failure(face) for _ in range(10)]

        assert sum(took) < 0.8

    def test_a_wrong_password_of_the_servers_is_refused_and_not_repeated(
        self, sentinels: ValkeySentinels, runner: asyncio.Runner | None
    ) -> None:
        for wrong in ({}, {"password": "wr0ng"}):
            with world_at({"url": sentinels.url, **wrong}) as world, pytest.raises(BackendError) as caught:
                Face(world["default"], runner).get("k")
            assert "AuthenticationError" in str(caught.value) or "NOAUTH" in str(caught.value)
            assert "wr0ng" not in str(caught.value)

    def test_sentinels_are_logged_in_to_with_a_password_of_their_own(
        self, sentinels: ValkeySentinels, runner: asyncio.Runner | None
    ) -> None:
        sentinel = sentinels.sentinels[0]
        sentinel.ask(
            "ACL",
            "SETUSER",
            "app",
            "on",
            ">op3n",
            "-@all",
            "+client|setname",
            "+sentinel|get-master-addr-by-name",
        )
        url = f"redis+sentinel://:{PASSWORD}@127.0.0.1:{sentinel.port}/layercache/0"
        try:
            with world_at({"url": f"{url}?sentinel_username=app&sentinel_password=op3n"}) as world:
                face = Face(world["default"], runner)
                face.set("k", 1)
                assert face.get("k") == 1
            with (
                world_at({"url": f"{url}?sentinel_username=app&sentinel_password=wr0ng"}) as world,
                pytest.raises(BackendError, match="WRONGPASS") as caught,
            ):
                Face(world["default"], runner).get("k")
        finally:
            sentinel.ask("ACL", "DELUSER", "app")
        assert "wr0ng" not in str(caught.value)


def seconds_of_a_failure(face: Face) -> float:
    began = time.monotonic()
    with pytest.raises(BackendError):
        face.get("k")
    return time.monotonic() - began


def answered(face: Face) -> bool:
    try:
        face.get("k")
    except BackendError:
        return False
    return True


class Told:
    """Servers that answer as a test has it, each time with the next that they were given."""

    def __init__(self, **answers: list[Any]) -> None:
        self._answers = {name: iter(given) for name, given in answers.items()}
        self.asked: list[tuple[str, list[Any]]] = []

    async def exchange(self, place: Place, commands: Sequence[Command]) -> list[Any]:
        self.asked.append((place.host, list(commands)))
        answer = next(self._answers[place.host])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def exchange_all(self, parts: Sequence[tuple[Place, Sequence[Command]]]) -> list[list[Any]]:
        return [await self.exchange(place, commands) for place, commands in parts]

    async def sentinel(self, place: Place, command: Command) -> Any:
        return (await self.exchange(place, [command]))[0]

    async def pause(self, seconds: float) -> bool:
        return True


def slots(*nodes: str) -> list[Any]:
    """CLUSTER SLOTS of nodes that share them evenly."""
    share = 16_384 // len(nodes)
    return [
        [[at * share, at * share + share - 1, [node.encode(), 6379, b"id"]] for at, node in enumerate(nodes)]
    ]


KEYS = {"a": b"b", "b": b"a"}
"""A key of each of two nodes: `b` is in slot 3300, `a` in slot 15495."""


class TestWhereCommandsGo:
    """The logic alone, with servers that are told what to say."""

    def cluster(self, url: str = "redis+cluster://a,b") -> Any:
        return topology_of(options_at(url))

    def sentinels(self) -> Any:
        return topology_of(options_at("redis+sentinel://s,t,u/service"))

    def test_a_node_that_is_left_alone_is_passed_over_when_the_slots_are_asked_for(self) -> None:
        cluster = self.cluster()
        told = Told(a=[CircuitOpen("far", "left alone")], b=[slots("a", "b"), [b"v"]])

        assert run(cluster.exchange(told, [("GET", KEYS["b"])])) == [b"v"]

    def test_the_slots_of_a_node_that_is_left_alone_are_asked_for_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = Clock()
        monkeypatch.setattr("layercache_redis.topology.monotonic", clock)
        cluster, alone = self.cluster(), CircuitOpen("far", "left alone")
        told = Told(a=[slots("a", "b"), alone, alone, alone], b=[slots("b"), [b"v"]])
        get = [("GET", KEYS["a"])]

        for seconds in (0.0, 0.1, 1.0):
            clock.advance(seconds)
            with pytest.raises(CircuitOpen):
                run(cluster.exchange(told, get))

        assert run(cluster.exchange(told, get)) == [b"v"]

    def test_after_doubt_another_node_is_asked_first(self) -> None:
        cluster = self.cluster("redis+cluster://a")
        told = Told(a=[slots("a", "b"), [1]], b=[slots("b"), [2]])

        assert run(cluster.exchange(told, [("GET", KEYS["a"])])) == [1]
        cluster.forget()

        assert run(cluster.exchange(told, [("GET", KEYS["a"])])) == [2]

    def test_a_node_that_knows_of_no_slots_is_not_believed(self) -> None:
        told = Told(a=[[[]]], b=[slots("b"), [1]])

        assert run(self.cluster().exchange(told, [("GET", KEYS["a"])])) == [1]

    def test_doubt_between_a_command_and_its_redirection_leaves_no_half_of_a_map(self) -> None:
        cluster = self.cluster()
        told = Told(
            a=[slots("a", "b"), [Refusal("MOVED 3300 b:6379")], [3]],
            b=[[1], slots("a", "b")],
        )
        exchange = told.exchange

        async def exchange_in_doubt(place: Place, commands: Sequence[Command]) -> list[Any]:
            replies = await exchange(place, commands)
            if isinstance(replies[0], Refusal):
                cluster.forget()
            return replies

        told.exchange = exchange_in_doubt  # type: ignore[method-assign]

        assert run(cluster.exchange(told, [("GET", KEYS["a"])])) == [1]
        assert run(cluster.exchange(told, [("GET", KEYS["a"])])) == [3]

    def test_each_command_is_redirected_by_itself(self) -> None:
        told = Told(
            a=[slots("a", "b"), [1, Refusal("ASK 3300 c:7000"), Refusal("MOVED 3300 b:6379")]],
            b=[[2]],
            c=[[b"OK", 3]],
        )
        commands = [("GET", KEYS["a"]), ("PTTL", KEYS["a"]), ("EVALSHA", "sha", 1, KEYS["a"])]

        assert run(self.cluster().exchange(told, commands)) == [1, 3, 2]
        assert ("c", [("ASKING",), commands[1]]) in told.asked
        assert ("b", [commands[2]]) in told.asked

    def test_who_redirects_for_ever_is_not_followed_for_ever(self) -> None:
        moved = [Refusal("MOVED 3300 a:6379")]
        told = Told(a=[slots("a", "b"), *[moved] * 5])

        [reply] = run(self.cluster().exchange(told, [("GET", KEYS["a"])]))

        assert str(reply).startswith("MOVED")

    def test_where_nobody_knows_the_slots_all_that_they_said_is_told(self) -> None:
        told = Told(a=[RedisConnectionError("a is down")], b=[[Refusal("NOPERM no")]])

        with pytest.raises(RedisConnectionError, match=r"\(a is down; b:6379: NOPERM no\)"):
            run(self.cluster().exchange(told, [("GET", b"k")]))

    def test_only_what_a_replica_refused_is_sent_again(self) -> None:
        readonly = Refusal("READONLY You can't write against a read only replica.")
        wrapped = Refusal("ERR Error running script: -READONLY You can't write against a read only replica.")
        told = Told(
            s=[[[b"a", b"6379"]], [[b"a", b"6379"]]],
            t=[[[b"b", b"6379"]]],
            a=[[1, readonly, wrapped]],
            b=[[2, 3], [4]],
        )
        sentinels = self.sentinels()
        commands = [("GET", b"k"), ("DEL", b"k"), ("EVALSHA", "sha", 0)]

        assert run(sentinels.exchange(told, commands)) == [1, 2, 3]
        assert told.asked[-1] == ("b", commands[1:])
        assert run(sentinels.exchange(told, [("GET", b"k")])) == [4]

    def test_the_sentinel_that_answered_is_asked_first(self) -> None:
        down = RedisConnectionError("down")
        told = Told(s=[down], t=[[None]], u=[[[b"a", b"1"]], [[b"b", b"2"]]])
        sentinels = self.sentinels()

        assert run(sentinels.place_of(told, b"")) == Place("a", 1)
        assert run(sentinels.place_of(told, b"")) == Place("a", 1)
        sentinels.forget()

        assert run(sentinels.place_of(told, b"")) == Place("b", 2)
        assert [host for host, _ in told.asked] == ["s", "t", "u", "u"]

    def test_a_primary_in_doubt_is_sent_to_until_sentinels_name_another(self) -> None:
        told = Told(s=[[[b"a", b"1"]], [[b"b", b"2"]]], a=[[1], [2]], b=[[3]])
        sentinels = self.sentinels()
        get = [("GET", b"k")]

        assert run(sentinels.exchange(told, get)) == [1]
        sentinels.forget()
        assert run(sentinels.exchange(told, get)) == [2]
        assert run(sentinels.place_of(told, b"")) == Place("b", 2)

        assert run(sentinels.exchange(told, get)) == [3]

    def test_what_all_sentinels_said_is_told(self) -> None:
        told = Told(s=[RedisConnectionError("s is down")], t=[[None]], u=[[Refusal("NOAUTH no")]])

        with pytest.raises(
            RedisConnectionError,
            match=r"the primary of 'service' \(s is down; t:26379: it knows no service 'service'; u:26379: NOAUTH no\)",
        ):
            run(self.sentinels().exchange(told, [("GET", b"k")]))


def options_at(url: str) -> RedisOptions:
    options: RedisOptions = (
        read_settings({"backends": {"b": {"type": "redis", "url": url}}}).backends["b"].options
    )
    return options
