"""Nodes over one server, all in one thread and on a clock of its own: the client's code is the real one, from `Loading`
and `Verbs` through the chain, `Commands` and `KnownStamps` to the `Tail`; the server, the network and the circuit are
models.

Whatever is sent arrives when chance has it: late, after what was sent later, after its caller has given up, or never;
and so do answers. Commands that were sent together may have others' between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from threading import Lock, get_ident
from typing import Any, Self, TypeVar

from histories import EVERY_NODE, Event
from server import Server
from world import Over, World

from layercache.codecs.normal import NormalForm
from layercache.codecs.pipeline import Pipeline
from layercache.core.flights import Flights
from layercache.core.layer import Health, Layer
from layercache.core.loading import Loading
from layercache.core.outbox import Outbox
from layercache.core.policy import Overrides, Plan, Policy
from layercache.core.tickets import Ticket, Tickets
from layercache.core.verbs import Verbs
from layercache.entry import CACHE_TAG, MISSING, Entry, Stamps
from layercache.errors import BackendError, BackendTimeout, CacheError, CircuitOpen
from layercache.hits import hit_path
from layercache.inline import chance
from layercache.registry import stage_named
from layercache.spi import Change, KeySpace, Lease, LeasingKeySpace, Listener
from layercache.testing import StepPort
from layercache_chain.space import ChainSpace
from layercache_memory import policy_named
from layercache_memory.space import MemorySpace
from layercache_memory.storage import Storage
from layercache_redis.backend import _Heard
from layercache_redis.calls import Setting
from layercache_redis.commands import Commands
from layercache_redis.names import Names, Node, Streams, log_name
from layercache_redis.outages import Outages
from layercache_redis.shards import _Several
from layercache_redis.stamps import KnownStamps
from layercache_redis.tail import Tail
from layercache_redis.wire import Command, Steps

__all__ = ["MAX_STALENESS", "Fleet", "Member"]

MAX_STALENESS = 1.0
_TIMEOUT = 0.25
_LOG_LENGTH = 10_000
_TTL = 300.0

R = TypeVar("R")


# -- the way to the server


class Network:
    """Between the nodes and their server.

    Attributes:
        cut_off: nodes, and their ears, from which and to which nothing gets through.
        losing: how much of what is sent is lost, and of the answers as much again.
        slow: how much of it takes its time.
        life: counts the lives of the server; connections end with each.
        is_up: whether there is a server.
    """

    def __init__(self, world: World, server: Server) -> None:
        self.world, self.server = world, server
        self.cut_off: set[object] = set()
        self.losing = self.slow = 0.0
        self.life = 0
        self.is_up = True

    async def exchange(self, node: object, commands: Sequence[Command], limit: float) -> list[Any]:
        """Send `commands` and return the replies; raises after `limit` seconds, when what was sent may still arrive."""
        world, life = self.world, self.life
        if not self.is_up:
            failure = BackendError("far", "no connection")
            failure.in_doubt = False
            raise failure
        replies: list[Any] = []
        done: list[bool] = []
        way = self._carried(node, commands, replies, done, world.clock.now + limit)
        world.start(way, "message", self)
        await world.sleep(limit, lambda: bool(done) or self.life != life)
        if done:
            return replies
        if self.life != life:
            raise BackendError("far", "the connection ended")
        raise BackendTimeout("far", "no answer")

    async def _carried(
        self,
        node: object,
        commands: Sequence[Command],
        replies: list[Any],
        done: list[bool],
        given_up_at: float,
    ) -> None:
        world, life = self.world, self.life
        if not await self._gets_through(node) or self.life != life:
            return
        for command in list(commands):
            if command[0] == "XREAD":
                await self._news(command, min(float(command[4]) / 1000, given_up_at - world.clock.now))
            elif world.chance.random() < 0.2:
                await world.pause()
            if self.life != life:
                return
            replies.append(self.server.execute(command))
        if await self._gets_through(node) and self.life == life:
            done.append(True)

    async def _news(self, command: Command, seconds: float) -> None:
        """Wait until the log has something more, for as long as a read may block."""
        world, server, life = self.world, self.server, self.life
        ends = world.clock.now + seconds
        while self.life == life and world.clock.now < ends and server.execute(command) is None:
            seen = server.appended
            await world.sleep(
                ends - world.clock.now,
                lambda seen=seen: server.appended != seen or self.life != life,  # type: ignore[misc]
            )

    async def _gets_through(self, node: object) -> bool:
        world = self.world
        dice = world.chance.random()
        if dice < self.losing:
            return False
        if dice > 1 - self.slow:
            await world.sleep(world.chance.random() ** 3)
        else:
            await world.pause()
        if node in self.cut_off:
            if world.chance.random() < 0.7:
                return False
            await world.pause(lambda: node not in self.cut_off)
        return True

    def stop(self) -> None:
        self.is_up = False
        self.life += 1

    def start(self) -> None:
        self.is_up = True


class FarSpace(LeasingKeySpace):
    """The server as one node has it: real steps, sent over the network. Plain calls have others go on meanwhile."""

    def __init__(self, member: Member, commands: Commands) -> None:
        self._member, self.commands = member, commands
        self.outages = Outages()
        self._answered = 0.0  # when the latest was sent that was answered

    @property
    def is_out(self) -> bool:
        return self.outages.is_on

    def subscribe(self, listener: Listener) -> bool:
        self.outages.subscribe(listener)
        self._member.subscribe(listener)
        return True

    async def run(self, steps: Steps[R], *, for_probe: bool = False) -> R:
        """Run steps; while the server is left alone, for who probes it alone."""
        member = self._member
        world = member.world
        task = world.task
        try:
            if self.outages.is_on and not for_probe:
                raise CircuitOpen("far", "it is left alone")
            sent = world.clock.now
            commands = next(steps)
            while True:
                replies = await self._exchange(commands, sent + _TIMEOUT)
                commands = steps.send(replies)
        except StopIteration as end:
            result: R = end.value
            return result
        except BackendError:
            if task is not None:
                task.failed = True
            raise

    async def _exchange(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        member = self._member
        sent = member.world.clock.now
        try:
            replies = await member.network.exchange(member, commands, max(deadline - sent, 0.001))
        except BackendError as error:
            if str(error).endswith("ended"):
                raise
            if self._answered < sent and not self.outages.is_on:
                self.outages.opened()
                member.start(member.probing(), "probe")
            raise
        self._answered = max(self._answered, sent)
        return replies

    def plainly(self, steps: Steps[R]) -> R:
        """Run steps for who cannot pause: who probes, and delivers what is owed before the outage ends."""
        world, results = self._member.world, []

        async def running() -> None:
            try:
                results.append((await self.run(steps, for_probe=True), None))
            except (CacheError, Over) as error:
                results.append((None, error))

        task = world.start(running(), "plainly", self._member)
        world.until(lambda: bool(results) or self._member.is_dead)
        if not results:
            raise Over
        result, error = results[0]
        if task.failed and world.task is not None:
            world.task.failed = True
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    def clear(self) -> None:
        self.plainly(self.commands.clear())

    def delete_many(self, keys: Sequence[str]) -> int:
        return self.plainly(self.commands.delete_many(keys))

    def invalidate(self, tags: Sequence[str], soft: bool = False) -> None:
        self.plainly(self.commands.invalidate(tags, soft))

    # the rest is asked for through the port alone
    get = set = update = delete = lease_many = fill_many = release_many = late_stamps = None  # type: ignore[assignment]
    alease_many = afill_many = arelease_many = alate_stamps = None  # type: ignore[assignment]


class NodePort(StepPort):
    """The acts of one node's core: over the network, in the chain, or in its memory."""

    def __init__(self, member: Member) -> None:
        super().__init__(member.now)
        self._member = member

    def token(self) -> bytes:
        return self._member.world.chance.randbytes(12)

    async def _in(self, space: Any, chain: str, far: str, near: str, *args: Any) -> Any:
        if isinstance(space, ChainSpace):
            return await getattr(space, chain)(self, *args)
        if isinstance(space, FarSpace):
            return await space.run(getattr(space.commands, far)(*args))
        await self._member.world.pause()
        return getattr(space, near)(*args)

    async def read(self, space: KeySpace, key: str) -> Entry | None:
        return await self._in(space, "_read", "get", "get", key)

    async def read_many(self, space: KeySpace, keys: Sequence[str]) -> dict[str, Entry]:
        return await self._in(space, "_read_many", "get_many", "get_many", keys)

    async def write(self, space: KeySpace, key: str, entry: Entry) -> bool:
        if isinstance(space, ChainSpace):
            return not await space._write_many(self, {key: entry})
        return await self._in(space, "", "set", "set", key, entry)

    async def write_many(self, space: KeySpace, entries: Mapping[str, Entry]) -> list[str]:
        return await self._in(space, "_write_many", "set_many", "set_many", entries)

    async def update(self, space: KeySpace, key: str, change: Change) -> Entry | None:
        return await self._in(space, "_update", "update", "update", key, change)

    async def fill(self, space: KeySpace, ticket: Ticket, entry: Entry) -> bool:
        await self._member.world.pause()
        return space.fill(ticket, entry)

    async def delete(self, space: KeySpace, key: str) -> bool:
        if isinstance(space, ChainSpace):
            return await space._delete_many(self, [key]) > 0
        return await self._in(space, "", "delete", "delete", key)

    async def delete_many(self, space: KeySpace, keys: Sequence[str]) -> int:
        return await self._in(space, "_delete_many", "delete_many", "delete_many", keys)

    async def clear(self, space: KeySpace) -> None:
        await self._in(space, "_clear", "clear", "clear")

    async def invalidate(self, space: KeySpace, tags: Sequence[str], soft: bool = False) -> None:
        await self._in(space, "_invalidate", "invalidate", "invalidate", tags, soft)

    async def stamps(self, space: KeySpace, tags: Sequence[str]) -> Stamps:
        return await self._in(space, "_stamps", "stamps", "stamps", tags)

    async def lease_many(
        self,
        space: LeasingKeySpace,
        keys: Sequence[str],
        token: bytes,
        seconds: float,
        after: float,
        tags: Sequence[str],
    ) -> dict[str, Lease]:
        return await self._in(space, "_lease_many", "lease_many", "", keys, token, seconds, after, tags)

    async def fill_many(
        self, space: LeasingKeySpace, token: bytes, entries: Mapping[str, Entry]
    ) -> list[str]:
        return await self._in(space, "_fill_many", "fill_many", "", token, entries)

    async def release_many(
        self, space: LeasingKeySpace, keys: Sequence[str], token: bytes, seconds: float
    ) -> None:
        await self._in(space, "_release_many", "release_many", "", keys, token, seconds)

    async def late_stamps(
        self, space: LeasingKeySpace, tags: Sequence[str], mark: bytes | None
    ) -> Stamps | None:
        return await self._in(space, "_late_stamps", "late_stamps", "", tags, mark)

    async def load(self, loader: Callable[[], Any], seconds: float) -> Any:
        return await loader()

    async def start(self, job: Coroutine[Any, Any, None], party: Any, ended: Any, *, apart: bool) -> None:
        await job

    def spawn(self, job: Callable[[Any], Coroutine[Any, Any, None]], party: Any, ended: Any) -> bool:
        async def refresh() -> None:
            await job(self)
            ended(None)

        self._member.start(refresh(), "refresh")
        return True

    async def join(self, flight: Any, seconds: float) -> bool:
        await self._member.world.sleep(min(seconds, 30.0), lambda: flight.is_over)
        return bool(flight.is_over)

    async def sleep(self, seconds: float) -> None:
        await self._member.world.sleep(seconds)


# -- nodes


class Member:
    """One node: a process with a cache over a chain of memory and the server.

    Attributes:
        name: in the history.
        ear: its connection for the log, which may be cut off alone.
        shift: seconds that its wall clock is from the true time.
        out_since: up to when it had heard of all that others did, when its latest outage began.
    """

    def __init__(self, fleet: Fleet, name: str, *, serves: bool, shards: int) -> None:
        self.fleet, self.name, self.shift = fleet, name, 0.0
        self.world, self.network = fleet.world, fleet.network
        self.ear = object()
        self.is_dead = self._is_delivering = False
        self.out_since = 0.0
        node = Node()
        node.id = name.encode()
        self._node, self._streams, self._several = node, Streams("p", shards), list[_Several]()
        self.tails: list[Tail] = []
        self.follow(shards)
        known = KnownStamps(lambda: self.current_until > self.world.clock.now)
        setting = Setting("far", False, _LOG_LENGTH, node, self.now)
        self.far = FarSpace(self, Commands(setting, Names("p", "c", self._streams), _PIPELINE, known))
        self.subscribe(_Heard(self.far.commands, known))
        storage = Storage(100, 1 << 20, 1 << 18, _LRU(), self.now)
        self.near = MemorySpace(storage, _SERIALIZER, math.inf)
        self.outbox = Outbox(
            "c", "far", 10_000 if self.world.chance.random() < 0.8 else 2, Lock(), self._noticed
        )
        self.layers = [
            Layer("near", "memory", self.near, Tickets(Lock()), Health("near"), forgiving=True),
            Layer(
                "far", "redis", self.far, Tickets(Lock()), Health("far"), forgiving=True, outbox=self.outbox
            ),
        ]
        self.chain = ChainSpace(self.layers, self.now, serves=serves, degraded_ttl=30.0)
        form = NormalForm(_SERIALIZER, is_near=True)
        layer = Layer("chain", "chain", self.chain, Tickets(Lock()), Health("chain"))
        self.verbs = Verbs(layer, _POLICY, form)
        self.loading = Loading(self.verbs, Flights(Lock(), get_ident))
        self.hit = hit_path(self.near, form, _SLOW)["hit"]
        self.port = NodePort(self)

    def now(self) -> float:
        return self.world.clock.now + self.shift

    def start(self, coroutine: Coroutine[Any, Any, Any], name: str) -> None:
        self.world.start(coroutine, f"{self.name}'s {name}", self)

    def crash(self) -> None:
        self.is_dead = True
        self.world.forget(self)

    # -- what goes on in the background

    def follow(self, number: int) -> None:
        """Follow so many streams, as `Shards` does."""
        while len(self.tails) < number:
            first, index = not self.tails, len(self.tails)
            streams, follow = (self._streams, self.follow) if first else (None, int)
            tail = Tail(
                log_name("p", index), self._node, _LOG_LENGTH, MAX_STALENESS, self.now, self.world.clock,
                streams, follow,
            )  # fmt: skip
            for several in self._several:
                tail.subscribe("c", several.another())
            self.tails.append(tail)
            self.start(self._follow(tail), "log")

    def subscribe(self, listener: Listener) -> None:
        several = _Several(listener)
        self._several.append(several)
        for tail in self.tails:
            tail.subscribe("c", several.another())

    @property
    def current_until(self) -> float:
        return min(tail.current_until for tail in self.tails)

    @property
    def set_backs(self) -> int:
        return sum(tail.set_backs for tail in self.tails)

    async def _follow(self, tail: Tail) -> None:
        """As `Log` does on its thread."""
        while True:
            steps, life = tail.turn(), self.network.life
            try:
                commands = next(steps)
                while True:
                    replies = await self.network.exchange(self.ear, commands, tail.block + _TIMEOUT)
                    if self.world.chance.random() < 0.3:  # it is long until the thread has its turn
                        await self.world.sleep(self.world.chance.random() * 0.3)
                    commands = steps.send(replies)
            except StopIteration:
                tail.compare_clocks()
            except BackendError:
                tail.compare_clocks()
                await self.world.sleep(0.02 if life != self.network.life else 0.2)

    async def probing(self) -> None:
        """As `Circuit` does on a thread of its own."""
        self.out_since, delay = self.sees_until, 0.01
        while True:
            await self.world.sleep(delay)
            delay = min(delay * 2, 0.5)
            sent = self.world.time
            try:
                await self.network.exchange(self, [("PING",)], _TIMEOUT)
                self.far.outages.closing()
            except BackendError:
                continue
            self.note("delivered", began=sent)
            self.far.outages.closed()
            self.note("outage", began=self.out_since)
            return

    @property
    def sees_until(self) -> float:
        """Up to when it has heard of all that others did."""
        seen = self.current_until - MAX_STALENESS - self.world.began
        return min(self.world.time, max(seen, 0.0))

    def _noticed(self) -> None:
        if not self._is_delivering:
            self._is_delivering = True
            self.start(self._deliver(), "deliveries")

    async def _deliver(self) -> None:
        """As `Deliveries` does on a thread of its own."""
        delay = 0.005
        while not self.outbox.is_empty:
            await self.world.sleep(delay)
            began = self.world.time
            try:
                await self.outbox.deliver(self.port, self.far)
            except BackendError:
                delay = min(delay * 2, 0.5)
            else:
                self.note("delivered", began=began)
        self._is_delivering = False

    # -- what its users do

    def note(self, operation: Any, **fields: Any) -> None:
        self.fleet.history.append(Event(self.name, operation, ended=self.world.time, **fields))

    def changing(
        self, operation: Any, key: str = "", tags: tuple[str, ...] = (), value: Any = None
    ) -> _Change:
        """Around a change: notes it, as one that may come true, and how it ended."""
        return _Change(self, operation, key, tags, value)

    async def get(self, key: str) -> None:
        began = self.world.time
        value = self.hit(key)
        if value is MISSING:
            value = await self.verbs.get(self.port, key)
        self.fleet.reads += 1
        self.fleet.hits += value is not None
        self.note("read", key=key, value=value, began=began)

    async def set(self, key: str, tags: tuple[str, ...]) -> None:
        value = self.fleet.new_value()
        with self.changing("write", key, tags, value):
            await self.verbs.set(self.port, key, value, _TTL, tags)

    async def set_many(self, keys: Sequence[str]) -> None:
        values = {key: self.fleet.new_value() for key in keys}
        changes = [self.changing("write", key, (), value).__enter__() for key, value in values.items()]
        await self.verbs.set_many(self.port, values, _TTL)
        for change in changes:
            change.__exit__(None, None, None)

    async def add(self, key: str) -> None:
        value = self.fleet.new_value()
        with self.changing("write", key, (), value) as change:
            change.is_made = await self.verbs.add(self.port, key, value, _TTL)

    async def replace(self, key: str) -> None:
        """By comparing and swapping."""
        value = self.fleet.new_value()
        made, _ = self.verbs.entry(self.port, key, value, _TTL, ())
        with self.changing("write", key, (), value) as change:
            changed = await self.verbs.layer.update(self.port, key, lambda found: found and made)
            change.is_made = changed is not None

    async def delete(self, key: str) -> None:
        with self.changing("delete", key):
            await self.verbs.delete(self.port, key)

    async def delete_many(self, keys: Sequence[str]) -> None:
        changes = [self.changing("delete", key).__enter__() for key in keys]
        await self.verbs.delete_many(self.port, keys)
        for change in changes:
            change.__exit__(None, None, None)

    async def invalidate(self, tags: tuple[str, ...]) -> None:
        with self.changing("invalidate", tags=tags):
            await self.verbs.invalidate(self.port, tags)

    async def soften(self, tags: tuple[str, ...]) -> None:
        """What it does breaks no rule, nor keeps any."""
        await self.verbs.invalidate(self.port, tags, soft=True)

    async def clear(self) -> None:
        with self.changing("clear"):
            await self.verbs.clear(self.port)

    async def get_or_set(self, key: str, tags: tuple[str, ...], *, late: bool) -> None:
        """Its tags are told with the call, or late: by what was loaded."""
        world, began = self.world, self.world.time

        loaded: list[tuple[Member, str]] = []

        async def loader() -> str:
            value = self.fleet.new_value()
            loaded.append((self, value))
            self.fleet.flights[self, value] = math.inf
            with self.changing("load", key, tags, value):
                await world.sleep(world.chance.random() * 0.5)
            return value

        given: Any = (lambda value: tags) if late else tags
        value = await self.loading.get_or_set(self.port, key, loader, Overrides(_TTL, {"tags": given}))
        self.fleet.reads += 1
        for flight in loaded:
            self.fleet.flights[flight] = world.time
        if (
            self.fleet.flights.get((self, value), 0.0) < began
        ):  # it was there, and is no load's that was waited for
            self.fleet.hits += 1
            self.note("read", key=key, value=value, began=began)

    async def get_many(self, keys: Sequence[str]) -> None:
        began = self.world.time
        values = await self.verbs.get_many(self.port, keys)
        for key in keys:
            self.note("read", key=key, value=values.get(key), began=began)


class _Change:
    """Attributes:
    is_made: whether it came to be, as far as its caller knows.
    """

    def __init__(self, member: Member, operation: Any, key: str, tags: tuple[str, ...], value: Any) -> None:
        self._member, self._operation, self._key, self._tags, self._value = (
            member,
            operation,
            key,
            tags,
            value,
        )
        self.is_made = True

    def __enter__(self) -> Self:
        self._began = self._member.world.time
        self._member.fleet.under_way[self] = None
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        member = self._member
        if kind is not None:
            return  # it was stopped, and stays under way for ever
        del member.fleet.under_way[self]
        task = member.world.task
        failed = task is not None and task.failed
        if self._operation == "load":
            failed = False
        tags = {"invalidate": self._tags, "clear": (CACHE_TAG,)}.get(self._operation, ())
        is_owed = member.chain.owes([self._key] if self._key else [], tags)
        if self.is_made:
            member.fleet.history.append(self.event(failed or is_owed, member.world.time))
        elif failed or is_owed:  # it may have come to be all the same
            member.fleet.history.append(self.event(True, math.inf))

    def event(self, is_unknown: bool, ended: float) -> Event:
        outcome: Any = "unknown" if is_unknown and self._operation != "load" else "done"
        member = self._member
        return Event(
            member.name, self._operation, self._key, self._tags, self._value, self._began, ended, outcome
        )


class Fleet:
    """Nodes over one server, what they do, and what was noted of it.

    Args:
        seed: decides everything.
        serves: whether near layers serve in an outage.
        shards: whether the log is in several streams, of whose number each node has an opinion of its own.
    """

    def __init__(self, seed: int, *, serves: bool = True, shards: bool = False, nodes: int = 3) -> None:
        chance.seed(seed)  # stamps and back-off
        self.world = World(seed)
        self.server = Server(lambda: self.world.clock.now + 3600)
        self.network = Network(self.world, self.server)
        self._serves, self._shards = serves, shards
        self.history: list[Event] = []
        self.under_way: dict[_Change, None] = {}
        self.set_backs: list[tuple[float, float]] = []  # that are not made good yet
        self.flights: dict[tuple[Member, Any], float] = {}  # when those ended that loaded a value
        self.reads = self.hits = self._values = self._lives = 0
        self.members = [self._member(name) for name in "abcdefgh"[:nodes]]

    def _member(self, name: str) -> Member:
        shards = self.world.chance.choice([1, 2, 3]) if self._shards else 1
        return Member(self, name, serves=self._serves, shards=shards)

    def new_value(self) -> str:
        self._values += 1
        return f"v{self._values}"

    def replace(self, member: Member) -> None:
        """It crashes, and another takes its place, with nothing near."""
        member.crash()
        self._lives += 1
        self.members[self.members.index(member)] = self._member(f"{member.name[0]}{self._lives}")

    def events(self) -> list[Event]:
        """Return the history, with what never ended."""
        changes = [change.event(True, math.inf) for change in self.under_way]
        outages = [
            Event(member.name, "outage", began=member.out_since)
            for member in self.members
            if member.far.is_out
        ]
        set_backs = [Event(EVERY_NODE, "outage", began=began, value=since) for began, since in self.set_backs]
        return [*self.history, *changes, *outages, *set_backs]

    def watch_set_back(self, since: float, is_made_good: Callable[[], bool], within: float) -> None:
        """Note that the server shows from now on what it had at `since`, until that is made good; or should be, after
        so many seconds."""
        began = self.world.time
        self.set_backs.append((began, since))

        async def watch() -> None:
            await self.world.sleep(within, is_made_good)
            self.set_backs.remove((began, since))
            self.history.append(Event(EVERY_NODE, "outage", began=began, ended=self.world.time, value=since))

        self.world.start(watch(), "watch")


_JSON = stage_named("json")
_SERIALIZER: Any = _JSON(_JSON.Options())
_LRU = policy_named("lru")
_PIPELINE = Pipeline([_SERIALIZER], 1 << 20)
_POLICY = Policy(Plan(ttl=_TTL, wait=5.0, lease_ttl=3.0, refresh="off"), {}, 1024)


def _no(*_: Any, **__: Any) -> Any:
    raise AssertionError("only hits are asked for")


_SLOW: dict[str, Callable[..., Any]] = dict.fromkeys(["get", "aget", "get_or_set", "aget_or_set"], _no)
