"""The step port itself: it finds every order, a lost update, and a deadlock."""

from __future__ import annotations

from math import comb, inf
from typing import Any

import pytest

from layercache.core.flights import Flight, Party
from layercache.core.policy import Plan
from layercache.testing import StepPort, every_order
from layercache.testing.stepping import Killed, pause


async def walk(name: str, steps: int, walked: list[str]) -> str:
    for _ in range(steps):
        await pause(name)
        walked.append(name)
    return name


def test_it_runs_every_interleaving_once() -> None:
    walks: list[list[str]] = []

    def scenario(_: StepPort) -> Any:
        walks.append([])
        return [walk("a", 2, walks[-1]), walk("b", 3, walks[-1])]

    orders = list(every_order(scenario))

    # each caller has one step more than it has pauses: its start
    assert len(orders) == comb(3 + 4, 3)
    assert len({tuple(order.steps) for order in orders}) == len(orders)
    assert len({tuple(walked) for walked in walks}) == comb(5, 2)
    assert all(order.results == ["a", "b"] for order in orders)


def test_it_finds_a_lost_update() -> None:
    counts: list[dict[str, int]] = []

    def scenario(_: StepPort) -> Any:
        count = {"n": 0}
        counts.append(count)

        async def increment() -> None:
            read = count["n"]
            await pause("between reading and writing")
            count["n"] = read + 1

        return [increment(), increment()]

    list(every_order(scenario))

    assert {count["n"] for count in counts} == {1, 2}


def test_it_kills_a_caller_at_each_of_its_steps() -> None:
    def scenario(_: StepPort) -> Any:
        return [walk("a", 2, [])]

    orders = list(every_order(scenario, kill=0))

    assert [order.steps[-1][1] for order in orders] == ["a", "killed before a", "killed before a"]
    assert [isinstance(order.results[0], Killed) for order in orders] == [False, True, True]


def test_a_deadlock_is_an_error_that_shows_the_way_there() -> None:
    def scenario(port: StepPort) -> Any:
        return [port.join(Flight("k", Plan(), Party(0, 1)), inf)]

    with pytest.raises(AssertionError, match="deadlock after"):
        list(every_order(scenario))


def test_too_many_orders_are_an_error_rather_than_a_sample() -> None:
    with pytest.raises(AssertionError, match="more than 10 orders"):
        list(every_order(lambda _: [walk("a", 5, []), walk("b", 5, [])], most=10))
