"""Programs to start, and a prefix for what they write."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
import redis
from programs import Program, Start


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Starts programs, which run beside one another."""
    programs: list[Program] = []

    def start(*arguments: str, **variables: str) -> Program:
        programs.append(Program(*arguments, **variables))
        return programs[-1]

    yield start
    for program in programs:
        program.kill()


@pytest.fixture(scope="module")
def prefix(server: redis.Redis) -> Iterator[str]:
    prefix = f"t{uuid4().hex[:12]}"
    yield prefix
    for key in server.scan_iter(match=f"{prefix}*", count=1000):
        server.delete(key)
