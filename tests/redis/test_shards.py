"""The log in several streams: all are followed, whoever states how many; one that fails takes the trust from all."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import pytest
import redis
from far import Far
from waiting import until

from layercache import Cache, ConfigError
from layercache_redis.names import Streams, log_name, shards_name
from layercache_redis.shards import Shards

Opener = Callable[..., Cache[Any]]

KEYS = [f"k{number}" for number in range(20)]


class News:
    """A listener that notes what it is told."""

    def __init__(self) -> None:
        self.written_keys: set[str] = set()
        self.invalidated_tags: set[str] = set()
        self.losses = 0
        self.until = -inf

    def written(self, key: str) -> None:
        self.written_keys.add(key)

    def invalidated(self, tag: str, stamp: int, soft: bool) -> None:
        self.invalidated_tags.add(tag)

    def restamped(self, tag: str, stamp: int) -> None: ...

    def retrained(self) -> None: ...

    def lost_track(self) -> None:
        self.losses += 1

    def lost_writes(self) -> None: ...

    def confirmed(self, until: float) -> None:
        self.until = until

    def outage_began(self) -> None: ...

    def outage_ending(self) -> None: ...

    def outage_ended(self) -> None: ...


def log_of(cache: Cache[Any]) -> Shards:
    log = Far(cache).plain.log
    assert isinstance(log, Shards)
    return log


def following(cache: Cache[Any]) -> tuple[Shards, News]:
    """Follow the log as a near layer does."""
    log, news = log_of(cache), News()
    Far(cache).plain.subscribe(news)
    until(log.is_current)
    return log, news


def writing_to(cache: Cache[Any], number: int) -> Cache[Any]:
    """A cache of a process that writes to so many streams by now, as the others know of them."""
    log = log_of(cache)
    log.begin()
    until(lambda: log.streams.in_use == number and log.is_current())
    return cache


def streams(server: redis.Redis, prefix: str) -> set[str]:
    return {key.decode() for key in server.scan_iter(match=f"{prefix}:%log*", count=1000)}


# -- where it is told


def test_one_stream_is_called_as_ever_and_is_what_there_is(
    open_cache: Opener, server: redis.Redis, prefix: str
) -> None:
    cache = writing_to(open_cache(), 1)
    cache.set_many(dict.fromkeys(KEYS, 1))

    assert streams(server, prefix) == {f"{prefix}:%log"}
    assert not server.exists(shards_name(prefix))


def test_writes_go_to_the_stream_of_their_first_key(
    open_cache: Opener, server: redis.Redis, prefix: str
) -> None:
    cache = writing_to(open_cache(log_shards=4), 4)
    before = {number: server.xlen(log_name(prefix, number)) for number in range(4)}
    for key in KEYS:
        cache.set(key, 1)
    added = {number: server.xlen(log_name(prefix, number)) - before[number] for number in range(4)}

    assert streams(server, prefix) == {f"{prefix}:%log", *(f"{prefix}:%log:{n}" for n in (1, 2, 3))}
    assert all(added.values())
    assert sum(added.values()) == len(KEYS) + 1  # and the stamp, which the first of them made


def test_a_key_and_a_tag_keep_to_one_stream(prefix: str) -> None:
    spread = Streams(prefix, 64)
    spread.in_use = 64

    assert {len({spread.of(key.encode()) for _ in range(3)}) for key in KEYS} == {1}
    assert len({spread.of(key.encode()) for key in KEYS}) > 10


@pytest.mark.parametrize("number", [0, 65, "2"])
def test_no_other_number_of_streams_is_taken(open_cache: Opener, number: Any) -> None:
    with pytest.raises(ConfigError, match="log_shards"):
        open_cache(log_shards=number)


# -- what is heard


def test_all_streams_are_heard(open_cache: Opener) -> None:
    writer = writing_to(open_cache(log_shards=4), 4)
    _, news = following(open_cache(log_shards=4))

    for key in KEYS:
        writer.set(key, 1)
    writer.delete_many(["a", "b"])
    writer.invalidate("x", "y")
    writer.clear()

    until(lambda: news.written_keys >= {*KEYS, "a", "b"})
    until(lambda: news.invalidated_tags >= {"x", "y", "*"})


def test_one_stream_that_is_lost_is_track_lost(open_cache: Opener, server: redis.Redis, prefix: str) -> None:
    writer = writing_to(open_cache(log_shards=3), 3)
    log, news = following(open_cache(log_shards=3, max_staleness="1s"))
    before = news.losses

    server.delete(log_name(prefix, 2))

    until(lambda: news.losses > before and log.is_current())
    assert log.gauges()["log_losses"] == 1
    writer.set("k", 1)
    until(lambda: "k" in news.written_keys)


def test_what_is_known_is_current_only_while_it_is_by_all(open_cache: Opener) -> None:
    log, news = following(open_cache(log_shards=3, max_staleness="1s"))
    until(lambda: news.until > 0)
    slowest = log._logs[1]
    slowest.close()
    told = news.until

    until(lambda: log._logs[2].tail.current_until > log._logs[0].tail.current_until - 1)
    assert not log.is_current()
    assert log.gauges()["log_lag"] == pytest.approx(slowest.tail.lag, abs=1)
    # the others go on, and nobody relies on them
    trusted = [log._logs[n].tail._trusted_until for n in (0, 2)]
    until(lambda: all(log._logs[n].tail._trusted_until > was for n, was in zip((0, 2), trusted, strict=True)))
    assert news.until <= max(told, slowest.tail._trusted_until)


def test_however_long_news_may_gather_what_is_known_stays_current(open_cache: Opener) -> None:
    log, news = following(open_cache(log_gathering="1m", max_staleness="400ms"))
    writer = Far(open_cache()).stop_following()

    for key in KEYS[:3]:
        writer.cache.set(key, 1)
        until(lambda key=key: key in news.written_keys)
        until(log.is_current)


# -- when processes state different numbers


def test_who_states_fewer_hears_of_one_that_states_more_later(open_cache: Opener) -> None:
    log, news = following(open_cache())
    before = news.losses

    writer = writing_to(open_cache(log_shards=4), 4)
    until(lambda: len(log._logs) == 4 and log.is_current())

    assert news.losses > before  # what was told in a stream before it was followed is not known
    for key in KEYS:
        writer.set(key, 1)
    until(lambda: news.written_keys >= set(KEYS))


def test_who_states_fewer_hears_of_those_that_stated_more_before(open_cache: Opener) -> None:
    writer = writing_to(open_cache(log_shards=4), 4)

    log, news = following(open_cache(log_shards=2))

    assert len(log._logs) == 4
    for key in KEYS:
        writer.set(key, 1)
    until(lambda: news.written_keys >= set(KEYS))


def test_who_states_fewer_writes_to_fewer(open_cache: Opener, server: redis.Redis, prefix: str) -> None:
    _, news = following(open_cache(log_shards=4))
    fewer = writing_to(open_cache(log_shards=2), 2)
    before = [server.xlen(log_name(prefix, number)) for number in range(4)]

    for key in KEYS:
        fewer.set(key, 1)

    after = [server.xlen(log_name(prefix, number)) for number in range(4)]
    assert after[2:] == before[2:]
    until(lambda: news.written_keys >= set(KEYS))


def test_nothing_is_told_in_a_stream_of_which_nobody_was_told(
    open_cache: Opener, server: redis.Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "layercache_redis.log.Log._start", lambda self: None
    )  # it cannot follow, nor say anything
    cache = open_cache(log_shards=4)

    for key in KEYS:
        cache.set(key, 1)
    cache.clear()

    assert streams(server, prefix) == {f"{prefix}:%log"}


def test_what_was_said_of_more_streams_is_kept_for_a_day(
    open_cache: Opener, server: redis.Redis, prefix: str
) -> None:
    writing_to(open_cache(log_shards=8), 8)
    server.pexpire(shards_name(prefix), 1_000_000)

    writing_to(open_cache(log_shards=2), 2)
    assert 0 < server.pttl(shards_name(prefix)) <= 1_000_000  # theirs to prolong, not ours

    writing_to(open_cache(log_shards=8), 8)
    assert server.pttl(shards_name(prefix)) > 80_000_000


@pytest.mark.parametrize("found", [b"x" * 100_000, ["of another type"]])
def test_what_a_stranger_left_in_its_place_does_no_harm(
    open_cache: Opener, server: redis.Redis, prefix: str, found: Any
) -> None:
    at = shards_name(prefix)
    server.set(at, found) if isinstance(found, bytes) else server.rpush(at, *found)

    log, _ = following(open_cache(log_shards=2))

    assert len(log._logs) == (64 if isinstance(found, bytes) else 2)


# -- processes


def test_the_child_of_a_fork_says_it_again_before_it_writes_to_all(open_cache: Opener) -> None:
    log = log_of(writing_to(open_cache(log_shards=4), 4))
    log.close()

    log.reset()  # as a child does

    assert log.streams.in_use == 1
    assert not any(each.tail.current_until for each in log._logs)


def test_a_log_that_was_closed_follows_no_more_streams(open_cache: Opener) -> None:
    log, _ = following(open_cache())
    log.close()

    log.follow(3)

    assert [each.is_followed for each in log._logs] == [True, False, False]
