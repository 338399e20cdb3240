"""Loads among processes on a real server: one in the whole fleet, and never the past."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fleet import Fleet
from waiting import until

from layercache import Caches

FAR = pytest.mark.parametrize("kind", ["redis", "chain"])


@FAR
def test_one_load_for_threads_and_tasks_of_four_processes(fleet: Fleet, kind: str) -> None:
    fleet.say("source", "v")
    processes = [fleet.process(kind) for _ in range(4)]

    for process in processes:
        process.tell("herd", threads=16, tasks=16)
    until(lambda: fleet.count("arrived") == 4 * 32 and fleet.count("loads"))
    fleet.say("end")

    assert [process.answer() for process in processes] == [["v"] * 32] * 4
    assert fleet.count("loads") == 1
    assert [process("left") for process in processes] == [[0, 0]] * 4


CHANGES: dict[str, Callable[[Any], object]] = {
    "set": lambda cache: cache.set("k", "new"),
    "set_many": lambda cache: cache.set_many({"k": "new"}),
    "delete": lambda cache: cache.delete("k"),
    "clear": lambda cache: cache.clear(),
    "invalidate": lambda cache: cache.invalidate("t"),
}


@FAR
@pytest.mark.parametrize("change", CHANGES)
def test_what_another_process_changes_while_a_load_goes_on_is_not_undone_by_it(
    fleet: Fleet, kind: str, change: str
) -> None:
    fleet.say("source", "old")
    loading = fleet.process(kind)
    with Caches(fleet.settings(kind)) as world:
        loading("begin", tags=["t"])
        until(lambda: fleet.count("loads"))
        fleet.say("source", "new")
        CHANGES[change](world["default"])
        fleet.say("end")

        assert loading("result") == "old"  # who asked before gets what was there before
        assert world["default"].get("k") in {None, "new"}
        assert loading("get") in {None, "new"}
        assert loading("get_or_set") == "new"
        assert loading("stats")["fills_refused"] + loading("stats")["undecodable"] <= 1
        assert loading("left") == [0, 0]


@FAR
def test_so_it_is_for_a_refresh_in_the_background(fleet: Fleet, kind: str) -> None:
    fleet.say("source", "old")
    fleet.say("end")
    loading = fleet.process(kind, ttl=0.05, stale_ttl=60)
    with Caches(fleet.settings(kind)) as world:
        assert loading("get_or_set") == "old"
        fleet.unsay("end")
        until(lambda: world["default"].get("k") is None)  # it is stale by now
        # near, a value is fresh for up to a millisecond longer than far away
        until(lambda: loading("get_or_set") == "old" and fleet.count("loads") == 2)

        fleet.say("source", "new")
        world["default"].set("k", "new", ttl=60)
        fleet.say("end")
        until(lambda: loading("left") == [0, 0])

        assert world["default"].get("k") == "new"
        assert loading("get") == "new"


@FAR
def test_a_stale_value_is_served_to_all_while_one_process_refreshes_it(fleet: Fleet, kind: str) -> None:
    fleet.say("source", "old")
    fleet.say("end")
    processes = [fleet.process(kind, ttl=0.05, stale_ttl=60) for _ in range(3)]
    assert processes[0]("get_or_set") == "old"
    until(lambda: processes[0]("get") is None)
    fleet.unsay("end")
    fleet.say("source", "new")

    for _ in range(5):
        assert [process("get_or_set") for process in processes] == ["old"] * 3
    until(lambda: fleet.count("loads") == 2)
    assert [process("get_or_set") for process in processes] == ["old"] * 3
    assert fleet.count("loads") == 2
    fleet.say("end")
    until(lambda: all(process("get_or_set") == "new" for process in processes))


@FAR
def test_a_holder_that_is_killed_holds_the_others_up_for_no_longer_than_its_lease(
    fleet: Fleet, kind: str
) -> None:
    fleet.say("source", "v")
    killed, other = fleet.process(kind), fleet.process(kind)
    killed("begin", lease_ttl=0.3)
    until(lambda: fleet.count("loads"))

    killed.kill()
    other.tell("get_or_set")
    until(lambda: fleet.count("loads") == 2)
    fleet.say("end")

    assert other.answer() == "v"
    assert other("left") == [0, 0]


@FAR
def test_a_lease_that_ran_out_stores_nothing_over_the_next_holders_value(fleet: Fleet, kind: str) -> None:
    fleet.say("source", "first")
    first, second = fleet.process(kind), fleet.process(kind)
    first("begin", lease_ttl=0.05)
    until(lambda: fleet.count("loads") == 1)
    fleet.say("source", "second")
    second.tell("get_or_set")
    until(lambda: fleet.count("loads") == 2)

    fleet.say("end")

    assert second.answer() == "second"
    assert first("result") == "first"
    until(lambda: first("get") in {"second", None})
    assert second("get") == "second"
    assert first("get_or_set") == "second"


def test_what_is_loaded_first_of_all_stays_near(fleet: Fleet) -> None:
    """Neither the log's beginning nor the cache's first stamp is a reason to forget it."""
    with Caches(fleet.settings("chain")) as world:
        cache = world["default"]
        until(lambda: "log_lag" in cache.stats().layers[1].gauges)

        assert [cache.get_or_set(f"k{number}", lambda: "v") for number in range(20)] == ["v"] * 20
        until(lambda: cache.stats().layers[1].gauges["log_entries"] >= 20)
        before = cache.stats().layers[0].hits
        assert [cache.get(f"k{number}") for number in range(20)] == ["v"] * 20

        assert cache.stats().layers[0].hits == before + 20
