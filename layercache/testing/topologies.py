"""Servers that belong together, for tests: a primary watched by sentinels, and a cluster.

Every process is real and listens on loopback. How far they have come is asked of the servers themselves, of each
that runs: nothing here knows how long anything takes. What has not come about after 60 s is a `RuntimeError` that
says what was missing and ends with the logs.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import choice
from typing import Any, Self

from layercache.testing.server import ServerRefused, ValkeyServer

__all__ = ["ValkeyCluster", "ValkeySentinels"]

_SETTLE_SECONDS = 60.0
_ASK_AGAIN_SECONDS = 0.02
_SERVICE = "layercache"
_BUS_OFFSET = 10_000  # a node's other port; directives that would name it came with Redis 7
_SLOTS = 16_384
_KEYS_AT_ONCE = 100


class _Topology:
    """Servers that are started together and ended together."""

    def __init__(self) -> None:
        self._servers: list[ValkeyServer] = []

    def start(self) -> Self:
        """Start every process and block until they know each other.

        Raises `RuntimeError` with the logs when that takes more than 60 s; no process is left then.
        """
        try:
            self._start()
        except BaseException:  # an interrupt too: `with` calls no __exit__ when __enter__ raises
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End every process, paused ones too, the last started first, and remove their folders."""
        while self._servers:
            self._servers.pop().stop()

    def _start(self) -> None:
        raise NotImplementedError

    def _started(self, server: ValkeyServer) -> ValkeyServer:
        self._servers.append(server)
        return server.start()

    def _wait_until_nothing_is(self, missing: Callable[[], str]) -> None:
        """Ask until `missing` has nothing to name any more; a server that errs meanwhile is something missing."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while named := _named(missing):
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {server.url}\n{server.log()}" for server in self._servers)
                raise RuntimeError(f"after {_SETTLE_SECONDS:g} s still missing: {named}\n{logs}")
            time.sleep(
                _ASK_AGAIN_SECONDS
            )  # another process's progress: the only way to learn of it is to ask

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def _named(missing: Callable[[], str]) -> str:
    try:
        return missing()
    except (OSError, ServerRefused) as error:
        return f"an answer ({error})"


class ValkeySentinels(_Topology):
    """A primary and its replica, watched by three sentinels; a context manager that starts and ends all five.

        with ValkeySentinels() as sentinels:
            Caches({"backends": {"shared": {"type": "redis", "url": sentinels.url}}, ...})
            sentinels.failover()

    The service is called `layercache` and two sentinels must agree that its primary is down. They are told to
    exchange news several times a second instead of every few seconds. Those of Redis 6.2 cannot be told: what is
    said here of durations is then up to 20 s more.

    Args:
        binary: the server program, as for `ValkeyServer`.
        password: what the primary and the replica ask for; the sentinels themselves ask for none.
        down_after: seconds of silence after which a sentinel holds a server to be down.
        failover_timeout: seconds that a step of a failover may take; twice that passes before another try.

    Attributes:
        primary: the server that takes writes, as of the last `start`, `failover` or `settle`.
        replica: the other one.
        sentinels: the three; like the servers, each can be killed, paused, resumed and started again.
    """

    primary: ValkeyServer
    replica: ValkeyServer
    sentinels: tuple[ValkeyServer, ...] = ()

    def __init__(
        self,
        *,
        binary: str | Path | None = None,
        password: str | None = None,
        down_after: float = 0.5,
        failover_timeout: float = 1.5,
    ) -> None:
        super().__init__()
        self._binary = binary
        self._password = password
        self._down_after = down_after
        self._failover_timeout = failover_timeout

    @property
    def url(self) -> str:
        """The addresses of the sentinels, the service and database 0, as `redis+sentinel://`; without the password."""
        return f"redis+sentinel://{_hosts(self.sentinels)}/{_SERVICE}/0"

    def failover(self) -> None:
        """Have the replica promoted as an operator would, and block until everything that runs agrees on it.

        Then `primary` and `replica` have changed places, and the former primary, if it runs, refuses writes; for
        about 2 s before that, both take them. Takes about 3 s in all. Raises `RuntimeError` when it has not come
        about after 60 s, as when the replica is down.
        """
        former = self.primary
        self._wait_until_nothing_is(lambda: self._disagreement(former))

    def settle(self) -> None:
        """Block until everything that runs agrees on a primary that answers, and note who it is.

        To be called after a test has killed, paused, resumed or started a server. A primary that is down is replaced
        meanwhile, about 1.5 s after `down_after`; one that comes back takes about 2 s to follow. Raises `RuntimeError`
        after 60 s.
        """
        self._wait_until_nothing_is(self._disagreement)

    def _start(self) -> None:
        # the default is to wait 5 s for more replicas; and the disk would cost Valkey 9.1 a second for each resync
        options: dict[str, Any] = {"repl_diskless_sync_delay": 0, "repl_diskless_load": "swapdb"}
        options |= {"repl_diskless_sync": "yes"} | _guarded(self._password)
        self.primary = self._started(ValkeyServer(self._binary, **options))
        self.replica = self._started(ValkeyServer(self._binary, **options))
        # asked, not configured: one that was promoted and is started again then comes back as a primary
        self.replica.ask("REPLICAOF", "127.0.0.1", self.primary.port)
        # sentinels that start earlier would look for replicas once and then not for another 10 s
        self._wait_until_nothing_is(lambda: _loose_replication(self.primary, self.replica))
        self.sentinels = tuple(self._started(self._new_sentinel()) for _ in range(3))
        self.settle()

    def _new_sentinel(self) -> ValkeyServer:
        # the file names `monitor` first: the others say something about what it defines
        directives: dict[str, str | int] = {
            "monitor": f"127.0.0.1 {self.primary.port} 2",
            "down-after-milliseconds": round(self._down_after * 1000),
            "failover-timeout": round(self._failover_timeout * 1000),
        }
        if self._password is not None:
            directives["auth-pass"] = self._password
        return _Sentinel(self._binary, directives)

    def _disagreement(self, former: ValkeyServer | None = None) -> str:
        """Name what the servers that run do not agree on yet, or nothing; have `former` replaced, if there is one."""
        awake = [sentinel for sentinel in self.sentinels if sentinel.answers()]
        ports = {int(sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", _SERVICE)[1]) for sentinel in awake}
        if len(ports) != 1:
            return f"one primary that the sentinels agree on; they name {sorted(ports)}"
        primary, replica = self.primary, self.replica
        if primary.port not in ports:
            primary, replica = replica, primary
        if primary is former:
            # asked each time: while a failover is under way the answer is a refusal, but sentinels also give one up
            awake[0].ask("SENTINEL", "FAILOVER", _SERVICE)
            return "a primary other than the former one"
        if not primary.answers():
            return f"a primary that answers; the sentinels name {primary.port}"
        follows = replica.answers()
        if follows and (loose := _loose_replication(primary, replica)):
            return loose
        for sentinel in awake:
            if ignorance := self._ignorance(sentinel, follows):
                return f"{ignorance} in the eyes of the sentinel {sentinel.port}"
        self.primary, self.replica = primary, replica
        return ""

    def _ignorance(self, sentinel: ValkeyServer, follows: bool) -> str:
        primary = _pairs(sentinel.ask("SENTINEL", "MASTER", _SERVICE))
        if primary["flags"] != "master":
            return f"a sound primary, not {primary['flags']},"
        if int(primary["num-other-sentinels"]) != len(self.sentinels) - 1:
            return "all the other sentinels"
        replicas = [_pairs(one) for one in sentinel.ask("SENTINEL", "REPLICAS", _SERVICE)]
        if len(replicas) != 1:
            return "the one replica"
        if follows and (replicas[0]["flags"], replicas[0]["master-link-status"]) != ("slave", "ok"):
            return "a replica in sync"
        return ""


# Milliseconds between the acts of a sentinel, each from one second to ten otherwise. Less is not always sooner: while
# a primary is down or being replaced, its replica is asked for its role once a second, whatever is said here. So
# five ping periods, for which such an answer is good, must be more than that second, or nobody is fit to be
# promoted; and so must four publish periods, after which the other sentinels demote whoever claims to be a primary
# and is not theirs: the one just promoted, before the leader has learnt of it.
_PERIODS = ("INFO-PERIOD", 300, "PING-PERIOD", 300, "PUBLISH-PERIOD", 400, "ASK-PERIOD", 100)


class _Sentinel(ValkeyServer):
    """A sentinel: the server program in another role, with a file in which it notes what it learns."""

    def __init__(self, binary: str | Path | None, directives: dict[str, str | int]) -> None:
        super().__init__(binary)
        self._file = self.folder / "sentinel.conf"
        lines = ["bind 127.0.0.1", f"port {self.port}", f"dir {self.folder}"]
        lines += [f"sentinel {name} {_SERVICE} {value}" for name, value in directives.items()]
        self._file.write_text("\n".join([*lines, ""]))

    def _command(self) -> list[str]:
        return [str(self.binary), str(self._file), "--sentinel"]

    def start(self) -> Self:
        super().start()
        with suppress(ServerRefused):  # older than Redis 7: it keeps to periods of its own
            self.ask("SENTINEL", "DEBUG", *_PERIODS)
        return self


def _loose_replication(primary: ValkeyServer, replica: ValkeyServer) -> str:
    """Name what is missing until `replica` follows `primary`, as both see it, or nothing."""
    role = primary.ask("ROLE")
    if role[0] != "master":
        return f"a primary that takes writes; {primary.port} is a replica"
    if replica.ask("ROLE")[:4] != ["slave", "127.0.0.1", primary.port, "connected"]:
        return f"a replica that follows; {replica.port} does not yet"
    if str(replica.port) not in [port for _, port, _ in role[2]]:
        return f"a replica in sync; {replica.port} is not yet"
    return ""


def _pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


class ValkeyCluster(_Topology):
    """A cluster of primaries that share the 16384 slots; a context manager that starts and ends it.

        with ValkeyCluster() as cluster:
            Caches({"backends": {"shared": {"type": "redis", "url": cluster.url}}, ...})

    Args:
        nodes: how many primaries. There are no replicas: the slots of one that is killed are gone.
        binary: the server program, as for `ValkeyServer`.
        password: what every node asks for.

    Attributes:
        nodes: the servers, in the order of the slots they began with.
    """

    nodes: tuple[ValkeyServer, ...] = ()

    def __init__(
        self, nodes: int = 3, *, binary: str | Path | None = None, password: str | None = None
    ) -> None:
        super().__init__()
        self._number = nodes
        self._binary = binary
        self._password = password
        self._move: tuple[int, ValkeyServer, ValkeyServer] | None = None

    @property
    def url(self) -> str:
        """The addresses of the nodes, as `redis+cluster://`; without the password."""
        return f"redis+cluster://{_hosts(self.nodes)}"

    def slot_of(self, key: str) -> int:
        """Return the slot, 0 to 16383, that the cluster puts `key` into."""
        slot: int = self._awake()[0].ask("CLUSTER", "KEYSLOT", key)
        return slot

    def owner(self, slot: int) -> ValkeyServer:
        """Return the node that serves `slot`, in the eyes of the first node that answers.

        Raises `ValueError` when no node serves it.
        """
        port = _port_of_owner(slot, self._awake()[0])
        for node in self.nodes:
            if node.port == port:
                return node
        raise ValueError(f"no node serves slot {slot}")

    def begin_move(self, slot: int, source: ValkeyServer, target: ValkeyServer) -> None:
        """Move the keys of `slot`, but not the slot: from now on `source` answers ASK for each of them.

        Other nodes still answer MOVED to `source`. Blocks until the keys are with `target`. Raises `RuntimeError`
        when a move is under way, `ValueError` when `source` does not serve `slot` or is `target`.
        """
        if self._move is not None:
            raise RuntimeError(f"slot {self._move[0]} is being moved; call end_move() first")
        if source is target or self.owner(slot) is not source:
            raise ValueError(f"slot {slot} can move from {self.owner(slot).url} to another node only")
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", _id_of(source))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", _id_of(target))
        self._move = slot, source, target
        self._move_keys(*self._move)

    def end_move(self) -> None:
        """Hand over the slot of `begin_move`: from now on all nodes but the target answer MOVED for it.

        Blocks until every node says so. Raises `RuntimeError` when no move is under way, or when a node has not
        learnt of it after 60 s.
        """
        if self._move is None:
            raise RuntimeError("no slot is being moved; call begin_move() first")
        slot, source, target = self._move
        self._move_keys(slot, source, target)
        # the target first: one that has not taken the slot yet would send callers back to the source
        for node in (target, source, *(node for node in self.nodes if node not in (target, source))):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", _id_of(target))
        self._wait_until_nothing_is(lambda: self._dissent(slot, target))
        self._move = None

    def _start(self) -> None:
        options: dict[str, Any] = {"cluster_enabled": "yes", "cluster_node_timeout": 2000}
        options |= _guarded(self._password)
        nodes: list[ValkeyServer] = []
        for number in range(self._number):
            node = self._started(ValkeyServer(self._binary, port=_free_port_with_bus(), **options))
            nodes.append(node)
            # an epoch of its own: nodes that begin with the same one first have to settle whose is greater
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            _take_slots(node, _SLOTS * number // self._number, _SLOTS * (number + 1) // self._number - 1)
            if number:
                node.ask("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        self.nodes = tuple(nodes)
        self._wait_until_nothing_is(self._strangeness)

    def _strangeness(self) -> str:
        """Name the first node that does not serve the whole cluster yet, or nothing."""
        for node in self.nodes:
            lines: list[str] = node.ask("CLUSTER", "INFO").split()
            wanted = {
                "cluster_state:ok",
                f"cluster_known_nodes:{self._number}",
                f"cluster_size:{self._number}",
                f"cluster_slots_ok:{_SLOTS}",
            }
            if lacking := wanted.difference(lines):
                return f"{', '.join(sorted(lacking))} in the eyes of the node {node.port}"
        return ""

    def _move_keys(self, slot: int, source: ValkeyServer, target: ValkeyServer) -> None:
        password = [] if self._password is None else ["AUTH", self._password]
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, _KEYS_AT_ONCE):
            source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, *password, "KEYS", *keys)

    def _dissent(self, slot: int, owner: ValkeyServer) -> str:
        others = [node.port for node in self.nodes if _port_of_owner(slot, node) != owner.port]
        return f"slot {slot} with {owner.port} in the eyes of {others}" if others else ""

    def _awake(self) -> list[ValkeyServer]:
        awake = [node for node in self.nodes if node.answers()]
        if not awake:
            raise RuntimeError("no node of the cluster answers")
        return awake


def _port_of_owner(slot: int, node: ValkeyServer) -> int | None:
    for first, last, (_, port, *_), *_ in node.ask("CLUSTER", "SLOTS"):
        if first <= slot <= last:
            owner: int = port
            return owner
    return None


def _take_slots(node: ValkeyServer, first: int, last: int) -> None:
    try:
        node.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
    except ServerRefused:  # older than Redis 7
        node.ask("CLUSTER", "ADDSLOTS", *range(first, last + 1))


def _id_of(node: ValkeyServer) -> Any:
    return node.ask("CLUSTER", "MYID")


def _free_port_with_bus() -> int:
    """Return a port that is free together with the node's other one, both below those that systems hand out themselves:
    a connection of anybody's may take one of these between our look and the node's start."""
    while True:
        port = choice(range(10_000, 22_000))  # noqa: S311
        with socket.socket() as one, socket.socket() as other, suppress(OSError):
            one.bind(("127.0.0.1", port))
            other.bind(("127.0.0.1", port + _BUS_OFFSET))
            return port


def _guarded(password: str | None) -> dict[str, Any]:
    return {} if password is None else {"requirepass": password, "masterauth": password}


def _hosts(servers: tuple[ValkeyServer, ...]) -> str:
    return ",".join(f"127.0.0.1:{server.port}" for server in servers)
