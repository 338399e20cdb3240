"""Callers of a cache on a server that fails: on either face, and patient enough to see it come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from face import Face
from waiting import PATIENCE

from layercache import Caches, CircuitOpen

__all__ = ["answered", "both_faces", "one_cache", "open_face"]

both_faces = pytest.mark.parametrize("kind", ["sync", "async"])


def one_cache(url: str, **options: Any) -> Caches:
    """A world whose default cache is on the server at `url`."""
    backend = {"type": "redis", "url": url, "timeout": "10s", **options}
    return Caches({"backends": {"far": backend}, "caches": {"default": {"backend": "far", "ttl": 60}}})


@contextmanager
def open_face(kind: str, url: str, **options: Any) -> Iterator[Face]:
    """That cache, each verb called plainly or, in a loop that stands still between calls, through its async twin."""
    if kind == "sync":
        with one_cache(url, **options) as world:
            yield Face(world["default"], None)
        return
    with asyncio.Runner() as runner:
        world = one_cache(url, **options)
        try:
            yield Face(world["default"], runner)
        finally:
            runner.run(world.aclose())


def answered(call: Callable[[], Any], within: float = PATIENCE) -> Any:
    """What `call` returns once the circuit has closed: a thread of its own notices, so ask until it has."""
    end = time.monotonic() + within
    while True:
        try:
            return call()
        except CircuitOpen:
            assert time.monotonic() < end, "the circuit stays open"
            time.sleep(0.001)
