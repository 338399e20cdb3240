"""Fleets of processes that load the same keys."""

from __future__ import annotations

from collections.abc import Iterator
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
