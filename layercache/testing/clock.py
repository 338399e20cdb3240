"""A wall clock that stands still until a test moves it."""

from __future__ import annotations

__all__ = ["Clock"]


class Clock:
    """Call it for the time in seconds; `advance` it by hand.

    clock = Clock()
    caches = Caches(settings, now=clock)
    clock.advance(15)
    """

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self.now += seconds
