"""Tickets: what was loaded, or read farther away, before a change is never stored after it, in any order of steps."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from threading import Lock
from typing import Any

import pytest

from layercache.codecs.normal import NormalForm
from layercache.core.changes import Add
from layercache.core.layer import Health, Layer
from layercache.core.tickets import Fill, Ticket, Tickets
from layercache.entry import CACHE_TAG, Entry
from layercache.errors import BackendError
from layercache.inline import InlinePort
from layercache.spi import Change, KeySpace, LeasingKeySpace
from layercache.testing import Clock, StepPort, every_order
from layercache.testing.contract import open_backend
from layercache.testing.stepping import Killed, Order, pause
from layercache_chain.hearing import Hearing, Trust
from layercache_chain.space import ChainSpace

CLOCK = Clock()
BACKEND = open_backend(
    "memory", now=CLOCK
)  # opened once: thousands of worlds are made on it, each emptied first
FORM = NormalForm(BACKEND.serializer)

OLD, NEW = "old", "new"


def entry(value: str, *tags: str) -> Entry:
    now = CLOCK()
    return Entry(None, value, now, now + 60, now + 60, tuple((tag, 0) for tag in tags))


def value(found: Entry | None) -> Any:
    """What is there and fresh."""
    return found.value if found is not None and found.fresh_until > CLOCK() else None


# -- by themselves


class TestTickets:
    @pytest.fixture(autouse=True)
    def _tickets(self) -> None:
        self.tickets = Tickets(Lock())

    def test_one_permits_until_it_is_void(self) -> None:
        ticket, another = self.tickets.open("k"), self.tickets.open("l")
        assert ticket.permits(entry("v"))

        self.tickets.void("k")

        assert not ticket.permits(entry("v"))
        assert another.permits(entry("v"))
        assert self.tickets.open("k").permits(entry("v"))

    def test_all_of_one_key_are_void_at_once(self) -> None:
        tickets = [self.tickets.open("k") for _ in range(3)]

        self.tickets.void("k")

        assert not any(ticket.permits(entry("v")) for ticket in tickets)

    def test_a_tag_that_was_invalidated_matters_to_what_carries_it(self) -> None:
        ticket = self.tickets.open("k")
        self.tickets.void_tags(["t"])
        self.tickets.void_tags(["u"])

        assert ticket.permits(entry("v"))
        assert ticket.permits(entry("v", "w"))
        assert not ticket.permits(entry("v", "w", "t"))
        assert not ticket.permits(entry("v", "u"))
        assert self.tickets.open("k").permits(entry("v", "t"))

    def test_that_of_the_whole_cache_voids_all(self) -> None:
        tickets = [self.tickets.open(key) for key in "kl"]

        self.tickets.void_tags([CACHE_TAG])

        assert not any(ticket.permits(entry("v")) for ticket in tickets)

    def test_while_everything_is_changed_none_is_good(self) -> None:
        before = self.tickets.open("k")
        with self.tickets.clearing():
            assert before.is_void
            assert self.tickets.open("k").is_void
            with self.tickets.clearing():
                pass
            assert self.tickets.open("k").is_void  # the first is under way still
        assert not self.tickets.open("k").is_void

    def test_while_a_key_is_written_none_of_it_is_good(self) -> None:
        before = self.tickets.open("k")
        with self.tickets.writing(["k", "l"]) as own:
            assert [(ticket.key, ticket.is_void, ticket.writes) for ticket in own] == [
                ("k", False, True),
                ("l", False, True),
            ]
            assert before.is_void
            assert self.tickets.open("k").is_void
            assert not self.tickets.open("m").is_void
        assert not self.tickets.open("k").is_void

    def test_of_two_writes_that_overlap_both_are_void(self) -> None:
        with self.tickets.writing(["k"]) as first:
            with self.tickets.writing(["k"]) as second:
                assert first[0].is_void
                assert second[0].is_void
            with self.tickets.writing(["k"]) as third:  # the first is under way still
                assert third[0].is_void
        with self.tickets.writing(["k"]) as alone:
            assert not alone[0].is_void

    def test_a_read_under_way_does_not_void_a_write(self) -> None:
        self.tickets.open("k")

        with self.tickets.writing(["k"]) as own:
            self.tickets.open("k")
            assert not own[0].is_void

    def test_a_write_while_everything_is_changed_is_void(self) -> None:
        with self.tickets.clearing(), self.tickets.writing(["k"]) as own:
            assert own[0].is_void
        with self.tickets.writing(["k"]) as own, self.tickets.clearing():
            assert own[0].is_void

    def test_a_change_that_fails_is_over(self) -> None:
        for change in (self.tickets.writing(["k"]), self.tickets.clearing()):
            with pytest.raises(Killed), change:
                raise Killed
        assert not self.tickets.open("k").is_void

    def test_those_that_are_closed_are_forgotten(self) -> None:
        tickets = [self.tickets.open(key) for key in "kkl"]
        assert len(self.tickets) == 3

        for ticket in (*tickets, *tickets):  # twice is harmless
            self.tickets.close(ticket)

        assert len(self.tickets) == 0
        assert self.tickets._open == {}

    def test_after_a_reset_there_are_none_and_nothing_is_under_way(self) -> None:
        with self.tickets.clearing(), self.tickets.writing(["k"]):
            self.tickets.reset(Lock())
            assert len(self.tickets) == 0
            assert not self.tickets.open("k").is_void
        assert not self.tickets.open("k").is_void, "what was under way ended for who has forgotten it"

    def test_a_fill_stores_what_its_ticket_permits(self) -> None:
        ticket, made = self.tickets.open("k"), entry("v")
        assert Fill(made, ticket)(None) is made
        assert Fill(made, ticket)(entry("another")) is made

        self.tickets.void("k")

        assert Fill(made, ticket)(None) is None


# -- a store in this process that voids them itself


def memory_space() -> Any:
    BACKEND.close()
    space: Any = BACKEND.key_space("c")
    space.tickets.reset(Lock())
    return space


CHANGES: dict[str, Callable[[Any], Any]] = {
    "set": lambda space: space.set("k", entry(NEW)),
    "set_many": lambda space: space.set_many({"j": entry(NEW), "k": entry(NEW)}),
    "put_text": lambda space: space.put_text("k", NEW, 60),
    "update": lambda space: space.update("k", lambda _: entry(NEW)),
    "add": lambda space: space.update("k", Add(entry(NEW), FORM, CLOCK())),
    "delete": lambda space: space.delete("k"),
    "delete_many": lambda space: space.delete_many(["j", "k"]),
    "clear": lambda space: space.clear(),
    "invalidate": lambda space: space.invalidate(["t"]),
    "invalidate softly": lambda space: space.invalidate(["t"], soft=True),
    "invalidate all": lambda space: space.invalidate([CACHE_TAG]),
}
LEAVES = {"set": NEW, "set_many": NEW, "put_text": NEW, "update": NEW, "add": NEW}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("there", ["nothing", "what is replaced"])
class TestMemory:
    """Rule 2: the change, and the end of the tickets, are one step. So there are three moments for it."""

    @pytest.fixture
    def space(self, there: str, change: str) -> Any:
        space = memory_space()
        if there != "nothing" and change != "add":
            space.set("k", entry("before", "t"))
        return space

    def test_before_the_ticket_is_opened(self, space: Any, change: str) -> None:
        CHANGES[change](space)

        ticket = space.tickets.open("k")

        assert space.update("k", Fill(entry(OLD, "t"), ticket)) is not None
        assert value(space.get("k")) == OLD

    def test_between_opening_and_filling(self, space: Any, change: str) -> None:
        ticket = space.tickets.open("k")

        CHANGES[change](space)

        assert space.update("k", Fill(entry(OLD, "t"), ticket)) is None
        assert value(space.get("k")) == LEAVES.get(change)

    def test_after_filling(self, space: Any, change: str) -> None:
        ticket = space.tickets.open("k")
        space.update("k", Fill(entry(OLD, "t"), ticket))

        CHANGES[change](space)

        left = OLD if change == "add" else LEAVES.get(change)
        assert value(space.get("k")) == left


def test_in_memory_a_change_of_another_key_or_tag_voids_nothing() -> None:
    space = memory_space()
    ticket = space.tickets.open("k")
    space.set("l", entry(NEW, "u"))
    space.put_text("m", NEW, 60)
    space.update("l", lambda _: None)
    space.delete("l")
    space.invalidate(["u"])

    assert space.update("k", Fill(entry("loaded", "t"), ticket)) is not None


def test_in_memory_an_update_that_changes_nothing_voids_nothing() -> None:
    space = memory_space()
    space.set("k", entry("before"))
    ticket = space.tickets.open("k")

    space.update("k", lambda _: None)
    space.update("k", Add(entry(NEW), FORM, CLOCK()))

    assert space.update("k", Fill(entry("loaded"), ticket)) is not None


def test_in_memory_what_is_too_large_to_be_kept_voids_all_the_same() -> None:
    backend = open_backend("memory", now=CLOCK, max_bytes="1KB")
    space: Any = backend.key_space("c")
    ticket = space.tickets.open("k")

    assert space.set("k", entry("x" * 5000)) is False

    assert space.update("k", Fill(entry(OLD), ticket)) is None
    assert space.get("k") is None


def test_in_memory_a_fill_counts_as_a_change() -> None:
    """Of two loads that overlap, the first to arrive stays: which of them is newer, nobody knows."""
    space = memory_space()
    first, second = space.tickets.open("k"), space.tickets.open("k")

    assert space.update("k", Fill(entry("first"), first)) is not None
    assert space.update("k", Fill(entry("second"), second)) is None
    assert value(space.get("k")) == "first"


def test_in_memory_a_clear_that_is_under_way_voids_what_is_opened() -> None:
    space = memory_space()
    space.set_many({"j": entry("j"), "l": entry("l")})
    opened: list[Ticket] = []
    drop = space._storage.drop

    def drop_and_look(record: Any) -> None:
        drop(record)
        opened.append(space.tickets.open("k"))

    space._storage.drop = drop_and_look
    try:
        space.clear()
    finally:
        del space._storage.drop

    assert len(opened) == 2
    assert all(ticket.is_void for ticket in opened)


# -- any store: changes are registered around its operations


class Shelf(KeySpace):
    """A third party's store: a dict, and operations that a port may pause in the middle of."""

    def __init__(self) -> None:
        self.shelf: dict[str, Entry] = {}

    def get(self, key: str) -> Entry | None:
        return self.shelf.get(key)

    def set(self, key: str, entry: Entry) -> bool:
        self.shelf[key] = entry
        return True

    def update(self, key: str, change: Change) -> Entry | None:
        changed = change(self.shelf.get(key))
        if changed is not None:
            self.shelf[key] = changed
        return changed

    def delete(self, key: str) -> bool:
        return self.shelf.pop(key, None) is not None

    def clear(self) -> None:
        self.shelf.clear()


class SlowPort(StepPort):
    """Each operation takes a while before it is done, and before its answer arrives."""

    def __init__(self, port: StepPort) -> None:
        vars(self).update(vars(port))

    def __getattribute__(self, act: str) -> Any:
        found = super().__getattribute__(act)
        if act not in {
            "read", "read_many", "write", "write_many", "update", "delete", "delete_many", "clear", "invalidate",
        }:  # fmt: skip
            return found

        async def slowly(*args: Any) -> Any:
            result = await found(*args)
            await pause(f"{act} is answered")
            return result

        return slowly


LAYER_CHANGES: dict[str, Callable[[Layer, StepPort], Coroutine[Any, Any, Any]]] = {
    "write": lambda layer, port: layer.write(port, "k", entry(NEW)),
    "write_many": lambda layer, port: layer.write_many(port, {"j": entry(NEW), "k": entry(NEW)}),
    "update": lambda layer, port: layer.update(port, "k", lambda _: entry(NEW)),
    "delete": lambda layer, port: layer.delete(port, "k"),
    "delete_many": lambda layer, port: layer.delete_many(port, ["j", "k"]),
    "clear": lambda layer, port: layer.clear(port),
    "invalidate": lambda layer, port: layer.invalidate(port, ["t"]),
    "invalidate softly": lambda layer, port: layer.invalidate(port, ["t"], soft=True),
}


class Load:
    """One load of `k` as a leader makes it, and the source that it loads from.

    Attributes:
        before: what had ended when it began.
    """

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.source = OLD
        self.over: list[str] = []

    async def run(self, port: StepPort, *tags: str) -> str:
        leases = await self.layer.leases.take(port, ["k"], b"a", 30, 0.0, ())
        (lease,) = leases
        if lease.state == "fresh":
            return "fresh"
        try:
            loaded = self.source  # at once: the sooner it is loaded, the older it can be
            await pause("load")
            (refused,) = await self.layer.leases.fill(port, ["k"], leases, [entry(loaded, *tags)])
        except BaseException:
            await self.layer.leases.release(port, ["k"], leases)
            raise
        return "refused" if refused else f"stored {loaded}"

    async def change(self, changing: Coroutine[Any, Any, Any]) -> None:
        self.source = NEW
        await changing


def spaces(kind: str) -> KeySpace:
    return memory_space() if kind == "memory" else Shelf()


@pytest.mark.parametrize("kind", ["memory", "a third party's"])
@pytest.mark.parametrize("change", LAYER_CHANGES)
class TestLayer:
    """One load and one change of its key, in every order of their steps, each of which takes a while."""

    def world(self, kind: str) -> tuple[Layer, Load]:
        layer = Layer("l", kind, spaces(kind), Tickets(Lock()), Health("l"))
        return layer, Load(layer)

    def test_in_no_order_is_what_was_loaded_before_it_there_after_it(self, kind: str, change: str) -> None:
        worlds: list[Layer] = []

        def scenario(port: StepPort) -> list[Any]:
            layer, load = self.world(kind)
            worlds.append(layer)
            slow = SlowPort(port)
            return [load.run(slow, "t"), load.change(LAYER_CHANGES[change](layer, slow))]

        outcomes = set()
        for order in every_order(scenario):
            layer = worlds.pop()
            left = value(layer.space.get("k"))
            assert left != OLD, order
            assert order.results[1] is None, order
            assert len(layer.tickets) == 0, order
            outcomes.add((order.results[0], left))

        assert {result for result, _ in outcomes} >= {"refused", f"stored {OLD}"}
        # and if it begins after the change it is stored; a value that is there by then is found
        assert (f"stored {NEW}", NEW) in outcomes or ("fresh", NEW) in outcomes

    def test_killed_wherever_it_may_be_neither_leaves_a_ticket_behind(self, kind: str, change: str) -> None:
        for kill in (0, 1):
            worlds: list[Layer] = []

            def scenario(port: StepPort) -> list[Any]:
                layer, load = self.world(kind)
                worlds.append(layer)  # noqa: B023
                slow = SlowPort(port)
                return [load.run(slow, "t"), load.change(LAYER_CHANGES[change](layer, slow))]

            for order in every_order(scenario, kill=kill):
                layer = worlds.pop()
                assert len(layer.tickets) == 0, order
                assert layer.tickets._clearing == 0, order


def test_a_third_partys_two_writes_at_once_and_a_load_leave_nothing_old() -> None:
    layers: list[Layer] = []

    def scenario(port: StepPort) -> list[Any]:
        layer = Layer("l", "shelf", Shelf(), Tickets(Lock()), Health("l"))
        layers.append(layer)
        load = Load(layer)
        return [
            load.run(port),
            load.change(layer.write(port, "k", entry("one"))),
            load.change(layer.delete(port, "k")),
        ]

    for order in every_order(scenario):
        assert value(layers.pop().space.get("k")) in {"one", NEW, None}, order


# -- a chain


class Chain:
    """Two layers in this process, the farther one taken for one over a network."""

    def __init__(self, near: str, far: KeySpace | None = None) -> None:
        self.near, self.far = spaces(near), far or Shelf()
        self.layers = [
            Layer(name, name, space, Tickets(Lock()), Health(name), forgiving=True)
            for name, space in (("near", self.near), ("far", self.far))
        ]
        self.space = ChainSpace(self.layers, CLOCK)
        trust = Trust(None, serves=True)
        self.hearing = Hearing(self.layers[1], self.layers[:1], trust, InlinePort(CLOCK))

    def change(self, port: StepPort, verb: str) -> Coroutine[Any, Any, Any]:
        space = self.space
        match verb:
            case "set":
                return space._write_many(port, {"k": entry(NEW)})
            case "delete":
                return space._delete_many(port, ["k"])
            case "update":
                return space._update(port, "k", lambda _: entry(NEW))
            case "clear":
                return space._clear(port)
            case _:
                return space._invalidate(port, ["t"], verb == "invalidate softly")

    def left(self) -> tuple[Any, Any]:
        return value(self.near.get("k")), value(self.far.get("k"))


VERBS = ("set", "delete", "update", "clear", "invalidate", "invalidate softly")
both = pytest.mark.parametrize("near", ["memory", "a third party's"])


def chains(
    near: str, callers: Callable[[Chain, StepPort], Sequence[Coroutine[Any, Any, Any]]], **options: Any
) -> Iterator[tuple[Chain, Order]]:
    """Each order of steps that all take a while, with the chain that it left behind."""
    made: list[Chain] = []

    def scenario(port: StepPort) -> Any:
        made.append(Chain(near))
        return callers(made[-1], SlowPort(port))

    for order in every_order(scenario, **options):
        yield made.pop(), order


@both
class TestChain:
    def test_two_overlapping_writes_leave_near_and_far_alike_or_nothing_near(self, near: str) -> None:
        def callers(chain: Chain, port: StepPort) -> Any:
            for space in (chain.near, chain.far):
                space.set("k", entry(OLD))
            return [chain.space._write_many(port, {"k": entry(word)}) for word in ("one", "two")]

        left = set()
        for chain, order in chains(near, callers):
            here, far = chain.left()
            assert here in {None, far}, order
            overlapped = order.steps.index((1, "start")) < max(
                index for index, (caller, _) in enumerate(order.steps) if caller == 0
            ) and order.steps.index((0, "start")) < max(
                index for index, (caller, _) in enumerate(order.steps) if caller == 1
            )
            assert not (overlapped and here is not None), order
            assert order.results == [[], []], order
            left.add((here, far))

        assert left == {("one", "one"), ("two", "two"), (None, "one"), (None, "two")}

    @pytest.mark.parametrize("verb", VERBS[1:])
    def test_nor_is_anything_near_that_another_change_has_dropped_far_away(
        self, near: str, verb: str
    ) -> None:
        def callers(chain: Chain, port: StepPort) -> Any:
            for space in (chain.near, chain.far):
                space.set("k", entry(OLD, "t"))
            return [chain.space._write_many(port, {"k": entry("written", "t")}), chain.change(port, verb)]

        for chain, order in chains(near, callers):
            here, far = chain.left()
            assert here in {None, far}, order
            assert len(chain.layers[0].tickets) == 0, order

    @pytest.mark.parametrize("verb", VERBS)
    @pytest.mark.parametrize("many", [False, True], ids=["get", "get_many"])
    def test_a_read_that_began_before_a_change_ended_never_fills_near_with_what_was(
        self, near: str, verb: str, many: bool
    ) -> None:
        def callers(chain: Chain, port: StepPort) -> Any:
            space = chain.space
            chain.far.set("k", entry(OLD, "t"))
            reading = space._read_many(port, ["j", "k"]) if many else space._read(port, "k")
            return [reading, chain.change(port, verb)]

        left = set()
        for chain, order in chains(near, callers):
            here, far = chain.left()
            assert here in {None, far}, order
            assert far != OLD, order
            assert len(chain.layers[0].tickets) == 0, order
            left.add(here)

        if verb in {"set", "update"}:
            assert NEW in left  # and what is there by then does fill it

    @pytest.mark.parametrize("verb", VERBS)
    def test_nor_does_a_load_that_began_before_it(self, near: str, verb: str) -> None:
        def callers(chain: Chain, port: StepPort) -> Any:
            space, source = chain.space, [OLD]

            async def load() -> Any:
                lease = (await space._lease_many(port, ["k"], b"a", 30, 0.0, ["t"]))["k"]
                if lease.state == "fresh":
                    return "fresh"
                loaded = source[0]
                await pause("load")
                return await space._fill_many(port, b"a", {"k": entry(loaded, "t")})

            async def change() -> None:
                source[0] = NEW
                await chain.change(port, verb)

            return [load(), change()]

        for chain, order in chains(near, callers):
            here, far = chain.left()
            assert here in {None, far}, order
            assert far != OLD, order
            assert order.results[0] in ("fresh", [], ["k"]), order
            assert [len(layer.tickets) for layer in chain.layers] == [0, 0], order
            assert chain.space._granted == {}, order

    @pytest.mark.parametrize(
        "news", ["written", "invalidated", "softly invalidated", "all invalidated", "lost_track"]
    )
    @pytest.mark.parametrize("by", ["a read", "a lease"])
    def test_what_the_log_says_of_others_changes_voids_a_read_in_flight(
        self, near: str, news: str, by: str
    ) -> None:
        """Another process changes the farther layer, and then the log says so; a read goes on meanwhile."""

        def callers(chain: Chain, port: StepPort) -> Any:
            chain.far.set("k", entry(OLD, "t"))
            heard: dict[str, Callable[[], None]] = {
                "written": lambda: chain.hearing.written("k"),
                "invalidated": lambda: chain.hearing.invalidated("t", 7, soft=False),
                "softly invalidated": lambda: chain.hearing.invalidated("t", 7, soft=True),
                "all invalidated": lambda: chain.hearing.invalidated(CACHE_TAG, 7, soft=False),
                "lost_track": chain.hearing.lost_track,
            }

            async def others_write() -> None:
                chain.far.set("k", entry(NEW, "t"))
                await pause("the log says so")
                heard[news]()

            if by == "a read":
                return [chain.space._read(port, "k"), others_write()]
            return [chain.space._lease_many(port, ["k"], b"a", 30, 0.0, ()), others_write()]

        left = set()
        for chain, order in chains(near, callers):
            here, _ = chain.left()
            assert here != OLD, order
            assert order.results[1] is None, order
            left.add(here)

        assert left == {None, NEW}

    def test_what_the_log_says_of_another_key_or_tag_voids_nothing(self, near: str) -> None:
        def callers(chain: Chain, port: StepPort) -> Any:
            chain.far.set("k", entry("v", "t"))

            async def hear() -> None:
                chain.hearing.written("another")
                await pause("more")
                chain.hearing.retrained()
                chain.layers[0].tickets.void_tags(["u"])

            return [chain.space._read(port, "k"), hear()]

        for chain, order in chains(near, callers):
            assert chain.left() == ("v", "v"), order

    @pytest.mark.parametrize("verb", VERBS)
    def test_stopped_wherever_it_may_be_a_change_leaves_nothing_old_near(self, near: str, verb: str) -> None:
        """As when a task is cancelled, which the server does not hear of; and so does a read that is stopped."""

        def callers(chain: Chain, port: StepPort) -> Any:
            for space in (chain.near, chain.far):
                space.set("k", entry(OLD, "t"))
            return [chain.space._read(port, "k"), chain.change(port, verb)]

        for kill in (0, 1):
            for chain, order in chains(near, callers, kill=kill):
                assert len(chain.layers[0].tickets) == 0, order
                assert chain.layers[0].tickets._clearing == 0, order
                here, far = chain.left()
                assert here in {None, far}, order


@both
def test_a_lease_of_a_chain_that_is_given_back_leaves_nothing_open(near: str) -> None:
    chain = Chain(near)
    leases = chain.space.lease_many(["k", "l"], b"a", 30)
    assert {lease.state for lease in leases.values()} == {"granted"}
    assert [len(layer.tickets) for layer in chain.layers] == [2, 2]

    chain.space.release_many(["k", "l"], b"a")
    chain.space.release_many(["k", "l"], b"a")  # by whoever it was that stopped us

    assert [len(layer.tickets) for layer in chain.layers] == [0, 0]
    assert chain.space.fill_many(b"a", {"k": entry("late")}) == ["k"]
    assert chain.left() == (None, None)


class Unreachable(Shelf, LeasingKeySpace):
    """A farther layer that cannot be asked."""

    def lease_many(self, *_: Any) -> Any:
        raise BackendError("far", "is down")

    fill_many = release_many = late_stamps = set_many = lease_many
    alease_many = afill_many = arelease_many = alate_stamps = lease_many


@both
class TestChainOfWhichTheFartherLayerIsDown:
    @pytest.fixture
    def chain(self, near: str) -> Chain:
        return Chain(near, Unreachable())

    def test_the_near_one_alone_decides_what_is_stored(self, chain: Chain) -> None:
        leases = chain.space.lease_many(["k", "l"], b"a", 30, 0.0, ["t"])
        assert {lease.state for lease in leases.values()} == {"granted"}
        assert {lease.stamps for lease in leases.values()} == {((CACHE_TAG, 0), ("t", 0))}

        chain.space.set("k", entry(NEW))

        assert chain.space.fill_many(b"a", {"k": entry(OLD), "l": entry("loaded")}) == ["k"]
        assert value(chain.near.get("k")) == NEW
        assert value(chain.near.get("l")) == "loaded"
        assert len(chain.layers[0].tickets) == 0

    def test_the_tags_that_only_the_value_tells_are_seen_by_the_ticket(self, chain: Chain) -> None:
        chain.space.lease_many(["k", "l"], b"a", 30)
        late = chain.space.late_stamps(["t"], None)
        assert late == (("t", 0),)

        chain.hearing.invalidated("t", 7, soft=False)

        assert chain.space.fill_many(b"a", {"k": entry(OLD, "t"), "l": entry("loaded")}) == ["k"]
        assert chain.near.get("k") is None
