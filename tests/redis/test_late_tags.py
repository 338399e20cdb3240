"""Tags that only the loaded value tells: it is stored only if none of them was invalidated while it was loaded."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from itertools import count, product
from typing import Any

import pytest
import redis
from far import Far, entry, filling, leasing, value

from layercache import Cache, Caches
from layercache.entry import CACHE_TAG
from layercache.spi import Lease
from layercache.testing import ValkeyServer, every_order
from layercache.testing.stepping import pause
from layercache_redis.commands import Commands
from layercache_redis.marks import bucket_of
from layercache_redis.stamping import STAMP_LIFE
from layercache_redis.stamps import KnownStamps

Opener = Callable[..., Cache[Any]]


def in_the_bucket_of(tag: str, *, same: bool) -> str:
    """Another tag, in the same bucket or not."""
    others = (f"other{number}" for number in count())
    return next(other for other in others if (bucket_of(other) == bucket_of(tag)) is same)


NEIGHBOUR, STRANGER = in_the_bucket_of("t", same=True), in_the_bucket_of("t", same=False)


@pytest.fixture
def marks_at(far: Far) -> bytes:
    return far.names.marks


def marked(far: Far) -> None:
    """There are marks."""
    far.space.late_stamps([STRANGER], None)


def loaded_by(far: Far, lease: Lease, tags: list[str]) -> bool:
    """Whether what is loaded under `lease`, and then tells `tags`, is stored."""
    assert lease.state == "granted"
    late = far.space.late_stamps(tags, lease.mark)
    if late is None:
        far.space.release("k", b"a")
        return False
    return far.space.fill("k", b"a", entry("loaded", stamps=(*lease.stamps, *late)))


class TestAlone:
    def test_where_nothing_was_invalidated_it_is_stored_and_carries_them(self, far: Far, other: Far) -> None:
        marked(far)

        assert loaded_by(far, far.space.lease("k", b"a", 10), ["t", "u"])

        found = other.space.get("k")
        assert (value(found), found.stamps) == ("loaded", far.space.stamps(["t", "u"]))
        far.space.invalidate(["u"])
        assert far.space.get("k") is None

    def test_besides_those_that_were_known_before(self, far: Far, other: Far) -> None:
        marked(far)
        lease = far.space.lease("k", b"a", 10, tags=["known"])

        assert loaded_by(far, lease, ["t"])

        assert other.space.get("k").stamps == far.space.stamps(["known", "t"])

    def test_what_was_invalidated_before_the_lease_is_no_matter(self, far: Far, other: Far) -> None:
        for tag in ("t", NEIGHBOUR, STRANGER):
            other.space.invalidate([tag])

        assert loaded_by(far, far.space.lease("k", b"a", 10), ["t"])
        assert value(other.space.get("k")) == "loaded"

    @pytest.mark.parametrize("invalidated", [["t"], ["u"], [STRANGER, "t"], [NEIGHBOUR]])
    def test_where_one_or_one_of_its_bucket_was_invalidated_meanwhile_it_is_not_stored(
        self, far: Far, other: Far, invalidated: list[str]
    ) -> None:
        marked(far)
        lease = far.space.lease("k", b"a", 10)

        other.space.invalidate(invalidated)

        assert not loaded_by(far, lease, ["t", "u"])
        assert far.space.get("k") is None
        assert loaded_by(far, far.space.lease("k", b"a", 10), ["t", "u"])  # the next one is

    def test_where_another_was_it_is_stored(self, far: Far, other: Far) -> None:
        marked(far)
        lease = far.space.lease("k", b"a", 10)

        other.space.invalidate([STRANGER])

        assert loaded_by(far, lease, ["t"])
        assert value(other.space.get("k")) == "loaded"

    def test_a_clear_is_seen_by_the_lease_itself(self, far: Far, other: Far) -> None:
        marked(far)
        lease = far.space.lease("k", b"a", 10)

        other.space.clear()

        assert far.space.late_stamps(["t"], lease.mark) is not None
        assert not loaded_by(far, lease, ["t"])

    def test_a_stamp_that_was_lost_is_made_anew(self, far: Far, other: Far, server: redis.Redis) -> None:
        marked(far)
        far.space.set("before", entry("before", stamps=far.space.stamps(["t"])))
        lease = far.space.lease("k", b"a", 10)
        server.delete(far.names.stamp("t"))

        assert loaded_by(far, lease, ["t"])

        other.stop_following()
        assert other.space.get_many(["k", "before"]).keys() == {"k"}

    def test_the_stamp_it_carries_is_the_servers_and_not_what_is_believed(self, far: Far, other: Far) -> None:
        marked(far)
        far.follow().space.stamps(["t"])
        far.hear_nothing_more()
        other.space.invalidate(["t"])
        believed = far.known.get("t")

        late = far.space.late_stamps(["t"], far.space.lease("k", b"a", 10).mark)

        assert late == other.space.stamps(["t"])[1:]
        assert late != (("t", believed),)

    def test_of_several_keys_each_tells_its_own(self, far: Far, other: Far) -> None:
        marked(far)
        leases = far.space.lease_many(["k", "l"], b"a", 10)
        assert leases["k"].mark == leases["l"].mark
        other.space.invalidate(["t"])

        assert far.space.late_stamps(["t"], leases["k"].mark) is None
        assert far.space.late_stamps([STRANGER], leases["l"].mark) is not None


class TestMarks:
    """Without marks nobody knows what was invalidated; so nothing is stored, and from then on there are some."""

    def test_before_there_are_any_nothing_is_stored_once(self, far: Far) -> None:
        lease = far.space.lease("k", b"a", 10)
        assert lease.mark is None

        assert not loaded_by(far, lease, ["t"])
        assert loaded_by(far, far.space.lease("k", b"a", 10), ["t"])

    def test_they_live_as_long_as_a_stamp(self, far: Far, server: redis.Redis, marks_at: bytes) -> None:
        marked(far)
        assert 0 < server.pttl(marks_at) <= STAMP_LIFE

        server.pexpire(marks_at, 5_000)  # a month later
        far.space.invalidate([STRANGER])
        assert server.pttl(marks_at) > STAMP_LIFE / 2

    def test_they_take_no_more_room_the_more_tags_there_are(
        self, far: Far, server: redis.Redis, marks_at: bytes
    ) -> None:
        far.space.invalidate([f"t{number}" for number in range(2_000)])

        assert server.hlen(marks_at) <= 256 + 2

    def test_they_are_of_one_cache_alone(self, far: Far, server: redis.Redis, marks_at: bytes) -> None:
        far.space.invalidate(["t"])

        assert marks_at == far.names.values.split(":")[0].encode() + b":%marks:c"
        assert server.hget(marks_at, bucket_of("t")) == b"1"

    def test_what_was_invalidated_while_memory_was_short_is_noted_too(self) -> None:
        with ValkeyServer() as server, redis.Redis.from_url(server.url) as client:
            backend = {"type": "redis", "url": server.url, "prefix": "p", "timeout": "10s"}
            with Caches({"backends": {"far": backend}, "caches": {"c": {"backend": "far"}}}) as world:
                far = Far(world["c"])
                marked(far)
                lease = far.space.lease("k", b"a", 10)
                client.config_set("maxmemory-policy", "noeviction")
                client.config_set("maxmemory", 1)
                far.space.invalidate(["t"])
                client.delete(far.names.marks)
                far.space.invalidate([STRANGER])  # makes them anew
                client.config_set("maxmemory", 0)

                assert client.hget(far.names.marks, bucket_of(STRANGER)) == b"1"
                assert not loaded_by(far, lease, ["t"])


MISHAPS: dict[str, Callable[[Far, redis.Redis], Any]] = {
    "lost": lambda far, server: server.delete(far.names.marks),
    "of another type": lambda far, server: (
        server.delete(far.names.marks),
        server.rpush(far.names.marks, "theirs"),
    ),
    "made anew": lambda far, server: far.plain.late_stamps([STRANGER], None),
    "another invalidated": lambda far, server: far.plain.invalidate([STRANGER]),
    "invalidated": lambda far, server: far.plain.invalidate(["t"]),
}
HARMLESS = {"made anew", "another invalidated"}
"""Where there are marks, the first of them makes none."""


@pytest.mark.parametrize("number", [1, 2, 3])
def test_whatever_happens_to_the_marks_meanwhile_nothing_of_the_past_is_stored(
    far: Far, other: Far, server: redis.Redis, number: int
) -> None:
    for mishaps in product(MISHAPS, repeat=number):
        marked(far)
        lease = far.space.lease("k", b"a", 10)
        assert lease.mark is not None

        for mishap in mishaps:
            MISHAPS[mishap](other, server)

        assert loaded_by(far, lease, ["t"]) is (set(mishaps) <= HARMLESS), mishaps
        server.delete(far.names.marks)
        far.space.delete("k")


@pytest.mark.parametrize("number", [1, 2])
def test_whatever_happened_to_them_before_it_is_stored_only_where_there_are_some(
    far: Far, other: Far, server: redis.Redis, number: int
) -> None:
    for before, meanwhile in product(product(MISHAPS, repeat=number), repeat=2):
        marked(far)
        for mishap in before:
            MISHAPS[mishap](other, server)
        there_are_some = server.type(far.names.marks) == b"hash"
        lease = far.space.lease("k", b"a", 10)
        assert (lease.mark is not None) is there_are_some, before

        for mishap in meanwhile:
            MISHAPS[mishap](other, server)

        expected = there_are_some and set(meanwhile) <= HARMLESS
        assert loaded_by(far, lease, ["t"]) is expected, (before, meanwhile)
        far.space.delete("k")


# -- step by step, and in a cluster, where stamps, marks and leases are in different slots


class Stage:
    """One server; or, as the commands see it, a cluster, whose servers are one. Each command may come before or after
    any other's."""

    def __init__(self, cache: Cache[Any], *, is_cluster: bool) -> None:
        self.far = Far(cache).stop_following()
        self.setting = replace(self.far.commands.setting, cluster=is_cluster)
        self.keys = count()
        # the scripts are loaded, and there are stamps and marks
        commands = self.process()
        for tag in ("t", NEIGHBOUR):
            self.far.run(commands.invalidate([tag]))
        lease = self.far.run(leasing(commands, "k", b"a"))
        late = self.far.run(commands.late_stamps(["t"], lease.mark))
        self.far.run(filling(commands, "k", b"a", entry(stamps=(*lease.stamps, *late))))
        self.far.run(commands.release_many(["k"], b"a", 0.0))

    def process(self) -> Commands:
        ours = self.far.commands
        return Commands(self.setting, ours.names, ours.pipeline, KnownStamps(lambda: False))

    async def stepped(self, steps: Generator[Any, Any, Any], order: int = 1) -> Any:
        """Drive an operation command by command; those of one round trip in order, or (-1) the other way round."""
        commands = next(steps)
        while True:
            replies = {}
            for index in range(len(commands))[::order]:
                await pause(str(commands[index][0]))
                (replies[index],) = self.far.exchange([commands[index]])
            try:
                commands = steps.send([replies[index] for index in range(len(commands))])
            except StopIteration as end:
                return end.value

    async def by_round_trips(self, steps: Generator[Any, Any, Any], most: int = 100) -> Any:
        """Drive an operation by its round trips, and `most` of them, without a pause before the first."""
        commands = next(steps)
        for trip in range(most):
            if trip:
                await pause("its next round trip")
            replies = self.far.exchange(commands)
            try:
                commands = steps.send(replies)
            except StopIteration as end:
                return end.value
        steps.close()
        return None

    def new_key(self) -> str:
        return f"k{next(self.keys)}"

    def got(self, key: str) -> Any:
        return value(self.far.run(self.process().get(key)))


@pytest.fixture
def cluster(open_cache: Opener) -> Stage:
    return Stage(open_cache(), is_cluster=True)


@pytest.mark.parametrize(
    ("is_cluster", "order"),
    [(False, 1), (True, 1), (True, -1)],
    ids=["one server", "a cluster", "a cluster, the other way round"],
)
def test_no_order_of_the_steps_stores_what_is_of_the_past(
    open_cache: Opener, is_cluster: bool, order: int
) -> None:
    """One invalidation and one load, each command of which may come before or after any of the other's."""
    stage = Stage(open_cache(), is_cluster=is_cluster)
    loads: list[tuple[str, list[int]]] = []

    def scenario(_: object) -> list[Any]:
        key, source, seen = stage.new_key(), [1000], []
        loads.append((key, seen))

        async def load() -> Any:
            commands = stage.process()
            lease = await stage.stepped(leasing(commands, key, b"a"), order)
            assert lease.state == "granted"
            seen.append(source[0])  # at once: the sooner it is loaded, the older it can be
            late = await stage.stepped(commands.late_stamps(["t"], lease.mark), order)
            if late is None:
                return "refused"
            made = entry(seen[0], stamps=(*lease.stamps, *late))
            # the slot of the value is its own: what comes after the fill decides nothing here
            return stage.far.run(filling(commands, key, b"a", made))

        async def invalidate() -> None:
            source[0] = 2000
            invalidating = stage.process().invalidate(["t"])
            commands = next(invalidating)
            for act in ("mark as pending", "new stamp", "mark") if is_cluster else ():
                await pause(act)
                commands = invalidating.send(stage.far.exchange(commands))
            stage.far.exchange(commands)  # in a cluster the log, which nobody follows here

        return [load(), invalidate()]

    outcomes = set()
    for each in every_order(scenario):
        key, seen = loads.pop()
        assert each.results[0] in {"refused", True}, each
        assert each.results[1] is None, each
        found = stage.got(key)
        outcomes.add((seen[0], each.results[0], found))
        assert found in {None, 2000}, each
        stage.far.run(stage.process().release_many([key], b"a", 0.0))

    # what was loaded before it is refused, or invalid by its stamp; in a cluster what was loaded after may be as well
    begun_too_early = {(2000, "refused", None), (2000, True, None)} if is_cluster else set()
    assert outcomes == {(1000, "refused", None), (1000, True, None), (2000, True, 2000), *begun_too_early}


def test_nor_does_the_end_of_another_tags_hide_one_that_is_pending(cluster: Stage) -> None:
    """An invalidation of the tag, another of one of its bucket that began before and ends at some time, and a load."""
    loads: list[str] = []

    def scenario(_: object) -> list[Any]:
        key, source = cluster.new_key(), [1000]
        loads.append(key)
        others = cluster.process().invalidate([NEIGHBOUR])
        ending = [cluster.far.exchange(next(others))]
        ending.append(cluster.far.exchange(others.send(ending[0])))
        last_mark = others.send(ending[1])

        async def load() -> Any:
            commands = cluster.process()
            lease = await cluster.by_round_trips(leasing(commands, key, b"a"))
            loaded = source[0]
            await pause("load")
            late = await cluster.by_round_trips(commands.late_stamps(["t"], lease.mark))
            if late is None:
                return "refused"
            made = entry(loaded, stamps=(*lease.stamps, *late))
            return cluster.far.run(filling(commands, key, b"a", made))

        async def invalidate() -> None:
            source[0] = 2000
            await cluster.by_round_trips(cluster.process().invalidate(["t"]), most=3)

        async def end() -> None:
            cluster.far.exchange(last_mark)

        return [load(), invalidate(), end()]

    outcomes = set()
    for each in every_order(scenario):
        assert each.results[1:] == [None, None], each
        found = cluster.got(loads.pop())
        outcomes.add((each.results[0], found))
        assert found in {None, 2000}, each

    assert ("refused", None) in outcomes
    assert (True, 2000) in outcomes


def test_an_invalidation_that_came_to_no_end_holds_its_bucket_until_the_next(cluster: Stage) -> None:
    """As when the process was killed in the middle of it."""
    far, dying = cluster.far, cluster.process().invalidate(["t"])
    far.exchange(next(dying))
    dying.close()

    def stored(tag: str) -> bool:
        commands, key = cluster.process(), cluster.new_key()
        lease = far.run(leasing(commands, key, b"a"))
        return far.run(commands.late_stamps([tag], lease.mark)) is not None

    assert not stored("t")
    assert not stored(NEIGHBOUR)
    assert stored(STRANGER)

    far.run(cluster.process().invalidate([NEIGHBOUR]))
    assert stored("t")


def test_a_clear_of_a_cluster_marks_nothing(cluster: Stage) -> None:
    clearing = cluster.process().invalidate([CACHE_TAG])

    assert [command[0] for command in next(clearing)] == ["EVALSHA"]
    assert cluster.far.names.stamp(CACHE_TAG) in next(cluster.process().invalidate([CACHE_TAG]))[0]
