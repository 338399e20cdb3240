"""A world, its management API, and one that asks for tokens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from asking import READ, WRITE, Api, settings

import layercache.admin
from layercache import Caches


@pytest.fixture
def world() -> Iterator[Caches]:
    """Without tokens."""
    with Caches(settings()) as world:
        yield world


@pytest.fixture
def api(world: Caches) -> Api:
    return Api(layercache.admin.app(world))


@pytest.fixture
def guarded() -> Iterator[Api]:
    """With a token for each scope, asked from elsewhere."""
    with Caches(settings(read_token=READ, write_token=WRITE)) as world:
        yield Api(layercache.admin.app(world), "203.0.113.7", "cache.example.com")
