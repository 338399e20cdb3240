"""One round trip a verb: counted by the server, which reads once what was sent and writes once what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest
import redis
from far import FACES, Far, entry, face

from layercache import Caches
from layercache.testing import ValkeyServer

HUNDRED = [str(number) for number in range(100)]
THIRTY = HUNDRED[
    :30
]  # calls of a script, each for one key: a server reads 16 kB at a time, and reads are what is counted


@pytest.fixture(scope="module")
def alone() -> Iterator[ValkeyServer]:
    """A server whose reads are of nobody but these tests."""
    with ValkeyServer() as server:
        yield server


@pytest.fixture(scope="module")
def counting(alone: ValkeyServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(alone.url) as client:
        yield client


@pytest.fixture(scope="module", params=FACES)
def far(request: pytest.FixtureRequest, alone: ValkeyServer) -> Iterator[Far]:
    """A cache whose log stands still, as the log's thread would be counted too; connected, with its scripts loaded."""
    backend = {"type": "redis", "url": alone.url, "prefix": "p", "timeout": "10s"}
    settings = {"backends": {"far": backend}, "caches": {"c": {"backend": "far", "ttl": 60}}}
    with Caches(settings) as world, face(request.param) as runner:
        far = Far(world["c"], runner).hear_nothing_more()
        load_scripts(far)
        yield far


def load_scripts(far: Far) -> None:
    for verb in VERBS.values():
        verb.before(far)
        verb.act(far)


class Verb(NamedTuple):
    """What is counted, and what comes before it that is not."""

    act: Callable[[Far], Any]
    before: Callable[[Far], Any] = lambda far: far.space.set("k", entry(1))


def leased(far: Far, keys: Sequence[str] = ("k",)) -> None:
    far.space.delete_many(keys)
    leases = far.space.lease_many(keys, b"a", 10)
    far.loaded = {key: entry(stamps=lease.stamps) for key, lease in leases.items()}
    far.mark = leases[keys[0]].mark


def invalidated(far: Far) -> None:
    """There are marks, and stamps of the tags."""
    far.space.invalidate(["t", "u"])
    leased(far)


VERBS = {
    "get": Verb(lambda far: far.cache.get("k")),
    "get, a miss": Verb(lambda far: far.cache.get("nothing")),
    "get_many": Verb(
        lambda far: far.cache.get_many(HUNDRED),
        before=lambda far: far.cache.set_many(dict.fromkeys(HUNDRED, 1)),
    ),
    "has_key": Verb(lambda far: far.cache.has_key("k")),
    "ttl_left": Verb(lambda far: far.cache.ttl_left("k")),
    "set": Verb(lambda far: far.cache.set("k", 2)),
    "set, for ever": Verb(lambda far: far.cache.set("k", 2, None)),
    "set_many": Verb(lambda far: far.cache.set_many(dict.fromkeys(HUNDRED, 2))),
    "add, stored": Verb(lambda far: far.cache.add("k", 2), before=lambda far: far.space.delete("k")),
    "add, not stored": Verb(lambda far: far.cache.add("k", 2)),
    "touch": Verb(lambda far: far.cache.touch("k", 50)),
    "touch, a miss": Verb(lambda far: far.cache.touch("nothing", 50)),
    "incr": Verb(lambda far: far.cache.incr("k")),
    "decr": Verb(lambda far: far.cache.decr("k", 10)),
    "delete": Verb(lambda far: far.cache.delete("k")),
    "delete, a miss": Verb(lambda far: far.cache.delete("nothing")),
    "delete_many": Verb(
        lambda far: far.cache.delete_many(HUNDRED),
        before=lambda far: far.cache.set_many(dict.fromkeys(HUNDRED, 1)),
    ),
    "clear": Verb(lambda far: far.cache.clear()),
    "get, after a clear": Verb(lambda far: far.cache.get("k"), before=lambda far: far.cache.clear()),
    "set, after a clear": Verb(lambda far: far.cache.set("k", 1), before=lambda far: far.cache.clear()),
    "get_or_set, a hit": Verb(lambda far: far.cache.get_or_set("k", lambda: 1)),
    "invalidate": Verb(lambda far: far.space.invalidate(["t", "u"])),
    "lease, fresh": Verb(lambda far: far.space.lease("k", b"a", 10)),
    "lease, granted": Verb(
        lambda far: far.space.lease("k", b"a", 10), before=lambda far: far.space.delete("k")
    ),
    "lease, busy": Verb(lambda far: far.space.lease("k", b"b", 10), before=leased),
    "lease_many": Verb(
        lambda far: far.space.lease_many(THIRTY, b"b", 10, 0.0, ["t", "u"]),
        before=lambda far: far.space.delete_many(THIRTY),
    ),
    "fill": Verb(lambda far: far.space.fill("k", b"a", far.loaded["k"]), before=leased),
    "fill, void": Verb(lambda far: far.space.fill("k", b"b", far.loaded["k"]), before=leased),
    "fill_many": Verb(
        lambda far: far.space.fill_many(b"a", far.loaded), before=lambda far: leased(far, THIRTY)
    ),
    "release": Verb(lambda far: far.space.release("k", b"a"), before=leased),
    "release_many": Verb(
        lambda far: far.space.release_many(THIRTY, b"a", 5), before=lambda far: leased(far, THIRTY)
    ),
    "late_stamps": Verb(lambda far: far.space.late_stamps(["t", "u"], far.mark), before=invalidated),
    "late_stamps, without marks": Verb(
        lambda far: far.space.late_stamps(["t", "u"], None), before=invalidated
    ),
}


def round_trips(counting: redis.Redis, act: Callable[[], Any]) -> tuple[int, int]:
    """How often the server read and wrote for `act`; the counting costs one of each."""

    def counted() -> tuple[int, int]:
        stats = counting.info("stats")
        return stats["total_reads_processed"], stats["total_writes_processed"]

    reads, writes = counted()
    act()
    reads_by_then, writes_by_then = counted()
    return reads_by_then - reads - 1, writes_by_then - writes - 1


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_is_one_round_trip(far: Far, counting: redis.Redis, name: str) -> None:
    verb = VERBS[name]
    verb.before(far)

    assert round_trips(counting, lambda: verb.act(far)) == (1, 1)


@pytest.mark.parametrize("name", ["get", "get, a miss", "get_many", "has_key", "ttl_left"])
def test_a_read_is_one_even_where_the_stamp_is_not_known(far: Far, counting: redis.Redis, name: str) -> None:
    verb = VERBS[name]
    verb.before(far)
    far.known.forget()

    assert round_trips(counting, lambda: verb.act(far)) == (1, 1)


@pytest.mark.parametrize(
    "name",
    [
        "touch",
        "incr",
        "decr",
        "delete",
        "delete_many",
        "lease, granted",
        "lease_many",
        "fill",
        "fill_many",
        "release_many",
        "late_stamps",
        "clear",
    ],
)
def test_so_is_a_write_that_stores_no_frame_of_its_own(far: Far, counting: redis.Redis, name: str) -> None:
    verb = VERBS[name]
    verb.before(far)
    far.known.forget()

    assert round_trips(counting, lambda: verb.act(far)) == (1, 1)
    far.plain.get("k")  # knows it again


@pytest.mark.parametrize("name", ["set", "set_many", "add, stored"])
def test_one_that_does_is_told_the_stamp_and_sent_again(far: Far, counting: redis.Redis, name: str) -> None:
    verb = VERBS[name]
    verb.before(far)
    far.known.forget()

    assert round_trips(counting, lambda: verb.act(far)) == (2, 2)
    assert round_trips(counting, lambda: verb.act(far)) == (1, 1)


def test_tags_whose_stamps_are_known_cost_nothing_and_others_one(far: Far, counting: redis.Redis) -> None:
    far.space.set("tagged", entry(stamps=far.space.stamps(["t", "u"])))
    assert round_trips(counting, lambda: far.space.get("tagged")) == (1, 1)
    assert round_trips(counting, lambda: far.space.stamps(["t", "u"])) == (0, 0)

    far.known.forget("t")
    far.known.forget("u")
    assert round_trips(counting, lambda: far.space.get("tagged")) == (2, 2)
    assert round_trips(counting, lambda: far.space.get("tagged")) == (1, 1)


@pytest.mark.parametrize("name", ["incr", "set_many", "delete", "lease, granted", "fill", "release"])
def test_a_script_that_the_server_has_forgotten_costs_one_more_once(
    far: Far, counting: redis.Redis, name: str
) -> None:
    verb = VERBS[name]
    verb.before(far)
    counting.script_flush()

    assert round_trips(counting, lambda: verb.act(far)) == (2, 2)
    assert round_trips(counting, lambda: verb.act(far)) == (1, 1)
    load_scripts(far)


def test_the_log_costs_its_own_few_and_no_verb_any(counting: redis.Redis, alone: ValkeyServer) -> None:
    """One follower asks four times a `max_staleness`, and no more often for all that is written in the meantime."""
    backend = {"type": "redis", "url": alone.url, "prefix": "q", "timeout": "10s"}
    settings = {"backends": {"far": backend}, "caches": {"c": {"backend": "far", "ttl": 60}}}
    with Caches(settings) as world:
        far = Far(world["c"]).follow()
        far.cache.set("k", 1)

        def thousand_writes() -> None:
            for number in range(1_000):
                far.cache.set("k", number)

        reads, _ = round_trips(counting, thousand_writes)

        assert 1_000 <= reads < 1_500
