"""Who is held back from refreshing a key, for how long, and what is said of it."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from layercache.core.holding import Holding
from layercache.testing import Clock, StepPort

ERROR = LookupError("no quote")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def port(clock: Clock) -> Any:
    return StepPort(clock)


@pytest.fixture
def holding() -> Holding:
    return Holding()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_nobody_is_held_back_at_first(holding: Holding, port: Any) -> None:
    assert not holding.is_held(port, "k")


def test_a_key_whose_load_failed_is_held_for_as_long_as_is_said(
    holding: Holding, port: Any, clock: Clock
) -> None:
    holding.fails(port, "k", 5.0, ERROR)

    assert holding.is_held(port, "k")
    assert not holding.is_held(port, "l")
    clock.advance(4.9)
    assert holding.is_held(port, "k")
    clock.advance(0.2)
    assert not holding.is_held(port, "k")


def test_a_key_that_another_process_loads_is_held_for_a_twentieth_of_a_second(
    holding: Holding, port: Any, clock: Clock
) -> None:
    holding.busy(port, "k")

    assert holding.is_held(port, "k")
    clock.advance(0.051)
    assert not holding.is_held(port, "k")


def test_a_load_that_works_ends_it(holding: Holding, port: Any) -> None:
    holding.busy(port, "k")
    holding.fails(port, "l", 5.0, ERROR)

    holding.works("k")

    assert not holding.is_held(port, "k")
    assert holding.is_held(port, "l")


def test_that_loads_fail_is_said_once_and_once_that_they_work_again(
    holding: Holding, port: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "layercache.loading"):
        for _ in range(3):
            holding.fails(port, "k", 5.0, ERROR)
        holding.works("other")
        assert said(caplog) == ["loading 'k' fails; its stale value is served meanwhile"]
        for _ in range(3):
            holding.works("k")

    assert said(caplog)[1:] == ["loading 'k' works again"]


def test_of_a_key_that_was_busy_nothing_is_said(
    holding: Holding, port: Any, caplog: pytest.LogCaptureFixture
) -> None:
    holding.busy(port, "k")
    holding.works("k")

    assert not holding.is_held(port, "k")
    assert said(caplog) == []


def test_that_it_fails_is_remembered_when_it_is_not_held_any_more(
    holding: Holding, port: Any, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    holding.fails(port, "k", 5.0, ERROR)
    clock.advance(6)
    assert not holding.is_held(port, "k")

    holding.works("k")

    assert said(caplog)[-1] == "loading 'k' works again"


def test_of_very_many_keys_all_are_forgotten_but_the_last(
    holding: Holding, port: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(10_000):
        holding.fails(port, str(number), 5.0, ERROR)
    assert holding.is_held(port, "0")
    holding.fails(port, "1", 5.0, ERROR)
    assert len(said(caplog)) == 10_000, "of none it is said twice"

    holding.fails(port, "one more", 5.0, ERROR)

    assert not holding.is_held(port, "0")
    assert holding.is_held(port, "one more")
    holding.fails(port, "0", 5.0, ERROR)
    assert len(said(caplog)) == 10_002, "what is forgotten is news"
