"""Outages of a far layer: what it is owed, what is withheld meanwhile, and how long what is near is relied on."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from threading import Lock
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loading_worlds import CLOCK, HARD, LeasingSpace

from layercache.core.layer import Health, Layer
from layercache.core.outbox import Outbox, Owed
from layercache.core.tickets import Tickets
from layercache.entry import CACHE_TAG, Entry
from layercache.errors import BackendError, CircuitOpen
from layercache.inline import InlinePort, run
from layercache.spi import Change, Lease, Listener
from layercache.testing import StepPort, every_order
from layercache.testing.contract import open_backend
from layercache_chain.space import ChainSpace

MEMORY = open_backend("memory", now=CLOCK)
PORT = InlinePort(CLOCK)

R = TypeVar("R")


def entry(value: str, *tags: str, ttl: float = 60, stale: float = 0) -> Entry:
    now = CLOCK()
    stamps = tuple((tag, HARD) for tag in tags)
    return Entry(None, value, now, now + ttl, now + ttl + stale, stamps)


class FarSpace(LeasingSpace):
    """A far store that can be cut off, and says so to who listens.

    Attributes:
        fails: every operation from now on.
        loses: the next change arrives, and its answer is lost.
    """

    def __init__(self, *, tells: bool = True) -> None:
        super().__init__()
        self.tells, self.fails, self.out, self.loses = tells, False, False, False
        self.listeners: list[Listener] = []
        self.asked: list[str] = []

    def subscribe(self, listener: Listener) -> bool:
        self.listeners.append(listener)
        return self.tells

    @property
    def is_out(self) -> bool:
        return self.out

    def _ask(self, operation: str) -> None:
        self.asked.append(operation)
        if self.out and self.fails:
            raise CircuitOpen("far", "left alone")
        if self.fails:
            raise BackendError("far", "no answer")

    def _answer(self) -> None:
        if self.loses:
            self.loses = False
            raise BackendError("far", "the answer is lost")

    def get(self, key: str) -> Entry | None:
        self._ask("get")
        return super().get(key)

    def set(self, key: str, entry: Entry) -> bool:
        self._ask("set")
        kept = super().set(key, entry)
        self._answer()
        return kept

    def update(self, key: str, change: Change) -> Entry | None:
        self._ask("update")
        changed = super().update(key, change)
        self._answer()
        return changed

    def delete(self, key: str) -> bool:
        self._ask("delete")
        return super().delete(key)

    def clear(self) -> None:
        self._ask("clear")
        super().clear()

    def invalidate(self, tags: Sequence[str], soft: bool = False) -> None:
        self._ask("invalidate softly" if soft else "invalidate")
        super().invalidate(tags, soft)

    def lease_many(
        self, keys: Sequence[str], token: bytes, seconds: float, after: float = 0.0, tags: Sequence[str] = ()
    ) -> dict[str, Lease]:
        self._ask("lease")
        return super().lease_many(keys, token, seconds, after, tags)


class Late(InlinePort):
    """A port over which the answers of `far` arrive after something else was done."""

    def __init__(self, far: LeasingSpace, meanwhile: Callable[[], object]) -> None:
        super().__init__(CLOCK)
        self._far, self._meanwhile = far, meanwhile

    async def read(self, space: Any, key: str) -> Entry | None:
        return self._late(space, await super().read(space, key))

    async def read_many(self, space: Any, keys: Sequence[str]) -> dict[str, Entry]:
        return self._late(space, await super().read_many(space, keys))

    async def lease_many(self, space: Any, *args: Any) -> dict[str, Lease]:
        return self._late(space, await super().lease_many(space, *args))

    def _late(self, space: Any, answer: R) -> R:
        if space is self._far:
            self._meanwhile()
        return answer


class Chain:
    """Memory in front of a far store, with an outbox that nothing delivers by itself."""

    def __init__(self, far: FarSpace | None = None, **options: Any) -> None:
        MEMORY.close()
        MEMORY.after_fork()
        self.near, self.far = MEMORY.key_space("c"), far or FarSpace()
        self.near.trusted_until = math.inf  # type: ignore[attr-defined]
        self.outbox = Outbox("c", "far", options.pop("most", 100), Lock(), lambda: None)
        self.health = Health("far")
        self.space = ChainSpace(
            [
                Layer("near", "memory", self.near, Tickets(Lock()), Health("near"), forgiving=True),
                Layer(
                    "far", "far", self.far, Tickets(Lock()), self.health, forgiving=True, outbox=self.outbox
                ),
            ],
            CLOCK,
            **options,
        )
        if self.far.tells:
            self.confirm(3600)

    @property
    def layers(self) -> Sequence[Layer]:
        return self.space.layers()

    def confirm(self, seconds: float) -> None:
        for listener in self.far.listeners:
            listener.confirmed(CLOCK() + seconds)

    def cut(self) -> None:
        """An outage begins."""
        self.far.fails = self.far.out = True
        for listener in self.far.listeners:
            listener.outage_began()

    def mend(self) -> None:
        """It ends, as a circuit has it end."""
        self.far.fails = False
        for listener in self.far.listeners:
            listener.outage_ending()
        self.far.out = False
        for listener in self.far.listeners:
            listener.outage_ended()

    def value(self, key: str = "k") -> Any:
        found = self.space.get(key)
        return None if found is None else found.value


class TestOwing:
    """What becomes of a change that does not reach the far layer."""

    @pytest.mark.parametrize("change", ["set", "delete", "clear", "invalidate", "update"])
    def test_what_was_there_is_gone_afterwards(self, change: str) -> None:
        chain = Chain()
        chain.space.set("k", entry("old", "t"))
        chain.cut()

        match change:
            case "set":
                chain.space.set("k", entry("new"))
            case "delete":
                chain.space.delete("k")
            case "clear":
                chain.space.clear()
            case "invalidate":
                chain.space.invalidate(["t"])
            case _:
                chain.space.update("k", lambda _: entry("new"))
        assert chain.value() == ("new" if change in {"set", "update"} else None)
        assert chain.far.entries["k"].value == "old"

        chain.mend()

        assert chain.far.get("k") is None
        assert chain.value() is None
        assert chain.outbox.is_empty

    def test_a_change_whose_answer_is_lost_may_have_arrived_and_is_owed_all_the_same(self) -> None:
        chain = Chain()
        chain.far.loses = True

        chain.space.set("k", entry("new"))

        assert chain.far.entries["k"].value == "new"
        assert chain.outbox.owes(["k"])
        assert chain.value() == "new", "it is near"

    def test_an_update_that_changes_nothing_owes_nothing(self) -> None:
        chain = Chain()
        chain.cut()

        assert chain.space.update("k", lambda _: None) is None

        assert chain.outbox.is_empty

    def test_reads_and_loads_owe_nothing(self) -> None:
        chain = Chain()
        chain.cut()

        chain.space.get("k")
        lease = chain.space.lease_many(["k"], b"me", 10)["k"]
        assert chain.space.fill_many(b"me", {"k": entry("loaded")}) == []

        assert lease.state == "granted"
        assert chain.value() == "loaded"
        assert chain.outbox.is_empty

    def test_the_far_layer_is_told_in_deletes_and_stamps_and_never_in_values(self) -> None:
        chain = Chain()
        chain.cut()
        chain.space.set("k", entry("new"))
        chain.space.delete("l")
        chain.space.invalidate(["t"])
        chain.space.invalidate(["u"], soft=True)
        chain.far.asked.clear()

        chain.mend()

        assert chain.far.asked == ["delete", "delete", "invalidate", "invalidate softly"]

    def test_a_tag_that_is_owed_hard_and_softly_is_owed_hard(self) -> None:
        chain = Chain()
        chain.cut()
        chain.space.invalidate(["t"])
        chain.space.invalidate(["t"], soft=True)
        chain.far.asked.clear()

        chain.mend()

        assert chain.far.asked == ["invalidate"]

    def test_one_that_overflows_owes_a_clear_and_stays_small(self, caplog: Any) -> None:
        chain = Chain(most=3)
        for number in range(10):
            chain.space.set(f"k{number}", entry("old"))
        chain.cut()

        for number in range(6):
            chain.space.delete(f"k{number}")
        assert len(chain.outbox) == 1
        assert chain.outbox.overflows == 1
        assert chain.outbox.owes(["anything"])
        chain.far.asked.clear()

        chain.mend()

        assert chain.far.asked == ["clear"]
        assert [chain.value(f"k{number}") for number in range(10)] == [None] * 10
        assert [record.levelname for record in caplog.records if "cleared" in record.message] == ["WARNING"]

    def test_one_holds_as_many_keys_and_tags_together_as_it_may(self) -> None:
        chain = Chain(most=3)

        chain.outbox.owe(Owed(keys=["k", "l"], tags=["t"]))
        assert (len(chain.outbox), chain.outbox.overflows) == (3, 0)
        assert not chain.outbox.owes(["anything"])

        chain.outbox.owe(Owed(keys=["m", "n"]))
        assert (len(chain.outbox), chain.outbox.overflows) == (1, 1)
        assert chain.outbox.owes(["anything"])

    def test_what_fails_to_be_delivered_stays_owed(self) -> None:
        chain = Chain()
        chain.cut()
        chain.space.delete("k")

        with pytest.raises(BackendError):
            run(chain.outbox.deliver(PORT, chain.far))

        assert chain.outbox.owes(["k"])

    def test_the_child_of_a_fork_owes_nothing(self) -> None:
        chain = Chain()
        chain.cut()
        chain.space.delete("k")

        chain.space.after_fork()

        assert chain.outbox.is_empty
        assert not chain.space.owes(["k"])

    @given(st.lists(st.sampled_from(["k1", "k2", "t1", "t2", "T1", "clear", "deliver", "fail"]), max_size=30))
    def test_whatever_is_owed_is_delivered_and_withheld_until_then(self, program: list[str]) -> None:
        far = FarSpace()
        outbox = Outbox("c", "far", 3, Lock(), lambda: None)
        owed: set[str] = set()
        for act in program:
            if act in {"deliver", "fail"}:
                far.fails = act == "fail"
                far.asked.clear()
                try:
                    run(outbox.deliver(PORT, far))
                except BackendError:
                    continue
                owed.clear()
                assert outbox.is_empty
            elif act == "clear":
                owed.add(CACHE_TAG)
                outbox.owe(Owed(tags=(CACHE_TAG,)))
            elif act.startswith("k"):
                owed.add(act)
                outbox.owe(Owed((act,)))
            else:
                owed.add(act.lower())
                outbox.owe(Owed(tags=(act.lower(),), soft=act.startswith("T")))
            assert outbox.is_empty == (not owed)
            for name in owed:
                is_key = name.startswith("k")
                assert outbox.owes([name] if is_key else [], [] if is_key else [name])
                assert not is_key or outbox.withholds(name)


class TestWithholding:
    """What the far layer is owed, it has no say in, even when it answers."""

    def owing(self, **owed: Collection[str]) -> Chain:
        chain = Chain()
        for key, tags in (("k", ["t"]), ("l", [])):
            chain.space.set(key, entry(f"old {key}", *tags))
        chain.near.clear()
        chain.outbox.owe(Owed(**owed))
        return chain

    def test_a_key_is_not_read_there(self) -> None:
        chain = self.owing(keys=["k"])

        assert (chain.value("k"), chain.value("l")) == (None, "old l")
        assert chain.space.get_many(["k", "l"]).keys() == {"l"}

    def test_nor_is_what_carries_a_tag(self) -> None:
        chain = self.owing(tags=["t"])

        assert (chain.value("k"), chain.value("l")) == (None, "old l")
        assert chain.space.get_many(["k", "l"]).keys() == {"l"}

    def test_nor_anything_when_a_clear_is_owed(self) -> None:
        chain = self.owing(tags=[CACHE_TAG])

        assert (chain.value("k"), chain.value("l")) == (None, None)

    @pytest.mark.parametrize("owed", [{"keys": ["k"]}, {"tags": ["t"]}, {"tags": [CACHE_TAG]}])
    def test_a_load_does_not_find_it_either(self, owed: dict[str, list[str]]) -> None:
        chain = self.owing(**owed)

        lease = chain.space.lease_many(["k"], b"me", 10)["k"]

        assert (lease.state, lease.entry) == ("granted", None)
        loaded = entry("loaded")
        loaded.stamps = lease.stamps
        assert chain.space.fill_many(b"me", {"k": loaded}) == []
        assert chain.value() == "loaded"

    @pytest.mark.parametrize("operation", ["read", "read many", "lease"])
    def test_nor_what_was_on_its_way_while_that_was_delivered(self, operation: str) -> None:
        chain = self.owing(tags=["t"])
        port = Late(chain.far, lambda: run(chain.outbox.deliver(PORT, chain.far)))

        match operation:
            case "read":
                assert run(chain.space._read(port, "k")) is None
            case "read many":
                assert run(chain.space._read_many(port, ["k", "l"])).keys() == {"l"}
            case _:
                assert run(chain.space._lease_many(port, ["k"], b"me", 10, 0.0, ()))["k"].entry is None

        assert chain.outbox.is_empty
        assert chain.near.get("k") is None

    def test_what_was_loaded_before_it_was_owed_is_not_stored(self) -> None:
        chain = Chain()
        chain.space.lease_many(["k"], b"me", 10)
        chain.far.fails = True
        chain.space.delete("k")
        chain.far.fails = False

        loaded = Entry(None, "old", CLOCK(), CLOCK() + 60, CLOCK() + 60, ((CACHE_TAG, HARD),))
        assert chain.space.fill_many(b"me", {"k": loaded}) == ["k"]

        assert chain.far.entries == {}
        assert chain.value() is None

    def test_no_read_between_the_change_and_its_delivery_finds_the_old_value_in_any_order(self) -> None:
        """One deletes and is not heard, one delivers, one reads: after the delete has ended, never the old value."""
        made: list[Chain] = []

        def scenario(port: StepPort) -> Any:
            chain = Chain()
            made.append(chain)
            chain.space.set("k", entry("old"))
            chain.near.clear()
            chain.deleted = False  # type: ignore[attr-defined]

            async def delete() -> None:
                chain.far.loses = False
                chain.far.fails = True
                await chain.space._delete_many(port, ["k"])
                chain.far.fails = False
                chain.deleted = True  # type: ignore[attr-defined]

            async def deliver() -> None:
                with suppress(BackendError):
                    await chain.outbox.deliver(port, chain.far)

            async def read() -> Any:
                after = chain.deleted  # type: ignore[attr-defined]
                found = await chain.space._read(port, "k")
                return after, found and found.value

            return [delete(), deliver(), read()]

        seen = set()
        for order in every_order(scenario, now=CLOCK):
            made.pop()
            after, found = order.results[2]
            seen.add((after, found))
            assert not (after and found), order
        assert (False, "old") in seen, "there are orders in which it is read before"


class TestTrust:
    """How long what is near is relied on."""

    def near(self, chain: Chain) -> Any:
        """What answers a hit by itself, as the hit path looks at it."""
        found = chain.near.take("k", stale=False)  # type: ignore[attr-defined]
        return None if found is None else found.value

    def test_until_the_far_layer_has_confirmed_and_no_longer(self) -> None:
        chain = Chain()
        chain.space.set("k", entry("near"))
        chain.far.entries["k"] = entry("far", CACHE_TAG)
        chain.confirm(5)
        assert (self.near(chain), chain.value()) == ("near", "near")

        CLOCK.advance(6)

        assert self.near(chain) is None
        assert chain.value() == "far"
        assert chain.space.get_many(["k"])["k"].value == "far"
        assert chain.layers[0].bypasses == 2

    def test_nothing_is_relied_on_before_anything_is_confirmed(self) -> None:
        far = FarSpace()
        chain = Chain(far)
        for listener in far.listeners:
            listener.confirmed(-math.inf)
        chain.near.set("k", entry("near"))

        assert chain.value() is None

    def test_what_is_read_farther_away_meanwhile_is_near_once_it_is_confirmed_again(self) -> None:
        chain = Chain()
        chain.space.set("k", entry("v"))
        chain.near.clear()
        CLOCK.advance(3601)
        chain.far.entries["k"] = entry("v", CACHE_TAG)
        assert chain.value() == "v"

        chain.confirm(5)

        assert self.near(chain) == "v"

    def test_a_store_that_tells_nothing_has_no_say_in_it(self) -> None:
        chain = Chain(FarSpace(tells=False))
        chain.space.set("k", entry("near", ttl=1e9))

        CLOCK.advance(1e6)

        assert self.near(chain) == "near"

    def test_in_an_outage_what_is_near_is_served_stale_or_not(self) -> None:
        chain = Chain()
        chain.space.set("k", entry("near", ttl=10, stale=1000))
        chain.confirm(5)
        chain.cut()

        CLOCK.advance(8)
        assert (self.near(chain), chain.value()) == ("near", "near")
        CLOCK.advance(8)

        assert self.near(chain) is None
        assert chain.value() == "near"
        assert chain.space.is_out, "so a stale one counts"

    def test_unless_it_is_to_be_bypassed(self) -> None:
        chain = Chain(serves=False)
        chain.space.set("k", entry("near", ttl=10, stale=1000))
        chain.confirm(5)
        chain.cut()
        assert chain.value() == "near", "as long as it is confirmed"

        CLOCK.advance(6)

        assert (self.near(chain), chain.value()) == (None, None)
        assert not chain.space.is_out

    def test_after_an_outage_it_is_relied_on_when_it_is_confirmed_again(self) -> None:
        chain = Chain()
        chain.confirm(5)
        chain.cut()
        CLOCK.advance(60)
        chain.mend()
        chain.far.entries["k"] = entry("v", CACHE_TAG)

        chain.space.get("k")
        assert self.near(chain) is None
        chain.confirm(5)

        assert self.near(chain) == "v"

    def test_what_was_kept_near_in_an_outage_is_gone_after_it(self) -> None:
        chain = Chain()
        chain.cut()
        chain.space.set("k", entry("new"))

        chain.mend()

        assert chain.near.get("k") is None

    def test_it_lives_for_degraded_ttl_at_most(self) -> None:
        chain = Chain(degraded_ttl=30)
        chain.cut()
        chain.space.set("set", entry("v", ttl=600))
        chain.space.update("updated", lambda _: entry("v", ttl=600))
        chain.space.lease_many(["loaded"], b"me", 10)
        chain.space.fill_many(b"me", {"loaded": entry("v", ttl=600)})
        keys = ["set", "updated", "loaded"]
        assert [chain.value(key) for key in keys] == ["v"] * 3

        CLOCK.advance(31)

        assert [chain.value(key) for key in keys] == [None] * 3

    def test_the_child_of_a_fork_relies_on_nothing(self) -> None:
        chain = Chain()
        chain.space.set("k", entry("near"))

        chain.space.after_fork()

        assert self.near(chain) is None

    def test_a_server_that_was_set_back_is_cleared(self) -> None:
        chain = Chain()
        chain.space.set("k", entry("of the past"))
        chain.near.clear()

        for listener in chain.far.listeners:
            listener.lost_writes()

        assert chain.value() is None
        run(chain.outbox.deliver(PORT, chain.far))
        assert chain.far.get("k") is None
