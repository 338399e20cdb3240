"""The same random programs against a plain model, memory, Redis and a chain of both, sync and async: they
agree on every answer and on every time to live."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
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


class Model:
    """What a cache is, in a dict: key to (value, time of death)."""

    def __init__(self) -> None:
        self.now = 0.0
        self.kept: dict[str, tuple[Any, float]] = {}

    def get(self, key: str) -> Any:
        value, dead_at = self.kept.get(key, (MISSING, 0.0))
        return value if dead_at > self.now else MISSING

    def has(self, key: str) -> bool:
        return self.get(key) is not MISSING

    def set(self, key: str, value: Any, ttl: Any) -> None:
        self.kept[key] = (value, self.now + seconds(ttl))

    def left(self, key: str) -> float | None:
        if not self.has(key):
            return 0.0
        left = self.kept[key][1] - self.now
        return None if math.isinf(left) else left


def seconds(ttl: Any) -> float:
    return {"1m25s": 85.0, None: math.inf}.get(ttl, ttl)


class Agreement(RuleBasedStateMachine):
    """Every rule does one thing to the model and to all caches, and compares."""

    server: redis.Redis
    url: str

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.worlds = [
            make_world(kind, self.server, self.url, ttl=DEFAULT_TTL) for kind in ("memory", "redis", "chain")
        ]
        self.runner = asyncio.Runner()

    def teardown(self) -> None:
        for world in self.worlds:
            world["default"].clear()
            self.runner.run(world.aclose())
        self.runner.close()

    def each(self, twin: bool, verb: str, *args: Any) -> list[Any]:
        """Call `verb` on each cache and return the answers; what is raised is an answer."""
        return [self.answer(world["default"], twin, verb, *args) for world in self.worlds]

    def answer(self, cache: Any, twin: bool, verb: str, *args: Any) -> Any:
        async def acall() -> Any:
            return await getattr(cache, f"a{verb}")(*args)

        try:
            return self.runner.run(acall()) if twin else getattr(cache, verb)(*args)
        except (KeyNotFound, NotACounter) as error:
            return type(error)

    def agree(self, answers: list[Any], expected: Any) -> None:
        for answer, world in zip(answers, self.worlds, strict=True):
            assert answer == expected, world
            assert type(answer) is type(expected), world

    @rule(twin=st.booleans(), key=KEYS, value=VALUES, ttl=TTLS)
    def set(self, twin: bool, key: str, value: Any, ttl: Any) -> None:
        self.agree(self.each(twin, "set", key, value, ttl), None)
        self.model.set(key, value, ttl)

    @rule(twin=st.booleans(), key=KEYS, value=VALUES)
    def set_with_the_caches_own_ttl(self, twin: bool, key: str, value: Any) -> None:
        self.each(twin, "set", key, value)
        self.model.set(key, value, DEFAULT_TTL)

    @rule(twin=st.booleans(), key=KEYS, value=VALUES, ttl=TTLS)
    def add(self, twin: bool, key: str, value: Any, ttl: Any) -> None:
        absent = not self.model.has(key)
        self.agree(self.each(twin, "add", key, value, ttl), absent)
        if absent:
            self.model.set(key, value, ttl)

    @rule(twin=st.booleans(), key=KEYS)
    def get(self, twin: bool, key: str) -> None:
        self.agree(self.each(twin, "get", key, MISSING), self.model.get(key))

    @rule(twin=st.booleans(), key=KEYS)
    def has_key(self, twin: bool, key: str) -> None:
        self.agree(self.each(twin, "has_key", key), self.model.has(key))

    @rule(twin=st.booleans(), key=KEYS, ttl=TTLS)
    def touch(self, twin: bool, key: str, ttl: Any) -> None:
        there = self.model.has(key)
        self.agree(self.each(twin, "touch", key, ttl), there)
        if there:
            self.model.set(key, self.model.get(key), ttl)

    @rule(twin=st.booleans(), key=KEYS)
    def delete(self, twin: bool, key: str) -> None:
        self.agree(self.each(twin, "delete", key), self.model.has(key))
        self.model.kept.pop(key, None)

    @rule(twin=st.booleans(), verb=st.sampled_from(["incr", "decr"]), key=KEYS, delta=st.integers(-5, 5))
    def count(self, twin: bool, verb: str, key: str, delta: int) -> None:
        value = self.model.get(key)
        expected: Any = KeyNotFound if value is MISSING else NotACounter
        if type(value) is int:
            expected = value + (delta if verb == "incr" else -delta)
            self.model.kept[key] = (expected, self.model.kept[key][1])
        self.agree(self.each(twin, verb, key, delta), expected)

    @rule(twin=st.booleans(), keys=st.lists(KEYS))
    def get_many(self, twin: bool, keys: list[str]) -> None:
        expected = {key: self.model.get(key) for key in keys if self.model.has(key)}
        self.agree(self.each(twin, "get_many", keys), expected)

    @rule(twin=st.booleans(), values=st.dictionaries(KEYS, VALUES, max_size=4), ttl=TTLS)
    def set_many(self, twin: bool, values: dict[str, Any], ttl: Any) -> None:
        self.agree(self.each(twin, "set_many", values, ttl), [])
        for key, value in values.items():
            self.model.set(key, value, ttl)

    @rule(twin=st.booleans(), keys=st.lists(KEYS, max_size=4))
    def delete_many(self, twin: bool, keys: list[str]) -> None:
        self.agree(self.each(twin, "delete_many", keys), sum(map(self.model.has, set(keys))))
        for key in keys:
            self.model.kept.pop(key, None)

    @rule(twin=st.booleans(), key=KEYS, value=VALUES, ttl=TTLS)
    def get_or_set(self, twin: bool, key: str, value: Any, ttl: Any) -> None:
        expected = self.model.get(key) if self.model.has(key) else value
        self.agree(self.each(twin, "get_or_set", key, lambda: value, ttl), expected)
        if not self.model.has(key):
            self.model.set(key, value, ttl)

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
            for answer, world in zip(self.each(False, "ttl_left", key), self.worlds, strict=True):
                if expected is None:
                    assert answer is None, world
                else:
                    assert answer == pytest.approx(expected, abs=2.0), (key, world)
                    assert (answer > 0) == (expected > 0), (key, world)


def test_all_backends_agree_with_the_model(server: redis.Redis, server_url: str) -> None:
    Agreement.server, Agreement.url = server, server_url
    run_state_machine_as_test(
        Agreement,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
