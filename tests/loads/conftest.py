from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import redis
from fleet import Fleet


@pytest.fixture
def fleet(server: redis.Redis, server_url: str) -> Iterator[Fleet]:
    with ExitStack() as processes:
        fleet = Fleet(server, server_url, processes)
        yield fleet
    for key in server.scan_iter(match=f"{fleet.prefix}*", count=1000):
        server.delete(key)


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """Wait for what other threads and processes see to."""

    def until(holds: Callable[[], object]) -> None:
        end = time.monotonic() + 10
        while not holds():
            assert time.monotonic() < end, "it never came true"
            time.sleep(0.001)

    return until
