"""What the tests stand on: a real server, one clock for everybody, and a clean default world."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import hypothesis
import pytest
import redis

import layercache
from layercache.testing import Clock, ValkeyServer

# A shell that starts us in the background has SIGINT ignored, by us and by all that we start: some of that is to be
# interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)

IN_CI = os.environ.get("CI") == "true"

# Tests are never timed. CI judges a change, so it tries the same examples each time; new ones are looked for at
# everybody's desk.
hypothesis.settings.register_profile(
    "layercache", derandomize=IN_CI, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("layercache")


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A real server: `LAYERCACHE_TEST_REDIS_URL`, else one run by `LAYERCACHE_TEST_SERVER`, else the embedded Valkey.

    The absence of the last is a failure in CI and skips elsewhere; one that was named must be there.
    """
    named = os.environ.get("LAYERCACHE_TEST_REDIS_URL")
    if named:
        yield named
        return
    try:
        server = ValkeyServer()
    except (layercache.MissingExtra, FileNotFoundError) as error:
        if IN_CI or os.environ.get("LAYERCACHE_TEST_SERVER"):
            raise
        pytest.skip(f"no server: {error}")
    with server:
        yield server.url


@pytest.fixture(scope="session")
def server(server_url: str) -> Iterator[redis.Redis]:
    """A plain client of the server, to look behind the library's back."""
    with redis.Redis.from_url(server_url) as client:
        yield client


@pytest.fixture
def own_server() -> Iterator[ValkeyServer]:
    """A server that the test may kill, freeze and set up as it likes."""
    with ValkeyServer() as server:
        yield server


@pytest.fixture(params=["sync", "async"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner | None]:
    """What a `Face` calls its verbs with, on each of the two faces."""
    with asyncio.Runner() if request.param == "async" else nullcontext() as runner:
        yield runner


@pytest.fixture
def cache(world: layercache.Caches) -> layercache.Cache[Any]:
    """The default cache of the test's world."""
    return world["default"]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable of the caller's shell reaches a test, and no default world outlives one."""
    for name in list(os.environ):
        if name.startswith(("LAYERCACHE_", "REDIS_", "MEMORY_CACHE_")) and not name.startswith(
            "LAYERCACHE_TEST_"
        ):
            monkeypatch.delenv(name)
    yield
    layercache.close()
