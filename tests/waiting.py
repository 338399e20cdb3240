"""Waiting for what other threads, processes and servers see to, as long as that takes on a busy machine."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["PATIENCE", "auntil", "until", "until_collected"]

R = TypeVar("R")

PATIENCE = (
    30.0  # seconds; far more than anything takes, for what fails fails late and what holds holds at once
)


def until(claim: Callable[[], R], within: float = PATIENCE) -> R:
    """Return what `claim` returns once it is true; it is asked until then."""
    end = time.monotonic() + within
    while not (claimed := claim()):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.001)
    return claimed


def until_collected(claim: Callable[[], object]) -> None:
    """As `until`, of what is true once garbage is collected: another thread may have just held it for a moment."""
    until(lambda: gc.collect() >= 0 and claim())


async def auntil(claim: Callable[[], object], within: float = PATIENCE) -> None:
    """Return once `claim` is true, which tasks of this loop see to: they have their turn each time it is not."""
    async with asyncio.timeout(within):
        while not claim():
            await asyncio.sleep(0)
