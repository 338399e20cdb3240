"""What others leave under our names: a miss that is counted, costs no memory, and goes with the next write.

And the names themselves: no application, cache or key can reach into another's.
"""

from __future__ import annotations

import os
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import uuid4

import pytest
import redis
import zstandard
from calling import both_faces, open_face
from face import Face
from hypothesis import example, given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from layercache import Caches, KeyNotFound
from layercache.codecs.frame import pack, unpack
from layercache_redis.names import Names, log_name, shards_name

MB = 1 << 20
LIMIT = MB


@dataclass
class Spoiler:
    """Puts something under the name of the key `k`, whose own value was 41."""

    server: redis.Redis
    prefix: str

    @property
    def at(self) -> str:
        return f"{self.prefix}:default:k"

    def put(self, content: bytes) -> None:
        self.server.set(self.at, content, px=60_000)

    def framed(self, payload: bytes, *stages: str) -> bytes:
        """A frame that is right in all but its payload."""
        frame, at = self.server.get(self.at), self.at.encode()
        return pack(unpack(frame, at)._replace(payload=payload, stages=("json", *stages)), at)

    def spoil(self, kind: str) -> None:
        frame = self.server.get(self.at)
        match kind:
            case "junk":
                self.put(b"hello")
            case "empty":
                self.put(b"")
            case "digits":
                self.put(b"41")
            case "zeros":
                self.put(bytes(64))
            case "magic":
                self.put(b"\xabLC\x01")
            case "cut":
                self.put(frame[:-1])
            case "extended":
                self.put(frame + b"\0")
            case "misplaced":
                self.put(self.server.get(f"{self.prefix}:default:elsewhere"))
            case "of another codec":
                self.put(self.framed(b"41", "rot13"))
            case "newer":
                self.put(newer(frame))
            case "a bomb that says so":
                self.put(self.framed(bomb(), "zstd"))
            case "a bomb that lies":
                self.put(self.framed(lying_bomb(), "zstd"))
            case "a bomb that says nothing":
                self.put(self.framed(bomb(says_its_size=False), "zstd"))
            case "a claim of 1 GB":
                self.put(
                    self.framed(b"\x28\xb5\x2f\xfd\xe0" + (1 << 30).to_bytes(8, "little") + b"\1\0\0", "zstd")
                )
            case "too large":
                self.put(self.framed(b'"' + b"x" * LIMIT + b'"'))
            case "list":
                self.server.delete(self.at)
                self.server.rpush(self.at, "a", "b")
            case "hash":
                self.server.delete(self.at)
                self.server.hset(self.at, "a", "b")
            case "stream":
                self.server.delete(self.at)
                self.server.xadd(self.at, {"a": "b"})
            case "set":
                self.server.delete(self.at)
                self.server.sadd(self.at, "a")


KINDS = [
    "junk", "empty", "digits", "zeros", "magic", "cut", "extended", "misplaced", "of another codec", "newer",
    "a bomb that says so", "a bomb that lies", "a bomb that says nothing", "a claim of 1 GB", "too large",
    "list", "hash", "stream", "set",
]  # fmt: skip


def newer(frame: bytes) -> bytes:
    return frame[:3] + b"\2" + frame[4:]


@cache
def bomb(*, says_its_size: bool = True) -> bytes:
    """300 MB of JSON text in 10 kB."""
    size = 300 * MB
    compressor = zstandard.ZstdCompressor(level=1, write_content_size=says_its_size)
    stream = compressor.compressobj(size=size if says_its_size else -1)
    parts = [stream.compress(b" " * MB) for _ in range(size // MB)]
    return b"".join([*parts, stream.flush()])


@cache
def lying_bomb() -> bytes:
    """Says 1,000 bytes and holds 100 MB, in blocks of one byte that is repeated 128 kB times."""
    blocks = 800
    block = (1 << 17) << 3 | 1 << 1
    parts = [(block | (number == blocks - 1)).to_bytes(3, "little") + b" " for number in range(blocks)]
    return b"\x28\xb5\x2f\xfd\x60" + (1000 - 256).to_bytes(2, "little") + b"".join(parts)


@contextmanager
def spoilt(kind: str, server: redis.Redis, url: str, prefix: str) -> Iterator[tuple[Face, Spoiler]]:
    options = {"prefix": prefix, "codecs": ["json", "zstd"], "max_value_bytes": LIMIT}
    with open_face(kind, url, **options) as face:
        face.set_many({"k": 41, "elsewhere": 7, "good": 8})
        yield face, Spoiler(server, prefix)


def foreign(face: Face) -> int:
    return face.cache.stats().layers[0].gauges["foreign"]


READS: dict[str, Callable[[Face], bool]] = {
    "get": lambda face: face.get("k", "missing") == "missing",
    "get_many": lambda face: face.get_many(["good", "k", "elsewhere"]) == {"good": 8, "elsewhere": 7},
    "has_key": lambda face: face.has_key("k") is False,
    "ttl_left": lambda face: face.ttl_left("k") == 0.0,
}

HEALS: dict[str, Callable[[Face], Any]] = {
    "set": lambda face: face.set("k", "new"),
    "set_many": lambda face: face.set_many({"l": 1, "k": "new"}),
    "add": lambda face: face.add("k", "new") or pytest.fail("not added"),
    "get_or_set": lambda face: face.get_or_set("k", lambda: "new"),
    "delete": lambda face: (face.delete("k"), face.add("k", "new")),
    "touch, then add": lambda face: (face.touch("k"), face.add("k", "new")),
    "clear, then add": lambda face: (face.clear(), face.add("k", "new")),
}


@both_faces
@pytest.mark.parametrize("what", KINDS)
class TestEachKind:
    def test_each_read_misses_it_and_counts_it(
        self, server: redis.Redis, server_url: str, prefix: str, kind: str, what: str
    ) -> None:
        with spoilt(kind, server, server_url, prefix) as (face, spoiler):
            spoiler.spoil(what)
            for count, (name, misses) in enumerate(READS.items(), 1):
                assert misses(face), name
                assert foreign(face) == count, name

    def test_each_write_heals_it(
        self, server: redis.Redis, server_url: str, prefix: str, kind: str, what: str
    ) -> None:
        with spoilt(kind, server, server_url, prefix) as (face, spoiler):
            for name, heal in HEALS.items():
                face.set_many({"k": 41, "elsewhere": 7})
                spoiler.spoil(what)
                heal(face)
                assert face.get("k") == "new", name
                assert 0 < server.pttl(spoiler.at) <= 60_000, name

    def test_to_incr_and_touch_nothing_is_there(
        self, server: redis.Redis, server_url: str, prefix: str, kind: str, what: str
    ) -> None:
        with spoilt(kind, server, server_url, prefix) as (face, spoiler):
            for delta in (1, -1, 10**15):
                face.set("k", 41)
                spoiler.spoil(what)
                with pytest.raises(KeyNotFound):
                    face.incr("k", delta)
                assert face.get("k") is None
                assert face.touch("k") is False
                face.set("k", 5)
                assert face.incr("k") == 6

    def test_delete_finds_nothing_there(
        self, server: redis.Redis, server_url: str, prefix: str, kind: str, what: str
    ) -> None:
        with spoilt(kind, server, server_url, prefix) as (face, spoiler):
            spoiler.spoil(what)
            if what in {"list", "hash", "stream", "set", "junk", "empty", "digits", "zeros", "newer"}:
                assert face.delete("k") is False
            else:  # its head is in order; who deletes does not read on
                face.delete("k")
            assert not server.exists(spoiler.at)


class TestNewerVersions:
    """What a next version of ours has written is somebody's: not read, and left to who can read it."""

    @both_faces
    def test_what_changes_in_place_leaves_it_there(
        self, server: redis.Redis, server_url: str, prefix: str, kind: str
    ) -> None:
        with spoilt(kind, server, server_url, prefix) as (face, spoiler):
            spoiler.spoil("newer")
            frame = server.get(spoiler.at)
            for delta in (1, 10**15, -(10**17)):
                with pytest.raises(KeyNotFound):
                    face.incr("k", delta)
                assert server.get(spoiler.at) == frame
            with pytest.raises(KeyNotFound):
                face.typed(list[int]).incr("k")
            assert face.touch("k", 20) is False
            assert face.touch("k", None) is False
            assert face.get("k") is None
            assert server.get(spoiler.at) == frame
            assert 20_000 < server.pttl(spoiler.at) <= 60_000


@both_faces
@pytest.mark.parametrize(
    "value", [41, "some text", {"a": [1, 2.5, None]}, "x" * 400], ids=["int", "text", "dict", "zstd"]
)
def test_a_frame_that_was_altered_anywhere_is_a_miss_to_all(
    server: redis.Redis, server_url: str, prefix: str, kind: str, value: Any
) -> None:
    """At each byte: a bit, the top bit, or all of it; and each beginning of it."""
    with spoilt(kind, server, server_url, prefix) as (face, spoiler):
        face.set("k", value)
        frame = server.get(spoiler.at)
        masks = (0x01, 0x80, 0xFF) if kind == "sync" else (0x11,)
        altered = [
            frame[:at] + bytes([frame[at] ^ mask]) + frame[at + 1 :]
            for at in range(len(frame))
            for mask in masks
        ]
        altered += [frame[:at] for at in range(0, len(frame), 3)]
        spoiler.put(frame)
        assert face.get("k") == value
        for content in altered:
            spoiler.put(content)
            assert face.get("k", "missing") == "missing", content
            with pytest.raises(KeyNotFound):
                face.incr("k")
            spoiler.put(content)
            assert face.touch("k") is False, content
            assert face.add("k", "new") is True, content
            assert face.get("k") == "new", content


@given(data=st.data())
@settings(max_examples=60)
def test_whatever_happens_to_a_frame_it_is_the_value_or_a_miss(
    server: redis.Redis, server_url: str, data: st.DataObject
) -> None:
    with spoilt("sync", server, server_url, f"t{uuid4().hex[:12]}") as (face, spoiler):
        frame = server.get(spoiler.at)
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(frame)))
            to = data.draw(st.integers(at, min(len(frame), at + 8)))
            frame = frame[:at] + data.draw(st.binary(max_size=8) | st.just(frame[at:to] * 2)) + frame[to:]
        verbs = data.draw(
            st.lists(st.sampled_from(["get", "get_many", "incr", "touch", "add"]), min_size=1, max_size=4)
        )
        spoiler.put(frame)
        expected: Any = 41
        for verb in verbs:
            match verb:
                case "get":
                    assert face.get("k") in (expected, None)
                case "get_many":
                    assert face.get_many(["k"]) in ({"k": expected}, {})
                case "incr":
                    try:
                        expected = face.incr("k")
                    except KeyNotFound:
                        assert face.get("k") is None
                        break
                    assert expected >= 42
                case "touch":
                    if not face.touch("k"):
                        assert face.get("k") is None
                case "add":
                    if face.add("k", 41):
                        expected = 41
                        assert face.get("k") == 41


class TestMemory:
    @pytest.mark.parametrize("what", [kind for kind in KINDS if "bomb" in kind or "claim" in kind])
    @pytest.mark.parametrize("verb", ["get", "get_many", "incr", "touch", "add", "get_or_set"])
    def test_a_bomb_takes_no_more_than_a_few_times_what_may_be_read(
        self, server: redis.Redis, server_url: str, prefix: str, what: str, verb: str
    ) -> None:
        calls: dict[str, Callable[[Face], Any]] = {
            "get": lambda face: face.get("k"),
            "get_many": lambda face: face.get_many(["k", "good"]),
            "incr": refused_incr,
            "touch": lambda face: face.touch("k"),
            "add": lambda face: face.add("k", 1),
            "get_or_set": lambda face: face.get_or_set("k", lambda: 1),
        }
        with spoilt("sync", server, server_url, prefix) as (face, spoiler):
            face.get("good")
            spoiler.spoil(what)

            assert peak(lambda: calls[verb](face)) < 3 * LIMIT

    def test_a_bomb_of_gzip_too(self, server: redis.Redis, server_url: str, prefix: str) -> None:
        options = {"prefix": prefix, "codecs": ["json", "gzip"], "max_value_bytes": LIMIT}
        with open_face("sync", server_url, **options) as face:
            face.set("k", 41)
            spoiler = Spoiler(server, prefix)
            spoiler.put(spoiler.framed(zlib.compress(b" " * (100 * MB), wbits=31), "gzip"))

            assert peak(lambda: face.get("k")) < 4 * LIMIT
            assert face.get("k") is None
            assert foreign(face) == 2

    @both_faces
    def test_a_huge_value_is_a_miss_and_nothing_of_it_stays(
        self, server: redis.Redis, server_url: str, prefix: str, kind: str
    ) -> None:
        """40 MB. It crosses the network, as the server gives no part of a value without another round trip."""
        with spoilt(kind, server, server_url, prefix) as (face, spoiler):
            server.set(spoiler.at, os.urandom(MB) * 40, px=60_000)
            before = resident()

            for count, (name, misses) in enumerate(READS.items(), 1):
                assert misses(face), name
                assert foreign(face) == count
            assert face.touch("k") is False
            assert not server.exists(spoiler.at)
            face.set("k", "new")

            assert face.get("k") == "new"
            assert resident() - before < 20 * MB


def refused_incr(face: Face) -> None:
    with pytest.raises(KeyNotFound):
        face.incr("k")


def peak(call: Callable[[], object]) -> int:
    """The bytes of Python's own that `call` took at most."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# -- what is ours but holds no value


@both_faces
@pytest.mark.parametrize("name", ["%tag:default:*", "%dict:default", "%log", "%lease:{{prefix}:default:k}"])
@pytest.mark.parametrize("what", ["list", "hash", "junk", "empty", "8 bytes", "digits"])
def test_whatever_stands_where_we_keep_our_own_books_every_verb_works(
    server: redis.Redis, server_url: str, prefix: str, kind: str, name: str, what: str
) -> None:
    at = f"{prefix}:{name}".replace("{prefix}", prefix)
    with spoilt(kind, server, server_url, prefix):
        pass

    def spoil() -> None:
        server.delete(at)
        match what:
            case "list":
                server.rpush(at, "a")
            case "hash":
                server.hset(at, "a", "b")
            case "junk":
                server.set(at, "hello, who is there?")
            case "empty":
                server.set(at, "")
            case "8 bytes":
                server.set(at, "8 bytes.")
            case "digits":
                server.set(at, "9" * 5000)

    expected = (41, None) if name.startswith("%tag") else (41,)
    for verb, works in {
        "get": lambda face: face.get("k") in expected,
        "get_many": lambda face: (
            face.get_many(["k"]) in [{} if value is None else {"k": value} for value in expected]
        ),
        "set": lambda face: face.set("k", 41) is None and face.get("k") == 41,
        "set_many": lambda face: face.set_many({"k": 41}) == [] and face.get("k") == 41,
        "add": lambda face: face.add(uuid4().hex, 1) is True,
        "touch": lambda face: face.touch("k", 50) in (True, False),
        "incr": lambda face: face.get_or_set("n", lambda: 1) and face.incr("n") >= 2,
        "delete": lambda face: face.delete("k") in (True, False) and face.get("k") is None,
        "get_or_set": lambda face: face.get_or_set("k", lambda: 41) == 41 and face.get("k") == 41,
        "clear": lambda face: face.clear() is None and face.get("k") is None,
    }.items():
        spoil()
        options = {"prefix": prefix, "codecs": ["json", "zstd"], "max_value_bytes": LIMIT}
        with open_face(kind, server_url, **options) as face:
            assert works(face), verb


# -- names


NASTY = st.sampled_from([
    ":", "%", "%25", "%3A", "%log", "%lease:", "%tag:", "%dict:", "%tag:c:*", "%dict:c", "%dict:c:1", "{p:c:k}",
    "{", "}", "{}", "*", "?", "[a]", "\\", " ", "\n", "\0", "p", "c", "k", "p:c", "c:k", "log", "tag", "dict", "1",
    "é", "삼", "e\N{COMBINING ACUTE ACCENT}", "\N{NO-BREAK SPACE}", "\N{LINE SEPARATOR}",
])  # fmt: skip
ANY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=3)
WORDS = st.lists(NASTY | ANY, min_size=1, max_size=4).map("".join)


def all_names(prefix: str, cache: str, words: list[str]) -> dict[bytes, tuple[Any, ...]]:
    """Every kind of name that a cache has, for each of `words`; the log belongs to the application."""
    names = Names(prefix, cache)
    found: dict[bytes, tuple[Any, ...]] = {}

    def add(name: bytes, *what: Any) -> None:
        assert found.setdefault(name, what) == what, (name, found[name], what)

    for number in (0, 1, 63):
        add(log_name(prefix, number), prefix, "log", number)
    add(shards_name(prefix), prefix, "shards")
    add(names.dictionary(), prefix, cache, "dictionary")
    add(names.marks, prefix, cache, "marks")
    for id in (0, 1, 10, 32_768):
        add(names.dictionary(id), prefix, cache, "dictionary", id)
    for word in ["*", *words]:
        value = names.value(word)
        add(value, prefix, cache, "value", word)
        add(names.lease(value), prefix, cache, "lease", word)
        add(names.stamp(word), prefix, cache, "stamp", word)
    return found


@given(
    ones=st.tuples(WORDS, WORDS),
    others=st.tuples(WORDS, WORDS),
    words=st.lists(WORDS, max_size=4),
    other_words=st.lists(WORDS, max_size=4),
)
@example(ones=("p", "c"), others=("p", "c:k"), words=["k", "k:k"], other_words=["k"])
@example(ones=("p", "c"), others=("p:c", "k"), words=["k", "k:k"], other_words=["k"])
@example(ones=("p", "%tag"), others=("p", "c"), words=["c:*", "c:t"], other_words=["t"])
@example(ones=("p", "%dict"), others=("p", "c"), words=["c", "c:1"], other_words=["t"])
@example(ones=("p", "%lease"), others=("p", "c"), words=["{p:c:k}"], other_words=["k"])
@example(ones=("p", "%log"), others=("p", "c"), words=["k"], other_words=["k"])
@example(ones=("p", "%marks"), others=("p", "c"), words=["c"], other_words=["k"])
@example(ones=("p%3Ac", "k"), others=("p:c", "k"), words=["k"], other_words=["k"])
@settings(max_examples=200)
def test_no_two_things_have_one_name(
    ones: tuple[str, str], others: tuple[str, str], words: list[str], other_words: list[str]
) -> None:
    """Each name says which application, which cache, which kind and which key it is for: none says two of these."""
    mine, theirs = all_names(*ones, words), all_names(*others, other_words)

    for name in mine.keys() & theirs.keys():
        assert mine[name] == theirs[name]
    applications = [Names(*each).values.encode()[: Names(*each).application] for each in (ones, others)]
    for names, application in zip((mine, theirs), applications, strict=True):
        for name in names:
            assert name.startswith(application)
            assert not any(byte <= 0x20 or byte == 0x7F for byte in name)
    if ones[0] != others[0]:
        # so a SCAN for all of one application's finds nothing of the other's, and the log leaves nothing of it out
        assert not any(name.startswith(applications[1]) for name in mine)
        assert not any(name.startswith(applications[0]) for name in theirs)
    for character in "*?[]\\{}":
        assert character not in Names(*ones).values


@given(prefix=WORDS, cache=WORDS, word=WORDS)
@settings(max_examples=200)
def test_a_value_is_in_one_slot_with_its_lease(prefix: str, cache: str, word: str) -> None:
    names = Names(prefix, cache)
    value = names.value(word)

    assert b"{" not in value
    assert b"}" not in value
    assert key_slot(names.lease(value)) == key_slot(value)


@given(
    prefixes=st.lists(WORDS, min_size=2, max_size=2, unique=True),
    keys=st.lists(WORDS, min_size=1, max_size=3, unique=True),
)
@settings(max_examples=15)
def test_nothing_one_application_does_is_seen_by_another(
    server_url: str, prefixes: list[str], keys: list[str]
) -> None:
    run = uuid4().hex[:8]

    def world(prefix: str) -> Caches:
        far = {
            "type": "redis",
            "url": server_url,
            "prefix": run + prefix,
            "timeout": "10s",
            "codecs": ["json", "zstd"],
        }
        return Caches({"backends": {"far": far}, "caches": {"c": {"backend": "far", "ttl": 10}}})

    with world(prefixes[0]) as ours, world(prefixes[1]) as theirs:
        mine, others = ours["c"], theirs["c"]
        others.set_many({key: f"theirs {key}" for key in keys})
        count = {key: f"theirs {key}" for key in keys}
        space = mine._layer.space
        for key in keys:
            assert mine.get(key) is None
            assert mine.delete(key) is False
            assert mine.touch(key) is False
            assert mine.add(key, 1) is True
            assert mine.incr(key) == 2
            space.invalidate([key])
            for each, token in ((space, b"token"), (others._layer.space, b"another")):
                assert each.lease_many([f"{key}!"], token, 5)[f"{key}!"].state == "granted"
            assert others.get_many(keys) == count
        mine.set_many(dict.fromkeys(keys, "mine"))
        mine.clear()
        assert mine.get_many(keys) == {}
        assert others.get_many(keys) == count
        assert others.stats().layers[0].gauges["foreign"] == 0
        others.clear()


def test_the_caches_of_one_backend_keep_apart(server_url: str, prefix: str) -> None:
    names = ["c", "c2", "c-c", "c_c", "c.c", "tag", "log", "dict"]
    backend = {"type": "redis", "url": server_url, "prefix": prefix}
    with Caches(
        {"backends": {"far": backend}, "caches": {name: {"backend": "far"} for name in names}}
    ) as world:
        caches = [world[name] for name in names]
        keys = ["k", "*", "c:*", "c:k", "%25", "%log"]
        for cache in caches:
            cache.set_many(dict.fromkeys(keys, cache.name), 20)
        while caches:
            cleared = caches.pop()
            cleared.clear()
            assert cleared.get_many(keys) == {}
            for cache in caches:
                assert cache.get_many(keys) == dict.fromkeys(keys, cache.name)
