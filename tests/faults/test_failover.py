"""Servers that go while they are used: a primary that is replaced, a node of a cluster that dies."""

from __future__ import annotations

import asyncio
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import pytest
from face import Face
from hiredis import Reader
from users import Users
from waiting import until
from worlds import follow

from layercache import BackendError, Cache, Caches
from layercache.testing import ValkeyCluster, ValkeySentinels, ValkeyServer

pytestmark = pytest.mark.slow

Report = Callable[[str], None]


def settings(url: str, **far: Any) -> dict[str, Any]:
    return {
        "backends": {
            "near": {"type": "memory"},
            "far": {"type": "redis", "url": url, "prefix": "f", "timeout": "500ms", **far},
            "both": {"type": "chain", "layers": ["near", "far"]},
        },
        "caches": {"default": {"backend": "far", "ttl": 60}, "chained": {"backend": "both", "ttl": 60}},
    }


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Report:
    """Prints what was measured, whether or not the test fails."""

    def report(line: str) -> None:
        with capsys.disabled():
            print(f"\n  {line}")  # noqa: T201

    return report


def works(call: Callable[[], Any]) -> bool:
    try:
        call()
    except BackendError:
        return False
    return True


class Load(Users):
    """Four threads and eight tasks that load and set through a chain, and get and set far away alone.

    Attributes:
        wrong: what was read and never written under its key.
        raised: what the chain raised, and what the backend alone raised but for `BackendError`.
        failures: times and texts of what the backend alone raised.
        answers: times of its answers, by face.
    """

    def __init__(self, world: Caches) -> None:
        super().__init__(threads=4, tasks=8)
        self._chain, self._alone = world["chained"], world["default"]
        self._written: dict[str, int] = {}
        self.wrong: list[Any] = []
        self.raised: list[BaseException] = []
        self.failures: list[tuple[float, str]] = []
        self.answers: dict[str, list[float]] = {"threads": [], "tasks": []}

    def _keys(self, user: str) -> Iterator[str]:
        number = 0
        while not self.ended.is_set():
            number += 1
            yield f"{user}:{number % 7}"

    def _next(self, key: str) -> list[Any]:
        self._written[key] = self._written.get(key, 0) + 1
        return [key, self._written[key]]

    def in_a_thread(self, number: int) -> None:
        for key in self._keys(f"thread{number}"):
            try:
                self._judge(key, self._chain.get_or_set(key, lambda key=key: self._next(key)))
                self._chain.set(key, self._next(key))
                self._judge(key, self._chain.get(key))
            except Exception as error:
                self.raised.append(error)
            try:
                self._alone.set(key, self._next(key))
                self._judge(key, self._alone.get(key))
                self.answers["threads"].append(time.monotonic())
            except BackendError as error:
                self.failures.append((time.monotonic(), str(error)))
            except Exception as error:
                self.raised.append(error)
            time.sleep(0.002)

    async def in_a_task(self, number: int) -> None:
        for key in self._keys(f"task{number}"):
            try:
                self._judge(key, await self._chain.aget_or_set(key, lambda key=key: self._next(key)))
                await self._chain.aset(key, self._next(key))
                self._judge(key, await self._chain.aget(key))
            except Exception as error:
                self.raised.append(error)
            try:
                await self._alone.aset(key, self._next(key))
                self._judge(key, await self._alone.aget(key))
                self.answers["tasks"].append(time.monotonic())
            except BackendError as error:
                self.failures.append((time.monotonic(), str(error)))
            except Exception as error:
                self.raised.append(error)
            await asyncio.sleep(0.002)

    def _judge(self, key: str, found: Any) -> None:
        # None: what a failover took along. An older count: it brought that back.
        if found is not None and not (found[0] == key and 0 < found[1] <= self._written[key]):
            self.wrong.append((key, found, self._written[key]))

    def go_on(self, times: int = 50) -> None:
        """Return when threads and tasks have got so many more answers."""
        before = {face: len(answers) for face, answers in self.answers.items()}
        until(lambda: all(len(answers) > before[face] + times for face, answers in self.answers.items()), 20)

    def summary(self, since: float) -> str:
        """Say how long nothing was answered, as threads and tasks saw it."""
        if not self.failures:
            return "not one operation failed"
        first, last = self.failures[0][0] - since, self.failures[-1][0] - since
        back = {
            face: next(at for at in answers if at > self.failures[-1][0]) - since
            for face, answers in self.answers.items()
        }
        return (
            f"{len(self.failures)} operations failed, from {first:.3f} to {last:.3f} s after; answers again after "
            f"{back['threads']:.3f} s (threads) and {back['tasks']:.3f} s (tasks)"
        )

    def __enter__(self) -> Self:
        super().__enter__()
        self.go_on()
        return self


class TestSentinels:
    @pytest.mark.parametrize("how", ["killed", "frozen", "replaced"])
    def test_a_primary_goes_in_the_middle_of_loads(self, how: str, report: Report) -> None:
        with ValkeySentinels() as sentinels, Caches(settings(sentinels.url)) as world:
            former = sentinels.primary
            with Load(world) as load:
                began = time.monotonic()
                if how == "replaced":
                    sentinels.failover()
                else:
                    former.kill() if how == "killed" else former.pause()
                    sentinels.settle()
                load.go_on()
                report(f"primary {how}: {load.summary(began)}")
                failures = len(load.failures)
                if how == "frozen":  # it comes back and believes for a while that it still is the primary
                    former.resume()
                    sentinels.settle()
                load.go_on()

            assert load.wrong == []
            assert load.raised == []
            assert len(load.failures) == failures
            assert sentinels.primary is not former
            assert sentinels.primary.ask("EXISTS", "f:default:thread0:1") == 1
            assert hears_again(world["default"])


def role(server: ValkeyServer) -> str:
    try:
        return str(server.ask("ROLE")[0])
    except ConnectionError:  # whoever demotes a server ends all of its connections
        return "unknown"


def blocked_callers(server: ValkeyServer) -> int:
    """Return how many connections of callers wait for an answer; the log's own waits most of the time."""
    clients = [
        dict(field.split("=", 1) for field in line.split())
        for line in server.ask("CLIENT", "LIST").splitlines()
    ]
    return sum("b" in client["flags"] and client["name"].startswith("layercache:") for client in clients)


def hears_again(cache: Cache[Any]) -> bool:
    """Whether the log is followed: what is written before it is may go unheard, so writing goes on."""
    before = gauge(cache, "log_entries")

    def heard() -> bool:
        cache.set("anything", 1)
        return gauge(cache, "log_entries") > before

    return until(heard)


def gauge(cache: Cache[Any], name: str, otherwise: float = 0.0) -> float:
    works(lambda: cache.get("anything"))  # who asks nothing follows nothing
    return cache.stats().layers[-1].gauges.get(name, otherwise)


class Sentinel(socketserver.ThreadingTCPServer):
    """What a sentinel says of a service, as the test has it: so that what real ones disagree on for moments stays.

    Attributes:
        named: the primary, by its own account.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, named: ValkeyServer) -> None:
        super().__init__(("127.0.0.1", 0), _Asked)
        self.named = named
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    def answer(self, command: list[bytes]) -> bytes:
        if command[0] != b"SENTINEL":
            return b"+OK\r\n"
        port = str(self.named.port).encode()
        return b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%s\r\n" % (len(port), port)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Asked(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        reader = Reader()
        while data := self.request.recv(4096):
            reader.feed(data)
            while (command := reader.gets()) is not False:
                self.request.sendall(self.server.answer(command))


def url_of(*sentinels: Sentinel) -> str:
    return f"redis+sentinel://{','.join(f'127.0.0.1:{one.server_address[1]}' for one in sentinels)}/service/0"


@contextmanager
def replicating() -> Iterator[tuple[ValkeyServer, ValkeyServer]]:
    with (
        ValkeyServer(repl_diskless_sync_delay=0) as primary,
        ValkeyServer(repl_diskless_sync_delay=0) as replica,
    ):
        replica.ask("REPLICAOF", "127.0.0.1", primary.port)
        until(lambda: replica.ask("ROLE")[3] == "connected")
        yield primary, replica


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[ValkeyServer, ValkeyServer]]:
    with replicating() as servers:
        yield servers


@pytest.fixture
def servers(both: tuple[ValkeyServer, ValkeyServer]) -> tuple[ValkeyServer, ValkeyServer]:
    """A primary and a replica that has all of it, which is nothing."""
    primary, replica = both if both[0].ask("ROLE")[0] == "master" else both[::-1]
    until(lambda: replica.ask("ROLE")[3] == "connected")
    primary.ask("FLUSHALL")
    return primary, replica


def await_replication(primary: ValkeyServer, replica: ValkeyServer) -> None:
    until(lambda: primary.ask("ROLE")[1] == replica.ask("ROLE")[4])


def swap(primary: ValkeyServer, replica: ValkeyServer) -> None:
    """Change their roles at once. Connections stay, as they do where no sentinel ends them."""
    await_replication(primary, replica)
    replica.ask("REPLICAOF", "NO", "ONE")
    primary.ask("REPLICAOF", "127.0.0.1", replica.port)


class TestRoles:
    """Real servers that change their roles, and sentinels that say what they are told to."""

    def test_what_a_former_primary_refuses_is_done_by_the_new_one_once(
        self, servers: tuple[ValkeyServer, ValkeyServer], runner: asyncio.Runner | None
    ) -> None:
        primary, replica = servers
        with Sentinel(primary) as sentinel, Caches(settings(url_of(sentinel))) as world:
            face = Face(world["default"], runner)
            face.set("n", 1)
            face.set_many({"k": 1, "l": 1})
            swap(primary, replica)
            sentinel.named = replica

            assert face.incr("n") == 2
            face.set("k", 2)
            assert face.add("m", 1) is True
            assert face.delete("l") is True

            assert face.get_many(["n", "k", "l", "m"]) == {"n": 2, "k": 2, "m": 1}
            assert gauge(world["default"], "circuit_openings") == 0
            assert replica.ask("ROLE")[0] == "master"

    def test_while_no_sentinel_knows_of_another_it_is_an_error_and_nothing_is_done(
        self, servers: tuple[ValkeyServer, ValkeyServer], runner: asyncio.Runner | None
    ) -> None:
        primary, replica = servers
        with Sentinel(primary) as sentinel, Caches(settings(url_of(sentinel))) as world:
            face = Face(world["default"], runner)
            face.set("n", 1)
            swap(primary, replica)

            with pytest.raises(BackendError, match="takes no writes"):
                face.incr("n")

            sentinel.named = replica
            until(lambda: works(lambda: face.incr("n")))
            assert face.get("n") == 2

    @pytest.mark.parametrize("kept", [True, False], ids=["kept connection", "new connection"])
    def test_a_sentinel_that_is_behind_is_passed_over(
        self, servers: tuple[ValkeyServer, ValkeyServer], runner: asyncio.Runner | None, kept: bool
    ) -> None:
        primary, replica = servers
        with (
            Sentinel(primary) as behind,
            Sentinel(primary) as ahead,
            Caches(settings(url_of(behind, ahead))) as world,
        ):
            face = Face(world["default"], runner)
            face.set("n", 1)
            swap(primary, replica)
            ahead.named = replica
            if not kept:
                primary.ask("CLIENT", "KILL", "TYPE", "normal")
                if runner is not None:
                    runner.run(asyncio.sleep(0.02))  # a loop learns of it when it comes round

            assert face.incr("n") == 2
            assert gauge(world["default"], "circuit_openings") == 0
            assert replica.ask("ROLE")[0] == "master"
            assert [face.incr("n") for _ in range(3)] == [3, 4, 5]

    def test_connections_that_a_server_ends_all_at_once_are_no_outage(
        self, servers: tuple[ValkeyServer, ValkeyServer]
    ) -> None:
        primary, _ = servers
        with Sentinel(primary) as sentinel, Caches(settings(url_of(sentinel), timeout="2s")) as world:
            cache = world["default"]
            cache.set("k", 1)
            primary.ask("CLIENT", "PAUSE", 5000, "WRITE")
            setting = [threading.Thread(target=works, args=(lambda: cache.set("k", 2),)) for _ in range(6)]
            for thread in setting:
                thread.start()
            until(lambda: blocked_callers(primary) == 6)

            primary.ask("CLIENT", "KILL", "TYPE", "normal")  # as a sentinel does with one that it demotes
            for thread in setting:
                thread.join()
            primary.ask("CLIENT", "UNPAUSE")

            assert gauge(cache, "circuit_openings") == 0

    def test_counts_of_threads_and_tasks_are_neither_lost_nor_doubled(
        self, servers: tuple[ValkeyServer, ValkeyServer], report: Report
    ) -> None:
        primary, replica = servers
        with Sentinel(primary) as sentinel, Caches(settings(url_of(sentinel), timeout="1s")) as world:
            cache = world["default"]
            cache.set("n", 0)
            with Counting(cache) as counting:
                until(lambda: sum(counting.counted) > 200)
                primary.ask("FAILOVER")  # in which no write gets lost
                until(lambda: (role(primary), role(replica)) == ("slave", "master"))
                sentinel.named = replica
                enough = sum(counting.counted) + 200
                until(lambda: sum(counting.counted) > enough)
            report(f"roles swapped: {sum(counting.counted)} counted, {sum(counting.refused)} refused")

            assert cache.get("n") == sum(counting.counted)

    def test_a_clear_that_a_failover_loses_brings_nothing_back_that_is_cleared_again(self) -> None:
        with (
            replicating() as (primary, replica),
            Sentinel(primary) as sentinel,
            Caches(settings(url_of(sentinel))) as one,
            Caches(settings(url_of(sentinel))) as other,
        ):
            clearing, reading = one["default"], other["default"]
            clearing.set_many({"k": 1, "l": 1})
            assert reading.get("k") == 1
            until(lambda: gauge(reading, "log_lag", 9) < 1)
            await_replication(primary, replica)

            replica.ask("REPLICAOF", "NO", "ONE")  # from here on what the primary is told gets lost
            clearing.clear()
            clearing.set("l", 2)
            until(lambda: reading.get("k") is None)
            primary.kill()
            sentinel.named = replica
            until(lambda: works(lambda: reading.get("k")) and works(lambda: clearing.get("k")))
            # the entries are back with their stamp: valid for who has heard of no other
            assert {cache.get("l") for cache in (clearing, reading)} <= {None, 1}

            clearing.clear()

            assert clearing.get_many(["k", "l"]) == {}
            until(lambda: reading.get_many(["k", "l"]) == {})
            reading.set("k", 3)
            until(lambda: clearing.get("k") == 3)
            assert [cache.get("l") for cache in (clearing, reading)] == [None, None]
            until(lambda: gauge(reading, "log_losses") == 1)

    def test_a_log_that_was_replicated_whole_goes_on_where_it_was(self) -> None:
        with (
            replicating() as (primary, replica),
            Sentinel(primary) as sentinel,
            Caches(settings(url_of(sentinel))) as one,
            Caches(settings(url_of(sentinel))) as other,
        ):
            reading = other["default"]
            assert reading.get("k") is None
            until(lambda: gauge(reading, "log_lag", 9) < 1)
            one["default"].set("k", 1)
            await_replication(primary, replica)
            replica.ask("REPLICAOF", "NO", "ONE")
            primary.kill()
            sentinel.named = replica
            until(lambda: works(lambda: one["default"].set("k", 2)))
            one["default"].clear()

            until(lambda: works(lambda: reading.get("k")) and reading.get("k") is None)
            until(lambda: gauge(reading, "log_entries") >= 3)
            assert gauge(reading, "log_losses") == 0


class Counting(Users):
    """Two threads and four tasks that add one to `n`.

    Attributes:
        counted: how often each was told that it had.
        refused: how often each was told that nothing was done.
    """

    def __init__(self, cache: Cache[Any]) -> None:
        super().__init__(threads=2, tasks=4)
        self._cache = cache
        self.counted, self.refused = [0] * 6, [0] * 6

    def in_a_thread(self, number: int) -> None:
        while not self.ended.is_set():
            try:
                self._cache.incr("n")
                self.counted[number] += 1
            except BackendError:
                self.refused[number] += 1

    async def in_a_task(self, number: int) -> None:
        while not self.ended.is_set():
            try:
                await self._cache.aincr("n")
                self.counted[number] += 1
            except BackendError:
                self.refused[number] += 1
                await asyncio.sleep(0.001)


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyCluster]:
    with ValkeyCluster() as cluster:
        for node in cluster.nodes:
            serve_what_there_is(node)
        yield cluster


def serve_what_there_is(node: ValkeyServer) -> None:
    """Else all refuse everything where one does not serve, or one slot is nobody's."""
    node.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")


class TestCluster:
    @pytest.fixture
    def victim(self, cluster: ValkeyCluster) -> Iterator[ValkeyServer]:
        """A node; it serves its slots again when the test is over."""
        victim = cluster.nodes[0]
        yield victim
        try:
            victim.resume()
        except RuntimeError:  # it was killed
            victim.start()
        serve_what_there_is(victim)
        until(
            lambda: all("cluster_state:ok" in node.ask("CLUSTER", "INFO").split() for node in cluster.nodes)
        )

    @pytest.fixture
    def prefix(self, cluster: ValkeyCluster, victim: ValkeyServer) -> str:
        """One whose log and stamps are on other nodes: without them nothing can be written or believed."""
        return prefix_off(cluster, victim)

    @pytest.mark.parametrize(
        ("how", "runner"),
        [("killed", "sync"), ("frozen", "sync"), ("frozen", "async")],
        indirect=["runner"],
    )
    def test_the_slots_of_a_node_fail_in_time_and_all_others_are_served(
        self,
        cluster: ValkeyCluster,
        victim: ValkeyServer,
        prefix: str,
        how: str,
        runner: asyncio.Runner | None,
        report: Report,
    ) -> None:
        with Caches(settings(cluster.url, prefix=prefix)) as world:
            face = Face(world["default"], runner)
            face.set_many({f"k{number}": number for number in range(60)})
            lost, others = shares(cluster, prefix, victim)
            assert len(lost) > 10
            assert gauge(world["default"], "circuits_open") == 0
            victim.kill() if how == "killed" else victim.pause()

            for turn in range(2):
                seconds = [seconds_of_a_failure(lambda key=key: face.get(key)) for key in lost]
                seconds += [seconds_of_a_failure(lambda key=key: face.set(key, 1)) for key in lost]
                assert max(seconds) < 2.0
                assert sorted(seconds)[len(lost)] < 0.05
                for key in others:
                    face.set(key, turn)
                assert face.get_many(others) == dict.fromkeys(others, turn)
                assert face.incr(others[0]) == turn + 1

            began = time.monotonic()
            victim.start() if how == "killed" else victim.resume()
            until(lambda: works(lambda: [face.set(key, 5) for key in lost]))
            report(f"node {how}: all slots served {time.monotonic() - began:.3f} s after it is back")
            assert face.get_many(lost) == dict.fromkeys(lost, 5)

    def test_tasks_that_set_in_the_same_turn_fail_each_for_itself(
        self, cluster: ValkeyCluster, victim: ValkeyServer, prefix: str
    ) -> None:
        with Caches(settings(cluster.url, prefix=prefix, timeout="1s")) as world:
            cache = world["default"]
            cache.set_many({f"k{number}": number for number in range(60)})
            lost, others = shares(cluster, prefix, victim)
            until(lambda: gauge(cache, "log_lag", 9) < 1)  # only who knows the stamp joins another
            victim.pause()

            async def main() -> list[Any]:
                sets = [cache.aset(key, 1) for key in (*lost, *others)]
                return await asyncio.gather(*sets, return_exceptions=True)

            failures = asyncio.run(main())

        assert [type(failure) for failure in failures[len(lost) :]] == [type(None)] * len(others)
        assert all(isinstance(failure, BackendError) for failure in failures[: len(lost)])

    def test_a_slot_that_no_node_has_fails_alone(
        self, cluster: ValkeyCluster, prefix: str, runner: asyncio.Runner | None
    ) -> None:
        with Caches(settings(cluster.url, prefix=prefix)) as world:
            face = Face(world["default"], runner)
            face.set_many({f"k{number}": number for number in range(60)})
            lost, *others = shares(cluster, prefix, cluster.nodes[0])[0]
            slot = cluster.slot_of(f"{prefix}:default:{lost}")
            for node in cluster.nodes:
                node.ask("CLUSTER", "DELSLOTS", slot)
            try:
                for _ in range(5):
                    with pytest.raises(BackendError, match="slot"):
                        face.get(lost)
                    assert sorted(face.get_many(others)) == sorted(others)
            finally:
                for node in cluster.nodes:
                    node.ask("CLUSTER", "SETSLOT", slot, "NODE", cluster.nodes[0].ask("CLUSTER", "MYID"))

    def test_a_chain_serves_everything_meanwhile(
        self, cluster: ValkeyCluster, victim: ValkeyServer, prefix: str, runner: asyncio.Runner | None
    ) -> None:
        with Caches(settings(cluster.url, prefix=prefix)) as world:
            face = Face(world["chained"], runner)
            follow(world["chained"])
            values = {f"k{number}": number for number in range(60)}
            face.set_many(values)
            victim.pause()

            assert face.get_many(list(values)) == values
            assert [
                face.get_or_set(f"new{number}", lambda number=number: number) for number in range(30)
            ] == list(range(30))
            assert face.set_many(values) == []

    def test_slots_that_another_node_has_taken_are_served_again(self, report: Report) -> None:
        with ValkeyCluster() as cluster:
            victim, heir, third = cluster.nodes
            prefix = prefix_off(cluster, victim)
            with Caches(settings(cluster.url, prefix=prefix)) as world:
                cache = world["default"]
                cache.set_many({f"k{number}": number for number in range(60)})
                lost, _ = shares(cluster, prefix, victim)
                name = victim.ask("CLUSTER", "MYID")
                victim.kill()
                assert not works(lambda: cache.get(lost[0]))
                first, last = next(
                    (first, last)
                    for first, last, node, *_ in heir.ask("CLUSTER", "SLOTS")
                    if node[1] == victim.port
                )

                for node in (heir, third):
                    node.ask("CLUSTER", "FORGET", name)
                heir.ask("CLUSTER", "ADDSLOTS", *range(first, last + 1))  # Redis 6.2 takes no range
                began = time.monotonic()
                until(lambda: works(lambda: [cache.set(key, 7) for key in lost]))

                report(f"slots of a dead node served {time.monotonic() - began:.3f} s after another has them")
                assert cache.get_many(lost) == dict.fromkeys(lost, 7)
                assert len(heir.ask("KEYS", f"{prefix}:default:*")) >= len(lost)


def prefix_off(cluster: ValkeyCluster, node: ValkeyServer) -> str:
    for number in range(1000):
        names = f"p{number}:%log", f"p{number}:%tag:default:*", f"p{number}:%tag:chained:*"
        if all(cluster.owner(cluster.slot_of(name)) is not node for name in names):
            return f"p{number}"
    raise AssertionError("all prefixes have something there")


def shares(cluster: ValkeyCluster, prefix: str, node: ValkeyServer) -> tuple[list[str], list[str]]:
    """The keys k0 to k59 of the default cache: those that the node has, and the others."""
    held = {name.rpartition(":")[2] for name in node.ask("KEYS", f"{prefix}:default:k*")}
    keys = [f"k{number}" for number in range(60)]
    return [key for key in keys if key in held], [key for key in keys if key not in held]


def seconds_of_a_failure(call: Callable[[], Any]) -> float:
    began = time.monotonic()
    with pytest.raises(BackendError):
        call()
    return time.monotonic() - began
