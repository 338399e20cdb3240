"""The same random programs against a plain model, memory, Redis and a chain of both, sync and async: they
agree on every answer and on every time to live."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from shifting import ServerClock
from worlds import make_world

from layercache import MISSING, KeyNotFound, NotACounter

KEYS = st.sampled_from(["a", "b", "a:b", "quote:*", "가격 {1}", "x" * 200])
VALUES = st.one_of(
    st.integers(-3, 3),
    st.none(),
    st.booleans(),
    st.text(max_size=5),
    st.lists(st.integers() | st.text(max_size=3), max_size=3).filter(
        lambda items: all(not isinstance(item, int) or abs(item) < 2**63 for item in items)
    ),
    st.dictionaries(st.text(max_size=3), st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    st.just({"long": "x" * 3000}),
)
# Lives end in 5, time passes in tens: the milliseconds that a real server's clock runs on decide nothing.
TTLS = st.sampled_from([5, 15, 35, 85, "1m25s", None, 0, -5])
DEFAULT_TTL = 45
STALE_TTL = 20  # so that a value that ends in 5 is stale at one or two looks
NAMES = ["t", "u", "뉴스 {1}"]
TAGS = st.lists(st.sampled_from(NAMES), max_size=2, unique=True)


class Kept(NamedTuple):
    value: Any
    fresh_until: float
    tags: tuple[str, ...] = ()
    is_soft: bool = False  # a tag of it was softly invalidated: stale, for as long as it had to live


class Model:
    """What a cache is, in a dict. Stale values are there for who loads, or peeks, and for nobody else."""

    def __init__(self) -> None:
        self.now = 0.0
        self.kept: dict[str, Kept] = {}

    def get(self, key: str) -> Any:
        kept = self.kept.get(key)
        is_fresh = kept is not None and kept.fresh_until > self.now and not kept.is_soft
        return kept.value if kept is not None and is_fresh else MISSING

    def peek(self, key: str) -> Any:
        kept = self.kept.get(key)
        return kept.value if kept is not None and kept.fresh_until + STALE_TTL > self.now else MISSING

    def has(self, key: str) -> bool:
        return self.get(key) is not MISSING

    def set(self, key: str, value: Any, ttl: Any, tags: Iterable[str] = ()) -> None:
        if seconds(ttl) > 0:
            self.kept[key] = Kept(value, self.now + seconds(ttl), tuple(tags))
        else:
            self.kept.pop(key, None)

    def touch(self, key: str, ttl: Any) -> None:
        self.set(key, self.get(key), ttl, self.kept[key].tags)

    def invalidate(self, tags: Iterable[str], *, soft: bool) -> None:
        for key, kept in list(self.kept.items()):
            if set(kept.tags) & set(tags):
                if soft:
                    self.kept[key] = kept._replace(is_soft=True)
                else:
                    del self.kept[key]

    def left(self, key: str) -> float | None:
        if not self.has(key):
            return 0.0
        left = self.kept[key].fresh_until - self.now
        return None if math.isinf(left) else left


def seconds(ttl: Any) -> float:
    return {"1m25s": 85.0, None: math.inf}.get(ttl, ttl)


WORLDS = ("memory", "redis", "chain")


class Failed(Exception):
    """What a loader of these tests raises."""


class Agreement(RuleBasedStateMachine):
    """Every rule does one thing to the model and to all caches, and compares."""

    server: redis.Redis
    url: str

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        policy: dict[str, Any] = {
            "ttl": DEFAULT_TTL,
            "stale_ttl": STALE_TTL,
            "refresh": "off",
            "retry_after": 0,
        }
        self.worlds = [make_world(kind, self.server, self.url, **policy) for kind in WORLDS]
        for world in self.worlds:
            # marks, without which tags that are told late are refused once
            world["default"].invalidate("t")
        self.runner = asyncio.Runner()

    def teardown(self) -> None:
        for world in self.worlds:
            world["default"].clear()
            self.runner.run(world.aclose())
        self.runner.close()

    def each(self, twin: bool, verb: str, *args: Any, **options: Any) -> list[Any]:
        """Call `verb` on each cache and return the answers; what is raised is an answer."""
        return [self.answer(world["default"], twin, verb, *args, **options) for world in self.worlds]

    def answer(self, cache: Any, twin: bool, verb: str, *args: Any, **options: Any) -> Any:
        async def acall() -> Any:
            return await getattr(cache, f"a{verb}")(*args, **options)

        try:
            return self.runner.run(acall()) if twin else getattr(cache, verb)(*args, **options)
        except (KeyNotFound, NotACounter, Failed) as error:
            return type(error)

    def agree(self, answers: list[Any], expected: Any) -> None:
        for answer, kind in zip(answers, WORLDS, strict=True):
            assert answer == expected, kind
            assert type(answer) is type(expected), kind

    @rule(twin=st.booleans(), key=KEYS, value=VALUES, ttl=TTLS, tags=TAGS)
    def set(self, twin: bool, key: str, value: Any, ttl: Any, tags: list[str]) -> None:
        self.agree(self.each(twin, "set", key, value, ttl, tags), None)
        self.model.set(key, value, ttl, tags)

    @rule(twin=st.booleans(), key=KEYS, value=VALUES)
    def set_with_the_caches_own_ttl(self, twin: bool, key: str, value: Any) -> None:
        self.each(twin, "set", key, value)
        self.model.set(key, value, DEFAULT_TTL)

    @rule(twin=st.booleans(), key=KEYS, value=VALUES, ttl=TTLS, tags=TAGS)
    def add(self, twin: bool, key: str, value: Any, ttl: Any, tags: list[str]) -> None:
        absent = not self.model.has(key)
        self.agree(self.each(twin, "add", key, value, ttl, tags), absent)
        if absent and seconds(ttl) > 0:
            self.model.set(key, value, ttl, tags)

    @rule(twin=st.booleans(), key=KEYS)
    def get(self, twin: bool, key: str) -> None:
        self.agree(self.each(twin, "get", key, MISSING), self.model.get(key))

    @rule(twin=st.booleans(), key=KEYS)
    def has_key(self, twin: bool, key: str) -> None:
        self.agree(self.each(twin, "has_key", key), self.model.has(key))

    @rule(twin=st.booleans(), key=KEYS, ttl=TTLS)
    def touch(self, twin: bool, key: str, ttl: Any) -> None:
        there = self.model.has(key)
        # with no life left it is a delete, which drops what is stale too, and says so
        dropped = seconds(ttl) <= 0 and self.model.peek(key) is not MISSING
        self.agree(self.each(twin, "touch", key, ttl), there or dropped)
        if there:
            self.model.touch(key, ttl)
        elif dropped:
            del self.model.kept[key]

    @rule(twin=st.booleans(), key=KEYS)
    def peek(self, twin: bool, key: str) -> None:
        self.agree(self.each(twin, "peek", key, MISSING), self.model.peek(key))

    @rule(twin=st.booleans(), key=KEYS)
    def delete(self, twin: bool, key: str) -> None:
        self.agree(self.each(twin, "delete", key), self.model.peek(key) is not MISSING)
        self.model.kept.pop(key, None)

    @rule(twin=st.booleans(), verb=st.sampled_from(["incr", "decr"]), key=KEYS, delta=st.integers(-5, 5))
    def count(self, twin: bool, verb: str, key: str, delta: int) -> None:
        value = self.model.get(key)
        expected: Any = KeyNotFound if value is MISSING else NotACounter
        if type(value) is int:
            expected = value + (delta if verb == "incr" else -delta)
            self.model.kept[key] = self.model.kept[key]._replace(value=expected)
        self.agree(self.each(twin, verb, key, delta), expected)

    @rule(twin=st.booleans(), keys=st.lists(KEYS))
    def get_many(self, twin: bool, keys: list[str]) -> None:
        expected = {key: self.model.get(key) for key in keys if self.model.has(key)}
        self.agree(self.each(twin, "get_many", keys), expected)

    @rule(twin=st.booleans(), values=st.dictionaries(KEYS, VALUES, max_size=4), ttl=TTLS, tags=TAGS)
    def set_many(self, twin: bool, values: dict[str, Any], ttl: Any, tags: list[str]) -> None:
        self.agree(self.each(twin, "set_many", values, ttl, tags), [])
        for key, value in values.items():
            self.model.set(key, value, ttl, tags)

    @rule(twin=st.booleans(), keys=st.lists(KEYS, max_size=4))
    def delete_many(self, twin: bool, keys: list[str]) -> None:
        there = sum(self.model.peek(key) is not MISSING for key in set(keys))
        self.agree(self.each(twin, "delete_many", keys), there)
        for key in keys:
            self.model.kept.pop(key, None)

    @rule(twin=st.booleans(), key=KEYS, value=VALUES, ttl=TTLS, tags=TAGS, told=st.booleans())
    def get_or_set(self, twin: bool, key: str, value: Any, ttl: Any, tags: list[str], told: bool) -> None:
        expected = self.model.get(key) if self.model.has(key) else value
        options = {"tags": (lambda _: tags) if told else tags}
        self.agree(self.each(twin, "get_or_set", key, lambda: value, ttl, **options), expected)
        if not self.model.has(key):
            self.model.set(key, value, ttl, tags)

    @rule(twin=st.booleans(), keys=st.lists(KEYS, max_size=4), value=VALUES, ttl=TTLS, tags=TAGS)
    def get_or_set_many(self, twin: bool, keys: list[str], value: Any, ttl: Any, tags: list[str]) -> None:
        wanted = list(dict.fromkeys(keys))
        expected = {key: self.model.get(key) if self.model.has(key) else [key, value] for key in wanted}

        def load(missing: list[str]) -> dict[str, Any]:
            return {key: [key, value] for key in missing}

        self.agree(self.each(twin, "get_or_set_many", keys, load, ttl, tags=tags), expected)
        for key in wanted:
            if not self.model.has(key):
                self.model.set(key, [key, value], ttl, tags)

    @rule(twin=st.booleans(), key=KEYS)
    def get_or_set_where_the_load_fails(self, twin: bool, key: str) -> None:
        def fail() -> Any:
            raise Failed

        there = self.model.peek(key)
        self.agree(self.each(twin, "get_or_set", key, fail), Failed if there is MISSING else there)

    @rule(twin=st.booleans(), key=KEYS, value=VALUES, ttl=TTLS, tags=TAGS)
    def refresh(self, twin: bool, key: str, value: Any, ttl: Any, tags: list[str]) -> None:
        self.agree(self.each(twin, "refresh", key, lambda: value, ttl, tags=tags), value)
        self.model.set(key, value, ttl, tags)

    @rule(
        twin=st.booleans(),
        tags=st.lists(st.sampled_from(NAMES), min_size=1, max_size=2, unique=True),
        soft=st.booleans(),
    )
    def invalidate(self, twin: bool, tags: list[str], soft: bool) -> None:
        self.agree(self.each(twin, "invalidate", *tags, soft=soft), None)
        self.model.invalidate(tags, soft=soft)

    @precondition(lambda self: self.model.kept)
    @rule(twin=st.booleans())
    def clear(self, twin: bool) -> None:
        self.each(twin, "clear")
        self.model.kept.clear()

    @rule(tens=st.integers(1, 5))
    def advance_the_clock(self, tens: int) -> None:
        self.model.now += 10 * tens
        for world in self.worlds:
            clock: ServerClock = world.clock  # type: ignore[attr-defined]
            clock.advance(10 * tens)

    @invariant()
    def times_to_live_agree(self) -> None:
        for key in self.model.kept:
            expected = self.model.left(key)
            for answer, kind in zip(self.each(False, "ttl_left", key), WORLDS, strict=True):
                if expected is None:
                    assert answer is None, kind
                else:
                    assert answer == pytest.approx(expected, abs=2.0), (key, kind)
                    assert (answer > 0) == (expected > 0), (key, kind)


def test_all_backends_agree_with_the_model(server: redis.Redis, server_url: str) -> None:
    Agreement.server, Agreement.url = server, server_url
    run_state_machine_as_test(
        Agreement,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
        ),
    )
