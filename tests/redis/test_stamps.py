"""Stamps: clear and invalidate at once and whatever the number of entries; one that is lost makes a miss."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis
from far import Far, called, entry, leasing, value
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from shifting import ServerClock
from waiting import until

from layercache import BackendError, Cache, Caches, KeyNotFound
from layercache.core.changes import Add, Touch
from layercache.entry import CACHE_TAG, Entry
from layercache.inline import Chance
from layercache.testing import ValkeyServer
from layercache_redis.stamping import STAMP_LIFE
from layercache_redis.stamps import KnownStamps, new_stamp
from layercache_redis.wire import Refusal

Opener = Callable[..., Cache[Any]]

DAY = 86_400.0


@pytest.fixture
def newcomer(open_cache: Opener) -> Far:
    """A process that knows nothing."""
    return Far(open_cache()).stop_following()


@pytest.fixture
def alone() -> Iterator[ValkeyServer]:
    """A server that nobody else uses."""
    with ValkeyServer() as server:
        yield server


def world(server: ValkeyServer, **options: Any) -> Caches:
    backend = {"type": "redis", "url": server.url, "prefix": "p", "timeout": "10s", **options}
    return Caches({"backends": {"far": backend}, "caches": {"c": {"backend": "far", "ttl": 60}}})


def stamp_on(server: redis.Redis, far: Far, tag: str = CACHE_TAG) -> int:
    return int.from_bytes(server.get(far.names.stamp(tag)), "big")


# -- clear


class TestClear:
    def test_afterwards_there_is_nothing_for_any_verb(self, far: Far) -> None:
        far.cache.set_many(dict.fromkeys("abcdefg", 1))
        far.follow()

        far.cache.clear()

        assert far.cache.get("a") is None
        assert far.cache.get_many(["a", "b"]) == {}
        assert far.cache.has_key("a") is False
        assert far.cache.ttl_left("a") == 0.0
        assert far.cache.delete("b") is False
        assert far.cache.delete_many(["c", "d"]) == 0
        assert far.cache.touch("e") is False
        with pytest.raises(KeyNotFound):
            far.cache.incr("f")
        assert far.cache.add("g", 2) is True
        assert far.cache.get_many(list("abcdefg")) == {"g": 2}

    def test_another_process_that_follows_the_log_sees_it_within_a_moment(self, far: Far, other: Far) -> None:
        far.cache.set("k", 1)
        other.follow()
        assert other.cache.get("k") == 1

        far.cache.clear()

        assert until(lambda: other.cache.get("k") is None)

    def test_another_process_that_does_not_sees_it_at_once(self, far: Far, newcomer: Far) -> None:
        far.cache.set("k", 1)
        assert newcomer.cache.get("k") == 1

        far.cache.clear()

        assert newcomer.cache.get("k") is None
        assert newcomer.cache.get_many(["k"]) == {}

    def test_it_is_of_one_cache_alone(self, server_url: str, prefix: str) -> None:
        backend = {"type": "redis", "url": server_url, "prefix": prefix, "timeout": "10s"}
        caches = {"c": {"backend": "far"}, "d": {"backend": "far"}}
        with Caches({"backends": {"far": backend}, "caches": caches}) as world:
            far, another = Far(world["c"]), Far(world["d"]).stop_following()
            for each in (far, another):
                each.space.set("k", entry(stamps=each.space.stamps(["t"])))

            far.space.clear()
            far.space.invalidate(["t"])

            assert far.space.get("k") is None
            assert another.space.get("k") is not None

    def test_it_takes_the_same_three_commands_whatever_there_is(self, alone: ValkeyServer) -> None:
        with world(alone) as caches, redis.Redis.from_url(alone.url) as server:
            far = Far(caches["c"]).stop_following()
            far.cache.clear()  # the script is loaded
            few = called(server, far.cache.clear)
            far.cache.set_many({f"k{number}": number for number in range(1_000)})

            assert called(server, far.cache.clear) == few == {"evalsha": 1, "del": 1, "set": 1, "xadd": 1}

    @pytest.mark.slow
    def test_of_200_000_entries_it_takes_no_more_and_others_notice_nothing(self, alone: ValkeyServer) -> None:
        with world(alone) as caches, redis.Redis.from_url(alone.url) as server:
            far = Far(caches["c"]).follow()
            far.cache.clear()
            keys = [f"k{number}" for number in range(200_000)]
            for first in range(0, len(keys), 10_000):
                far.plain.set_many(dict.fromkeys(keys[first : first + 10_000], entry()))
            server.set("theirs", 1)
            entries = server.dbsize()
            assert entries > 200_000

            def microseconds_of_clearing() -> int:
                server.config_resetstat()
                far.cache.clear()
                stats = server.info("commandstats")
                assert stats["cmdstat_evalsha"]["calls"] == 1
                assert not {"cmdstat_scan", "cmdstat_keys", "cmdstat_unlink"} & stats.keys()
                return int(stats["cmdstat_evalsha"]["usec"])

            # to look at 200,000 keys takes longer; once the machine may have been busy
            assert min(microseconds_of_clearing() for _ in range(5)) < 50_000
            assert server.dbsize() == entries
            assert server.get("theirs") == b"1"
            assert far.cache.get_many(keys[::1000]) == {}


# -- tags


class TestInvalidate:
    def test_what_carries_the_tag_is_invalid_and_nothing_else(self, far: Far, other: Far) -> None:
        for key, tags in {"t": ["t"], "u": ["u"], "tu": ["u", "t"], "none": []}.items():
            far.space.set(key, entry(key, stamps=far.space.stamps(tags)))

        far.space.invalidate(["t"])

        for space in (far.space, other.stop_following().space):
            assert [value(space.get(key)) for key in ("t", "u", "tu", "none")] == [None, "u", None, "none"]
            assert space.get_many(["t", "u", "tu", "none"]).keys() == {"u", "none"}

    def test_it_is_not_there_for_any_verb(self, far: Far) -> None:
        for key in "abcde":
            far.space.set(key, entry(1, stamps=far.space.stamps(["t"])))

        far.space.invalidate(["t"])

        assert far.space.delete("a") is False
        assert far.space.delete_many(["a", "b"]) == 0
        assert far.cache.touch("c") is False
        with pytest.raises(KeyNotFound):
            far.cache.incr("d")
        assert far.cache.add("e", 2) is True
        assert far.cache.get_many(list("abcde")) == {"e": 2}

    def test_several_at_once_in_one_round_trip(self, far: Far, other: Far) -> None:
        for tag in "tuv":
            far.space.set(tag, entry(stamps=far.space.stamps([tag])))
        other.stop_following()

        far.space.invalidate(["t", "v"])

        assert other.space.get_many(list("tuv")).keys() == {"u"}
        assert len(next(far.commands.invalidate(["t", "v"]))) == 2

    def test_of_no_tags_nothing_is_asked(self, open_cache: Opener) -> None:
        far = Far(open_cache(timeout="50ms"))

        far.space.invalidate([])

    def test_another_process_hears_of_it(self, far: Far, other: Far) -> None:
        far.space.set("k", entry(stamps=far.space.stamps(["t"])))
        other.follow()
        assert other.space.get("k") is not None
        assert other.known.get("t") is not None

        far.space.invalidate(["t"])

        assert until(lambda: other.space.get("k") is None)

    def test_what_is_stored_after_it_is_valid(self, far: Far, newcomer: Far) -> None:
        far.space.stamps(["t"])
        far.space.invalidate(["t"])

        far.space.set("k", entry("new", stamps=far.space.stamps(["t"])))

        assert value(far.space.get("k")) == value(newcomer.space.get("k")) == "new"

    def test_what_was_loaded_before_it_is_never_valid(self, far: Far, newcomer: Far) -> None:
        stamps = far.space.stamps(["t"])
        far.space.invalidate(["t"])

        far.space.set("k", entry("old", stamps=stamps))

        assert far.space.get("k") is None
        assert newcomer.space.get("k") is None

    @pytest.mark.parametrize("tag", ["a b", "{x}", "*:*", "가격", "%", "a\nb", "x" * 300])
    def test_any_text_is_a_tag(self, far: Far, newcomer: Far, tag: str) -> None:
        far.space.set("k", entry(stamps=far.space.stamps([tag, "another"])))
        assert newcomer.space.get("k") is not None

        far.space.invalidate([tag])

        assert far.space.get("k") is None
        assert newcomer.space.get("k") is None

    def test_of_an_entry_with_many_tags_delete_says_that_it_was_there(self, far: Far) -> None:
        tags = [f"a tag of some length, number {number}" for number in range(20)]
        far.space.set("k", entry(stamps=far.space.stamps(tags)))
        assert far.space.get("k") is not None

        assert far.space.delete("k") is True


# -- what is asked for


def test_a_stamp_that_is_not_known_is_asked_for_with_the_value_and_a_known_one_is_not(
    alone: ValkeyServer,
) -> None:
    with world(alone) as caches, world(alone) as others, redis.Redis.from_url(alone.url) as server:
        Far(others["c"]).plain.set("k", entry(stamps=Far(others["c"]).plain.stamps(["t"])))
        asking, knowing = Far(others["c"]).stop_following(), Far(caches["c"])
        knowing.follow().plain.get("k")
        knowing.hear_nothing_more()

        value_alone = {"getrange": 1, "pttl": 1}
        value_and_both_stamps = {**value_alone, "get": 2}

        for _ in range(2):
            assert called(server, lambda: asking.plain.get("k")) == value_and_both_stamps
            assert called(server, lambda: knowing.plain.get("k")) == value_alone
        knowing.known.forget("t")
        assert called(server, lambda: knowing.plain.get("k")) == {**value_alone, "get": 1}
        assert called(server, lambda: knowing.plain.get("k")) == value_alone


class TestLost:
    """A stamp that the server has lost is made anew, never as it was: what carried it is a miss."""

    @pytest.fixture(autouse=True)
    def _lost(self, far: Far, server: redis.Redis) -> None:
        stamps = far.space.stamps(["t"])
        self.former = stamps[0][1]
        far.space.set("tagged", entry("tagged", stamps=stamps))
        far.space.set("k", entry("old"))
        server.delete(far.stamp_at, far.names.stamp("t"))

    def test_what_carried_it_is_a_miss(self, newcomer: Far) -> None:
        assert newcomer.space.get("k") is None
        assert newcomer.space.get_many(["k", "tagged"]) == {}
        assert newcomer.space.lease("k", b"a", 10)[:2] == ("granted", None)
        assert newcomer.space.delete("k") is False

    @pytest.mark.parametrize(
        "write", ["set", "set_many", "add", "update", "delete", "lease", "clear", "stamps"]
    )
    def test_no_write_brings_it_back(self, far: Far, newcomer: Far, server: redis.Redis, write: str) -> None:
        """Not even of a process that believes the former one: it may have changed before it was lost."""
        believer = far.process()
        believer.known.learn([(CACHE_TAG, self.former)], 0)

        far.run(
            {
                "set": lambda: believer.set("x", entry()),
                "set_many": lambda: believer.set_many({"x": entry(), "y": entry()}),
                "add": lambda: believer.update("x", Add(entry(), far.form, time.time())),
                "update": lambda: believer.update("x", lambda found: entry()),
                "delete": lambda: believer.delete("x"),
                "lease": lambda: leasing(believer, "x", b"a"),
                "clear": lambda: believer.clear(),
                "stamps": lambda: far.process().stamps([]),
            }[write]()
        )

        assert stamp_on(server, far) != self.former
        assert newcomer.space.get("k") is None
        assert newcomer.space.get_many(["k", "tagged"]) == {}

    def test_a_tag_whose_stamp_is_lost_takes_its_entries_along_and_no_others(
        self, far: Far, newcomer: Far, server: redis.Redis
    ) -> None:
        far.space.clear()
        stamps = far.space.stamps(["t", "u"])
        far.space.set("t", entry("t", stamps=stamps))
        far.space.set("u", entry("u", stamps=(stamps[0], stamps[2])))
        server.delete(far.names.stamp("t"))

        assert newcomer.space.get_many(["t", "u"]).keys() == {"u"}

        newcomer.space.stamps(["t"])  # made anew
        assert newcomer.space.get_many(["t", "u"]).keys() == {"u"}

    @pytest.mark.parametrize("junk", [b"", b"short", b"much too long"])
    def test_what_is_no_stamp_is_as_if_lost(
        self, far: Far, newcomer: Far, server: redis.Redis, junk: bytes
    ) -> None:
        server.set(far.stamp_at, junk)
        assert newcomer.space.get("k") is None

        newcomer.space.set("new", entry("new"))

        assert len(server.get(far.stamp_at)) == 8
        assert newcomer.space.get_many(["k", "new"]).keys() == {"new"}

    def test_a_list_under_its_name_is_replaced_by_the_next_write(
        self, far: Far, newcomer: Far, server: redis.Redis
    ) -> None:
        server.rpush(far.stamp_at, "theirs")

        newcomer.space.set("new", entry("new"))

        assert newcomer.space.get_many(["k", "new"]).keys() == {"new"}

    @pytest.mark.parametrize("tag", [CACHE_TAG, "t"])
    def test_and_a_miss_until_then(self, far: Far, newcomer: Far, server: redis.Redis, tag: str) -> None:
        far.space.clear()
        far.space.set("tagged", entry("tagged", stamps=far.space.stamps(["t"])))
        server.delete(far.names.stamp(tag))
        server.rpush(far.names.stamp(tag), "theirs")

        assert newcomer.space.get("tagged") is None
        assert newcomer.space.get_many(["tagged"]) == {}
        assert newcomer.space.update("tagged", lambda found: found) is None


# -- how long they live


STORES: dict[str, Callable[[Far, Entry], Any]] = {
    "set": lambda far, made: far.space.set("k", made),
    "set_many": lambda far, made: far.space.set_many({"short": entry(ttl=1), "k": made}),
    "add": lambda far, made: far.space.update("k", Add(made, far.form, time.time())),
    "touch": lambda far, made: (
        far.space.set("k", entry(ttl=5, stamps=made.stamps)),
        far.space.update("k", Touch(made.dead_at - made.created_at, time.time())),
    ),
    "update": lambda far, made: far.space.update("k", lambda found: made),
    "fill": lambda far, made: (far.space.lease("k", b"a", 10), far.space.fill("k", b"a", made)),
}


class TestLife:
    """With its stamp an entry is gone, so the stamp lives longer."""

    @pytest.mark.parametrize("store", STORES)
    def test_the_caches_own_and_those_of_tags(
        self, far: Far, server: redis.Redis, prefix: str, store: str
    ) -> None:
        for number, ttl in enumerate((60.0, 20 * DAY, 29 * DAY, 90 * DAY, math.inf)):
            far.space.clear()
            tag = f"t{number}"
            STORES[store](far, entry(ttl=ttl, stamps=far.space.stamps([tag])))
            assert far.space.get("k") is not None

            of_the_entry = server.pttl(f"{prefix}:c:k")
            for stamp_at in (far.stamp_at, far.names.stamp(tag)):
                if ttl == math.inf:
                    assert of_the_entry == server.pttl(stamp_at) == -1
                else:
                    assert of_the_entry <= ttl * 1000 + 1 < server.pttl(stamp_at)

    def test_an_entry_for_ever_among_others_keeps_it_for_ever(self, far: Far, server: redis.Redis) -> None:
        far.space.set_many({"a": entry(ttl=5), "b": entry(ttl=math.inf), "c": entry(ttl=90 * DAY)})
        assert server.pttl(far.stamp_at) == -1

        far.space.set("d", entry(ttl=5))
        assert server.pttl(far.stamp_at) == -1

    def test_after_a_clear_the_new_one_begins_a_life_of_its_own(self, far: Far, server: redis.Redis) -> None:
        far.space.set("k", entry(ttl=math.inf))

        far.space.clear()
        assert 0 < server.pttl(far.stamp_at) <= STAMP_LIFE

        far.space.set("k", entry(ttl=math.inf))
        assert server.pttl(far.stamp_at) == -1

    def test_writes_prolong_it_before_it_ends(
        self, open_cache: Opener, server: redis.Redis, prefix: str
    ) -> None:
        clock = ServerClock(server, f"{prefix}:*")
        far = Far(open_cache(now=clock))
        stamps = set()
        for _ in range(20):
            far.cache.set("k", 1, 12 * DAY)
            assert server.pttl(far.stamp_at) > server.pttl(f"{prefix}:c:k")
            stamps.add(stamp_on(server, far))
            clock.advance(5 * DAY)

        assert len(stamps) == 1

    def test_a_process_that_comes_later_prolongs_it_too(
        self, far: Far, other: Far, server: redis.Redis
    ) -> None:
        far.space.set("k", entry())
        server.pexpire(far.stamp_at, 120_000)  # a month later

        other.space.set("l", entry())

        assert server.pttl(far.stamp_at) > STAMP_LIFE / 2

    def test_that_of_a_tag_that_is_used_all_the_time_goes_on(
        self, open_cache: Opener, server: redis.Redis, prefix: str
    ) -> None:
        clock = ServerClock(server, f"{prefix}:*")
        far = Far(open_cache(now=clock))
        stamps = set()
        for _ in range(8):
            end = clock() + 12 * DAY
            far.space.set("k", Entry(b"1", 1, clock(), end, end, far.space.stamps(["t"])))
            stamps.add(server.get(far.names.stamp("t")))
            clock.advance(5 * DAY)

        assert len(stamps) == 1

    def test_a_write_that_did_not_happen_has_prolonged_nothing(self, far: Far, server: redis.Redis) -> None:
        far.space.set("k", entry())
        far.follow()
        refused = far.commands.set("k", entry(ttl=math.inf))
        next(refused)
        refused.close()  # as when no answer comes in time

        far.space.set("k", entry(ttl=math.inf))

        assert server.pttl(far.stamp_at) == -1

    def test_nor_has_one_that_came_to_its_end_before_it_asked_for_that(
        self, far: Far, server: redis.Redis
    ) -> None:
        made = entry(ttl=math.inf, stamps=far.space.stamps(["t"]))
        writing = far.commands.set("k", made)
        commands = next(writing)
        while not any(far.names.stamp("t") in command for command in commands):
            commands = writing.send(far.exchange(commands))
        writing.close()

        far.space.set("k", made)

        assert server.pttl(far.names.stamp("t")) == -1


# -- what a process knows


class TestOwnInvalidation:
    def test_one_whose_answer_did_not_come_is_heard_of_all_the_same(self, far: Far) -> None:
        """As when `aclear` is cancelled, or a server that was too late did it after all."""
        far.cache.set("k", "old")
        far.follow()
        clearing = far.commands.clear()
        sent = next(clearing)
        assert far.cache.get("k") == "old"  # it has not come there yet
        far.exchange(sent)
        clearing.close()

        assert until(lambda: far.cache.get("k") is None)
        far.cache.set("k", "new")
        assert far.cache.get("k") == "new"

    def test_another_heard_meanwhile_is_not_lost_whenever_it_is(self, far: Far) -> None:
        for look in range(8):
            known = Interrupted(look)
            commands = far.process(known)
            clearing = commands.clear()
            replies = far.exchange(next(clearing))
            if look == 0:
                known.forget(CACHE_TAG)
            known.looks = 0
            with suppress(StopIteration):
                clearing.send(replies)

            # if there was no such moment, what is believed may be our own
            assert known.own() is None or (look > 0 and not known.was_interrupted)


class Interrupted(KnownStamps):
    """Hears of another's invalidation when its version is about to be looked at for the so-manieth time."""

    def __init__(self, look: int) -> None:
        self.looks, self.look, self.was_interrupted = -1000, look, False
        super().__init__(lambda: True)

    @property
    def version(self) -> int:
        self.looks += 1
        if self.looks > self.look and not self.was_interrupted and not self._lock.locked():
            self.was_interrupted = True
            self.forget(CACHE_TAG)
        return self._version

    @version.setter
    def version(self, version: int) -> None:
        self._version = version


class TestMistakes:
    """What a process wrongly takes for the current stamp it takes so no longer than until the server says otherwise."""

    @pytest.fixture
    def far(self, open_cache: Opener) -> Far:
        return Far(open_cache())

    @pytest.mark.parametrize("how", ["the stamp was lost", "another has cleared, and the log is late"])
    @pytest.mark.parametrize("write", ["set", "set_many", "add", "incr", "touch"])
    def test_what_it_wrote_it_reads(
        self, far: Far, other: Far, newcomer: Far, server: redis.Redis, how: str, write: str
    ) -> None:
        far.follow()
        if how == "the stamp was lost":
            server.delete(far.stamp_at)
        else:
            far.hear_nothing_more()
            other.space.clear()
        if write in {"incr", "touch"}:
            newcomer.cache.set("k", 1)

        match write:
            case "set_many":
                far.cache.set_many({"k": 2})
            case "incr":
                assert far.cache.incr("k") == 2
            case "touch":
                assert far.cache.touch("k", 50) is True
            case _:
                getattr(far.cache, write)("k", 2)

        assert far.cache.get("k") == (1 if write == "touch" else 2)

    def test_what_another_wrote_after_the_stamp_was_lost_it_reads(
        self, far: Far, newcomer: Far, server: redis.Redis
    ) -> None:
        far.follow()
        server.delete(far.stamp_at)

        newcomer.cache.set("k", "new")

        assert until(lambda: far.cache.get("k") == "new", within=4)

    def test_nor_do_two_go_on_with_different_stamps_of_a_tag(
        self, far: Far, newcomer: Far, server: redis.Redis
    ) -> None:
        far.follow()
        far.space.stamps(["t"])
        server.delete(far.names.stamp("t"))

        stamps = newcomer.space.stamps(["t"])

        assert until(lambda: far.space.stamps(["t"]) == stamps, within=4)

    def test_a_stamp_that_was_proposed_and_refused_is_not_believed(self, far: Far) -> None:
        commands = far.process()
        adding = commands.update("k", Add(entry(), far.form, time.time()))
        next(adding)

        with pytest.raises(BackendError, match="BUSY"):
            adding.send([Refusal("BUSY Valkey is busy running a script.")])

        assert commands.known.own() is None

    def test_nor_is_one_that_nobody_was_asked_about(self, far: Far) -> None:
        commands = far.process()
        assert far.run(commands.set_many({})) == []

        assert commands.known.own() is None


class TestKnown:
    @pytest.fixture(autouse=True)
    def _known(self) -> None:
        self.is_current = True
        self.known = KnownStamps(lambda: self.is_current)

    def test_what_was_learnt_is_known_while_the_log_is_followed(self) -> None:
        self.known.learn([(CACHE_TAG, 1), ("t", 2)], self.known.version)
        assert (self.known.own(), self.known.get("t"), self.known.get("u")) == (1, 2, None)

        self.is_current = False
        assert (self.known.own(), self.known.get("t")) == (None, None)

        self.is_current = True
        assert (self.known.own(), self.known.get("t")) == (1, 2)

    def test_what_the_log_names_is_unknown_and_the_rest_is_not(self) -> None:
        self.known.learn([(CACHE_TAG, 1), ("t", 2), ("u", 3)], self.known.version)

        self.known.forget("t")
        assert (self.known.own(), self.known.get("t"), self.known.get("u")) == (1, None, 3)

        self.known.forget()
        assert (self.known.own(), self.known.get("u")) == (None, None)

    @pytest.mark.parametrize("said", ["t", "another", CACHE_TAG, None])
    def test_what_was_asked_before_the_log_spoke_is_not_kept(self, said: str | None) -> None:
        asked_at = self.known.version
        self.known.forget(said)

        self.known.learn([("t", 1)], asked_at)
        assert self.known.get("t") is None

        self.known.learn([("t", 2)], self.known.version)
        assert self.known.get("t") == 2

    def test_it_remembers_no_more_tags_than_it_has_room_for(self) -> None:
        for number in range(25_000):
            self.known.learn([(f"t{number}", number + 1)], self.known.version)

        assert len(self.known._known) <= 10_001
        assert self.known.get("t24999") == 25_000

    def test_after_a_reset_it_knows_nothing_and_learns_anew(self) -> None:
        self.known.learn([("t", 1)], self.known.version)

        self.known.reset()
        assert self.known.get("t") is None

        self.known.learn([("t", 2)], self.known.version)
        assert self.known.get("t") == 2

    def test_whoever_seeds_the_generator_of_all_draws_no_stamp_or_token_twice(self) -> None:
        """As the workers of a job do that is to be repeated: an invalidation would bring back what another dropped."""
        draws = (new_stamp, Chance.token, Chance.uniform)
        drawn = set()
        for _ in range(2):
            random.seed(7)
            drawn |= {draw() for draw in draws}

        assert len(drawn) == 2 * len(draws)

    def test_nor_does_the_child_of_a_fork(self) -> None:
        reading, writing = os.pipe()
        if (child := os.fork()) == 0:
            os.write(writing, new_stamp().to_bytes(8, "big"))
            os._exit(0)
        os.waitpid(child, 0)
        os.close(writing)

        with os.fdopen(reading, "rb") as pipe:
            assert pipe.read() != new_stamp().to_bytes(8, "big")

    def test_no_stamp_is_0_which_says_that_there_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("layercache_redis.stamps._getrandbits", lambda bits: 0)
        assert new_stamp() != 0


TAGS = st.sampled_from([CACHE_TAG, "t", "u"])


class Believing(RuleBasedStateMachine):
    """One process, another that invalidates, a server, and a log of which each line is heard some time later.

    Requests of the process are answered by the server when it comes to them, and the answers arrive when they do.
    """

    asked = Bundle("asked")
    answered = Bundle("answered")

    def __init__(self) -> None:
        super().__init__()
        with Caches({"backends": {"far": {"type": "redis"}}, "caches": {"c": {"backend": "far"}}}) as world:
            commands = Far(world["c"]).process()
        self.commands, self.known = commands, commands.known
        self.tags = {commands.names.stamp(tag): tag for tag in (CACHE_TAG, "t", "u")}
        self.stamps: dict[str, list[int]] = {
            tag: [new_stamp()] for tag in self.tags.values()
        }  # all there were
        self.log: list[tuple[str, int]] = []  # tags, and how many stamps each had had by then
        self.heard = dict.fromkeys(self.stamps, 1)
        self.invalidating = 0

    @rule(target=asked, tags=st.lists(TAGS, min_size=1, max_size=2, unique=True))
    def ask(self, tags: list[str]) -> Any:
        try:
            steps = self.commands.stamps(tags)
            return False, steps, next(steps)
        except StopIteration:
            return multiple()  # all of them are known

    @rule(target=asked, tags=st.lists(TAGS, min_size=1, max_size=2, unique=True), soft=st.booleans())
    def invalidate(self, tags: list[str], soft: bool) -> Any:
        self.invalidating += 1
        steps = self.commands.invalidate(tags, soft)
        return True, steps, next(steps)

    @rule(target=answered, request=consumes(asked))
    def answer(self, request: Any) -> Any:
        invalidates, steps, commands = request
        replies: list[Any] = []
        for _, _, keys, at, *rest in commands:
            tag, proposed = self.tags[at], int.from_bytes(rest[keys - 1 + 2], "big")
            if invalidates:
                counts = rest[-1] == b"1"
                self.stamps[tag].append(self.stamps[tag][-1] + 1 if counts else proposed)
            replies.append(self.stamps[tag][-1].to_bytes(8, "big"))
        return invalidates, steps, replies

    @rule(answer=consumes(answered))
    def arrive(self, answer: Any) -> None:
        invalidates, steps, replies = answer
        with suppress(StopIteration):
            steps.send(replies)
        self.invalidating -= invalidates

    @rule(tag=TAGS, soft=st.booleans())
    def another_process_invalidates(self, tag: str, soft: bool) -> None:
        self.stamps[tag].append(self.stamps[tag][-1] + 1 if soft else new_stamp())
        self.log.append((tag, len(self.stamps[tag])))

    @rule()
    def hear(self) -> None:
        if self.log:
            tag, self.heard[tag] = self.log.pop(0)
            self.known.forget(tag)

    @invariant()
    def what_is_believed_is_no_older_than_what_was_heard(self) -> None:
        for tag, stamps in self.stamps.items():
            believed = self.known.get(tag)
            assert believed is None or stamps.index(believed) >= self.heard[tag] - 1

    @invariant()
    def when_all_was_heard_what_is_believed_is_true(self) -> None:
        if not self.log and not self.invalidating:
            for tag, stamps in self.stamps.items():
                assert self.known.get(tag) in {None, stamps[-1]}


TestBelieving = Believing.TestCase
TestBelieving.settings = settings(max_examples=80, stateful_step_count=25)
