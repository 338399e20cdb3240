"""get_or_set in every order of events: one load, nobody stranded, nothing left behind."""

from __future__ import annotations

import math
from collections.abc import Coroutine, Iterator
from threading import Lock, get_ident
from typing import Any

import pytest

from layercache.codecs.normal import NormalForm
from layercache.core.flights import Flights
from layercache.core.layer import Layer
from layercache.core.loading import Loading
from layercache.core.policy import Overrides, Plan, Policy
from layercache.core.tickets import Tickets
from layercache.core.verbs import Verbs
from layercache.testing import Clock, StepPort, every_order
from layercache.testing.contract import open_backend
from layercache.testing.stepping import Killed, Order

CLOCK = Clock()
BACKEND = open_backend(
    "memory", now=CLOCK
)  # opened once: thousands of worlds are made on it, each emptied first


class World:
    """One cache over memory, and the loads that its loader has begun."""

    def __init__(self) -> None:
        BACKEND.close()
        layer = Layer("memory", "memory", BACKEND.key_space("c"), Tickets(Lock()))
        # with no near answer the slow path looks again through the port, as over a Redis backend alone
        layer.space.near = None
        self.verbs = Verbs(
            layer, Policy(Plan(ttl=60.0, wait=math.inf), {}, 1024), NormalForm(BACKEND.serializer)
        )
        self.flights = Flights(Lock(), get_ident)
        self.loading = Loading(self.verbs, self.flights)
        self.begun = 0

    def load(self) -> list[int]:
        self.begun += 1
        return [self.begun]

    def fail(self) -> None:
        self.begun += 1
        raise LookupError("no quote")

    def get_or_set(self, port: StepPort, loader: Any = None, key: str = "k") -> Coroutine[Any, Any, Any]:
        return self.loading.get_or_set(port, key, loader or self.load)


def orders(callers: Any, **options: Any) -> Iterator[tuple[World, Order]]:
    """Yield each order with the world that it left behind."""
    world = World()

    def scenario(port: StepPort) -> Any:
        nonlocal world
        world = World()
        return callers(world, port)

    for order in every_order(scenario, now=CLOCK, **options):
        yield world, order


@pytest.mark.parametrize("callers", [2, 3])
def test_one_load_for_all_callers_in_every_order(callers: int) -> None:
    ran = 0
    for world, order in orders(lambda world, port: [world.get_or_set(port) for _ in range(callers)]):
        ran += 1
        assert order.results == [[1]] * callers, order.steps
        assert world.begun == 1, order.steps
        assert len(world.flights) == 0

    assert ran == {2: 50, 3: 5850}[callers]


def test_each_caller_gets_a_value_of_its_own() -> None:
    for _, order in orders(lambda world, port: [world.get_or_set(port), world.get_or_set(port)]):
        first, second = order.results
        assert first is not second, order.steps


@pytest.mark.parametrize("callers", [2, 3])
def test_a_leader_killed_at_any_step_strands_nobody(callers: int) -> None:
    begun = set()
    for world, order in orders(lambda world, port: [world.get_or_set(port) for _ in range(callers)], kill=0):
        first, *others = order.results
        begun.add(world.begun)
        assert isinstance(first, Killed) or first in ([1], [2]), order.steps
        assert all(isinstance(result, list) for result in others), order.steps
        assert world.begun <= 2, order.steps
        assert len(world.flights) == 0, order.steps
    assert begun == {1, 2}


def test_what_the_loader_raises_reaches_leader_and_followers_as_it_is() -> None:
    for world, order in orders(lambda world, port: [world.get_or_set(port, world.fail) for _ in range(2)]):
        assert [type(result) for result in order.results] == [LookupError, LookupError], order.steps
        assert 1 <= world.begun <= 2, order.steps
        assert len(world.flights) == 0


def test_a_loader_that_fails_leaves_the_key_to_the_next() -> None:
    for world, order in orders(
        lambda world, port: [world.get_or_set(port, world.fail), world.get_or_set(port)]
    ):
        failed, loaded = order.results
        assert isinstance(failed, LookupError) or failed == [1], order.steps
        assert isinstance(loaded, LookupError) or loaded in ([1], [2]), order.steps
        assert len(world.flights) == 0


def test_keys_do_not_wait_for_each_other() -> None:
    for world, order in orders(
        lambda world, port: [world.get_or_set(port, key="a"), world.get_or_set(port, key="b")]
    ):
        assert world.begun == 2
        assert world.loading.waits == 0
        assert sorted(order.results) == [[1], [2]]


def test_a_value_without_a_life_is_handed_round_but_not_kept() -> None:
    def callers(world: World, port: StepPort) -> Any:
        return [world.loading.get_or_set(port, "k", world.load, Overrides(0)) for _ in range(2)]

    for world, order in orders(callers):
        assert all(isinstance(result, list) for result in order.results), order.steps
        assert world.verbs.layer.space.get("k") is None


def test_times_of_what_is_loaded_are_the_policys() -> None:
    def callers(world: World, port: StepPort) -> Any:
        return [world.loading.get_or_set(port, "k", world.load, Overrides(None))]

    for world, _ in orders(callers):
        entry = world.verbs.layer.space.get("k")
        assert entry is not None
        assert entry.dead_at == math.inf
