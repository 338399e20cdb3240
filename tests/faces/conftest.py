"""One suite for both faces, and for each backend behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from face import Face
from worlds import make_world

from layercache import Cache, Caches
from layercache.testing import Clock


@pytest.fixture(params=["memory", "redis", "chain"])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def world(kind: str, server: redis.Redis, server_url: str, runner: asyncio.Runner | None) -> Iterator[Caches]:
    world = make_world(kind, server, server_url, ttls={"quote:*": "15s", "quote:index:*": "1h"})
    yield world
    world["default"].clear()
    if runner is None:
        world.close()
    else:
        runner.run(world.aclose())


@pytest.fixture
def clock(world: Caches) -> Clock:
    clock: Clock = world.clock  # type: ignore[attr-defined]
    return clock


@pytest.fixture
def face(cache: Cache[Any], runner: asyncio.Runner | None) -> Face:
    return Face(cache, runner)
