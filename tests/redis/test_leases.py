"""Leases: one loader a key, and nothing that was loaded before a write is stored after it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from contextlib import nullcontext, suppress
from itertools import count
from typing import Any

import pytest
import redis
from far import Far, entry, filling, leasing, value

from layercache import Cache, KeyNotFound
from layercache.codecs.normal import NormalForm
from layercache.core.changes import Add, Increment, Touch
from layercache.entry import CACHE_TAG
from layercache.testing import every_order
from layercache.testing.stepping import pause
from layercache_redis.commands import Commands

Opener = Callable[..., Cache[Any]]


@pytest.fixture
def at(prefix: str) -> str:
    return f"{prefix}:c:k"


@pytest.fixture
def lease_at(prefix: str, at: str) -> str:
    return f"{prefix}:%lease:{{{at}}}"


class TestTaking:
    def test_where_nothing_is_there_it_is_granted_with_the_stamp_to_carry(
        self, far: Far, server: redis.Redis
    ) -> None:
        lease = far.space.lease("k", b"a", 10)

        current = int.from_bytes(server.get(far.stamp_at), "big")
        assert lease == ("granted", None, ((CACHE_TAG, current),), None, b"a")

    def test_the_stamps_of_tags_come_along_in_the_order_asked_for(self, far: Far, other: Far) -> None:
        known = other.space.stamps(["u"])

        lease = far.space.lease("k", b"a", 10, tags=["t", "u"])

        assert lease.stamps == far.space.stamps(["t", "u"])
        assert lease.stamps[2] == known[1]

    def test_its_holder_is_granted_it_again_for_as_long_anew(
        self, far: Far, server: redis.Redis, lease_at: str
    ) -> None:
        far.space.lease("k", b"a", 5)

        assert far.space.lease("k", b"a", 50).state == "granted"
        assert 5_000 < server.pttl(lease_at) <= 50_000

    def test_to_anybody_else_it_is_busy(self, far: Far, other: Far) -> None:
        far.space.lease("k", b"a", 10)

        assert far.space.lease("k", b"b", 10)[:2] == ("busy", None)
        assert other.space.lease("k", b"c", 10)[:2] == ("busy", None)
        assert far.space.lease("other key", b"b", 10).state == "granted"

    def test_a_stale_entry_comes_along(self, far: Far) -> None:
        far.space.set("k", entry("stale", stale=True))

        holder, waiter = far.space.lease("k", b"a", 10), far.space.lease("k", b"b", 10)

        assert (holder.state, value(holder.entry)) == ("granted", "stale")
        assert (waiter.state, value(waiter.entry)) == ("busy", "stale")

    def test_a_fresh_entry_comes_instead_whoever_loads(
        self, far: Far, other: Far, server: redis.Redis
    ) -> None:
        far.space.set("k", entry("fresh"))

        for space in (far.space, other.space):
            lease = space.lease("k", b"a", 10)
            assert (lease.state, value(lease.entry)) == ("fresh", "fresh")

        assert not list(server.scan_iter(match=f"{far.names.values.split(':')[0]}:%lease*"))

    def test_one_that_is_not_fresh_enough_comes_along_and_is_not_instead(self, far: Far, other: Far) -> None:
        far.space.set("k", entry("fresh", ttl=60))
        fresh_until = far.space.get("k").fresh_until

        assert far.space.lease("k", b"a", 10, after=fresh_until - 0.01).state == "fresh"
        for after in (fresh_until, fresh_until + 100, math.inf):
            holder, waiter = far.space.lease("k", b"a", 10, after), other.space.lease("k", b"b", 10, after)
            assert (holder.state, value(holder.entry)) == ("granted", "fresh")
            assert (waiter.state, value(waiter.entry)) == ("busy", "fresh")
        assert other.space.lease("k", b"b", 10).state == "fresh"

    def test_what_lives_for_ever_is_not_fresh_enough_for_who_wants_a_new_one(self, far: Far) -> None:
        far.space.set("k", entry("endless", ttl=math.inf))

        assert far.space.lease("k", b"a", 10, after=1e12).state == "granted"
        far.space.release("k", b"a")
        assert far.space.lease("k", b"a", 10, after=math.inf).state == "granted"

    def test_several_at_once_are_each_as_it_is(self, far: Far, other: Far) -> None:
        far.space.set_many({"fresh": entry("f"), "stale": entry("s", stale=True)})
        other.space.lease("busy", b"b", 10)

        leases = far.space.lease_many(["fresh", "stale", "busy", "none"], b"a", 10, 0.0, ["t"])

        assert {key: (lease.state, value(lease.entry)) for key, lease in leases.items()} == {
            "fresh": ("fresh", "f"),
            "stale": ("granted", "s"),
            "busy": ("busy", None),
            "none": ("granted", None),
        }
        assert {lease.stamps for lease in leases.values()} == {far.space.stamps(["t"])}

    def test_none_at_once(self, far: Far) -> None:
        assert far.space.lease_many([], b"a", 10) == {}
        assert far.space.fill_many(b"a", {}) == []
        far.space.release_many([], b"a")

    def test_a_fresh_entry_comes_even_while_somebody_loads(
        self, far: Far, server: redis.Redis, at: str
    ) -> None:
        """What a server before a failover had stored is there, and so is the lease of one who asked since."""
        far.space.set("k", entry("fresh"))
        frame = server.get(at)
        server.delete(at)
        far.space.lease("k", b"a", 10)
        server.set(at, frame, px=60_000)

        assert far.space.lease("k", b"b", 10).state == "fresh"

    def test_it_ends_after_its_time(self, far: Far, server: redis.Redis, lease_at: str) -> None:
        lease = far.space.lease("k", b"a", 10)
        assert 9_000 < server.pttl(lease_at) <= 10_000

        server.pexpire(lease_at, 0)  # ten seconds later

        assert far.space.fill("k", b"a", entry("late", stamps=lease.stamps)) is False
        assert far.space.get("k") is None
        assert far.space.lease("k", b"b", 10).state == "granted"

    def test_something_foreign_under_its_name_is_no_lease(
        self, far: Far, server: redis.Redis, lease_at: str
    ) -> None:
        server.rpush(lease_at, "theirs")

        lease = far.space.lease("k", b"a", 10)

        assert lease.state == "granted"
        assert far.space.fill("k", b"a", entry(stamps=lease.stamps)) is True


class TestWhatIsOfNoUse:
    """A value that a reader would take for a miss is no entry to a lease either."""

    def is_nothing(self, far: Far, key: str) -> None:
        lease = far.space.lease(key, b"a", 10)

        assert lease[:2] == ("granted", None)
        assert far.space.lease(key, b"b", 10)[:2] == ("busy", None)
        assert far.space.fill(key, b"a", entry("loaded", stamps=lease.stamps)) is True
        assert value(far.space.get(key)) == "loaded"

    @pytest.mark.parametrize("stale", [False, True], ids=["fresh", "stale"])
    def test_so_it_is_for_a_frame_that_was_altered_wherever_it_was(
        self, far: Far, server: redis.Redis, prefix: str, stale: bool
    ) -> None:
        far.space.set("k", entry("v", stale=stale))
        for position in range(len(server.get(f"{prefix}:c:k"))):
            key = f"k{position}"
            far.space.set(key, entry("v", stale=stale))
            frame = server.get(f"{prefix}:c:{key}")
            altered = frame[:position] + bytes([frame[position] ^ 1]) + frame[position + 1 :]
            server.set(f"{prefix}:c:{key}", altered, keepttl=True)

            self.is_nothing(far, key)

    @pytest.mark.parametrize("stale", [False, True], ids=["fresh", "stale"])
    def test_so_it_is_for_one_that_is_not_whole_or_of_another_key_and_for_what_is_none(
        self, far: Far, server: redis.Redis, at: str, stale: bool
    ) -> None:
        far.space.set("another", entry("v", stale=stale))
        anothers = server.get(at[:-1] + "another")
        far.space.set("k", entry("v", stale=stale))
        frame = server.get(at)

        for instead in (frame[:-1], frame[:30], frame[:4], frame + b"x", b"", b"theirs", anothers):
            server.set(at, instead)
            self.is_nothing(far, "k")

        server.delete(at)
        server.rpush(at, frame)
        self.is_nothing(far, "k")

    def test_so_it_is_for_an_entry_of_which_a_tag_was_invalidated(self, far: Far, other: Far) -> None:
        far.space.set("k", entry(stamps=far.space.stamps(["t", "u"])))
        other.space.invalidate(["u"])

        assert other.space.lease("k", b"a", 10)[:2] == ("granted", None)
        assert other.space.lease("k", b"b", 10)[:2] == ("busy", None)

    def test_so_it_is_for_an_entry_from_before_a_clear(self, far: Far, other: Far) -> None:
        far.space.set("k", entry())
        other.space.clear()

        assert other.space.lease("k", b"a", 10)[:2] == ("granted", None)
        assert far.space.lease("k", b"b", 10)[:2] == ("busy", None)


class TestFilling:
    def test_nothing_is_stored_without_a_lease(self, far: Far) -> None:
        assert far.space.fill("k", b"a", entry(stamps=far.space.stamps([]))) is False
        assert far.space.get("k") is None

    def test_of_several_those_are_stored_whose_leases_stand(self, far: Far, other: Far) -> None:
        leases = far.space.lease_many(["k", "l", "m", "n"], b"a", 10, 0.0, ["t"])
        other.space.delete("l")
        other.space.set("n", entry("new"))
        loaded = {key: entry(f"loaded {key}", stamps=lease.stamps) for key, lease in leases.items()}

        assert far.space.fill_many(b"a", loaded) == ["l", "n"]

        found = other.space.get_many(list(loaded))
        assert {key: value(kept) for key, kept in found.items()} == {
            "k": "loaded k", "m": "loaded m", "n": "new",
        }  # fmt: skip
        assert far.space.fill_many(b"a", loaded) == list(loaded)

    def test_nothing_is_stored_under_the_lease_of_another(self, far: Far) -> None:
        lease = far.space.lease("k", b"a", 10)

        assert far.space.fill("k", b"b", entry("b's", stamps=lease.stamps)) is False
        assert far.space.get("k") is None
        assert far.space.fill("k", b"a", entry("a's", stamps=lease.stamps)) is True
        assert value(far.space.get("k")) == "a's"

    def test_it_ends_the_lease(self, far: Far, server: redis.Redis, lease_at: str) -> None:
        lease = far.space.lease("k", b"a", 10)
        assert far.space.fill("k", b"a", entry("first", stamps=lease.stamps)) is True

        assert not server.exists(lease_at)
        assert far.space.fill("k", b"a", entry("second", stamps=lease.stamps)) is False
        assert value(far.space.lease("k", b"b", 10).entry) == "first"

    def test_the_entry_carries_the_stamps_of_when_its_load_began(self, far: Far, other: Far) -> None:
        lease = far.space.lease("k", b"a", 10)
        stamps = far.space.stamps(["t"])
        assert stamps[:1] == lease.stamps

        far.space.fill("k", b"a", entry(stamps=stamps))

        found = other.space.get("k")
        assert found is not None
        assert found.stamps == stamps

    def test_what_was_loaded_before_a_tag_was_invalidated_is_never_served(self, far: Far, other: Far) -> None:
        far.space.lease("k", b"a", 10)
        stamps = far.space.stamps(["t", "u"])
        other.space.invalidate(["t"])

        far.space.fill("k", b"a", entry("old", stamps=stamps))

        assert other.space.get("k") is None
        assert other.space.get_many(["k"]) == {}
        assert other.space.lease("k", b"b", 10)[:2] == ("granted", None)

    @pytest.fixture(params=["clear", "lost", "lost and made anew"])
    def end_stamp(
        self, request: pytest.FixtureRequest, far: Far, other: Far, server: redis.Redis
    ) -> Callable[[], object]:
        """Ends the stamp of the cache, and so the right of whoever loads to fill."""

        def end_stamp() -> None:
            if request.param == "clear":
                other.space.clear()
            else:
                server.delete(far.stamp_at)
            if request.param == "lost and made anew":
                other.space.set("another", entry())

        return end_stamp

    def test_what_was_loaded_before_the_cache_was_cleared_is_not_stored(
        self, far: Far, other: Far, end_stamp: Callable[[], object]
    ) -> None:
        lease = far.space.lease("k", b"a", 10)
        end_stamp()

        assert far.space.fill("k", b"a", entry("old", stamps=lease.stamps)) is False

        assert other.space.get("k") is None

    def test_nobody_waits_for_one_who_has_no_right_to_fill(
        self, far: Far, other: Far, end_stamp: Callable[[], object]
    ) -> None:
        former = far.space.lease("k", b"a", 10)
        end_stamp()

        lease = other.space.lease("k", b"b", 10)

        assert lease.state == "granted"
        assert far.space.fill("k", b"a", entry("old", stamps=former.stamps)) is False
        assert other.space.fill("k", b"b", entry("new", stamps=lease.stamps)) is True

    def test_its_former_holder_may_ask_again_after_a_clear(self, far: Far, other: Far) -> None:
        former = far.space.lease("k", b"a", 10)
        other.space.clear()

        lease = far.space.lease("k", b"a", 10)

        assert lease.state == "granted"
        assert far.space.fill("k", b"a", entry("old", stamps=former.stamps)) is False
        assert far.space.fill("k", b"a", entry("new", stamps=lease.stamps)) is True


class TestReleasing:
    def test_whoever_asks_next_is_granted_it_at_once(self, far: Far, other: Far) -> None:
        lease = far.space.lease("k", b"a", 10)

        far.space.release("k", b"a")

        assert far.space.fill("k", b"a", entry("late", stamps=lease.stamps)) is False
        assert other.space.lease("k", b"b", 10).state == "granted"

    def test_with_seconds_nobody_is_granted_it_for_as_long_its_former_holder_no_more_than_others(
        self, far: Far, other: Far, server: redis.Redis, lease_at: str
    ) -> None:
        far.space.set("k", entry("stale", stale=True))
        lease = far.space.lease("k", b"a", 10)

        far.space.release("k", b"a", 50.0)

        for space, token in ((far.space, b"a"), (far.space, b"b"), (other.space, b"c")):
            refused = space.lease("k", token, 10)
            assert (refused.state, value(refused.entry)) == ("busy", "stale")
            assert space.fill("k", token, entry("late", stamps=lease.stamps)) is False
        assert 40_000 < server.pttl(lease_at) <= 50_000

        server.pexpire(lease_at, 0)  # fifty seconds later
        assert other.space.lease("k", b"c", 10).state == "granted"

    def test_a_fraction_of_a_second_is_some_time_too(
        self, far: Far, server: redis.Redis, lease_at: str
    ) -> None:
        far.space.lease("k", b"a", 10)

        releasing = far.commands.release_many(["k"], b"a", 1e-9)

        assert next(releasing)[0][-1] == 1

    def test_for_ever_is_for_ever(self, far: Far, other: Far, server: redis.Redis, lease_at: str) -> None:
        assert far.space.lease("k", b"a", math.inf).state == "granted"
        assert server.pttl(lease_at) > 1e14
        far.space.release("k", b"a", math.inf)

        assert server.pttl(lease_at) > 1e14
        assert other.space.lease("k", b"b", 1e300).state == "busy"

    @pytest.mark.parametrize("seconds", [0.0, 50.0])
    def test_only_its_holder_can(self, far: Far, other: Far, seconds: float) -> None:
        lease = far.space.lease("k", b"a", 10)

        other.space.release("k", b"b", seconds)
        far.space.release("k", b"", seconds)
        far.space.release("k", b"a" + b"x" * 8, seconds)

        assert other.space.lease("k", b"b", 10).state == "busy"
        assert far.space.fill("k", b"a", entry("loaded", stamps=lease.stamps)) is True

    @pytest.mark.parametrize("seconds", [0.0, 50.0])
    def test_what_nobody_has_cannot_be_given_back(
        self, far: Far, other: Far, seconds: float, server: redis.Redis, lease_at: str
    ) -> None:
        far.space.release("k", b"a", seconds)
        assert other.space.lease("k", b"b", 10).state == "granted"

        server.delete(lease_at)
        server.rpush(lease_at, "theirs")
        far.space.release("k", b"a", seconds)
        assert other.space.lease("k", b"b", 10).state == "granted"

    @pytest.mark.parametrize("write", ["set", "delete", "clear"])
    def test_a_write_ends_the_time_in_which_nobody_is_granted_it(
        self, far: Far, other: Far, write: str
    ) -> None:
        far.space.lease("k", b"a", 10)
        far.space.release("k", b"a", 50.0)

        WRITES[write](other.space, other.form, "k")

        assert far.space.lease("k", b"b", 10, after=math.inf).state == "granted"

    def test_of_several_each_is_given_back_by_itself(self, far: Far, other: Far) -> None:
        other.space.lease("l", b"b", 10)
        far.space.lease_many(["k", "m"], b"a", 10)

        far.space.release_many(["k", "l", "m"], b"a")

        states = [far.space.lease(key, b"c", 10).state for key in "klm"]
        assert states == ["granted", "busy", "granted"]


Write = Callable[[Any, NormalForm, str], Any]
"""Calls one operation of a key space, or of `Commands`, on a key."""

WRITES: dict[str, Write] = {
    "set": lambda to, form, key: to.set(key, entry(7)),
    "set_many": lambda to, form, key: to.set_many({key: entry(7), f"{key}+": entry(8)}),
    "add": lambda to, form, key: to.update(key, Add(entry(7), form, time.time())),
    "touch": lambda to, form, key: to.update(key, Touch(60, time.time())),
    "incr": lambda to, form, key: to.update(key, Increment(key, 1, form, time.time())),
    "incr by much": lambda to, form, key: to.update(key, Increment(key, 10**15, form, time.time())),
    "update": lambda to, form, key: to.update(key, lambda found: entry(7)),
    "delete": lambda to, form, key: to.delete(key),
    "delete_many": lambda to, form, key: to.delete_many([key, f"{key}+"]),
    "clear": lambda to, form, key: to.clear(),
}
TAGGED_WRITES: dict[str, Write] = {**WRITES, "invalidate": lambda to, form, key: to.invalidate(["t"])}
CHANGES = ("touch", "incr", "incr by much")
"""What only writes where there is something fresh: then a lease is asked for by who wants something fresher still."""


class TestWrites:
    """Every write of a key voids its lease: who loads has loaded what was true before."""

    @pytest.mark.parametrize("write", WRITES)
    @pytest.mark.parametrize("whose", ["ours", "another process's"])
    def test_the_fill_after_it_stores_nothing(
        self, far: Far, other: Far, write: str, whose: str, server: redis.Redis, at: str
    ) -> None:
        if write in CHANGES:
            far.space.set("k", entry(3))
        lease = far.space.lease("k", b"a", 10, after=math.inf)
        assert lease.state == "granted"

        WRITES[write](far.space if whose == "ours" else other.space, far.form, "k")

        left_behind = server.get(at)
        assert far.space.fill("k", b"a", entry("old", stamps=lease.stamps)) is False
        assert server.get(at) == left_behind

    @pytest.mark.parametrize("write", WRITES)
    def test_the_next_one_is_granted_it_at_once(
        self, far: Far, write: str, server: redis.Redis, at: str
    ) -> None:
        far.space.set("k", entry(3, stale=write == "add"))
        far.space.lease("k", b"a", 10, after=math.inf)

        WRITES[write](far.space, far.form, "k")
        server.delete(at)

        assert far.space.lease("k", b"b", 10).state == "granted"

    @pytest.mark.parametrize(
        ("write", "there"),
        [("add", "fresh"), *((write, there) for write in CHANGES for there in ("stale", "nothing"))],
    )
    def test_what_writes_nothing_voids_nothing(self, far: Far, other: Far, write: str, there: str) -> None:
        if there != "nothing":
            far.space.set("k", entry(3, stale=there == "stale"))
        lease = far.space.lease("k", b"a", 10, after=math.inf)

        with nullcontext() if write in {"add", "touch"} else pytest.raises(KeyNotFound):
            assert WRITES[write](other.space, far.form, "k") is None

        assert far.space.fill("k", b"a", entry("loaded", stamps=lease.stamps)) is True


class Story:
    """What has to come of some loaders and a writer of one key, told in the order of their round trips.

    Attributes:
        source: what a loader loads now.
        value: what there is.
        is_tagged: whether it carries the tag.
        invalidations: of the tag, so far.
    """

    def __init__(self, value: int | None) -> None:
        self.source = 1000
        self.value, self.is_tagged = value, False
        self.holder: bytes | None = None
        self.invalidations = 0

    def lease(self, token: bytes, after: float = 0.0) -> str:
        """Take the lease; return what the answer has to be."""
        if self.value is not None and after == 0.0:
            return "fresh"
        if self.holder not in {None, token}:
            return "busy"
        self.holder = token
        return "granted"

    def fill(self, token: bytes, value: int, since: int | None = None) -> bool:
        """Fill what was loaded, and carries the tag's stamp of so many invalidations, if any."""
        if self.holder != token:
            return False
        self.value = value if since in {None, self.invalidations} else None
        self.is_tagged, self.holder = since is not None, None
        return True

    def release(self, token: bytes) -> None:
        if self.holder == token:
            self.holder = None

    def write(self, write: str) -> None:
        if write == "invalidate":
            self.invalidations += 1
            self.value = None if self.is_tagged else self.value
            return
        if (self.value is None and write in CHANGES) or (self.value is not None and write == "add"):
            return
        match write:
            case "touch":
                pass
            case "incr" | "incr by much":
                assert self.value is not None
                self.value += 1 if write == "incr" else 10**15
            case "delete" | "delete_many" | "clear":
                self.value = None
            case _:
                self.value, self.is_tagged = 7, False
        self.holder = None


async def by_round_trips(
    far: Far, steps: Generator[Any, Any, Any], told: Callable[[], object] = lambda: None
) -> Any:
    """Drive an operation; others may have their turns between its round trips. `told` is called after the first."""
    replies = far.exchange(next(steps))
    told()
    while True:
        try:
            commands = steps.send(replies)
        except StopIteration as end:
            return end.value
        await pause("its next round trip")
        replies = far.exchange(commands)


KNOWLEDGE = ("nothing", "the stamp", "a former stamp")


def process(far: Far, knows: str) -> Commands:
    """Another process, which takes some stamp for the current one."""
    commands = far.process(trusts=knows != "nothing")
    if knows == "the stamp":
        far.run(commands.stamps(["t"]))
    elif knows == "a former stamp":
        commands.known.learn([(CACHE_TAG, 1)], 0)
    return commands


@pytest.fixture
def stage(open_cache: Opener) -> Far:
    """With the scripts loaded, and stamps and marks, so that in each order a caller takes the same steps."""
    far = Far(open_cache()).stop_following()
    for write in TAGGED_WRITES.values():
        far.space.set("k", entry(3))
        write(far.space, far.form, "k")
    lease = far.space.lease("l", b"a", 1)
    far.space.release("l", b"a")
    far.space.fill("l", b"a", entry(stamps=lease.stamps))
    far.space.late_stamps(["t"], lease.mark)
    return far


@pytest.mark.parametrize("knows", KNOWLEDGE)
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("ends", ["fills", "gives back"])
def test_in_no_order_is_what_was_loaded_before_a_write_stored_after_it(
    stage: Far, write: str, knows: str, ends: str
) -> None:
    """Two loaders and a writer, three processes, each of whose round trips may come before or after any other's. One of
    the loaders fills, and so does the other, or it gives the lease back."""
    far, keys, after = stage, count(), math.inf if write in CHANGES else 0.0
    stories: list[tuple[str, Story]] = []

    def scenario(_: object) -> list[Any]:
        key, story = f"k{next(keys)}", Story(3 if write in CHANGES else None)
        if story.value is not None:
            far.space.set(key, entry(3))
        stories.append((key, story))

        async def load(token: bytes) -> None:
            commands = process(far, knows)
            lease = await by_round_trips(far, leasing(commands, key, token, after))
            assert lease.state == story.lease(token, after)
            if lease.state != "granted":
                return
            loaded = story.source  # at once: the sooner it is loaded, the older it can be
            await pause("end")
            if token == b"b" and ends == "gives back":
                await by_round_trips(far, commands.release_many([key], token, 0.0))
                story.release(token)
                return
            steps = filling(commands, key, token, entry(loaded, stamps=lease.stamps))
            assert await by_round_trips(far, steps) is story.fill(token, loaded)

        async def change() -> None:
            story.source = 2000
            await pause("write")
            with suppress(KeyNotFound):
                await by_round_trips(far, WRITES[write](process(far, knows), far.form, key))
            story.write(write)

        return [load(b"a"), load(b"b"), change()]

    for order in every_order(scenario):
        key, story = stories.pop()
        assert order.results == [None] * 3, order
        assert value(far.space.get(key)) == story.value, order
        if write not in {*CHANGES, "add"}:
            assert story.value != 1000, order


@pytest.mark.parametrize("knows", KNOWLEDGE)
@pytest.mark.parametrize("write", TAGGED_WRITES)
@pytest.mark.parametrize("told", ["before the load", "by the loaded value"])
def test_nor_is_what_was_loaded_before_an_invalidation_found_after_it(
    stage: Far, write: str, knows: str, told: str
) -> None:
    """A loader of a tagged value and a writer, each of whose round trips may come before or after the other's."""
    far, keys, after = stage, count(), math.inf if write in CHANGES else 0.0
    tags = ("t",) if told == "before the load" else ()
    stories: list[tuple[str, Story]] = []

    def scenario(_: object) -> list[Any]:
        key, story = f"k{next(keys)}", Story(3 if write in CHANGES else None)
        if story.value is not None:
            far.space.set(key, entry(3))
        stories.append((key, story))

        async def load() -> None:
            commands, known = process(far, knows), story.invalidations
            await pause("lease")
            lease = await by_round_trips(far, leasing(commands, key, b"a", after, tags))
            assert lease.state == story.lease(b"a", after)
            if lease.state != "granted":
                return
            # with a tag it carries what the process believes; what is told late is asked for
            since = known if tags and knows == "the stamp" else story.invalidations
            loaded, stamps = story.source, lease.stamps
            await pause("load")
            if not tags:
                late = await by_round_trips(far, commands.late_stamps(["t"], lease.mark))
                assert (late is None) is (story.invalidations > since)
                await pause("fill or release")
                if late is None:
                    await by_round_trips(far, commands.release_many([key], b"a", 0.0))
                    story.release(b"a")
                    return
                stamps += late
            filled: list[bool] = []
            stored = await by_round_trips(
                far,
                filling(commands, key, b"a", entry(loaded, stamps=stamps)),
                # what is invalid from the start is as if it were not stored
                lambda: filled.append(story.fill(b"a", loaded, since) and story.invalidations == since),
            )
            assert [stored] == filled

        async def change() -> None:
            story.source = 2000
            await pause("write")
            with suppress(KeyNotFound):
                await by_round_trips(far, TAGGED_WRITES[write](process(far, knows), far.form, key))
            story.write(write)

        return [load(), change()]

    for order in every_order(scenario):
        key, story = stories.pop()
        assert order.results == [None] * 2, order
        assert value(far.space.get(key)) == story.value, order
        if write not in {*CHANGES, "add"}:
            assert story.value != 1000, order


@pytest.mark.parametrize("told", ["before the load", "by the loaded value"])
def test_nor_where_two_load_it(stage: Far, told: str) -> None:
    far, keys = stage, count()
    tags = ("t",) if told == "before the load" else ()
    stored: list[str] = []

    def scenario(_: object) -> list[Any]:
        key, source = f"k{next(keys)}", [1000]
        stored.append(key)

        async def load(token: bytes) -> Any:
            commands = process(far, "nothing")
            lease = await by_round_trips(far, leasing(commands, key, token, 0.0, tags))
            if lease.state != "granted":
                return lease.state
            loaded, late = source[0], ()
            await pause("load")
            if not tags:
                late = await by_round_trips(far, commands.late_stamps(["t"], lease.mark))
                if late is None:
                    await by_round_trips(far, commands.release_many([key], token, 0.0))
                    return "refused"
            made = entry(loaded, stamps=lease.stamps + late)
            return await by_round_trips(far, filling(commands, key, token, made))

        async def change() -> None:
            source[0] = 2000
            await by_round_trips(far, process(far, "nothing").invalidate(["t"]))

        return [load(b"a"), load(b"b"), change()]

    left = set()
    for order in every_order(scenario):
        assert order.results[2] is None, order
        assert set(order.results) <= {"fresh", "busy", "refused", True, False, None}, order
        left.add(value(far.space.get(stored.pop())))

    assert left == {None, 2000}
