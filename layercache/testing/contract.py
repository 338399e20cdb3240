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
backend cannot keep is a class attribute: `remembers = False` for one that stores nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import pytest

from layercache.config import read_settings
from layercache.entry import MISSING, Entry
from layercache.errors import CacheError
from layercache.spi import Backend, KeySpace, Opening

__all__ = ["BackendContract", "Operations", "open_backend"]

T = TypeVar("T", bound=Callable[..., None])

ODD_KEYS = (
    "a", "A", "a:b", "a*", "a?", "[a]", "{a}", "a b", "a\nb", "a%3Ab", "a\\", "가격:삼성전자", "🙂", "%", "a" * 500,
)  # fmt: skip


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
        def call(*args: Any) -> Any:
            if self.runner is None:
                return getattr(self.space, operation)(*args)
            return self.runner.run(getattr(self.space, f"a{operation}")(*args))

        return call


class Refused(CacheError):
    """What a change of these tests raises."""


def remembering(test: T) -> T:
    """Mark a fact that only holds for a backend that stores something."""
    test.remembering = True  # type: ignore[attr-defined]
    return test


class BackendContract:
    """The facts. Give a `backend` fixture and `pass_time`."""

    remembers: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        if not cls.remembers:
            for name in dir(cls):
                if getattr(getattr(cls, name), "remembering", False):
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
        if request.param == "sync":
            yield None
        else:
            with asyncio.Runner() as runner:
                yield runner

    @pytest.fixture
    def space(self, backend: Backend, runner: asyncio.Runner | None) -> Iterator[Operations]:
        space = Operations(backend.key_space("contract"), runner)
        space.clear()
        yield space
        space.clear()
        if runner is not None:
            runner.run(backend.aclose())

    @pytest.fixture
    def entry(self, backend: Backend) -> Callable[..., Entry]:
        def entry(value: Any = "v", ttl: float = 60.0) -> Entry:
            now = backend.now()
            payload = backend.serializer.dumps(value)
            return Entry(
                payload, value if isinstance(value, str | int) else MISSING, now, now + ttl, now + ttl
            )

        return entry

    @pytest.fixture
    def value(self, backend: Backend) -> Callable[[Entry | None], Any]:
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

    @remembering
    @pytest.mark.parametrize("kept", ["text", 7, None, [1, {"a": None}], {"k": "v" * 5000}], ids=repr)
    def test_what_is_set_comes_back(self, space: Operations, entry: Any, value: Any, kept: Any) -> None:
        assert space.set("k", entry(kept)) is True

        assert value(space.get("k")) == kept

    @remembering
    def test_the_last_set_counts(self, space: Operations, entry: Any, value: Any) -> None:
        space.set("k", entry("old", ttl=10))
        space.set("k", entry("new", ttl=60))

        self.pass_time(20)

        assert value(space.get("k")) == "new"

    @remembering
    def test_times_come_back(self, space: Operations, backend: Backend) -> None:
        now = backend.now()
        made = Entry(b'"v"', MISSING, now, now + 30, now + 60)
        space.set("k", made)

        found = space.get("k")

        assert found.created_at == pytest.approx(now, abs=0.01)
        assert found.fresh_until == pytest.approx(now + 30, abs=0.01)
        assert found.dead_at == pytest.approx(now + 60, abs=0.5)
        assert found.dead_at <= made.dead_at, "a store never lengthens a life"

    @remembering
    def test_an_entry_is_gone_when_its_time_is_over(self, space: Operations, entry: Any, value: Any) -> None:
        space.set("k", entry("v", ttl=30))

        self.pass_time(20)
        assert value(space.get("k")) == "v"

        self.pass_time(20)
        assert space.get("k") is None
        assert space.get_many(["k"]) == {}
        assert space.delete("k") is False

    @remembering
    def test_for_ever_is_for_ever(self, space: Operations, entry: Any, value: Any) -> None:
        space.set("k", entry("v", ttl=math.inf))

        self.pass_time(10 * 365 * 86_400)

        assert value(space.get("k")) == "v"
        assert space.get("k").dead_at == math.inf

    @remembering
    def test_delete_says_whether_there_was_one(self, space: Operations, entry: Any) -> None:
        space.set("k", entry())

        assert space.delete("k") is True
        assert space.delete("k") is False
        assert space.get("k") is None

    # -- update

    @remembering
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

    @remembering
    def test_update_leaves_things_alone_for_none(self, space: Operations, entry: Any, value: Any) -> None:
        space.set("k", entry("v"))

        assert space.update("k", lambda _: None) is None
        assert space.update("other", lambda _: None) is None
        assert value(space.get("k")) == "v"
        assert space.get("other") is None

    @remembering
    def test_update_passes_on_what_the_change_raises(self, space: Operations, entry: Any, value: Any) -> None:
        space.set("k", entry("v"))

        def refuse(_: Entry | None) -> Entry:
            raise Refused

        with pytest.raises(Refused):
            space.update("k", refuse)

        assert value(space.get("k")) == "v"

    @remembering
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

    @remembering
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

    @remembering
    def test_keys_of_any_characters_stay_apart(self, space: Operations, entry: Any, value: Any) -> None:
        for key in ODD_KEYS:
            space.set(key, entry(key))

        assert {key: value(space.get(key)) for key in ODD_KEYS} == {key: key for key in ODD_KEYS}

    # -- key spaces

    @remembering
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

    @remembering
    def test_clear_drops_everything(self, space: Operations, entry: Any) -> None:
        space.set_many({str(number): entry(number) for number in range(1200)})

        space.clear()

        assert space.get_many([str(number) for number in range(1200)]) == {}

    @remembering
    def test_the_same_name_is_the_same_key_space(
        self, space: Operations, backend: Backend, entry: Any, value: Any
    ) -> None:
        space.set("k", entry("v"))

        again = Operations(backend.key_space("contract"), space.runner)

        assert value(again.get("k")) == "v"
