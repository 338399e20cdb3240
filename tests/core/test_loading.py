"""get_or_set in every order of events: one load, nothing of the past, nobody stranded, nothing left behind."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from threading import Lock, get_ident
from typing import Any

import pytest
from loading_worlds import CLOCK, World, orders

from layercache.core.context import LoadContext, NotModified, current_load
from layercache.core.flights import Flights, Outdating
from layercache.core.policy import Overrides, Plan
from layercache.entry import MISSING
from layercache.errors import CacheError, InvalidTtl, LoadTimeout, RecursiveLoad
from layercache.testing import StepPort
from layercache.testing.stepping import Killed, pause

KINDS = ["memory", "leases"]
APART = [False, True]  # as threads load, and as event loops do


class TestOneLoad:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(("callers", "apart"), [(2, False), (2, True), (3, False)])
    def test_for_all_callers_of_a_process(self, kind: str, callers: int, apart: bool) -> None:
        ran = 0
        for world, order in orders(
            kind, lambda world, port: [world.get_or_set(port) for _ in range(callers)], apart=apart
        ):
            ran += 1
            assert order.results[:callers] == [[1]] * callers, order.steps
            assert world.begun == 1, order.steps
            world.assert_nothing_is_left(order.steps)
        assert ran > 20

    @pytest.mark.parametrize("apart", APART)
    def test_for_two_processes(self, apart: bool) -> None:
        for world, order in orders(
            "leases",
            lambda world, port: [world.get_or_set(port, process=number) for number in range(2)],
            processes=2,
            apart=apart,
        ):
            assert order.results[:2] == [[1], [1]], order.steps
            assert world.begun == 1, order.steps
            world.assert_nothing_is_left(order.steps)

    def test_each_caller_gets_a_value_of_its_own(self) -> None:
        for _, order in orders(
            "memory", lambda world, port: [world.get_or_set(port), world.get_or_set(port)]
        ):
            first, second = order.results
            assert first is not second, order.steps

    def test_keys_do_not_wait_for_each_other(self) -> None:
        for world, order in orders(
            "memory", lambda world, port: [world.get_or_set(port, key="a"), world.get_or_set(port, key="b")]
        ):
            assert world.begun == 2
            assert world.loading.waits == 0
            assert order.results == [[1], [1]]

    def test_what_the_leader_finds_when_it_has_boarded_is_not_loaded_again(self) -> None:
        def callers(world: World, port: StepPort) -> Any:
            async def put() -> None:
                await pause("put")
                world.put([7])

            return [world.get_or_set(port), put()]

        begun = set()
        for world, order in orders("leases", callers):
            begun.add(world.begun)
            leases = [at for at, step in enumerate(order.steps) if step == (0, "lease k")]
            if not leases or order.steps.index((1, "put")) < leases[0]:
                assert order.results[0] == [7], order.steps
                assert world.begun == 0, order.steps
        assert begun == {0, 1}


SOFTLY = "invalidate softly"
CHANGES: dict[str, Callable[[World, StepPort], Coroutine[Any, Any, Any]]] = {
    "set": lambda world, port: world.loading.verbs.set(port, "k", [2]),
    "set_many": lambda world, port: world.loading.verbs.set_many(port, {"k": [2]}),
    "delete": lambda world, port: world.loading.verbs.delete(port, "k"),
    "delete_many": lambda world, port: world.loading.verbs.delete_many(port, ["k"]),
    "clear": lambda world, port: world.loading.verbs.clear(port),
    "invalidate": lambda world, port: world.loading.verbs.invalidate(port, ["t"]),
    SOFTLY: lambda world, port: world.loading.verbs.invalidate(port, ["t"], soft=True),
}


class TestThePast:
    """A value whose load began before a change had ended is not there after it."""

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("change", CHANGES)
    @pytest.mark.parametrize("tags", [["t"], lambda value: ["t"]], ids=["told before", "told by the value"])
    @pytest.mark.parametrize("apart", APART)
    def test_is_not_stored_by_a_load(self, kind: str, change: str, tags: Any, apart: bool) -> None:
        for world, order in orders(
            kind, lambda world, port: self.race(world, port, change, tags), apart=apart
        ):
            self.assert_it_is_not_there(world, order, change)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("change", CHANGES)
    @pytest.mark.parametrize("tags", [["t"], lambda value: ["t"]], ids=["told before", "told by the value"])
    def test_is_not_stored_by_a_refresh_in_the_background(self, kind: str, change: str, tags: Any) -> None:
        def callers(world: World, port: StepPort) -> Any:
            world.put([1], stale=True)
            return self.race(world, port, change, tags)

        for world, order in orders(kind, callers):
            if change not in {"invalidate", SOFTLY}:  # what was put has no tags
                self.assert_it_is_not_there(world, order, change)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("change", ["set", "delete", "clear", "invalidate", SOFTLY])
    def test_is_not_stored_by_a_load_of_several_keys(self, kind: str, change: str) -> None:
        def callers(world: World, port: StepPort) -> Any:
            source = self.source_of(world, port, change)

            def load(keys: list[str]) -> dict[str, list[int]]:
                return {key: [world.source] for key in keys}

            many = world.loading.get_or_set_many(port, ["k", "l"], load, Overrides(60, {"tags": ["t"]}))
            return [many, source]

        for world, order in orders(kind, callers):
            self.assert_it_is_not_there(world, order, change)

    def race(self, world: World, port: StepPort, change: str, tags: Any) -> Any:
        return [world.get_or_set(port, tags=tags), self.source_of(world, port, change)]

    @staticmethod
    async def source_of(world: World, port: StepPort, change: str) -> None:
        """What loaders look up becomes another, then the cache is told: as an application does it."""
        await pause("commit")
        world.source = 2
        await CHANGES[change](world, port)
        await pause("done")

    @staticmethod
    def assert_it_is_not_there(world: World, order: Any, change: str) -> None:
        left = world.fresh() if change == SOFTLY else world.stored()  # where it may be, but stale
        assert left in (None, [2]), order.steps
        world.assert_nothing_is_left(order.steps)

    @pytest.mark.parametrize("kind", KINDS)
    def test_is_what_the_caller_gets_all_the_same_and_counted(self, kind: str) -> None:
        refused = 0
        for world, order in orders(kind, lambda world, port: self.race(world, port, "delete", [])):
            assert order.results[0] in ([1], [2]), order.steps
            refused += world.loading.leading.refused
        assert refused > 0


class TestLeavers:
    @pytest.mark.parametrize(
        ("kind", "callers", "apart"),
        [
            ("memory", 2, False),
            ("memory", 2, True),
            ("leases", 2, False),
            ("leases", 2, True),
        ],
    )
    def test_a_caller_killed_at_any_step_strands_nobody(self, kind: str, callers: int, apart: bool) -> None:
        begun = set()
        for world, order in orders(
            kind,
            lambda world, port: [world.get_or_set(port) for _ in range(callers)],
            kill=0,
            apart=apart,
        ):
            first, *others = order.results[:callers]
            begun.add(world.begun)
            killed = [at for at, (_, act) in enumerate(order.steps) if act == "killed before join"]
            if apart and killed and (1, "read k") in order.steps[: killed[0]]:
                assert world.begun == 1, order.steps  # it goes on for those who wait
            assert isinstance(first, Killed) or first == [1], order.steps
            assert others == [[1]] * (callers - 1), order.steps
            world.assert_nothing_is_left(order.steps)
        assert begun == {1, 2}

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_load_itself_killed_at_any_step_strands_nobody(self, kind: str) -> None:
        killed = 0
        for world, order in orders(
            kind, lambda world, port: [world.get_or_set(port) for _ in range(2)], kill=2, apart=True
        ):
            killed += any("killed" in act for _, act in order.steps)
            assert order.results[:2] == [[1], [1]], order.steps
            world.assert_nothing_is_left(order.steps)
        assert killed > 20

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_load_that_nobody_waits_for_is_given_up(self, kind: str) -> None:
        given_up = 0
        for world, order in orders(kind, lambda world, port: [world.get_or_set(port)], kill=0, apart=True):
            given_up += len(order.results) > 1 and isinstance(order.results[1], Killed)
            world.assert_nothing_is_left(order.steps)
        assert given_up > 0

    def test_it_is_given_up_once_whoever_boards_and_leaves_while_it_ends(self) -> None:
        flights, given_up = Flights(Lock(), get_ident), []
        flight, _ = flights.board("k", Plan())
        flight.party.give_up = lambda: given_up.append("k")

        for _ in range(2):
            flights.leave(flight, goes_on=False)
            assert flights.board("k", Plan()) == (flight, False)

        assert given_up == ["k"]

    def test_one_that_goes_on_is_not_given_up_by_who_leaves_it_later(self) -> None:
        flights, given_up = Flights(Lock(), get_ident), []
        flight, _ = flights.board("k", Plan())
        flights.board("k", Plan())
        flight.party.give_up = lambda: given_up.append("k")

        flights.leave(flight, goes_on=True)
        flights.leave(flight, goes_on=False)

        assert given_up == []

    def test_a_holder_in_another_process_that_is_killed_strands_nobody(self) -> None:
        for world, order in orders(
            "leases",
            lambda world, port: [world.get_or_set(port, process=number) for number in range(2)],
            processes=2,
            kill=0,
        ):
            assert order.results[1] == [1], order.steps
            world.assert_nothing_is_left(order.steps)

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_loader_that_fails_leaves_the_key_to_the_next(self, kind: str) -> None:
        for world, order in orders(
            kind, lambda world, port: [world.get_or_set(port, world.fail), world.get_or_set(port)]
        ):
            failed, loaded = order.results
            assert isinstance(failed, LookupError) or failed == [1], order.steps
            assert isinstance(loaded, LookupError) or loaded == [1], order.steps
            world.assert_nothing_is_left(order.steps)

    @pytest.mark.parametrize(("keys", "kill"), [(["k", "l"], 0), (["k"], 1)])
    def test_a_load_of_several_keys_leaves_nothing_either(self, keys: list[str], kill: int) -> None:
        def callers(world: World, port: StepPort) -> Any:
            def load(keys: list[str]) -> dict[str, list[int]]:
                return {key: world.load() for key in keys}

            return [world.loading.get_or_set_many(port, keys, load), world.get_or_set(port)]

        for world, order in orders("leases", callers, kill=kill, apart=True):
            if kill == 0:
                assert order.results[1] == [1], order.steps
            else:
                assert order.results[0] == {key: [1] for key in keys}, order.steps
            world.assert_nothing_is_left(order.steps)


class TestErrors:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("apart", APART)
    def test_of_the_loader_reach_leader_and_followers_unwrapped(self, kind: str, apart: bool) -> None:
        for world, order in orders(
            kind, lambda world, port: [world.get_or_set(port, world.fail) for _ in range(2)], apart=apart
        ):
            assert [type(result) for result in order.results[:2]] == [LookupError, LookupError], order.steps
            assert [str(result) for result in order.results[:2]] == ["no quote"] * 2
            assert 1 <= world.begun <= 2, order.steps
            world.assert_nothing_is_left(order.steps)

    def test_have_each_a_traceback_of_their_own_that_ends_in_the_loader(self) -> None:
        shared = 0
        for world, order in orders(
            "memory", lambda world, port: [world.get_or_set(port, world.fail) for _ in range(2)]
        ):
            first, second = order.results
            if world.begun == 1:
                shared += 1
                assert first is not second
            for error in (first, second):
                frames = []
                traceback = error.__traceback__
                while traceback is not None:
                    frames.append(traceback.tb_frame.f_code.co_name)
                    traceback = traceback.tb_next
                assert frames[-1] == "fail", order.steps
        assert shared > 0

    def test_of_what_cannot_be_stored_reach_everybody_and_nothing_is_left(self) -> None:
        from layercache import EncodeError

        for world, order in orders(
            "leases", lambda world, port: [world.get_or_set(port, lambda: object()) for _ in range(2)]
        ):
            assert all(isinstance(result, EncodeError) for result in order.results), order.steps
            world.assert_nothing_is_left(order.steps)


class TestStaleValues:
    @pytest.mark.parametrize("kind", KINDS)
    def test_are_served_to_all_while_one_load_refreshes_them(self, kind: str) -> None:
        def callers(world: World, port: StepPort) -> Any:
            world.put([0], stale=True)
            return [world.get_or_set(port) for _ in range(3)]

        for world, order in orders(kind, callers):
            assert all(result in ([0], [1]) for result in order.results[:3]), order.steps
            assert [0] in order.results, order.steps
            assert world.begun == 1, order.steps
            assert world.stored() == [1], order.steps
            world.assert_nothing_is_left(order.steps)

    @pytest.mark.parametrize("kind", KINDS)
    def test_are_what_a_soft_invalidation_leaves_too(self, kind: str) -> None:
        def callers(world: World, port: StepPort) -> Any:
            world.put([0], tags=["t"])
            world.layer.space.invalidate(["t"], soft=True)
            return [world.get_or_set(port, tags=["t"]) for _ in range(2)]

        for world, order in orders(kind, callers):
            assert all(result in ([0], [1]) for result in order.results[:2]), order.steps
            assert [0] in order.results, order.steps
            assert (world.begun, world.fresh()) == (1, [1]), order.steps
            world.assert_nothing_is_left(order.steps)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("fails", [False, True], ids=["the load works", "the load fails"])
    def test_with_refresh_off_a_softly_invalidated_one_is_served_where_the_load_fails(
        self, kind: str, fails: bool
    ) -> None:
        def callers(world: World, port: StepPort) -> Any:
            world.put([0], tags=["t"])
            world.layer.space.invalidate(["t"], soft=True)
            return [world.get_or_set(port, world.fail if fails else world.load, tags=["t"])]

        for world, order in orders(kind, callers, plan={"refresh": "off"}):
            assert order.results == [[0] if fails else [1]], order.steps
            assert world.begun == 1, order.steps

    def test_are_refreshed_by_one_of_two_processes(self) -> None:
        def callers(world: World, port: StepPort) -> Any:
            world.put([0], stale=True)
            return [world.get_or_set(port, process=number) for number in range(2)]

        for world, order in orders("leases", callers, processes=2):
            assert all(result in ([0], [1]) for result in order.results[:2]), order.steps
            assert world.begun == 1, order.steps
            assert world.stored() == [1], order.steps
            world.assert_nothing_is_left(order.steps)

    def test_that_another_process_refreshes_are_not_asked_for_at_every_hit(self) -> None:
        def callers(world: World, port: StepPort) -> Any:
            world.put([0], stale=True)
            world.store.leases["k"] = b"somebody"

            async def five() -> list[Any]:
                return [await world.get_or_set(port) for _ in range(5)]

            return [five()]

        for _, order in orders("leases", callers):
            assert order.results[0] == [[0]] * 5, order.steps
            assert [act for _, act in order.steps].count("lease k") == 1, order.steps

    @pytest.mark.parametrize("kind", KINDS)
    def test_are_served_where_the_loader_fails_and_nobody_tries_again_for_a_while(
        self, kind: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        def callers(world: World, port: StepPort) -> Any:
            world.put([0], stale=True)
            return [world.get_or_set(port, world.fail, refresh=refresh) for refresh in ("background", "off")]

        for world, order in orders(kind, callers):
            caplog.clear()
            assert order.results[:2] == [[0], [0]], order.steps
            assert world.begun <= 2, order.steps
            assert world.stored() == [0], order.steps

    @pytest.mark.parametrize("kind", KINDS)
    def test_with_refresh_off_who_finds_one_loads(self, kind: str) -> None:
        def callers(world: World, port: StepPort) -> Any:
            world.put([0], stale=True)
            return [world.get_or_set(port, refresh="off") for _ in range(2)]

        for world, order in orders(kind, callers):
            assert order.results[:2] == [[1], [1]], order.steps
            assert world.begun == 1, order.steps
            world.assert_nothing_is_left(order.steps)

    @pytest.mark.parametrize("kind", KINDS)
    def test_killed_in_the_background_a_refresh_leaves_nothing(self, kind: str) -> None:
        def callers(world: World, port: StepPort) -> Any:
            world.put([0], stale=True)
            return [world.get_or_set(port)]

        for world, order in orders(kind, callers, kill=1):
            assert order.results[0] == [0], order.steps
            world.assert_nothing_is_left(order.steps)


class TestTimeOuts:
    @pytest.mark.parametrize("kind", KINDS)
    def test_soft_serves_the_stale_value_and_lets_the_load_go_on(self, kind: str) -> None:
        def callers(world: World, port: StepPort) -> Any:
            world.put([0], stale=True)
            return [world.get_or_set(port, refresh="off", soft_timeout=1)]

        served = set()
        for world, order in orders(kind, callers):
            served.add(tuple(order.results[0]))
            assert world.begun == 1, order.steps
            assert world.stored() == [1], order.steps
            world.assert_nothing_is_left(order.steps)
        assert served == {(0,), (1,)}

    @pytest.mark.parametrize("kind", KINDS)
    def test_hard_raises_and_lets_the_load_go_on(self, kind: str) -> None:
        ended = set()
        for world, order in orders(kind, lambda world, port: [world.get_or_set(port, hard_timeout=1)]):
            ended.add(type(order.results[0]))
            assert world.stored() == [1], order.steps
            world.assert_nothing_is_left(order.steps)
        assert ended == {list, LoadTimeout}

    @pytest.mark.parametrize("kind", KINDS)
    def test_hard_serves_a_stale_value_where_there_is_one(self, kind: str) -> None:
        def callers(world: World, port: StepPort) -> Any:
            world.put([0], stale=True)
            return [world.get_or_set(port, refresh="off", hard_timeout=1)]

        assert {tuple(order.results[0]) for _, order in orders(kind, callers)} == {(0,), (1,)}

    def test_a_follower_waits_no_longer_than_it_says(self) -> None:
        ended = set()
        for world, order in orders(
            "memory", lambda world, port: [world.get_or_set(port), world.get_or_set(port, wait=1)]
        ):
            assert order.results[0] == [1]
            ended.add(type(order.results[1]))
            world.assert_nothing_is_left(order.steps)
        assert ended == {list, LoadTimeout}

    def test_who_waits_for_another_process_waits_no_longer_than_it_says(self) -> None:
        def callers(world: World, port: StepPort) -> Any:
            world.store.leases["k"] = b"somebody who never comes back"
            return [world.get_or_set(port, wait=1)]

        for world, order in orders("leases", callers):
            assert isinstance(order.results[0], LoadTimeout), order.steps
            assert world.begun == 0
            assert len(world.loading.flights) == 0


class TestNesting:
    def test_a_loader_may_load_another_key(self) -> None:
        def callers(world: World, port: StepPort) -> Any:
            async def outer() -> Any:
                return [*(await world.get_or_set(port, key="inner")), 9]

            return [world.get_or_set(port, outer, key="outer"), world.get_or_set(port, key="inner")]

        for world, order in orders("memory", callers):
            assert order.results == [[1, 9], [1]], order.steps
            assert world.begun == 1
            world.assert_nothing_is_left(order.steps)

    def test_each_loader_is_told_of_its_own_load_and_not_of_the_one_around_it(self) -> None:
        def callers(world: World, port: StepPort) -> Any:
            def inner() -> str:
                return current_load().key

            async def outer() -> list[str]:
                return [await world.get_or_set(port, inner, key="inner"), current_load().key]

            return [world.get_or_set(port, outer, key="outer")]

        for world, order in orders("memory", callers):
            assert order.results == [["inner", "outer"]], order.steps
            world.assert_nothing_is_left(order.steps)

    def test_a_loader_that_asks_for_its_own_key_is_told(self) -> None:
        def callers(world: World, port: StepPort) -> Any:
            async def own() -> Any:
                return await world.get_or_set(port)

            return [world.get_or_set(port, own)]

        for world, order in orders("memory", callers):
            assert isinstance(order.results[0], RecursiveLoad), order.steps
            world.assert_nothing_is_left(order.steps)

    @pytest.mark.parametrize("apart", APART)
    def test_two_that_ask_for_each_other_s_are_told_in_every_order(self, apart: bool) -> None:
        def callers(world: World, port: StepPort) -> Any:
            async def of(key: str) -> Any:
                return await world.get_or_set(port, lambda: of("b" if key == "a" else "a"), key=key)

            return [
                world.get_or_set(port, lambda: of("b"), key="a"),
                world.get_or_set(port, lambda: of("a"), key="b"),
            ]

        for world, order in orders("memory", callers, apart=apart):
            assert any(isinstance(result, RecursiveLoad) for result in order.results), order.steps
            world.assert_nothing_is_left(order.steps)


class TestWhatLoadersSay:
    def one(self, loader: Any, kind: str = "memory", put: Any = None, **options: Any) -> tuple[World, Any]:
        """The world after one call, and what it returned."""

        def callers(world: World, port: StepPort) -> Any:
            if put is not None:
                world.put(put, stale=True)
            return [world.get_or_set(port, loader, **options)]

        ((world, order),) = orders(kind, callers)
        return world, order.results[0]

    def entry(self, world: World) -> Any:
        return world.layer.space.get("k")

    @pytest.mark.parametrize("kind", KINDS)
    def test_missing_is_returned_and_nothing_is_stored(self, kind: str) -> None:
        world, result = self.one(lambda: MISSING, kind)

        assert result is MISSING
        assert world.stored() is None
        world.assert_nothing_is_left()

    def test_none_is_a_value_with_a_ttl_of_its_own_and_is_never_stale(self) -> None:
        world, result = self.one(lambda: None, none_ttl=5, stale_ttl=100)

        assert result is None
        entry = self.entry(world)
        assert (entry.fresh_until - CLOCK(), entry.dead_at - CLOCK()) == (5, 5)

    def test_a_ttl_of_no_life_is_handed_round_but_not_kept(self) -> None:
        world, result = self.one(world_load, ttl=0)

        assert result == [5]
        assert world.stored() is None
        world.assert_nothing_is_left()

    def test_for_ever_is_for_ever(self) -> None:
        world, _ = self.one(world_load, ttl=None)

        assert self.entry(world).dead_at == math.inf

    def test_a_ttl_may_come_from_the_value(self) -> None:
        world, _ = self.one(world_load, ttl=lambda value: value[0] * 2)

        assert self.entry(world).fresh_until - CLOCK() == 10

    def test_the_context_sets_ttl_and_tags(self) -> None:
        def load(load: LoadContext[Any]) -> list[int]:
            assert load is current_load()
            assert load.stale is None
            load.ttl = "7s"
            load.add_tags("told")
            return [1]

        world, _ = self.one(load, "leases", tags=["known"])

        entry = self.entry(world)
        assert entry.fresh_until - CLOCK() == 7
        assert [tag for tag, _ in entry.stamps] == ["*", "known", "told"]

    @pytest.mark.parametrize("stale_ttl", [0, "20s", None])
    def test_the_context_sets_how_long_a_value_is_kept_stale(self, stale_ttl: Any) -> None:
        def load(load: LoadContext[Any]) -> list[int]:
            load.stale_ttl = stale_ttl
            return [1]

        world, _ = self.one(load, "leases", stale_ttl=5)

        entry = self.entry(world)
        kept = {0: 0, "20s": 20, None: math.inf}[stale_ttl]
        assert (entry.fresh_until - CLOCK(), entry.dead_at - entry.fresh_until) == (60, kept)

    def test_less_than_nothing_is_no_stale_ttl(self) -> None:
        def load(load: LoadContext[Any]) -> list[int]:
            load.stale_ttl = -1
            return [1]

        _, result = self.one(load)

        assert isinstance(result, InvalidTtl)

    def test_not_modified_keeps_the_stale_value_for_another_ttl(self) -> None:
        seen = []

        def load(load: LoadContext[Any]) -> Any:
            seen.append(load.stale)
            return NotModified

        world, result = self.one(load, put=[3], refresh="off", stale_ttl=30)

        assert (seen, result, world.stored()) == ([[3]], [3], [3])
        entry = self.entry(world)
        assert (entry.fresh_until - CLOCK(), entry.dead_at - CLOCK()) == (60, 90)

    def test_not_modified_of_nothing_is_an_error(self) -> None:
        world, result = self.one(lambda: NotModified)

        assert isinstance(result, CacheError)
        assert "NotModified" in str(result)
        world.assert_nothing_is_left()

    def test_jitter_shortens_a_ttl_and_never_lengthens_it(self) -> None:
        world, _ = self.one(world_load, jitter=0.25)  # the step port draws 1.0

        assert self.entry(world).fresh_until - CLOCK() == 45

    def test_no_load_is_under_way_outside_of_any(self) -> None:
        assert current_load() is None


def world_load() -> list[int]:
    return [5]


class TestSeveralKeys:
    @staticmethod
    def asked(world: World, calls: list[list[str]]) -> Callable[[list[str]], dict[str, list[int]]]:
        def load(keys: list[str]) -> dict[str, list[int]]:
            calls.append(keys)
            return {key: world.load() for key in keys}

        return load

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_loader_is_called_once_with_just_what_is_missing(self, kind: str) -> None:
        calls: list[list[str]] = []

        def callers(world: World, port: StepPort) -> Any:
            calls.clear()
            world.put([7], key="b")
            return [world.loading.get_or_set_many(port, ["c", "b", "a", "c"], self.asked(world, calls))]

        ((world, order),) = orders(kind, callers)

        assert list(order.results[0].items()) == [("c", [1]), ("b", [7]), ("a", [1])]
        assert calls == [["c", "a"]]
        reads = [act for _, act in order.steps if act.startswith("read")]
        assert reads[0] == "read c, b, a"
        assert [act for _, act in order.steps if act.startswith("fill")] == (
            ["fill c, a"] if kind == "leases" else ["fill c", "fill a"]
        )
        world.assert_nothing_is_left()

    @pytest.mark.parametrize("kind", KINDS)
    def test_what_is_loaded_elsewhere_is_waited_for_in_every_order(self, kind: str) -> None:
        calls: list[list[str]] = []

        def callers(world: World, port: StepPort) -> Any:
            calls.clear()
            load = self.asked(world, calls)
            return [
                world.loading.get_or_set_many(port, ["a", "b"], load),
                world.loading.get_or_set_many(port, ["b", "c"], load),
            ]

        for world, order in orders(kind, callers):
            assert order.results == [{"a": [1], "b": [1]}, {"b": [1], "c": [1]}], order.steps
            assert sorted(key for keys in calls for key in keys) == ["a", "b", "c"], order.steps
            world.assert_nothing_is_left(order.steps)

    def test_so_it_is_in_another_process(self) -> None:
        calls: list[list[str]] = []

        def callers(world: World, port: StepPort) -> Any:
            calls.clear()
            load = self.asked(world, calls)
            return [
                world.caches[0].get_or_set_many(port, ["a", "b"], load),
                world.caches[1].get_or_set_many(port, ["b", "c"], load),
            ]

        for world, order in orders("leases", callers, processes=2):
            assert order.results == [{"a": [1], "b": [1]}, {"b": [1], "c": [1]}], order.steps
            assert sorted(key for keys in calls for key in keys) == ["a", "b", "c"], order.steps
            world.assert_nothing_is_left(order.steps)

    def test_what_the_loader_leaves_out_has_no_value(self) -> None:
        def callers(world: World, port: StepPort) -> Any:
            def load(keys: list[str]) -> dict[str, int]:
                return {"a": 1}

            return [world.loading.get_or_set_many(port, ["a", "b"], load)]

        ((world, order),) = orders("memory", callers)

        assert order.results == [{"a": 1}]
        assert world.stored("b") is None
        world.assert_nothing_is_left()

    def test_stale_ones_are_served_and_refreshed_together(self) -> None:
        calls: list[list[str]] = []

        def callers(world: World, port: StepPort) -> Any:
            calls.clear()
            world.put([0], key="a", stale=True)
            world.put([0], key="b", stale=True)
            return [world.loading.get_or_set_many(port, ["a", "b"], self.asked(world, calls))]

        for world, order in orders("leases", callers):
            assert order.results[0] == {"a": [0], "b": [0]}, order.steps
            assert calls == [["a", "b"]]
            assert (world.stored("a"), world.stored("b")) == ([1], [1])

    def test_an_error_reaches_the_caller_unless_all_have_a_stale_value(self) -> None:
        def callers(world: World, port: StepPort) -> Any:
            def load(keys: list[str]) -> Any:
                raise LookupError("no quotes")

            world.put([0], key="a", stale=True)
            overrides = Overrides(60, {"refresh": "off"})
            return [
                world.loading.get_or_set_many(port, ["a", "b"], load, overrides),
                world.loading.get_or_set_many(port, ["a"], load, overrides),
            ]

        for world, order in orders("memory", callers):
            assert isinstance(order.results[0], LookupError), order.steps
            assert order.results[1] == {"a": [0]}, order.steps
            world.assert_nothing_is_left(order.steps)

    def test_what_is_no_mapping_is_refused(self) -> None:
        ((world, order),) = orders(
            "memory",
            lambda world, port: [world.loading.get_or_set_many(port, ["a"], lambda keys: [1])],
        )

        assert isinstance(order.results[0], TypeError)
        world.assert_nothing_is_left()

    def test_none_is_asked_for_nothing(self) -> None:
        ((_, order),) = orders(
            "memory", lambda world, port: [world.loading.get_or_set_many(port, [], world.fail)]
        )

        assert order.results == [{}]


class TestRefreshing:
    @pytest.mark.parametrize("kind", KINDS)
    def test_loads_whatever_is_there(self, kind: str) -> None:
        def callers(world: World, port: StepPort) -> Any:
            world.put([0])
            return [world.loading.refresh(port, "k", world.load) for _ in range(2)]

        for world, order in orders(kind, callers):
            assert order.results == [[1], [1]], order.steps
            assert world.begun == 2, order.steps  # what another has begun may be of before
            world.assert_nothing_is_left(order.steps)

    def test_is_not_failed_by_the_load_of_another(self) -> None:
        for world, order in orders(
            "memory",
            lambda world, port: [
                world.get_or_set(port, world.fail),
                world.loading.refresh(port, "k", world.load),
            ],
        ):
            assert order.results[1] == [1], order.steps
            world.assert_nothing_is_left(order.steps)

    @pytest.mark.parametrize("kind", KINDS)
    def test_raises_what_the_loader_raises_and_leaves_what_is_there(self, kind: str) -> None:
        def callers(world: World, port: StepPort) -> Any:
            world.put([0])
            return [world.loading.refresh(port, "k", world.fail)]

        ((world, order),) = orders(kind, callers)

        assert isinstance(order.results[0], LookupError)
        assert world.stored() == [0]
        world.assert_nothing_is_left()

    def test_early_ones_happen_before_the_end_and_once(self) -> None:
        """A value that took 10 s to load is refreshed, at the step port's draw, 10 s before its end."""

        def callers(world: World, port: StepPort) -> Any:
            world.put([0])
            entry = world.store.entries["k"]
            entry.spread = 61.0
            return [world.get_or_set(port, refresh="early") for _ in range(2)]

        for world, order in orders("leases", callers):
            assert [0] in order.results, order.steps
            assert world.begun == 1, order.steps
            assert world.stored() == [1]
            world.assert_nothing_is_left(order.steps)


class TestChangesDuringALoad:
    """Who asks after a change of this process was completed is not given what was loaded before it."""

    @pytest.mark.parametrize(
        ("kind", "change"),
        [("memory", "delete"), ("leases", "clear"), ("chain", "invalidate")],
    )
    def test_nobody_boards_a_load_that_began_before_it_in_any_order(self, kind: str, change: str) -> None:
        def callers(world: World, port: StepPort) -> Any:
            verbs = world.loading.verbs
            world.done = False  # type: ignore[attr-defined]

            async def changing() -> None:
                world.source = 2  # first at its source, then here
                match change:
                    case "delete":
                        await verbs.delete(port, "k")
                    case "clear":
                        await verbs.clear(port)
                    case _:
                        await verbs.invalidate(port, ["t"])
                world.done = True  # type: ignore[attr-defined]

            async def asking() -> Any:
                after = world.done  # type: ignore[attr-defined]
                return after, await world.get_or_set(port, tags=["t"])

            return [world.get_or_set(port, tags=["t"]), changing(), asking()]

        seen = set()
        for world, order in orders(kind, callers):
            after, value = order.results[2]
            seen.add((after, value[0]))
            assert not after or value == [2], order
            world.assert_nothing_is_left(order)
        assert (True, 2) in seen
        assert (False, 1) in seen, "there are orders in which it asks before"

    def test_what_another_process_has_changed_is_not_boarded_either(self) -> None:
        flights = Flights(Lock(), get_ident)
        heard = Outdating(flights)
        for news in (lambda: heard.written("k"), lambda: heard.invalidated("t", 1, False)):
            first, _ = flights.board("k", Plan(tags=("t",)))
            other, _ = flights.board("l", Plan())

            news()

            assert flights.board("k", Plan()) != (first, False)
            assert flights.board("l", Plan()) == (other, False)
            flights.reset(Lock())

    def test_a_tag_that_only_the_value_will_tell_may_be_the_one_that_is_invalidated(self) -> None:
        flights = Flights(Lock(), get_ident)
        flights.board("k", Plan(tags_of=lambda _: ["t"]))

        flights.outdate(tags=["t"])

        assert flights.board("k", Plan())[1] is True
