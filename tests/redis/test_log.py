"""The log: every write and invalidation is heard by the other processes, or they learn that something was missed."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any
from uuid import uuid4

import pytest
import redis
from far import FACES, Far, entry, face
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import PATIENCE, until

from layercache import Cache, Caches, KeyNotFound
from layercache.core.changes import Add, Increment, Touch
from layercache.testing import Chaos, Clock, ValkeyServer

Opener = Callable[..., Cache[Any]]


class News:
    """A listener that notes what it is told."""

    def __init__(self) -> None:
        self.written_keys: list[str] = []
        self.invalidated_tags: list[str] = []
        self.softly_invalidated_tags: list[str] = []
        self.restamped_tags: list[str] = []
        self.confirmed_until: list[float] = []
        self.retrainings = self.losses = self.set_backs = 0
        self.told: list[str] = []  # of the keys and of what follows, in order

    def written(self, key: str) -> None:
        self.written_keys.append(key)
        self.told.append(key)

    def invalidated(self, tag: str, stamp: int, soft: bool) -> None:
        (self.softly_invalidated_tags if soft else self.invalidated_tags).append(tag)

    def restamped(self, tag: str, stamp: int) -> None:
        self.restamped_tags.append(tag)

    def retrained(self) -> None:
        self.retrainings += 1

    def lost_track(self) -> None:
        self.losses += 1
        self.told.append("lost track")

    def lost_writes(self) -> None:
        self.set_backs += 1
        self.told.append("lost writes")

    def confirmed(self, until: float) -> None:
        self.confirmed_until.append(until)
        self.told.append("confirmed" if until > 0 else "not confirmed")

    def outage_began(self) -> None:
        pass

    def outage_ending(self) -> None:
        pass

    def outage_ended(self) -> None:
        pass


def listening(far: Far, cache: str = "c") -> News:
    """Follow the log, and note what is heard from now on, when the cache has a stamp already."""
    news = News()
    far.plain.stamps([])
    far.log.subscribe(cache, news)
    until(far.log.is_current)
    news.losses, news.told = 0, []  # of the beginning: what was before it is not known
    return news


@pytest.fixture
def far(open_cache: Opener) -> Far:
    return Far(open_cache())


@pytest.fixture(params=FACES)
def writer(request: pytest.FixtureRequest, open_cache: Opener) -> Iterator[Far]:
    """Another process, on either face, that follows no log: the mark of a follower is an entry too."""
    with face(request.param) as runner:
        yield Far(open_cache(), runner).stop_following()


@pytest.fixture
def other(open_cache: Opener) -> Far:
    """Another process, which writes."""
    return Far(open_cache()).stop_following()


@pytest.fixture
def log_at(prefix: str) -> str:
    return f"{prefix}:%log"


def world(server: ValkeyServer, now: Callable[[], float] = time.time, **options: Any) -> Caches:
    backend = {"type": "redis", "url": server.url, "prefix": "p", "timeout": "10s", **options}
    return Caches({"backends": {"far": backend}, "caches": {"c": {"backend": "far", "ttl": 60}}}, now=now)


# -- what it holds


class TestWhatIsWritten:
    """An entry for each write: the node, then the keys and tags, without the prefix."""

    @pytest.fixture
    def said(self, server_url: str, log_at: str) -> Iterator[Callable[[Callable[[], Any]], Any]]:
        """What an act adds to the log: the fields of each entry, in pairs."""
        with redis.Redis.from_url(server_url) as client:
            # redis-py would make a dict of the fields, in which each stands once
            client.set_response_callback("XRANGE", lambda reply, **_: reply)

            def said(act: Callable[[], Any]) -> list[list[tuple[bytes, bytes]]]:
                seen = len(client.xrange(log_at))
                act()
                added = client.xrange(log_at)[seen:]
                return [list(zip(fields[::2], fields[1::2], strict=True)) for _, fields in added]

            yield said

    @pytest.mark.parametrize(
        ("verb", "arguments", "keys"),
        [
            ("set", ["k", 1], ["k"]),
            ("set_many", [{"k": 1, "l": 2}], ["k", "l"]),
            ("add", ["new", 1], ["new"]),
            ("touch", ["there", 50], ["there"]),
            ("incr", ["there"], ["there"]),
            ("incr", ["there", 10**15], ["there"]),
            ("delete", ["there"], ["there"]),
            ("delete", ["not there"], ["not%20there"]),
            ("delete_many", [["there", "k"]], ["there", "k"]),
            ("set", ["of no life", 1, 0], ["of%20no%20life"]),
        ],
    )
    def test_a_write_names_its_keys(
        self, writer: Far, said: Any, verb: str, arguments: list[Any], keys: list[str]
    ) -> None:
        writer.cache.set("there", 1)

        added = said(lambda: getattr(writer.cache, verb)(*arguments))

        assert added == [[(b"n", writer.log.node.id), *((b"k", f"c:{key}".encode()) for key in keys)]]

    def test_a_fill_and_a_change_name_their_key(self, writer: Far, said: Any) -> None:
        lease = writer.space.lease("k", b"a", 10)

        filled = said(lambda: writer.space.fill("k", b"a", entry(stamps=lease.stamps)))
        changed = said(lambda: writer.space.update("k", lambda found: entry(2)))

        assert filled == changed == [[(b"n", writer.log.node.id), (b"k", b"c:k")]]

    def test_clear_and_invalidate_name_tags_and_their_new_stamps(
        self, writer: Far, said: Any, server: redis.Redis
    ) -> None:
        def names(tag: str, in_log: bytes) -> list[tuple[bytes, bytes]]:
            return [(b"n", writer.log.node.id), (b"t", in_log), (b"s", server.get(writer.names.stamp(tag)))]

        assert said(writer.cache.clear) == [names("*", b"c:*")]
        assert said(lambda: writer.space.invalidate(["t", "a b"])) == [
            names("t", b"c:t"),
            names("a b", b"c:a%20b"),
        ]

    def test_a_soft_invalidation_has_a_letter_of_its_own(
        self, writer: Far, said: Any, server: redis.Redis
    ) -> None:
        def names(kind: bytes, tag: str) -> list[tuple[bytes, bytes]]:
            at = writer.names.in_log(tag), server.get(writer.names.stamp(tag))
            return [(b"n", writer.log.node.id), (kind, at[0]), (b"s", at[1])]

        writer.space.stamps(["t"])
        # of one that has no stamp it is a hard one
        assert said(lambda: writer.space.invalidate(["t", "lost", "*"], soft=True)) == [
            names(b"o", "t"),
            names(b"t", "lost"),
            names(b"t", "*"),
        ]

    def test_what_changes_nothing_says_nothing(self, writer: Far, said: Any) -> None:
        writer.cache.set("there", 1)
        writer.space.stamps(["t"])

        def nothing() -> None:
            writer.cache.get("there")
            writer.cache.get_many(["there", "k"])
            writer.cache.add("there", 2)
            writer.cache.touch("not there", 50)
            with pytest.raises(KeyNotFound):
                writer.cache.incr("not there")
            lease = writer.space.lease("k", b"a", 10)
            writer.space.fill("k", b"b", entry(stamps=lease.stamps))
            writer.space.release("k", b"a")
            writer.space.late_stamps(["t"], lease.mark)
            writer.space.stamps(["t"])

        assert said(nothing) == []

    def test_many_keys_are_in_entries_of_some_hundreds(self, writer: Far, said: Any) -> None:
        added = said(lambda: writer.cache.set_many({f"k{number}": number for number in range(1_000)}))

        named = [name for pairs in added for kind, name in pairs if kind == b"k"]
        assert named == [f"c:k{number}".encode() for number in range(1_000)]
        assert 2 <= len(added) <= 10

    def test_it_is_bounded(self, open_cache: Opener, server: redis.Redis, log_at: str) -> None:
        cache = open_cache(log_length=100)
        for number in range(1_000):
            cache.set(f"k{number % 10}", number)

        assert 100 <= server.xlen(log_at) <= 300


# -- what is heard


class TestHearing:
    def test_a_lost_stamp_that_is_made_anew_is_told_as_that_and_is_no_invalidation(
        self, far: Far, writer: Far, server: redis.Redis
    ) -> None:
        news = listening(far)
        told = list(news.invalidated_tags)
        server.delete(far.stamp_at)

        writer.cache.set("k", 1)

        until(lambda: "k" in news.written_keys)
        assert news.restamped_tags[-1:] == ["*"]
        assert news.invalidated_tags == told

    def test_another_process_hears_keys_and_tags_and_of_ourselves_we_hear_tags_alone(
        self, far: Far, other: Far
    ) -> None:
        ours, theirs = listening(far), News()
        other.log.subscribe("c", theirs)

        other.cache.set("before", 1)
        far.cache.set("own", 1)
        far.space.invalidate(["own tag"])
        other.cache.set_many({"k": 1, "l": 2})
        other.space.invalidate(["t"])
        other.space.invalidate(["t"], soft=True)
        other.cache.clear()
        other.cache.delete("last")

        until(lambda: "last" in ours.written_keys)
        assert ours.written_keys == ["before", "k", "l", "last"]
        # the first write of all makes the cache's stamp, which is news to whoever followed before
        assert ours.invalidated_tags[-3:] == ["own tag", "t", "*"]
        assert ours.softly_invalidated_tags == ["t"]
        assert ours.losses == 0

    @pytest.mark.parametrize(
        "write",
        [
            lambda far: far.cache.set("k", 2),
            lambda far: far.cache.touch("k", 50),
            lambda far: far.cache.incr("k"),
            lambda far: far.cache.incr("k", 10**15),
            lambda far: far.cache.delete("k"),
            lambda far: far.space.update("k", lambda found: entry(2)),
            lambda far: far.space.update("k", Touch(50, time.time())),
            lambda far: far.space.update("k", Increment("k", -1, far.form, time.time())),
        ],
    )
    def test_every_write_is_heard(self, far: Far, writer: Far, write: Callable[[Far], Any]) -> None:
        writer.cache.set("k", 1)
        news = listening(far)

        write(writer)

        until(lambda: news.written_keys == ["k"])

    def test_an_add_and_a_fill_are_heard(self, far: Far, writer: Far) -> None:
        news = listening(far)

        writer.space.update("added", Add(entry(), far.form, time.time()))
        writer.space.fill("filled", b"a", entry(stamps=writer.space.lease("filled", b"a", 10).stamps))

        until(lambda: news.written_keys == ["added", "filled"])

    def test_what_concerns_another_cache_is_told_to_its_listeners_alone(
        self, far: Far, server_url: str, prefix: str
    ) -> None:
        backend = {"type": "redis", "url": server_url, "prefix": prefix, "timeout": "10s"}
        caches = {"c": {"backend": "far"}, "d": {"backend": "far"}}
        with Caches({"backends": {"far": backend}, "caches": caches}) as world:
            Far(world["d"]).plain.stamps([])
            of_c, of_d, of_odd = listening(far), listening(far, "d"), listening(far, "d:*%")

            world["d"].set("k", 1)
            world["d"].clear()
            world["c"].set("last", 1)

            until(lambda: "last" in of_c.written_keys)

        assert of_c.written_keys == ["last"]
        assert (of_d.written_keys, of_d.invalidated_tags) == (["k"], ["*"])
        assert of_odd.written_keys == []

    def test_another_prefix_has_a_log_of_its_own(self, far: Far, other: Far, server_url: str) -> None:
        news = listening(far)
        with Caches(
            {
                "backends": {"far": {"type": "redis", "url": server_url, "prefix": f"x{uuid4().hex[:8]}"}},
                "caches": {"c": {"backend": "far"}},
            }
        ) as world:
            world["c"].set("theirs", 1, 5)
            world["c"]._layer.space.invalidate(["their tag"])
        other.cache.set("last", 1)

        until(lambda: "last" in news.written_keys)
        assert news.written_keys == ["last"]
        assert "their tag" not in news.invalidated_tags

    def test_more_than_fits_one_answer_is_heard_in_order(
        self, far: Far, server: redis.Redis, log_at: str
    ) -> None:
        news = listening(far)
        with server.pipeline() as at_once:
            for number in range(3_000):
                at_once.xadd(log_at, {"n": "another", "k": f"c:k{number}"})
            at_once.execute()

        until(lambda: len(news.written_keys) >= 3_000)
        assert news.written_keys == [f"k{number}" for number in range(3_000)]
        assert far.plain.gauges()["log_entries"] >= 3_000
        # nor is it said before the end that all was heard
        first = news.told.index("k0")
        assert news.told[first : first + 3_000] == news.written_keys


@pytest.fixture(scope="module")
def odd(server_url: str) -> Iterator[tuple[Far, News]]:
    """Who writes, and what another process hears of it."""
    backend = {"type": "redis", "url": server_url, "prefix": f"odd{uuid4().hex[:8]}", "timeout": "10s"}
    settings_ = {"backends": {"far": backend}, "caches": {"c-1.x": {"backend": "far"}}}
    with Caches(settings_) as writing, Caches(settings_) as following:
        writer = Far(writing["c-1.x"]).stop_following()
        yield writer, listening(Far(following["c-1.x"]), "c-1.x")
        writer.cache.clear()


ANY_TEXT = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from(":%{}*\n\x00 "), min_size=1, max_size=12
)


@given(
    keys=st.lists(ANY_TEXT, min_size=1, max_size=8, unique=True),
    tags=st.lists(ANY_TEXT, max_size=3, unique=True),
)
@settings(max_examples=50)
def test_keys_and_tags_arrive_as_they_were_given(
    odd: tuple[Far, News], keys: list[str], tags: list[str]
) -> None:
    writer, news = odd
    news.written_keys, news.invalidated_tags = [], []

    if tags:
        writer.plain.invalidate(tags)
    writer.plain.set_many({key: entry(ttl=1) for key in keys})

    until(lambda: len(news.written_keys) >= len(keys))
    assert news.written_keys == keys
    assert news.invalidated_tags == tags


# -- whether it is current


class TestCurrent:
    def test_it_is_not_until_somebody_asks_and_soon_after(self, far: Far) -> None:
        far.log.reset()
        assert far.log.lag == float("inf")
        assert "log_lag" not in far.plain.gauges()

        assert far.log.is_current() is False
        assert until(far.log.is_current)

        assert 0 <= far.plain.gauges()["log_lag"] < 5

    def test_once_closed_it_never_is_again(self, far: Far) -> None:
        far.follow()
        thread = far.log._thread
        assert thread is not None

        far.log.close()

        assert not thread.is_alive()
        assert far.log.is_current() is False
        assert far.log._thread is thread

    def test_while_the_server_is_silent_for_longer_than_max_staleness_it_is_not(self) -> None:
        with ValkeyServer() as server, world(server, max_staleness="300ms") as caches:
            far = Far(caches["c"])
            far.cache.set("k", 1)
            far.follow()
            assert ("GET", far.stamp_at) not in next(far.commands.get("k"))
            server.pause()
            paused_at = time.monotonic()

            until(lambda: not far.log.is_current())

            assert time.monotonic() - paused_at < 4.0
            assert far.plain.gauges()["log_lag"] >= 0.3
            # so a read asks for the stamp with the value
            assert ("GET", far.stamp_at) in next(far.commands.get("k"))
            assert ("GET", far.stamp_at) in next(far.commands.get_many(["k"]))

            server.resume()
            until(far.log.is_current)
            assert far.plain.gauges()["log_losses"] == 0
            assert ("GET", far.stamp_at) not in next(far.commands.get("k"))

    def test_what_was_cleared_is_not_served_for_longer_than_that(
        self, open_cache: Opener, other: Far
    ) -> None:
        far, holds_up = Far(open_cache(max_staleness="300ms")), HoldsUp()
        far.cache.set("k", "old")
        far.follow()
        far.log.subscribe("c", holds_up)
        other.cache.set("another", 1)
        assert holds_up.began.wait(PATIENCE)

        cleared_at = time.monotonic()
        other.cache.clear()
        until(lambda: far.cache.get("k") is None)

        assert time.monotonic() - cleared_at < 4.0
        assert not far.log.is_current()
        holds_up.may_end.set()
        until(far.log.is_current)

    def test_the_shortest_max_staleness_is_kept_up_too(self, open_cache: Opener) -> None:
        far, news = Far(open_cache(max_staleness="3ms")), News()
        far.log.subscribe("c", news)
        far.log.begin()

        until(lambda: len(news.confirmed_until) > 5)


class HoldsUp(News):
    """A listener that keeps the log's thread from going on."""

    def __init__(self) -> None:
        super().__init__()
        self.began, self.may_end = threading.Event(), threading.Event()

    def written(self, key: str) -> None:
        self.began.set()
        assert self.may_end.wait(PATIENCE)


# -- how long to rely on what was heard


class TestConfirming:
    @pytest.mark.parametrize("hours", [-1, 1])
    def test_it_goes_by_our_own_clock_however_far_the_servers_is_from_it(
        self, open_cache: Opener, other: Far, hours: float
    ) -> None:
        clock = Clock(time.time() + 3600 * hours)
        far = Far(open_cache(now=clock, max_staleness="2s"))
        news = listening(far)

        clock.advance(0.5)
        other.cache.set("k", 1)

        until(lambda: clock.now + 2 in news.confirmed_until)
        assert max(news.confirmed_until) == clock.now + 2
        assert news.losses == 0

    def test_it_is_told_after_what_was_heard(self, far: Far, other: Far) -> None:
        news = listening(far)

        other.cache.set("k", 1)

        until(lambda: "k" in news.told and news.told[-1] == "confirmed")
        assert news.told[news.told.index("k") + 1] == "confirmed"

    def test_in_a_black_hole_nothing_is_confirmed_and_nothing_lost(self) -> None:
        with (
            ValkeyServer() as server,
            Chaos(server.port) as chaos,
            world(server, url=chaos.url, max_staleness="300ms", timeout="200ms") as caches,
            world(server) as others,
        ):
            far, other = Far(caches["c"]), Far(others["c"]).stop_following()
            news = listening(far)

            until(lambda: news.confirmed_until)
            with chaos.freeze():
                frozen_at = time.time()
                other.cache.set("k", 1)
                until(lambda: time.time() > news.confirmed_until[-1])
                assert max(news.confirmed_until) <= frozen_at + 0.3
                assert not far.log.is_current()
            until(lambda: news.confirmed_until[-1] > time.time())

            assert news.written_keys == ["k"]
            assert news.losses == 0

    @pytest.mark.parametrize("is_cut_off", [False, True])
    def test_where_our_clock_is_set_back_it_is_told_anew(self, is_cut_off: bool) -> None:
        clock = Shifted()
        with (
            ValkeyServer() as server,
            Chaos(server.port) as chaos,
            world(server, clock, url=chaos.url, max_staleness="400ms", timeout="100ms") as caches,
        ):
            far = Far(caches["c"])
            news = listening(far)

            until(lambda: news.confirmed_until)
            with chaos.freeze() if is_cut_off else nullcontext():
                clock.seconds = -3600.0

                until(lambda: news.confirmed_until[-1] <= clock() + 0.4)
                if is_cut_off:
                    until(lambda: news.confirmed_until[-1] <= clock())

    def test_where_it_is_set_forward_what_is_left_is_told_as_well(self, open_cache: Opener) -> None:
        clock = Shifted()
        far = Far(open_cache(now=clock, max_staleness="400ms"))
        news = listening(far)

        until(lambda: news.confirmed_until)
        clock.seconds = 3600.0

        until(lambda: clock() < news.confirmed_until[-1] <= clock() + 0.4)

    def test_a_process_that_was_stopped_is_not_believed_when_it_goes_on(self, server_url: str) -> None:
        layers = {
            "near": {"type": "memory"},
            "far": {"type": "redis", "url": server_url, "prefix": "stopped"},
        }
        layers["far"]["max_staleness"] = "300ms"
        backends = {**layers, "both": {"type": "chain", "layers": ["near", "far"]}}
        settings_ = {"backends": backends, "caches": {"c": {"backend": "both"}}}
        with Caches(settings_) as world:
            world["c"].set("k", "old")
            process = subprocess.Popen(
                [sys.executable, "-c", STOPPED, json.dumps(settings_)], stdout=subprocess.PIPE, text=True
            )
            with process:
                assert process.stdout is not None
                assert process.stdout.readline() == "old\n"
                process.send_signal(signal.SIGSTOP)
                stopped_at = time.monotonic()
                world["c"].set("k", "new")
                until(lambda: time.monotonic() > stopped_at + 0.5)
                process.send_signal(signal.SIGCONT)

                assert process.stdout.readline() == "new\n"


STOPPED = """
import json, sys, time
from layercache import Caches

with Caches(json.loads(sys.argv[1])) as world:
    cache = world["c"]
    while not (cache.get("k") and cache.stats().layers[0].hits):
        time.sleep(0.01)
    sys.setswitchinterval(1)  # the log's thread has no chance to hear the news before we ask
    then = time.monotonic()
    print(cache.get("k"), flush=True)
    while (now := time.monotonic()) < then + 0.25:
        then = now
        assert cache.get("k") is not None
    print(cache.get("k"), flush=True)
    sys.setswitchinterval(0.005)
"""


class Shifted:
    """A wall clock that somebody has set."""

    seconds = 0.0

    def __call__(self) -> float:
        return time.time() + self.seconds


# -- what breaks


def a_millisecond_later(server: redis.Redis, far: Far) -> None:
    """When the server gives other ids than the last one that was seen."""

    def milliseconds() -> int:
        seconds, micros = server.time()
        return int(seconds * 1000 + micros // 1000)

    until(lambda: int(far.log.tail._last.partition(b"-")[0]) < milliseconds())


class TestBreaks:
    def test_a_broken_connection_loses_nothing(self, far: Far, other: Far, server: redis.Redis) -> None:
        news = listening(far)
        written = []
        for number in range(400):
            if number % 50 == 0:
                for client in server.client_list():
                    if client["name"] == f"layercache-log:{far.plain._sync.servers.options.client_name()}":
                        server.client_kill_filter(_id=client["id"])
            other.plain.set(f"k{number}", entry())
            written.append(f"k{number}")

        until(lambda: len(news.written_keys) >= len(written))
        assert news.written_keys == written
        assert news.losses == far.plain.gauges()["log_losses"] == 0
        assert until(far.log.is_current)

    def test_a_write_in_the_very_moment_without_a_connection_is_heard(
        self, far: Far, other: Far, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        news = listening(far)
        driver, connect = far.log._driver, far.log._driver.connect_for_log

        def connect_late(name: bytes) -> Any:
            other.plain.set("meanwhile", entry())
            return connect(name)

        monkeypatch.setattr(driver, "connect_for_log", connect_late)
        connection = far.log._connection
        assert connection is not None
        connection.shut()

        until(lambda: "meanwhile" in news.written_keys)
        assert news.losses == 0

    @pytest.mark.parametrize(
        "how",
        [
            "trimmed", "trimmed and written to", "deleted", "recreated", "flushed",
            "set back", "set back and written to", "set back with another in our place",
        ],
    )  # fmt: skip
    def test_a_log_that_is_not_what_it_was_makes_everything_doubtful(self, how: str) -> None:
        with (
            ValkeyServer() as alone,
            world(alone, max_staleness="400ms") as caches,
            world(alone) as others,
            redis.Redis.from_url(alone.url) as server,
        ):
            far, other = Far(caches["c"]), Far(others["c"]).stop_following()
            far.plain.set("k", entry(stamps=far.plain.stamps(["t"])))
            news = listening(far)
            assert far.plain.get("k") is not None
            before = server.dump("p:%log")
            other.plain.set("heard", entry())
            until(lambda: "heard" in news.written_keys)
            news.told = []

            with server.pipeline() as at_once:  # so that it is looked at when all is done
                match how:
                    case "trimmed" | "trimmed and written to":
                        at_once.xtrim("p:%log", maxlen=0, approximate=False)
                    case "deleted":
                        at_once.delete("p:%log")
                    case "recreated":
                        a_millisecond_later(server, far)
                        at_once.delete("p:%log")
                    case "flushed":
                        at_once.flushall()
                    case _:
                        at_once.restore("p:%log", 0, before, replace=True)
                if "written" in how or how == "recreated":
                    at_once.xadd("p:%log", {"n": "another", "k": "c:another"})
                if "our place" in how:
                    at_once.xadd("p:%log", {"n": "another", "k": "c:another"}, id=far.log.tail._last)
                at_once.execute()

            until(lambda: news.losses)
            assert far.plain.gauges()["log_losses"] == 1
            until(far.log.is_current)
            assert far.known.get("t") is None
            assert far.plain.gauges()["log_set_backs"] == news.set_backs == how.startswith("set back")
            # nothing is believed before it is forgotten
            first = news.told.index("lost track")
            assert news.told[first - 1] == "not confirmed"
            assert (
                news.told[first + 1 : first + 3]
                == [*["lost writes"] * news.set_backs, "lost track", "confirmed"][:2]
            )

            # and from there on all goes on
            other.plain.set("after", entry())
            until(lambda: "after" in news.written_keys)
            other.plain.clear()
            until(lambda: far.plain.get("k") is None)
            assert far.plain.gauges()["log_losses"] == 1

    def test_one_that_was_recreated_within_the_same_millisecond_is_noticed_too(
        self, open_cache: Opener, server: redis.Redis, log_at: str
    ) -> None:
        far = Far(open_cache(max_staleness="400ms"))
        news = listening(far)
        # the making of the cache's stamp is heard as well
        until(lambda: far.log.tail._last == server.xinfo_stream(log_at)["last-generated-id"])

        with server.pipeline() as at_once:
            at_once.delete(log_at)
            at_once.xadd(log_at, {"n": "another", "t": "c:*"}, id=far.log.tail._last)
            at_once.execute()

        until(lambda: news.losses or news.invalidated_tags)
        assert news.set_backs == 0

    def test_one_that_was_trimmed_behind_us_is_the_same(
        self, far: Far, other: Far, server: redis.Redis, log_at: str
    ) -> None:
        news = listening(far)
        for number in range(300):
            other.plain.set(f"k{number}", entry())
        until(lambda: len(news.written_keys) == 300)

        server.xtrim(log_at, maxlen=1, approximate=False)
        other.plain.set("last", entry())

        until(lambda: "last" in news.written_keys)
        assert news.losses == 0

    @pytest.mark.parametrize("heals", ["a writer", "a follower"])
    def test_something_foreign_under_its_name_is_replaced(
        self, far: Far, other: Far, server: redis.Redis, log_at: str, heals: str
    ) -> None:
        if heals == "a follower":
            server.set(log_at, "theirs")
            news = listening(far)
        else:
            news = listening(far)
            a_millisecond_later(server, far)
            server.delete(log_at)
            server.set(log_at, "theirs")
            other.cache.set("k", 1)
            assert server.type(log_at) == b"stream"
            until(lambda: news.losses)
            until(far.log.is_current)

        other.cache.set("l", 1)
        until(lambda: "l" in news.written_keys)

    def test_it_outlives_its_followers_for_a_day(self, far: Far, server: redis.Redis, log_at: str) -> None:
        far.follow()

        assert 86_000_000 < server.pttl(log_at) <= 86_400_000

    @pytest.mark.parametrize(
        "fields",
        [
            pytest.param({b"k": b"\xff\xfe:k"}, id="odd cache"),
            pytest.param({b"k": b"c:\xff"}, id="odd key"),
            pytest.param({b"t": b"c:\xff"}, id="odd tag"),
            *({b"k": b""}, {b"k": b"c"}, {b"x": b"c:k"}, {b"n": b"", b"": b""}),  # which say nothing
        ],
    )
    def test_an_entry_of_somebody_else_does_no_harm(
        self, far: Far, other: Far, server: redis.Redis, log_at: str, fields: Any
    ) -> None:
        news = listening(far)

        server.xadd(log_at, fields)
        other.cache.set("l", 1)

        until(lambda: "l" in news.written_keys)

    @pytest.mark.parametrize("when", ["written", "lost_track"])
    def test_a_listener_that_fails_costs_the_track_and_no_more(
        self, far: Far, other: Far, server: redis.Redis, log_at: str, when: str
    ) -> None:
        fails, news = Fails(when, times=1 if when == "written" else 2), listening(far)
        far.log.subscribe("c", fails)

        if when == "lost_track":
            a_millisecond_later(server, far)
            server.delete(log_at)
        other.cache.set("k", 1)
        # from here on it is not current until there is a new mark
        until(lambda: not fails.times and far.plain.gauges()["log_losses"])

        until(far.log.is_current)
        other.cache.set("l", 1)
        until(lambda: "l" in news.written_keys)


class Fails(News):
    """A listener with a fault in one of its methods."""

    def __init__(self, when: str, times: int) -> None:
        super().__init__()
        self.times = times
        setattr(self, when, self.fail)

    def fail(self, *_: Any) -> None:
        if self.times:
            self.times -= 1
            raise ZeroDivisionError


# -- its end


class Collects(News):
    """A listener in whose call garbage is collected, as may be in any."""

    def __init__(self) -> None:
        super().__init__()
        self.done = threading.Event()

    def written(self, key: str) -> None:
        gc.collect()
        self.done.set()


def test_a_world_that_is_collected_on_the_logs_own_thread_leaves_no_connection(
    server_url: str, server: redis.Redis, prefix: str, other: Far
) -> None:
    def connections() -> int:
        return sum(prefix in client["name"] for client in server.client_list())

    other.cache.set("k", 1)
    before, collects = connections(), Collects()
    backend = {"type": "redis", "url": server_url, "prefix": prefix, "timeout": "10s"}
    gc.disable()
    try:
        world = Caches({"backends": {"far": backend}, "caches": {"c": {"backend": "far"}}})
        Far(world["c"]).follow().log.subscribe("c", collects)
        del world
        other.cache.set("k", 2)
        assert collects.done.wait(PATIENCE)

        until(lambda: connections() == before)
    finally:
        gc.enable()
        gc.collect()


# -- forks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_the_child_of_a_fork_hears_what_the_parent_writes(open_cache: Opener) -> None:
    far = Far(open_cache())
    news = listening(far)
    far.cache.set("k", "old")
    far.follow()
    listens, go_on = os.pipe()

    child = os.fork()
    if child == 0:
        try:
            assert far.log._thread is None
            until(far.log.is_current)
            assert far.cache.get("k") == "old"
            os.write(go_on, b"!")
            until(lambda: "k" in news.written_keys)
            until(lambda: far.cache.get("k") is None)  # cleared
            far.cache.set("from the child", 1)
            os._exit(0)
        except BaseException:
            os._exit(1)

    os.close(go_on)  # so that the read ends if the child does
    os.read(listens, 1)
    far.cache.set("k", "new")
    until(lambda: far.log.is_current())
    far.cache.clear()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    until(lambda: "from the child" in news.written_keys)
    assert "k" not in news.written_keys
    os.close(listens)
