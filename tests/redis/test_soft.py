"""Soft invalidations on a server: what carries the tag is stale for the rest of its life; no verb makes it fresh."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
from far import Far, entry, value
from waiting import until
from worlds import follow

from layercache import MISSING, Cache, Caches, KeyNotFound
from layercache.core.changes import Increment
from layercache.entry import CACHE_TAG
from layercache_redis.commands import Commands
from layercache_redis.names import log_name
from layercache_redis.stamping import STAMP_LIFE
from layercache_redis.stamps import KnownStamps, is_alive, new_stamp

Opener = Callable[..., Cache[Any]]


@pytest.fixture
def newcomer(open_cache: Opener) -> Far:
    """A process that knows nothing."""
    return Far(open_cache()).stop_following()


def stamp_on(server: redis.Redis, far: Far, tag: str = "t") -> int:
    return int.from_bytes(server.get(far.names.stamp(tag)), "big")


def put_stamp(server: redis.Redis, far: Far, stamp: int, tag: str = "t") -> None:
    server.set(far.names.stamp(tag), stamp.to_bytes(8, "big"))


# -- the two parts of a stamp


def test_a_soft_invalidation_counts_and_a_hard_one_draws_anew(far: Far, server: redis.Redis) -> None:
    far.space.stamps(["t"])
    first = stamp_on(server, far)

    for count in (1, 2, 3):
        far.space.invalidate(["t"], soft=True)
        assert stamp_on(server, far) == first + count
    far.space.invalidate(["t"])

    assert not is_alive(first, stamp_on(server, far))
    assert is_alive(first, first + 3)


def test_of_a_new_stamp_32_768_soft_ones_at_least_are_soft() -> None:
    stamps = [new_stamp() for _ in range(1000)]

    assert all(stamp & 0xFFFF < 1 << 15 for stamp in stamps)
    assert len({stamp >> 16 for stamp in stamps}) == 1000
    assert len({stamp & 0xFFFF for stamp in stamps}) > 900  # by chance as well


def test_a_count_that_is_full_makes_the_next_one_hard(far: Far, newcomer: Far, server: redis.Redis) -> None:
    """It would come round to what it was long ago, and what was stored then be fresh."""
    put_stamp(server, far, (7 << 16) + 0xFFFE)
    far.space.set("k", entry("v", stamps=newcomer.space.stamps(["t"])))
    far.known.forget()

    far.space.invalidate(["t"], soft=True)
    assert value(newcomer.space.get("k")) == "v"
    far.space.invalidate(["t"], soft=True)

    assert stamp_on(server, far) >> 16 != 7
    for each in (far, newcomer):
        assert each.space.get("k") is None


@pytest.mark.parametrize("lost", ["deleted", "no stamp", "a list"])
def test_a_lost_stamp_is_made_anew_and_what_carried_it_is_gone(
    far: Far, newcomer: Far, server: redis.Redis, lost: str
) -> None:
    far.space.set("k", entry("v", stamps=far.space.stamps(["t"])))
    former = stamp_on(server, far)
    server.delete(far.names.stamp("t"))
    if lost != "deleted":
        at = far.names.stamp("t")
        server.set(at, b"short") if lost == "no stamp" else server.rpush(at, b"theirs")

    far.space.invalidate(["t"], soft=True)

    assert not is_alive(former, stamp_on(server, far))
    for each in (far, newcomer):
        assert each.space.get("k") is None


def test_of_the_whole_cache_it_is_a_clear(far: Far, newcomer: Far) -> None:
    far.space.set("k", entry("v"))

    far.space.invalidate([CACHE_TAG], soft=True)

    assert newcomer.space.get("k") is None


@pytest.mark.parametrize("life", [-1, 90 * 86_400_000])
def test_the_stamp_lives_as_long_as_it_did(far: Far, server: redis.Redis, life: int) -> None:
    """And with it what carries it."""
    ttl = math.inf if life == -1 else 80 * 86_400.0
    far.space.set("k", entry("v", ttl=ttl, stamps=far.space.stamps(["t"])))
    before = server.pttl(far.names.stamp("t"))
    assert before == -1 if life == -1 else before > STAMP_LIFE

    far.space.invalidate(["t"], soft=True)

    left = server.pttl(far.names.stamp("t"))
    assert left == before or 0 < before - left < 10_000


def test_where_a_cluster_has_the_log_elsewhere_it_is_told_afterwards_which_it_was(
    far: Far, server_url: str, prefix: str
) -> None:
    ours = far.commands
    setting = replace(ours.setting, cluster=True)
    commands = Commands(setting, far.names, ours.pipeline, KnownStamps(lambda: True))
    far.space.stamps(["t"])
    with redis.Redis.from_url(server_url) as client:
        client.set_response_callback("XRANGE", lambda reply, **_: reply)
        seen = len(client.xrange(log_name(prefix)))

        far.run(commands.invalidate(["t", "lost", "*"], soft=True))

        (added,) = client.xrange(log_name(prefix))[seen:]
        said = [
            (kind, client.get(far.names.stamp(tag)))
            for kind, tag in ((b"o", "t"), (b"t", "lost"), (b"t", "*"))
        ]
    _, (_, _, *fields) = added
    assert [(kind, stamp) for kind, stamp in zip(fields[::4], fields[3::4], strict=True)] == said


# -- what is left


@pytest.fixture
def stale(far: Far) -> Far:
    """A cache with a counter, `n`, that was softly invalidated."""
    far.space.set("n", entry(1, stamps=far.space.stamps(["u", "t"])))
    far.space.invalidate(["t"], soft=True)
    return far


def test_readers_find_nothing_and_loaders_the_stale_value(stale: Far) -> None:
    cache = stale.cache

    assert cache.get("n") is None
    assert cache.get_many(["n"]) == {}
    assert cache.has_key("n") is False
    assert cache.ttl_left("n") == 0.0
    assert cache.peek("n") == 1
    assert cache.get_or_set("n", lambda: 2, tags=["t"]) == 1
    assert until(lambda: cache.get("n") == 2)  # refreshed in the background


def test_with_refresh_off_the_loader_runs_and_what_fails_is_masked(stale: Far) -> None:
    def fail() -> int:
        raise LookupError

    assert stale.cache.get_or_set("n", fail, refresh="off", retry_after=0) == 1
    assert stale.cache.get_or_set("n", lambda: 2, refresh="off") == 2
    assert stale.cache.get("n") == 2


def test_it_is_no_counter_and_nothing_to_touch_and_stays_as_it_is(
    stale: Far, server: redis.Redis, prefix: str
) -> None:
    frame, life = server.get(f"{prefix}:c:n"), server.pttl(f"{prefix}:c:n")

    for _ in range(2):  # as it is not known, and as it is
        assert stale.cache.touch("n", 5_000) is False
        with pytest.raises(KeyNotFound):
            stale.cache.incr("n")

    assert server.get(f"{prefix}:c:n") == frame
    assert 0 < server.pttl(f"{prefix}:c:n") <= life
    assert stale.cache.peek("n") == 1


def test_add_takes_its_place_and_delete_says_that_it_was_there(stale: Far) -> None:
    assert stale.cache.delete("n") is True
    stale.space.set("n", entry(1, stamps=stale.space.stamps(["t"])))
    stale.space.invalidate(["t"], soft=True)

    assert stale.cache.add("n", 5) is True
    assert stale.cache.get("n") == 5


def test_one_of_two_loaders_is_granted_what_is_stale_by_its_tags(stale: Far, newcomer: Far) -> None:
    for far, token, state in ((stale, b"a", "granted"), (newcomer, b"b", "busy")):
        lease = far.space.lease("n", token, 30, 0.0, ["t"])
        assert (lease.state, value(lease.entry)) == (state, 1)
        assert lease.entry is not None
        assert lease.entry.fresh_until == 0.0


@pytest.mark.parametrize("verb", ["touch", "incr"])
def test_what_carries_current_tags_is_changed_in_two_round_trips(far: Far, verb: str) -> None:
    """The first gives it back, as a script cannot see whether tags are current."""
    far.space.set("n", entry(1, stamps=far.space.stamps(["t", "u"])))
    far.follow()
    trips: list[Any] = []
    run, arun = far.plain._sync.run, far.plain._aio.run

    def counted(steps: Any) -> Any:
        commands = next(steps)
        while True:
            trips.append(commands)
            try:
                commands = steps.send((yield commands))
            except StopIteration as end:
                return end.value

    far.plain._sync.run = lambda steps: run(counted(steps))  # type: ignore[method-assign]
    far.plain._aio.run = lambda steps: arun(counted(steps))  # type: ignore[method-assign]
    far.plain.get("n")  # the tags are known
    far.cache.touch("n", 60)  # and their stamps live long enough
    trips.clear()

    assert getattr(far.cache, verb)("n", 60) == (True if verb == "touch" else 61)

    assert len(trips) == 2
    assert 0 < far.cache.ttl_left("n") <= 60


def test_a_change_between_the_two_is_not_lost(far: Far, newcomer: Far) -> None:
    far.space.set("n", entry(1, stamps=far.space.stamps(["t"])))
    counting = far.process().update("n", Increment("n", 10, far.form, 0.0))
    between = iter(
        [
            lambda: newcomer.space.set("n", entry(5, stamps=newcomer.space.stamps(["u"]))),
            lambda: newcomer.cache.incr("n", 100),
        ]
    )

    commands, counted = next(counting), None
    while True:
        replies = far.exchange(commands)
        if replies and type(replies[0]) is list and replies[0][0] == b"tagged":
            next(between, lambda: None)()
        try:
            commands = counting.send(replies)
        except StopIteration as end:
            counted = end.value
            break

    assert counted is not None
    assert far.form.decode(counted) == newcomer.cache.get("n") == 115


# -- other processes


def test_another_process_that_does_not_follow_the_log_sees_it_at_once(far: Far, newcomer: Far) -> None:
    far.space.set("k", entry("v", stamps=far.space.stamps(["t"])))
    assert newcomer.cache.get("k") == "v"

    far.space.invalidate(["t"], soft=True)

    assert newcomer.cache.get("k") is None
    assert newcomer.cache.peek("k") == "v"


def test_one_that_does_sees_it_within_a_moment(far: Far, other: Far) -> None:
    far.space.set("k", entry("v", stamps=far.space.stamps(["t"])))
    other.follow()
    assert other.cache.get("k") == "v"

    far.space.invalidate(["t"], soft=True)

    assert until(lambda: other.cache.get("k") is None)
    assert other.cache.peek("k") == "v"


class TestChains:
    @pytest.fixture
    def nodes(self, server_url: str, prefix: str) -> Iterator[list[Cache[Any]]]:
        """Two processes with a near layer each."""
        far = {"type": "redis", "url": server_url, "prefix": prefix, "timeout": "10s"}
        backends = {
            "near": {"type": "memory"},
            "far": far,
            "both": {"type": "chain", "layers": ["near", "far"]},
        }
        settings = {"backends": backends, "caches": {"default": {"backend": "both", "ttl": 60}}}
        with Caches(settings) as one, Caches(settings) as other:
            follow(one["default"])
            follow(other["default"])
            yield [one["default"], other["default"]]

    def test_near_layers_of_others_make_stale_what_carries_the_tag(self, nodes: list[Cache[Any]]) -> None:
        one, other = nodes
        for key, tag in {"k": "t", "l": "u"}.items():
            other.set(key, key, tags=[tag])  # its own writes are no news to it
        assert other.hit("k") == "k"
        near = other._layer.space.near
        assert near is not None

        one.invalidate("t", soft=True)

        assert until(lambda: other.hit("k") is MISSING)
        assert near.take("k", stale=True) is not None
        assert other.hit("l") == "l"
        for cache in nodes:
            assert cache.get("k") is None
            assert cache.peek("k") == "k"
            assert cache.get("l") == "l"

    def test_the_stale_value_is_served_and_the_new_one_reaches_all(self, nodes: list[Cache[Any]]) -> None:
        one, other = nodes
        one.set("k", "old", tags=["t"])
        until(lambda: other.get("k") == "old")

        other.invalidate("t", soft=True)
        until(lambda: one.hit("k") is MISSING)

        assert one.get_or_set("k", lambda: "new", tags=["t"]) == "old"
        assert until(lambda: one.get("k") == other.get("k") == "new")

    def test_a_load_under_way_in_another_process_is_not_stored_as_fresh(
        self, nodes: list[Cache[Any]]
    ) -> None:
        one, other = nodes

        def load() -> str:
            other.invalidate("t", soft=True)
            return "loaded before"

        assert one.get_or_set("k", load, tags=["t"]) == "loaded before"

        assert one.get("k") is None
        assert other.get("k") is None
