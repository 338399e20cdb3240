"""Counters: exact whoever counts, with the times they had; what is no counter, or was altered, is never counted."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis
from far import FACES, Far, entry, face, value
from hypothesis import example, given, settings
from hypothesis import strategies as st

from layercache import Cache, Caches, EncodeError, KeyNotFound, NotACounter
from layercache.entry import CACHE_TAG
from layercache.spi import Transform

Opener = Callable[..., Cache[Any]]

CODECS = ("json", "json, zstd", "json, turned")
"""With the first the server counts by itself; with the last it cannot, as the digits do not stand there as such."""

LARGEST = 999_999_999_999_999  # that is counted by the server itself


class Turned(Transform):
    """Writes what it is given backwards."""

    name = "turned"

    def encode(self, payload: bytes) -> bytes:
        return payload[::-1]

    def decode(self, payload: bytes, max_bytes: int) -> bytes:
        return payload[::-1]


def stages(codecs: str) -> list[Any]:
    return ["json", {"type": "zstd", "min_bytes": 0}] if codecs == "json, zstd" else ["json"]


def turned(cache: Cache[Any], codecs: str) -> Cache[Any]:
    """The cache, with the stage that settings do not know where `codecs` have it."""
    if codecs == "json, turned":
        Far(cache).commands.pipeline.transforms["turned"] = Turned(None)
    return cache


@pytest.fixture
def open_with(open_cache: Opener) -> Opener:
    """Opens a cache with some of `CODECS`."""
    return lambda codecs, **options: turned(open_cache(codecs=stages(codecs), **options), codecs)


@pytest.fixture
def at(prefix: str) -> str:
    return f"{prefix}:c:n"


# -- exact


class TestTogether:
    @pytest.mark.parametrize(("codecs", "times"), [("json", 200), ("json, turned", 40)])
    def test_threads_lose_nothing(self, open_with: Opener, codecs: str, times: int) -> None:
        cache = open_with(codecs, timeout="10s")
        cache.set("n", 0)
        counts: list[int] = []

        def count_up() -> None:
            counts.extend([cache.incr("n") for _ in range(times)])

        run_together([count_up] * 8)

        assert sorted(counts) == list(range(1, 8 * times + 1))  # each count was given to one
        assert cache.get("n") == 8 * times

    def test_threads_that_count_up_and_down_meet_at_the_sum(self, open_cache: Opener) -> None:
        cache = open_cache()
        cache.set("n", -5)

        def count_up() -> None:
            for _ in range(200):
                cache.incr("n", 3)

        def count_down() -> None:
            for _ in range(200):
                cache.decr("n", 2)

        run_together([count_up, count_down] * 4)

        assert cache.get("n") == -5 + 4 * 200 * 3 - 4 * 200 * 2

    def test_of_one_that_carries_tags_nothing_is_lost_either(self, open_cache: Opener) -> None:
        cache = open_cache(timeout="10s")
        cache.set("n", 0, tags=["t"])
        counts: list[int] = []

        run_together([lambda: counts.extend([cache.incr("n") for _ in range(50)])] * 4)

        assert sorted(counts) == list(range(1, 201))

    def test_tasks_lose_nothing(self, open_cache: Opener) -> None:
        cache = open_cache()

        async def main() -> list[int]:
            await cache.aset("n", 0)
            return await asyncio.gather(*(cache.aincr("n") for _ in range(1_600)))

        assert sorted(asyncio.run(main())) == list(range(1, 1_601))
        assert cache.get("n") == 1_600


def run_together(works: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture(scope="module", params=CODECS)
def counting(request: pytest.FixtureRequest, server_url: str) -> Iterator[Cache[Any]]:
    backend = {
        "type": "redis",
        "url": server_url,
        "prefix": f"n{uuid4().hex[:8]}",
        "codecs": stages(request.param),
    }
    with Caches({"backends": {"far": backend}, "caches": {"c": {"backend": "far", "ttl": 5}}}) as world:
        yield turned(world["c"], request.param)
        world["c"].delete("n")


INTS = st.integers(-(2**63), 2**64 - 1) | st.integers(-3, 3) | st.integers(-(2**54), 2**54)


@given(number=INTS, delta=INTS, typed=st.booleans())
@example(number=LARGEST, delta=1, typed=False)
@example(number=LARGEST - 1, delta=1, typed=True)
@example(number=-LARGEST, delta=-1, typed=False)
@example(number=2**53, delta=1, typed=False)
@example(number=2**53 - 1, delta=2, typed=False)
@example(number=-(2**53), delta=-1, typed=False)
@example(number=1, delta=-1, typed=False)
@example(number=-1, delta=1, typed=False)
@example(number=-1, delta=2, typed=False)
@example(number=9, delta=1, typed=False)
@example(number=10, delta=-1, typed=True)
@example(number=99_999_999_999_999, delta=1, typed=False)
@example(number=2**63 - 1, delta=1, typed=False)
@example(number=2**64 - 1, delta=1, typed=False)
@example(number=-(2**63), delta=-1, typed=False)
@settings(max_examples=60)
def test_the_sum_is_exact_or_refused(counting: Cache[Any], number: int, delta: int, typed: bool) -> None:
    cache = counting.typed(int) if typed else counting
    cache.set("n", number)

    try:
        counted = cache.incr("n", delta)
    except EncodeError:
        assert not -(2**63) <= number + delta < 2**64
        assert counting.get("n") == number
    else:
        assert counted == counting.get("n") == counting.get_many(["n"])["n"] == number + delta
        assert type(counted) is type(counting.get("n")) is int
        assert cache.decr("n", delta) == number


# -- times


@pytest.mark.parametrize("codecs", CODECS)
@pytest.mark.parametrize("name", FACES)
class TestTimes:
    def test_they_stay(self, open_with: Opener, server: redis.Redis, at: str, codecs: str, name: str) -> None:
        with face(name) as runner:
            cache = Far(open_with(codecs), runner).cache
            cache.set("n", 1, 50)
            server.pexpire(at, 20_000)  # half a minute later

            assert cache.incr("n") == 2
            assert cache.decr("n", 5) == -3

            assert 15_000 < server.pttl(at) <= 20_001
            assert 15 < cache.ttl_left("n") <= 20.001

    def test_what_is_for_ever_stays_so(
        self, open_with: Opener, server: redis.Redis, at: str, codecs: str, name: str
    ) -> None:
        with face(name) as runner:
            cache = Far(open_with(codecs), runner).cache
            cache.set("n", 1, None)

            cache.incr("n")

            assert server.pttl(at) == -1
            assert cache.ttl_left("n") is None

    def test_a_stale_counter_is_not_there_and_stays_as_it_is(
        self, open_with: Opener, server: redis.Redis, at: str, codecs: str, name: str
    ) -> None:
        with face(name) as runner:
            far = Far(open_with(codecs), runner)
            far.space.set("n", entry(1, stale=True))
            frame = server.get(at)

            for count in (far.cache.incr, far.cache.decr):
                with pytest.raises(KeyNotFound):
                    count("n")

            assert server.get(at) == frame  # a load that fails serves it
            assert far.cache.add("n", 7) is True
            assert far.cache.incr("n") == 8

    def test_what_it_is_known_by_stays_too(
        self, open_with: Opener, server: redis.Redis, at: str, codecs: str, name: str
    ) -> None:
        with face(name) as runner:
            far = Far(open_with(codecs), runner)
            stamps = far.space.stamps(["t"])
            far.space.set("n", entry(1, stamps=stamps))

            assert far.cache.incr("n") == 2

            assert far.space.get("n").stamps == stamps
            assert stamps[0][0] == CACHE_TAG
            far.space.invalidate(["t"])
            with pytest.raises(KeyNotFound):
                far.cache.incr("n")


# -- what is no counter


@pytest.mark.parametrize("codecs", CODECS)
def test_what_is_no_int_is_refused_and_left_as_it_is(
    open_with: Opener, server: redis.Redis, at: str, codecs: str
) -> None:
    cache = open_with(codecs)
    for no_counter in (1.0, 1.5, 1e300, -0.0, "5", "", "0x10", True, False, None, [], [1], {"n": 1}):
        cache.set("n", no_counter, 50)
        frame = server.get(at)

        with pytest.raises(NotACounter):
            cache.incr("n")
        with pytest.raises(NotACounter):
            cache.decr("n", 10**16)

        assert server.get(at) == frame
        assert cache.get("n") == no_counter
        assert type(cache.get("n")) is type(no_counter)


@pytest.mark.parametrize("kind", [float, str, bool, list[int]])
def test_to_a_cache_of_another_type_an_int_is_no_counter(open_cache: Opener, kind: Any) -> None:
    cache = open_cache()
    cache.set("n", 5)

    with pytest.raises((NotACounter, KeyNotFound)):
        cache.typed(kind).incr("n")

    assert cache.get("n") == 5


def test_a_set_begins_anew(far: Far) -> None:
    far.cache.set("n", 5)
    far.cache.incr("n")
    far.cache.set("n", 100)

    assert far.cache.incr("n") == 101
    assert far.cache.add("n", 0) is False
    assert far.cache.decr("n", 201) == -100


def test_where_nothing_is_there_is_nothing_to_count(far: Far, server: redis.Redis, at: str) -> None:
    with pytest.raises(KeyNotFound):
        far.cache.incr("n")
    assert not server.exists(at)

    far.cache.add("n", 0)
    assert far.cache.incr("n") == 1


# -- what was altered


class TestAltered:
    """A counter that is not as it was written is a miss, and gone; what another version wrote is left alone."""

    NUMBER = 41

    @pytest.fixture(params=["json", "json, turned"])
    def counter(self, request: pytest.FixtureRequest, open_with: Opener) -> Far:
        far = Far(open_with(request.param))
        far.cache.set("n", self.NUMBER)
        return far

    def is_not_counted(self, far: Far, server: redis.Redis, at: str, frame: bytes) -> None:
        server.set(at, frame, px=50_000)

        for count in (far.cache.incr, far.cache.decr):
            with pytest.raises(KeyNotFound):
                count("n")
            assert far.cache.get("n") is None

        left = server.get(at)
        assert left is None or left == frame
        if left is not None:  # it looks like another version's, or stale: of use to somebody
            assert frame[3:4] != b"\x01" or int.from_bytes(frame[10:16]) <= time.time() * 1000
        far.cache.set("n", 1)
        assert far.cache.incr("n") == 2

    @pytest.mark.parametrize("bit", [0x01, 0x10, 0x80])
    def test_wherever_it_was(self, counter: Far, server: redis.Redis, at: str, bit: int) -> None:
        for position in range(len(server.get(at))):
            counter.cache.set("n", self.NUMBER)
            frame = server.get(at)
            altered = frame[:position] + bytes([frame[position] ^ bit]) + frame[position + 1 :]

            self.is_not_counted(counter, server, at, altered)

    def test_whatever_digits_stand_there_instead(self, counter: Far, server: redis.Redis, at: str) -> None:
        frame = server.get(at)
        others = ["42", "40", "-1", "99", "00", "4", "410", "", "1e5", "4.1", " 4", "9" * 15, "9" * 40]
        for digits in others:
            self.is_not_counted(counter, server, at, frame[:-6] + digits.encode() + frame[-4:])

    def test_however_long_it_is(self, counter: Far, server: redis.Redis, at: str) -> None:
        frame = server.get(at)
        for length in range(len(frame)):
            self.is_not_counted(counter, server, at, frame[:length])
        for more in (b"1", b"\x00", b"\xff" * 4, frame):
            self.is_not_counted(counter, server, at, frame + more)

    @pytest.mark.parametrize("delta", [1, 10**16])
    def test_what_another_version_wrote_is_left_alone(
        self, counter: Far, server: redis.Redis, at: str, delta: int
    ) -> None:
        frame = server.get(at)
        newer = frame[:3] + bytes([frame[3] + 1]) + frame[4:]
        server.set(at, newer)

        with pytest.raises(KeyNotFound):
            counter.cache.incr("n", delta)
        assert counter.cache.touch("n", 50) is False

        assert server.get(at) == newer

    def test_nor_is_the_counter_of_another_key_or_cache(
        self, counter: Far, open_cache: Opener, server: redis.Redis, at: str, prefix: str
    ) -> None:
        counter.cache.set("another", self.NUMBER)
        self.is_not_counted(counter, server, at, server.get(f"{prefix}:c:another"))
        assert counter.cache.get("another") == self.NUMBER

    @given(st.binary(max_size=80))
    @settings(max_examples=30)
    def test_nor_is_anything_else(self, foreign: bytes) -> None:
        self.is_not_counted(*self.outside, foreign)

    @pytest.fixture(autouse=True)
    def _outside(self, counter: Far, server: redis.Redis, at: str) -> None:
        self.outside = counter, server, at

    @pytest.mark.parametrize("kind", ["list", "hash", "stream", "set"])
    def test_nor_is_another_type(self, counter: Far, server: redis.Redis, at: str, kind: str) -> None:
        server.delete(at)
        {
            "list": lambda: server.rpush(at, "1"),
            "hash": lambda: server.hset(at, "n", "1"),
            "stream": lambda: server.xadd(at, {"n": 1}),
            "set": lambda: server.sadd(at, "1"),
        }[kind]()

        with pytest.raises(KeyNotFound):
            counter.cache.incr("n")
        assert counter.cache.get("n") is None

        counter.cache.set("n", 1)
        assert counter.cache.incr("n") == 2
        assert value(counter.plain.get("n")) == 2
