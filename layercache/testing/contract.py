"""What every backend promises, as tests: subclass `BackendContract`, give it a backend and a way to pass time.

    class TestToy(BackendContract):
        @pytest.fixture
        def backend(self):
            self.clock = Clock()
            backend = open_backend("toy", now=self.clock)
            yield backend
            backend.close()

        def pass_time(self, seconds):
            self.clock.advance(seconds)

Each fact is checked through the sync operations and through their async twins. A promise that a
backend cannot keep is a class attribute: `remembers = False` for one that stores nothing. A backend whose key
spaces are `LeasingKeySpace`s keeps the `LeasingContract`, which holds the other one too.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any, ClassVar, TypeVar

import pytest

from layercache.config import read_settings
from layercache.entry import CACHE_TAG, MISSING, Entry, Stamps
from layercache.errors import CacheError, CannotList, InvalidOption
from layercache.spi import Backend, KeySpace, Lease, LeasingKeySpace, Opening, Sight

__all__ = ["BackendContract", "LeasingContract", "Operations", "open_backend"]

T = TypeVar("T", bound=Callable[..., None])

_ODD_KEYS = (
    "a", "A", "a:b", "a*", "a?", "[a]", "{a}", "a b", "a\nb", "a%3Ab", "a\\", "가격:삼성전자", "🙂", "%", "a" * 500,
)  # fmt: skip

_AHEAD = 5.0
"""Seconds by which a store that counts them itself may be ahead of a test's clock, which stands still."""


def open_backend(type_: str, *, now: Callable[[], float], **options: Any) -> Backend:
    """Open a backend by its type, outside of any settings file.

    Args:
        type_: the name it is offered under.
        now: the wall clock in seconds.
        options: as in the settings. A chain's `layers` may be a mapping of names to tables.

    Raises `ConfigError` for options that are not right.
    """
    layers = options.get("layers")
    others = dict(layers) if isinstance(layers, dict) else {}
    if others:
        options["layers"] = list(others)
    name = f"the-{type_}"
    backends = {name: {"type": type_, **options}, **others}
    settings = read_settings({"backends": backends, "caches": {"default": {"backend": name}}})

    def opened(wanted: str) -> Backend:
        chosen = settings.backends[wanted]
        return chosen.open(Opening(wanted, chosen.options, now, opened))

    return opened(name)


@dataclass
class Operations:
    """The operations of a key space, called on one of its sides."""

    space: KeySpace
    runner: asyncio.Runner | None

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.runner is None:
                return getattr(self.space, operation)(*args, **kwargs)
            return self.runner.run(getattr(self.space, f"a{operation}")(*args, **kwargs))

        return call


class _Refused(CacheError):
    """What a change of these tests raises."""


def _remembering(test: T) -> T:
    """Mark a fact that only holds for a backend that stores something."""
    test.remembering = True  # type: ignore[attr-defined]
    return test


def _finding(test: T) -> T:
    """Mark a fact that only holds for a backend that finds what carries a tag."""
    test.finding = True  # type: ignore[attr-defined]
    return test


def _softening(test: T) -> T:
    """Mark a fact that only holds for a backend that makes stale what was softly invalidated."""
    test.softening = True  # type: ignore[attr-defined]
    return test


def _excluding(test: T) -> T:
    """Mark a fact that only holds for a backend that lets one at a time load a key."""
    test.excluding = True  # type: ignore[attr-defined]
    return test


class BackendContract:
    """The facts. Give a `backend` fixture and `pass_time`.

    Attributes:
        remembers: whether it stores anything.
        finds_tagged: whether `invalidate` drops what carries the tag and nothing else.
        softens: whether a soft `invalidate` leaves that, as a stale entry.
    """

    remembers: ClassVar[bool] = True
    finds_tagged: ClassVar[bool] = True
    softens: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        cls._leave_out("remembering", unless=cls.remembers)
        cls._leave_out("finding", unless=cls.remembers and cls.finds_tagged)
        cls._leave_out("softening", unless=cls.remembers and cls.finds_tagged and cls.softens)

    @classmethod
    def _leave_out(cls, facts: str, *, unless: bool) -> None:
        for name in [] if unless else dir(cls):
            if getattr(getattr(cls, name), facts, False):
                setattr(cls, name, None)

    @pytest.fixture
    def backend(self) -> Any:
        raise NotImplementedError("a subclass of BackendContract gives the fixture `backend`")

    def pass_time(self, seconds: float) -> None:
        """Let `seconds` pass for the backend and for whatever stores its entries."""
        raise NotImplementedError("a subclass of BackendContract gives pass_time(seconds)")

    # -- arranging

    @pytest.fixture(params=["sync", "async"])
    def runner(self, request: pytest.FixtureRequest) -> Iterator[asyncio.Runner | None]:
        """Who runs an operation: nobody for those of the sync face, a loop for the others."""
        if request.param == "sync":
            yield None
        else:
            with asyncio.Runner() as runner:
                yield runner

    @pytest.fixture
    def space(self, backend: Backend, runner: asyncio.Runner | None) -> Iterator[Operations]:
        """The operations of a key space that is empty."""
        space = Operations(backend.key_space("contract"), runner)
        space.clear()
        yield space
        space.clear()
        if runner is not None:
            runner.run(backend.aclose())

    @pytest.fixture
    def entry(self, backend: Backend) -> Callable[..., Entry]:
        def entry(value: Any = "v", ttl: float = 60.0, stamps: Stamps = (), stale: float = 0.0) -> Entry:
            now = backend.now()
            payload, shared = (
                backend.serializer.dumps(value),
                value if isinstance(value, str | int) else MISSING,
            )
            return Entry(payload, shared, now, now + ttl, now + ttl + stale, stamps)

        return entry

    @pytest.fixture
    def value(self, backend: Backend) -> Callable[[Entry | None], Any]:
        """What an entry that came back holds, whether as a value or as bytes; `MISSING` where none came."""

        def value(entry: Entry | None) -> Any:
            if entry is None:
                return MISSING
            if entry.value is not MISSING:
                return entry.value
            assert entry.payload is not None
            return backend.serializer.loads(entry.payload)

        return value

    # -- one key

    def test_nothing_is_there_at_first(self, space: Operations) -> None:
        assert space.get("k") is None
        assert space.delete("k") is False
        assert space.get_many(["k", "l"]) == {}

    @_remembering
    @pytest.mark.parametrize("kept", ["text", 7, None, [1, {"a": None}], {"k": "v" * 5000}], ids=repr)
    def test_what_is_set_comes_back(self, space: Operations, entry: Any, value: Any, kept: Any) -> None:
        assert space.set("k", entry(kept)) is True

        assert value(space.get("k")) == kept

    @_remembering
    def test_the_last_set_counts(self, space: Operations, entry: Any, value: Any) -> None:
        space.set("k", entry("old", ttl=10))
        space.set("k", entry("new", ttl=60))

        self.pass_time(20)

        assert value(space.get("k")) == "new"

    @_remembering
    def test_times_come_back(self, space: Operations, backend: Backend) -> None:
        now = backend.now()
        made = Entry(b'"v"', MISSING, now, now + 30, now + 60)
        space.set("k", made)

        found = space.get("k")

        assert found.created_at == pytest.approx(now, abs=0.01)
        assert found.fresh_until == pytest.approx(now + 30, abs=0.01)
        assert found.dead_at == pytest.approx(now + 60, abs=_AHEAD)
        assert found.dead_at <= made.dead_at, "a store never lengthens a life"

    @_remembering
    def test_an_entry_is_gone_when_its_time_is_over(self, space: Operations, entry: Any, value: Any) -> None:
        space.set("k", entry("v", ttl=30))

        self.pass_time(20)
        assert value(space.get("k")) == "v"

        self.pass_time(20)
        assert space.get("k") is None
        assert space.get_many(["k"]) == {}
        assert space.delete("k") is False

    @_remembering
    def test_for_ever_is_for_ever(self, space: Operations, entry: Any, value: Any) -> None:
        space.set("k", entry("v", ttl=math.inf))

        self.pass_time(10 * 365 * 86_400)

        assert value(space.get("k")) == "v"
        assert space.get("k").dead_at == math.inf

    @_remembering
    def test_delete_says_whether_there_was_one(self, space: Operations, entry: Any) -> None:
        space.set("k", entry())

        assert space.delete("k") is True
        assert space.delete("k") is False
        assert space.get("k") is None

    # -- update

    @_remembering
    def test_update_sees_what_is_there_and_stores_what_it_gets(
        self, space: Operations, entry: Any, value: Any
    ) -> None:
        space.set("k", entry("old"))
        seen = []

        def change(found: Entry | None) -> Entry:
            seen.append(value(found))
            changed: Entry = entry("new")
            return changed

        assert value(space.update("k", change)) == "new"
        assert set(seen) == {"old"}
        assert value(space.get("k")) == "new"

    def test_update_sees_nothing_where_nothing_is(self, space: Operations, entry: Any, value: Any) -> None:
        space.set("dying", entry("v", ttl=30))
        self.pass_time(40)
        seen: list[Entry | None] = []

        def change(found: Entry | None) -> Entry:
            seen.append(found)
            made: Entry = entry("made")
            return made

        for key in ("never", "dying"):
            assert value(space.update(key, change)) == "made"

        assert set(seen) == {None}

    @_remembering
    def test_update_leaves_things_alone_for_none(self, space: Operations, entry: Any, value: Any) -> None:
        space.set("k", entry("v"))

        assert space.update("k", lambda _: None) is None
        assert space.update("other", lambda _: None) is None
        assert value(space.get("k")) == "v"
        assert space.get("other") is None

    @_remembering
    def test_update_passes_on_what_the_change_raises(self, space: Operations, entry: Any, value: Any) -> None:
        space.set("k", entry("v"))

        def refuse(_: Entry | None) -> Entry:
            raise _Refused

        with pytest.raises(_Refused):
            space.update("k", refuse)

        assert value(space.get("k")) == "v"

    @_remembering
    def test_no_update_is_lost_between_threads(self, backend: Backend, entry: Any, value: Any) -> None:
        space = backend.key_space("contract")
        space.set("n", entry(0))

        def count(_: int) -> None:
            space.update("n", lambda found: entry(value(found) + 1))

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(count, range(100)))

        assert value(space.get("n")) == 100
        space.clear()

    # -- several keys

    @_remembering
    def test_many_at_once(self, space: Operations, entry: Any, value: Any) -> None:
        assert space.set_many({"a": entry(1), "b": entry(2), "c": entry(3, ttl=5)}) == []
        self.pass_time(10)

        found = space.get_many(["b", "a", "c", "d"])

        assert {key: value(kept) for key, kept in found.items()} == {"a": 1, "b": 2}
        assert space.delete_many(["a", "d"]) == 1
        assert list(space.get_many(["a", "b"])) == ["b"]

    def test_none_at_once(self, space: Operations) -> None:
        assert space.get_many([]) == {}
        assert space.set_many({}) == []
        assert space.delete_many([]) == 0

    @_remembering
    def test_keys_of_any_characters_stay_apart(self, space: Operations, entry: Any, value: Any) -> None:
        for key in _ODD_KEYS:
            space.set(key, entry(key))

        assert {key: value(space.get(key)) for key in _ODD_KEYS} == {key: key for key in _ODD_KEYS}

    # -- key spaces

    @_remembering
    def test_caches_do_not_see_each_other(
        self, space: Operations, backend: Backend, entry: Any, value: Any
    ) -> None:
        other = Operations(backend.key_space("contract2"), space.runner)
        space.set("k", entry("here"))
        other.set("k", entry("there"))

        space.delete("k")
        assert value(other.get("k")) == "there"

        space.set("k", entry("here"))
        other.clear()
        assert other.get("k") is None
        assert value(space.get("k")) == "here"

    @_remembering
    def test_clear_drops_everything(self, space: Operations, entry: Any) -> None:
        space.set_many({str(number): entry(number) for number in range(1200)})

        space.clear()

        assert space.get_many([str(number) for number in range(1200)]) == {}

    @_remembering
    def test_the_same_name_is_the_same_key_space(
        self, space: Operations, backend: Backend, entry: Any, value: Any
    ) -> None:
        space.set("k", entry("v"))

        again = Operations(backend.key_space("contract"), space.runner)

        assert value(again.get("k")) == "v"

    # -- tags

    def test_stamps_name_every_tag(self, space: Operations) -> None:
        stamps = space.stamps(["t", "u"])

        assert [tag for tag, _ in stamps if tag != CACHE_TAG] == ["t", "u"]
        assert all(tag == CACHE_TAG for tag, _ in space.stamps([]))

    @_remembering
    def test_what_carries_tags_is_stored_as_anything_else(
        self, space: Operations, entry: Any, value: Any
    ) -> None:
        space.set("k", entry("k", stamps=space.stamps(["t"])))
        space.set_many({"l": entry("l", stamps=space.stamps(["u", "t"])), "m": entry("m")})

        assert value(space.get("k")) == "k"
        found = space.get_many(["k", "l", "m"])
        assert {key: value(kept) for key, kept in found.items()} == {"k": "k", "l": "l", "m": "m"}

    @pytest.mark.parametrize("tags", [["t"], ["u", "t"], ["t", "u", "v"]], ids=repr)
    def test_invalidate_drops_what_carries_one_of_the_tags(
        self, space: Operations, entry: Any, tags: list[str]
    ) -> None:
        for key, its in {"one": ["t"], "several": ["w", "t", "x"]}.items():
            space.set(key, entry(stamps=space.stamps(its)))

        space.invalidate(tags)

        assert space.get("one") is None
        assert space.get_many(["one", "several"]) == {}
        assert space.delete_many(["one", "several"]) == 0

    @_finding
    def test_invalidate_leaves_what_carries_none_of_them(
        self, space: Operations, entry: Any, value: Any
    ) -> None:
        space.set("another", entry("another", stamps=space.stamps(["u", "tt"])))
        space.set("none", entry("none"))
        space.set("no more", entry("old", stamps=space.stamps(["t"])))
        space.set("no more", entry("no more"))

        space.invalidate(["t", "of nothing"])

        assert {value(space.get(key)) for key in ("another", "none", "no more")} == {
            "another",
            "none",
            "no more",
        }

    @_remembering
    def test_an_update_may_carry_other_tags(self, space: Operations, entry: Any, value: Any) -> None:
        space.set("k", entry("old", stamps=space.stamps(["t"])))
        space.update("k", lambda found: found and found.living_again(50.0, found.created_at))
        assert value(space.get("k")) == "old"

        stamps = space.stamps(["u"])
        space.update("k", lambda _: entry("new", stamps=stamps))
        space.invalidate(["u"])

        assert space.get("k") is None

    @_remembering
    def test_what_is_stored_after_an_invalidation_is_there(
        self, space: Operations, entry: Any, value: Any
    ) -> None:
        space.set("k", entry("old", stamps=space.stamps(["t"])))
        space.invalidate(["t"])

        space.set("k", entry("new", stamps=space.stamps(["t"])))
        assert value(space.get("k")) == "new"

        space.invalidate(["t"])
        assert space.get("k") is None

    @_remembering
    def test_a_clear_drops_what_carries_tags_too(self, space: Operations, entry: Any, value: Any) -> None:
        space.set("k", entry("old", stamps=space.stamps(["t"])))
        space.clear()
        assert space.get("k") is None

        space.set("k", entry("new", stamps=space.stamps(["t"])))
        assert value(space.get("k")) == "new"

    @_remembering
    def test_tags_of_other_caches_are_others(
        self, space: Operations, backend: Backend, entry: Any, value: Any
    ) -> None:
        other = Operations(backend.key_space("contract2"), space.runner)
        other.set("k", entry("there", stamps=other.stamps(["t"])))

        space.invalidate(["t"])

        assert value(other.get("k")) == "there"
        other.clear()

    def test_after_a_soft_invalidation_nothing_that_carries_the_tag_is_fresh(
        self, space: Operations, backend: Backend, entry: Any
    ) -> None:
        for key, its in {"one": ["t"], "several": ["w", "t", "x"]}.items():
            space.set(key, entry(stamps=space.stamps(its), stale=60.0))

        space.invalidate(["t"], soft=True)

        for found in (space.get("one"), *space.get_many(["one", "several"]).values()):
            assert found is None or found.fresh_until <= backend.now()

    @_softening
    def test_but_stale_for_as_long_as_it_had_to_live(
        self, space: Operations, backend: Backend, entry: Any, value: Any
    ) -> None:
        made = entry("v", ttl=30, stale=30, stamps=space.stamps(["t", "u"]))
        space.set("k", made)
        space.set("another", entry("another", stamps=space.stamps(["u", "tt"])))

        space.invalidate(["t"], soft=True)

        for _ in range(2):
            for found in (space.get("k"), space.get_many(["k"])["k"]):
                assert value(found) == "v"
                assert found.fresh_until <= backend.now()
                assert found.dead_at == pytest.approx(made.dead_at, abs=_AHEAD)
            assert space.get("another").fresh_until > backend.now()
            space.invalidate(["t", "of nothing"], soft=True)  # once more changes nothing
        self.pass_time(40)
        assert value(space.get("k")) == "v"
        self.pass_time(30)
        assert space.get("k") is None

    @_softening
    def test_what_never_was_to_be_stale_is_so_for_the_rest_of_its_ttl(
        self, space: Operations, backend: Backend, entry: Any, value: Any
    ) -> None:
        space.set("k", entry("v", ttl=30, stamps=space.stamps(["t"])))

        space.invalidate(["t"], soft=True)

        assert value(space.get("k")) == "v"
        self.pass_time(40)
        assert space.get("k") is None

    @_softening
    def test_what_is_stored_after_it_is_fresh_and_a_hard_one_drops_what_is_stale(
        self, space: Operations, backend: Backend, entry: Any, value: Any
    ) -> None:
        for key in ("k", "l"):
            space.set(key, entry("old", stamps=space.stamps(["t"])))
        space.invalidate(["t"], soft=True)

        space.set("k", entry("new", stamps=space.stamps(["t"])))
        assert space.get("k").fresh_until > backend.now()
        space.invalidate(["t"])

        assert space.get_many(["k", "l"]) == {}

    @_softening
    def test_a_stale_entry_is_seen_by_updates_and_counted_by_delete(
        self, space: Operations, backend: Backend, entry: Any
    ) -> None:
        space.set("k", entry("v", stamps=space.stamps(["t"])))
        space.invalidate(["t"], soft=True)
        seen: list[Entry | None] = []

        space.update("k", seen.append)

        assert seen
        assert all(found and found.fresh_until <= backend.now() for found in seen)
        assert space.delete("k") is True

    @pytest.mark.parametrize(
        "change",
        ["set", "set_many", "update", "delete", "delete_many", "clear", "invalidate", "invalidate softly"],
    )
    def test_where_it_has_tickets_every_change_voids_them(
        self, space: Operations, backend: Backend, entry: Any, change: str
    ) -> None:
        """A key space that gives none has its changes registered around it."""
        tickets = backend.key_space("contract").tickets
        if tickets is None:
            return
        made = entry(stamps=space.stamps(["t"]))
        ticket, another = tickets.open("k"), tickets.open("another")
        assert ticket.permits(made)

        changes: dict[str, Callable[[], Any]] = {
            "set": lambda: space.set("k", made),
            "set_many": lambda: space.set_many({"k": made}),
            "update": lambda: space.update("k", lambda _: made),
            "delete": lambda: space.delete("k"),
            "delete_many": lambda: space.delete_many(["k"]),
            "clear": space.clear,
            "invalidate": lambda: space.invalidate(["t"]),
            "invalidate softly": lambda: space.invalidate(["t"], soft=True),
        }
        changes[change]()

        assert not ticket.permits(made)
        assert another.permits(entry()) is not (change == "clear")
        assert tickets.open("k").permits(made)
        tickets.reset(Lock())

    # -- seen from outside

    @_remembering
    def test_what_is_there_is_explained_and_nothing_counts_that(
        self, space: Operations, entry: Any, backend: Backend
    ) -> None:
        assert space.explain("never set") == Sight()
        made = entry(stamps=space.stamps(["t"]))
        space.set("k", made)
        near = space.space.near
        hits = 0 if near is None else near.hits()

        sight = space.explain("k")

        assert near is None or near.hits() == hits
        assert sight.entry.fresh_until == pytest.approx(made.fresh_until, abs=_AHEAD)
        assert sight.entry.left(backend.now()) == pytest.approx(60.0, abs=_AHEAD)
        assert {tag.tag for tag in sight.tags} - {CACHE_TAG} <= {"t"}
        assert all(tag.is_current for tag in sight.tags)
        assert sight.size is None or sight.size > 0
        assert sight.fault == ""

    @_remembering
    def test_every_key_is_listed_that_is_there(self, space: Operations, entry: Any) -> None:
        keys = {*_ODD_KEYS, *(f"p:{number}" for number in range(30))}
        space.set("dead", entry(ttl=10))
        space.set("deleted", entry())
        space.delete("deleted")
        self.pass_time(20)
        space.set_many(dict.fromkeys(keys, entry()))

        assert set(self._listed(space, "")) == keys
        assert set(self._listed(space, "p:")) == {key for key in keys if key.startswith("p:")}
        for key in _ODD_KEYS:
            assert key in self._listed(space, key)

        space.clear()
        assert self._listed(space, "") == []

    def test_a_cursor_of_nobody_is_refused_or_brings_keys(self, space: Operations) -> None:
        for cursor in ("nonsense", "7:x", "9.9", "0:9.9.9", "-1"):
            try:
                page = space.list_keys("", 10, cursor)
            except (InvalidOption, CannotList):
                continue
            assert all(isinstance(key, str) for key in page.keys)

    def _listed(self, space: Operations, prefix: str) -> list[str]:
        listed: list[str] = []
        cursor = ""
        while True:
            try:
                page = space.list_keys(prefix, 10, cursor)
            except CannotList:
                pytest.skip("it cannot list its keys")
            listed += page.keys
            if page.cursor is None:
                return listed
            cursor = page.cursor


class LeasingContract(BackendContract):
    """What a backend promises whose key spaces are `LeasingKeySpace`s, besides.

    Attributes:
        excludes: whether one at a time loads a key; not where its store cannot be asked, or is of this process alone.
    """

    excludes: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._leave_out("excluding", unless=cls.excludes)

    def lease(
        self,
        space: Operations,
        token: bytes = b"a",
        seconds: float = 30.0,
        after: float = 0.0,
        tags: Sequence[str] = (),
    ) -> Lease:
        leases: dict[str, Lease] = space.lease_many(["k"], token, seconds, after, tags)
        return leases["k"]

    def test_it_grants_leases(self, backend: Backend) -> None:
        assert isinstance(backend.key_space("contract"), LeasingKeySpace)

    # -- to load and to fill

    def test_what_was_loaded_under_a_lease_is_stored(self, space: Operations, entry: Any, value: Any) -> None:
        lease = self.lease(space, tags=["t"])
        assert (lease.state, lease.entry) == ("granted", None)
        assert [tag for tag, _ in lease.stamps if tag != CACHE_TAG] == ["t"]

        assert space.fill_many(b"a", {"k": entry("loaded", stamps=lease.stamps)}) == []

        assert value(space.get("k")) == "loaded"
        space.invalidate(["t"])
        assert space.get("k") is None

    def test_filling_ends_the_lease(self, space: Operations, entry: Any, value: Any) -> None:
        lease = self.lease(space)
        space.fill_many(b"a", {"k": entry("first", stamps=lease.stamps)})

        assert space.fill_many(b"a", {"k": entry("second", stamps=lease.stamps)}) == ["k"]
        assert value(space.get("k")) == "first"

    def test_nothing_is_stored_without_a_lease(self, space: Operations, entry: Any) -> None:
        lease = self.lease(space)

        assert space.fill_many(b"another", {"k": entry("v", stamps=lease.stamps)}) == ["k"]
        assert space.get("k") is None

    def test_several_at_once(self, space: Operations, entry: Any, value: Any) -> None:
        leases = space.lease_many(["k", "l", "m"], b"a", 30.0)
        assert {key: lease.state for key, lease in leases.items()} == dict.fromkeys("klm", "granted")
        space.delete("l")
        space.release_many(["m"], b"a")

        loaded = {key: entry(key, stamps=lease.stamps) for key, lease in leases.items()}
        assert sorted(space.fill_many(b"a", loaded)) == ["l", "m"]

        assert {key: value(kept) for key, kept in space.get_many(["k", "l", "m"]).items()} == {"k": "k"}

    def test_no_leases_at_once(self, space: Operations) -> None:
        assert space.lease_many([], b"a", 30.0) == {}
        assert space.fill_many(b"a", {}) == []
        space.release_many([], b"a")

    # -- one at a time

    @_excluding
    def test_at_most_one_holds_it_by_its_token(self, space: Operations) -> None:
        assert self.lease(space, b"a").state == "granted"

        assert self.lease(space, b"b")[:2] == ("busy", None)
        assert self.lease(space, b"a").state == "granted"
        assert space.lease_many(["l"], b"b", 30.0)["l"].state == "granted"

    @_excluding
    def test_it_ends_after_its_time(self, space: Operations, entry: Any) -> None:
        lease = self.lease(space, seconds=10.0)
        self.pass_time(20)

        assert space.fill_many(b"a", {"k": entry("late", stamps=lease.stamps)}) == ["k"]
        assert self.lease(space, b"b").state == "granted"

    @_excluding
    def test_a_fresh_entry_comes_instead_and_a_stale_one_besides(
        self, space: Operations, entry: Any, value: Any
    ) -> None:
        space.set("k", entry("v", ttl=30, stale=60))
        fresh = self.lease(space)
        assert (fresh.state, value(fresh.entry)) == ("fresh", "v")

        self.pass_time(40)
        for token, state in ((b"a", "granted"), (b"b", "busy")):
            lease = self.lease(space, token)
            assert (lease.state, value(lease.entry)) == (state, "v")

    @_excluding
    def test_one_that_is_not_fresh_enough_is_loaded_anew(
        self, space: Operations, backend: Backend, entry: Any
    ) -> None:
        space.set("k", entry("v", ttl=30))

        assert self.lease(space, after=backend.now() + 20).state == "fresh"
        assert self.lease(space, after=backend.now() + 40).state == "granted"
        assert self.lease(space, after=math.inf).state == "granted"

    # -- what voids it

    @pytest.mark.parametrize("change", ["set", "set_many", "update", "delete", "delete_many", "clear"])
    def test_every_change_voids_it(self, space: Operations, entry: Any, value: Any, change: str) -> None:
        lease = self.lease(space)

        changes: dict[str, Callable[[], Any]] = {
            "set": lambda: space.set("k", entry("new")),
            "set_many": lambda: space.set_many({"k": entry("new")}),
            "update": lambda: space.update("k", lambda _: entry("new")),
            "delete": lambda: space.delete("k"),
            "delete_many": lambda: space.delete_many(["k"]),
            "clear": space.clear,
        }
        changes[change]()

        assert space.fill_many(b"a", {"k": entry("old", stamps=lease.stamps)}) == ["k"]
        found = space.get("k")
        assert found is None if change in {"delete", "delete_many", "clear"} else value(found) == "new"
        space.delete("k")
        assert self.lease(space, b"b").state == "granted"

    def test_what_was_loaded_before_an_invalidation_is_not_there_after_it(
        self, space: Operations, entry: Any
    ) -> None:
        lease = self.lease(space, tags=["t"])

        space.invalidate(["t"])

        space.fill_many(b"a", {"k": entry("old", stamps=lease.stamps)})
        assert space.get("k") is None

    def test_nor_is_it_fresh_after_a_soft_one(self, space: Operations, backend: Backend, entry: Any) -> None:
        lease = self.lease(space, tags=["t"])

        space.invalidate(["t"], soft=True)

        space.fill_many(b"a", {"k": entry("old", stamps=lease.stamps)})
        found = space.get("k")
        assert found is None or found.fresh_until <= backend.now()

    @_excluding
    @_softening
    def test_what_was_softly_invalidated_is_loaded_anew_and_comes_along(
        self, space: Operations, backend: Backend, entry: Any, value: Any
    ) -> None:
        space.set("k", entry("v", stamps=space.stamps(["t"])))
        space.invalidate(["t"], soft=True)

        for token, state in ((b"a", "granted"), (b"b", "busy")):
            lease = self.lease(space, token, tags=["t"])
            assert (lease.state, value(lease.entry)) == (state, "v")
            assert lease.entry is not None
            assert lease.entry.fresh_until <= backend.now()
        space.fill_many(b"a", {"k": entry("new", stamps=lease.stamps)})

        assert value(space.get("k")) == "new"
        assert self.lease(space).state == "fresh"

    # -- to give back

    def test_one_that_is_given_back_is_over(self, space: Operations, entry: Any) -> None:
        lease = self.lease(space)

        space.release_many(["k"], b"a")
        space.release_many(["k"], b"a")  # twice is harmless

        assert space.fill_many(b"a", {"k": entry("late", stamps=lease.stamps)}) == ["k"]
        assert self.lease(space, b"b").state == "granted"

    @_excluding
    def test_with_seconds_nobody_loads_for_as_long(self, space: Operations, entry: Any) -> None:
        lease = self.lease(space)

        space.release_many(["k"], b"a", 10.0)

        for token in (b"a", b"b"):
            assert self.lease(space, token).state == "busy"
            assert space.fill_many(token, {"k": entry("late", stamps=lease.stamps)}) == ["k"]
        self.pass_time(20)
        assert self.lease(space, b"b").state == "granted"

    @_excluding
    def test_only_its_holder_gives_it_back(self, space: Operations, entry: Any) -> None:
        lease = self.lease(space)

        space.release_many(["k"], b"b")
        space.release_many(["k"], b"b", 10.0)

        assert self.lease(space, b"b").state == "busy"
        assert space.fill_many(b"a", {"k": entry(stamps=lease.stamps)}) == []

    # -- tags that only the loaded value tells

    @pytest.fixture
    def marked(self, space: Operations) -> None:
        """The first time, a store may have no mark to give, and refuse."""
        lease = self.lease(space)
        space.late_stamps(["other"], lease.mark)
        space.release_many(["k"], b"a")

    @pytest.mark.usefixtures("marked")
    def test_the_tags_of_the_loaded_value_are_carried_as_others(
        self, space: Operations, entry: Any, value: Any
    ) -> None:
        lease = self.lease(space, tags=["t"])

        late = space.late_stamps(["u", "v"], lease.mark)

        assert [tag for tag, _ in late] == ["u", "v"]
        assert space.fill_many(b"a", {"k": entry("loaded", stamps=(*lease.stamps, *late))}) == []
        assert value(space.get("k")) == "loaded"
        space.invalidate(["v"])
        assert space.get("k") is None

    @pytest.mark.usefixtures("marked")
    @pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
    @pytest.mark.parametrize("when", ["before it is told", "after it is told"])
    def test_what_they_were_invalidated_from_is_not_there_after_it(
        self, space: Operations, backend: Backend, entry: Any, when: str, soft: bool
    ) -> None:
        lease = self.lease(space)
        if when == "before it is told":
            space.invalidate(["u"], soft=soft)
        late = space.late_stamps(["t", "u"], lease.mark)
        if when == "after it is told":
            space.invalidate(["u"], soft=soft)

        if late is not None:
            space.fill_many(b"a", {"k": entry("old", stamps=(*lease.stamps, *late))})
        found = space.get("k")
        assert found is None or (soft and found.fresh_until <= backend.now())
