"""Where commands go: to one server, to the primary that sentinels name, or to the nodes of a cluster.

Logic as coroutines over `Ask`, which the drivers run inline or on a loop. Rule: a command that a server refused
because it belongs elsewhere was not executed, so it is sent elsewhere, whatever it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import monotonic
from typing import Any, Final, Protocol

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from layercache.errors import BackendError, CircuitOpen
from layercache_redis.options import Place, RedisOptions
from layercache_redis.wire import Command, NotPrimary, Refusal

__all__ = ["Ask", "Cluster", "Sentinels", "Single", "Topology", "topology_of"]

_REDIRECTIONS: Final = 5
_MOVING: Final = 0.01  # seconds between looks at a slot that is being moved
_LOOK_AGAIN: Final = 0.5  # seconds between looks at who has the slots of a node that is left alone


class Ask(Protocol):
    """How a topology reaches servers."""

    async def exchange(self, place: Place, commands: Sequence[Command]) -> list[Any]:
        """Send `commands` to the server there and return their replies."""
        ...

    async def exchange_all(self, parts: Sequence[tuple[Place, Sequence[Command]]]) -> list[list[Any]]:
        """As `exchange` of each part, at the same time where that can be."""
        ...

    async def sentinel(self, place: Place, command: Command) -> Any:
        """Return what the sentinel there replies, over a connection of its own."""
        ...

    async def pause(self, seconds: float) -> bool:
        """Let `seconds` pass; return False at once where the operation would have to be over by then."""
        ...


class Topology(Protocol):
    """Attributes:
    direct: the one place that everything can be sent to without a look at the replies; None: `exchange` it.
    """

    direct: Place | None

    @property
    def only(self) -> Place | None:
        """The one place that everything goes to now; None where there are several, or others have to be asked for it.
        Who sends there and is refused, has to `exchange` it then."""
        ...

    async def place_of(self, ask: Ask, key: bytes) -> Place:
        """Return where the server of `key` listens."""
        ...

    async def exchange(self, ask: Ask, commands: Sequence[Command]) -> list[Any]:
        """Send each of `commands` where it belongs and return their replies in order."""
        ...

    def forget(self) -> None:
        """What was known of the places is in doubt."""


class Single:
    """One server."""

    def __init__(self, place: Place) -> None:
        self.direct: Place | None = place
        self.only: Place | None = place
        self._place = place

    async def place_of(self, ask: Ask, key: bytes) -> Place:
        return self._place

    async def exchange(self, ask: Ask, commands: Sequence[Command]) -> list[Any]:
        return await ask.exchange(self._place, commands)

    def forget(self) -> None:
        pass


class Sentinels:
    """The primary of a service, as any of the sentinels names it.

    One that is in doubt is still sent to: what is wrong with it opens its circuit, whose probe asks the sentinels anew,
    so callers do not wait for those.
    """

    direct: Place | None = None

    def __init__(self, options: RedisOptions) -> None:
        self._sentinels, self._service = tuple(options.places()), options.url.service
        self._tls = options.url.is_tls
        self._primary: Place | None = None
        self._is_doubtful = False

    @property
    def only(self) -> Place | None:
        return None if self._is_doubtful else self._primary

    async def place_of(self, ask: Ask, key: bytes) -> Place:
        return self.only or await self._find(ask)

    async def exchange(self, ask: Ask, commands: Sequence[Command]) -> list[Any]:
        place = self._primary or await self._find(ask)
        try:
            replies = await ask.exchange(place, commands)
        except NotPrimary:
            return await ask.exchange(await self._other_than(ask, place), commands)
        refused = [index for index, reply in enumerate(replies) if _is_of_a_replica(reply)]
        if refused:  # it was the primary and is no more
            other = await self._other_than(ask, place)
            again = await ask.exchange(other, [commands[index] for index in refused])
            for index, reply in zip(refused, again, strict=True):
                replies[index] = reply
        return replies

    def forget(self) -> None:
        self._is_doubtful = True

    async def _other_than(self, ask: Ask, former: Place) -> Place:
        """Return the primary that followed on `former`; another caller may have found it already."""
        named = self._primary
        return await self._find(ask, former=former) if named is None or named == former else named

    async def _find(self, ask: Ask, former: Place | None = None) -> Place:
        """Ask one sentinel after the other; who names `former` has not heard yet that it is no primary any more."""
        said: list[str] = []
        command: Command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
        for sentinel in self._sentinels:
            try:
                reply = await ask.sentinel(sentinel, command)
            except RedisError as error:
                said.append(str(error))
                continue
            if not isinstance(reply, list):
                said.append(f"{sentinel}: {reply or f'it knows no service {self._service!r}'}")
                continue
            primary = Place(reply[0].decode(), int(reply[1]), tls=self._tls)
            if primary == former:
                said.append(f"{sentinel}: it is {primary}, which takes no writes")
                continue
            # who answered is asked first from now on
            others = (other for other in self._sentinels if other != sentinel)
            self._sentinels, self._primary, self._is_doubtful = (sentinel, *others), primary, False
            return primary
        raise RedisConnectionError(f"no sentinel names the primary of {self._service!r} ({'; '.join(said)})")


def _is_of_a_replica(reply: Any) -> bool:
    """Whether a command was refused, and not executed, because it writes and the server is a replica."""
    return type(reply) is Refusal and "READONLY" in str(reply)  # a script's is wrapped up before Redis 7


def _is_torn(reply: Any) -> bool:
    return type(reply) is Refusal and reply.code == "TRYAGAIN"


class Cluster:
    """The nodes of a cluster, each with its share of the slots."""

    direct: Place | None = None
    only: Place | None = None

    def __init__(self, options: RedisOptions) -> None:
        self._seeds = tuple(options.places())
        self._nodes: tuple[Place, ...] = ()  # those that had slots, the next to be asked first
        self._owners: list[Place | None] | None = None  # by slot
        self._learnt_at = 0.0

    async def place_of(self, ask: Ask, key: bytes) -> Place:
        slot, owners = key_slot(key), self._owners
        place = owners[slot] if owners is not None else None
        if place is None:
            place = (await self._learn(ask))[slot]
        if place is None:
            raise RedisConnectionError(f"no node of the cluster has slot {slot}")
        return place

    async def exchange(self, ask: Ask, commands: Sequence[Command]) -> list[Any]:
        replies: list[Any] = [None] * len(commands)
        pending = {index: await self.place_of(ask, _key(command)) for index, command in enumerate(commands)}
        asking: set[int] = set()
        left = _REDIRECTIONS
        while left:
            try:
                await self._send(ask, commands, replies, pending, asking)
            except CircuitOpen:
                # the node is left alone, so no answer will ever tell that another has its slots by now
                if monotonic() - self._learnt_at > _LOOK_AGAIN:
                    self.forget()
                raise
            before, was_asking = pending, asking
            pending, asking = self._redirected(replies, pending)
            # a slot is being moved, and of the keys of one command one is here and one there
            torn = {index: before[index] for index in before if _is_torn(replies[index])}
            if torn and await ask.pause(_MOVING):
                pending |= torn
                asking |= was_asking & torn.keys()
            elif not pending:
                break
            else:
                left -= 1
        return replies

    async def _send(
        self,
        ask: Ask,
        commands: Sequence[Command],
        replies: list[Any],
        pending: dict[int, Place],
        asking: set[int],
    ) -> None:
        by_place: dict[Place, list[int]] = {}
        for index, place in pending.items():
            by_place.setdefault(place, []).append(index)
        parts: list[tuple[Place, Sequence[Command]]] = []
        for place, indexes in by_place.items():
            sent: list[Command] = []
            for index in indexes:
                sent += [("ASKING",), commands[index]] if index in asking else [commands[index]]
            parts.append((place, sent))
        for indexes, answers in zip(by_place.values(), await ask.exchange_all(parts), strict=True):
            following = iter(answers)
            for index in indexes:
                if index in asking:
                    next(following)
                replies[index] = next(following)

    def _redirected(self, replies: list[Any], sent: dict[int, Place]) -> tuple[dict[int, Place], set[int]]:
        pending: dict[int, Place] = {}
        asking: set[int] = set()
        owners = self._owners
        for index, place in sent.items():
            reply = replies[index]
            if not isinstance(reply, Refusal) or reply.code not in {"MOVED", "ASK"}:
                continue
            _, slot, target = str(reply).split(" ")[:3]
            host, _, port = target.rpartition(":")
            pending[index] = replace(place, host=host or place.host, port=int(port))
            if reply.code == "ASK":
                asking.add(index)
            elif owners is not None:
                owners[int(slot)] = pending[index]
        return pending, asking

    def forget(self) -> None:
        self._owners = None
        self._nodes = self._nodes[1:] + self._nodes[:1]  # who was asked last may be behind

    async def _learn(self, ask: Ask) -> list[Place | None]:
        said: list[str] = []
        # nodes that were known are asked too: those of the settings may all be gone by now
        for node in dict.fromkeys((*self._nodes, *self._seeds)):
            try:
                (reply,) = await ask.exchange(node, [("CLUSTER", "SLOTS")])
            except (RedisError, BackendError) as error:
                said.append(str(error))
                continue
            if not isinstance(reply, list) or not reply:
                said.append(f"{node}: {reply or 'it knows of no slots'}")
                continue
            owners: list[Place | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
            nodes = {node: None}  # in order
            for first, last, (host, port, *_), *_ in reply:
                place = replace(node, host=(host or b"").decode() or node.host, port=int(port))
                owners[first : last + 1] = [place] * (last + 1 - first)
                nodes[place] = None
            self._nodes, self._owners, self._learnt_at = tuple(nodes), owners, monotonic()
            return owners
        raise RedisConnectionError(f"no node of the cluster tells its slots ({'; '.join(said)})")


def _key(command: Command) -> bytes:
    key = command[3 if command[0] in {"EVALSHA", "EVAL"} else 1]
    assert isinstance(key, bytes)
    return key


def topology_of(options: RedisOptions) -> Topology:
    """Return the topology that the address names."""
    if options.url.is_sentinel:
        return Sentinels(options)
    return Cluster(options) if options.url.is_cluster else Single(options.places()[0])
