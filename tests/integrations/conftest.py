"""Clocks that tick, and visitors of applications."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import pytest
import redis
from shifting import ServerClock
from sites import Visitor, visiting
from worlds import settings

from layercache import Caches
from layercache.testing import Clock

Visit = Callable[..., Visitor]


class Ticking(Clock):
    """Passes by itself, a microsecond each time somebody looks: what was later is seen to be so."""

    def __call__(self) -> float:
        self.now += 1e-6
        return self.now


class TickingServer(Ticking, ServerClock):
    pass


@pytest.fixture
def clock() -> Clock:
    return Ticking()


@pytest.fixture
def visit(clock: Clock) -> Iterator[Visit]:
    """Makes a visitor of a site behind a cache in memory, with options of the middleware."""
    with ExitStack() as stack:

        def make(policy: dict[str, Any] | None = None, **options: Any) -> Visitor:
            caches = {"default": {"backend": "memory", "ttl": 300, **(policy or {})}}
            world = Caches({"backends": {"memory": {"type": "memory"}}, "caches": caches}, now=clock)
            return stack.enter_context(visiting(world, **options))

        yield make


@pytest.fixture(params=["memory", "redis", "chain"])
def everywhere(
    request: pytest.FixtureRequest, server: redis.Redis, server_url: str
) -> Iterator[Callable[..., Visitor]]:
    """Makes a visitor, over each kind of backend, with a policy of the cache; its clock is `visitor.world.clock`."""
    with ExitStack() as stack:

        def make(**policy: Any) -> Visitor:
            prefix = f"t{uuid4().hex[:12]}"
            clock = TickingServer(server, f"{prefix}:*")
            world = Caches(settings(request.param, server_url, prefix, **policy), now=clock)
            world.clock = clock  # type: ignore[attr-defined]
            return stack.enter_context(visiting(world))

        yield make
