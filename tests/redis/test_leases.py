"""Leases: one loader a key, and nothing that was loaded before a write is stored after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext, suppress
from itertools import count
from typing import Any

import pytest
import redis
from far import FACES, Far, entry, face, value

from layercache import Cache, KeyNotFound
from layercache.codecs.normal import NormalForm
from layercache.core.changes import Add, Increment, Touch
from layercache.entry import CACHE_TAG
from layercache.testing import every_order
from layercache.testing.stepping import pause
from layercache_redis.commands import Commands

Opener = Callable[..., Cache[Any]]


@pytest.fixture(params=FACES)
def far(request: pytest.FixtureRequest, open_cache: Opener) -> Iterator[Far]:
    with face(request.param) as runner:
        yield Far(open_cache(), runner)


@pytest.fixture
def other(open_cache: Opener) -> Far:
    """Another process."""
    return Far(open_cache())


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
        assert lease == ("granted", None, ((CACHE_TAG, current),))

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
        assert far.space.fill("k", b"a", entry()) is False
        assert far.space.get("k") is None

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

    @pytest.mark.parametrize("how", ["clear", "lost", "lost and made anew"])
    def test_what_was_loaded_before_the_cache_was_cleared_is_not_stored(
        self, far: Far, other: Far, server: redis.Redis, lease_at: str, how: str
    ) -> None:
        lease = far.space.lease("k", b"a", 10)
        if how == "clear":
            other.space.clear()
        else:
            server.delete(far.stamp_at)
        if how == "lost and made anew":
            other.space.set("another", entry())

        assert far.space.fill("k", b"a", entry("old", stamps=lease.stamps)) is False

        assert not server.exists(lease_at)  # nobody waits for one who has no right to fill
        assert other.space.get("k") is None


Write = Callable[[Any, NormalForm, str], Any]
"""Calls one operation of a key space, or of `Commands`, on a key."""

WRITES: dict[str, Write] = {
    "set": lambda to, form, key: to.set(key, entry(7)),
    "set_many": lambda to, form, key: to.set_many({key: entry(7), f"{key}+": entry(8)}),
    "add": lambda to, form, key: to.update(key, Add(entry(7), form)),
    "touch": lambda to, form, key: to.update(key, Touch(60, time.time())),
    "incr": lambda to, form, key: to.update(key, Increment(key, 1, form)),
    "incr by much": lambda to, form, key: to.update(key, Increment(key, 10**15, form)),
    "update": lambda to, form, key: to.update(key, lambda found: entry(7)),
    "delete": lambda to, form, key: to.delete(key),
    "delete_many": lambda to, form, key: to.delete_many([key, f"{key}+"]),
    "clear": lambda to, form, key: to.clear(),
}
CHANGES = ("touch", "incr", "incr by much")
"""What only writes where there is something."""


class TestWrites:
    """Every write of a key voids its lease: who loads has loaded what was true before."""

    @pytest.mark.parametrize("write", WRITES)
    @pytest.mark.parametrize("whose", ["ours", "another process's"])
    def test_the_fill_after_it_stores_nothing(
        self, far: Far, other: Far, write: str, whose: str, server: redis.Redis, at: str
    ) -> None:
        if write in CHANGES:
            far.space.set("k", entry(3, stale=True))
        lease = far.space.lease("k", b"a", 10)
        assert lease.state == "granted"

        WRITES[write](far.space if whose == "ours" else other.space, far.form, "k")

        left_behind = server.get(at)
        assert far.space.fill("k", b"a", entry("old", stamps=lease.stamps)) is False
        assert server.get(at) == left_behind

    @pytest.mark.parametrize("write", sorted(set(WRITES) - {"clear"}))
    def test_the_next_one_is_granted_it_at_once(
        self, far: Far, write: str, server: redis.Redis, at: str
    ) -> None:
        far.space.set("k", entry(3, stale=True))
        if write == "add":
            far.space.delete("k")
        far.space.lease("k", b"a", 10)

        WRITES[write](far.space, far.form, "k")
        server.delete(at)

        assert far.space.lease("k", b"b", 10).state == "granted"

    @pytest.mark.parametrize("write", [*CHANGES, "add"])
    def test_what_writes_nothing_voids_nothing(self, far: Far, other: Far, write: str) -> None:
        if write == "add":
            far.space.set("k", entry(3, stale=True))
        lease = far.space.lease("k", b"a", 10)

        with nullcontext() if write in {"add", "touch"} else pytest.raises(KeyNotFound):
            assert WRITES[write](other.space, far.form, "k") is None

        assert far.space.fill("k", b"a", entry("loaded", stamps=lease.stamps)) is True


class Story:
    """What has to come of two loaders and a writer of one key, told in the order of their last round trips.

    Attributes:
        source: what a loader loads now.
    """

    def __init__(self, value: int | None) -> None:
        self.source = 1000
        self.value, self.is_fresh = value, False
        self.holder: bytes | None = None
        self.was_cleared = False

    def lease(self, token: bytes) -> set[str]:
        """Take the lease; return what the answer may be."""
        if self.value is not None and self.is_fresh:
            return {"fresh"}
        if self.holder not in {None, token}:
            # a lease from before a clear is void, but whoever has it is still waited for
            return {"busy", "granted"} if self.was_cleared else {"busy"}
        self.holder, self.was_cleared = token, False
        return {"granted"}

    def fill(self, token: bytes, value: int) -> bool:
        if self.holder != token or self.was_cleared:
            self.holder = None if self.holder == token else self.holder
            return False
        self.value, self.is_fresh, self.holder = value, True, None
        return True

    def write(self, write: str) -> None:
        if self.value is None and write in CHANGES:
            return
        match write:
            case "touch":
                self.is_fresh = True
            case "incr" | "incr by much":
                assert self.value is not None
                self.value += 1 if write == "incr" else 10**15
            case "add" if self.value is not None:
                return
            case "delete" | "delete_many" | "clear":
                self.value = None
            case _:
                self.value, self.is_fresh = 7, True
        if write == "clear":
            self.was_cleared = True
        else:
            self.holder = None


async def by_round_trips(far: Far, steps: Generator[Any, Any, Any]) -> Any:
    """Drive an operation; others may have their turns between its round trips."""
    commands = next(steps)
    while True:
        replies = far.exchange(commands)
        try:
            commands = steps.send(replies)
        except StopIteration as end:
            return end.value
        await pause("its next round trip")


@pytest.mark.parametrize("knows", ["nothing", "the stamp", "a former stamp"])
@pytest.mark.parametrize("write", WRITES)
def test_in_no_order_is_what_was_loaded_before_a_write_stored_after_it(
    open_cache: Opener, write: str, knows: str
) -> None:
    """Two loaders and a writer, three processes, each of whose round trips may come before or after any other's."""
    far = Far(open_cache()).stop_following()
    keys = count()
    stories: list[tuple[str, Story]] = []

    def process() -> Commands:
        commands = far.process(trusts=knows != "nothing")
        if knows == "the stamp":
            far.run(commands.stamps([]))
        elif knows == "a former stamp":
            commands._stamps.learn([(CACHE_TAG, 1)], 0)
        return commands

    def scenario(_: object) -> list[Any]:
        key, story = f"k{next(keys)}", Story(3 if write in CHANGES else None)
        if story.value is not None:
            far.space.set(key, entry(3, stale=True))
        stories.append((key, story))

        async def load(token: bytes) -> None:
            commands = process()
            lease = await by_round_trips(far, commands.lease(key, token, 30))
            assert lease.state in story.lease(token)
            if lease.state == "granted":
                loaded = story.source  # at once: the sooner it is loaded, the older it can be
                await pause("fill")
                filling = commands.fill(key, token, entry(loaded, stamps=lease.stamps))
                assert await by_round_trips(far, filling) is story.fill(token, loaded)

        async def change() -> None:
            story.source = 2000
            await pause("write")
            with suppress(KeyNotFound):
                await by_round_trips(far, WRITES[write](process(), far.form, key))
            story.write(write)

        return [load(b"a"), load(b"b"), change()]

    # the scripts are loaded and there is a stamp, so that in each order a caller takes the same steps
    far.space.set("k", entry(3))
    WRITES[write](far.space, far.form, "k")
    far.space.fill("k", b"", entry(stamps=far.space.lease("l", b"", 1).stamps))

    for order in every_order(scenario):
        key, story = stories.pop()
        assert order.results == [None] * 3, order
        assert value(far.space.get(key)) == story.value, order
        if write not in {*CHANGES, "add"}:
            assert story.value != 1000, order
