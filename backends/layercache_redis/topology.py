"""Where commands go: to one server, to the primary that sentinels name, or to the nodes of a cluster.

Logic as coroutines over `Ask`, which the drivers run inline or on a loop. Rule: a command that a server refused
because it belongs elsewhere was not executed, so it is sent elsewhere, whatever it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from layercache_redis.options import Place, RedisOptions
from layercache_redis.wire import Command, Refusal

__all__ = ["Ask", "Cluster", "Sentinels", "Single", "Topology", "topology_of"]

_REDIRECTIONS: Final = 5


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


class Topology(Protocol):
    """Attributes:
    direct: the one place that everything can be sent to without a look at the replies; None: `exchange` it.
    """

    direct: Place | None

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
        self._place = place

    async def place_of(self, ask: Ask, key: bytes) -> Place:
        return self._place

    async def exchange(self, ask: Ask, commands: Sequence[Command]) -> list[Any]:
        return await ask.exchange(self._place, commands)

    def forget(self) -> None:
        pass


class Sentinels:
    """The primary of a service, as any of the sentinels names it."""

    direct: Place | None = None

    def __init__(self, options: RedisOptions) -> None:
        self._sentinels, self._service = options.places(), options.url.service
        self._tls = options.url.is_tls
        self._primary: Place | None = None

    async def place_of(self, ask: Ask, key: bytes) -> Place:
        return self._primary or await self._find(ask)

    async def exchange(self, ask: Ask, commands: Sequence[Command]) -> list[Any]:
        replies = await ask.exchange(self._primary or await self._find(ask), commands)
        if any(isinstance(reply, Refusal) and reply.code == "READONLY" for reply in replies):
            self.forget()  # it was the primary and is no more; nothing of this was executed but reads
            replies = await ask.exchange(await self._find(ask), commands)
        return replies

    def forget(self) -> None:
        self._primary = None

    async def _find(self, ask: Ask) -> Place:
        said = "there are none"
        command: Command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
        for sentinel in list(self._sentinels):
            try:
                reply = await ask.sentinel(sentinel, command)
            except RedisError as error:
                said = str(error)
                continue
            if isinstance(reply, list):
                # who answered is asked first from now on
                self._sentinels.sort(key=lambda place, first=sentinel: place != first)  # type: ignore[misc]
                self._primary = Place(reply[0].decode(), int(reply[1]), tls=self._tls)
                return self._primary
            said = str(reply) if isinstance(reply, Refusal) else f"it knows no service {self._service!r}"
        raise RedisConnectionError(f"no sentinel names the primary of {self._service!r}: {said}")


class Cluster:
    """The nodes of a cluster, each with its share of the slots."""

    direct: Place | None = None

    def __init__(self, options: RedisOptions) -> None:
        self._seeds = options.places()
        self._slots: dict[int, Place] = {}

    async def place_of(self, ask: Ask, key: bytes) -> Place:
        if not self._slots:
            await self._learn(ask)
        place = self._slots.get(key_slot(key))
        if place is None:
            self.forget()
            raise RedisConnectionError(f"no node of the cluster has slot {key_slot(key)}")
        return place

    async def exchange(self, ask: Ask, commands: Sequence[Command]) -> list[Any]:
        replies: list[Any] = [None] * len(commands)
        pending = {index: await self.place_of(ask, _key(command)) for index, command in enumerate(commands)}
        asking: set[int] = set()
        for _ in range(_REDIRECTIONS):
            await self._send(ask, commands, replies, pending, asking)
            pending, asking = self._redirected(replies, pending)
            if not pending:
                break
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
        for index, place in sent.items():
            reply = replies[index]
            if not isinstance(reply, Refusal) or reply.code not in {"MOVED", "ASK"}:
                continue
            _, slot, target = str(reply).split(" ")[:3]
            host, _, port = target.rpartition(":")
            pending[index] = replace(place, host=host or place.host, port=int(port))
            if reply.code == "MOVED":
                self._slots[int(slot)] = pending[index]
            else:
                asking.add(index)
        return pending, asking

    def forget(self) -> None:
        # nodes that were known are seeds too: those of the settings may all be gone by now
        self._seeds = list(dict.fromkeys([*self._seeds, *self._slots.values()]))
        self._slots = {}

    async def _learn(self, ask: Ask) -> None:
        said = ""
        for seed in self._seeds:
            try:
                (reply,) = await ask.exchange(seed, [("CLUSTER", "SLOTS")])
            except RedisError as error:
                said = str(error)
                continue
            if isinstance(reply, Refusal):
                said = str(reply)
                continue
            slots: dict[int, Place] = {}
            for first, last, node, *_ in reply:
                place = replace(seed, host=(node[0] or b"").decode() or seed.host, port=int(node[1]))
                slots.update(dict.fromkeys(range(first, last + 1), place))
            self._slots = slots
            return
        raise RedisConnectionError(f"no node of the cluster tells its slots: {said}")


def _key(command: Command) -> bytes:
    key = command[3 if command[0] in {"EVALSHA", "EVAL"} else 1]
    assert isinstance(key, bytes)
    return key


def topology_of(options: RedisOptions) -> Topology:
    """Return the topology that the address names."""
    if options.url.is_sentinel:
        return Sentinels(options)
    return Cluster(options) if options.url.is_cluster else Single(options.places()[0])
