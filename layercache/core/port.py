"""What the core needs from the world around it: time, stores, loaders and waiting.

There are three: `inline.InlinePort` (never suspends, so a whole verb runs on the calling
thread), `loop.LoopPort` (awaits on the running event loop) and `testing.stepping.StepPort` (pauses before
each act, so that tests can try every order).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from layercache.core.flights import Flight
from layercache.entry import Entry
from layercache.spi import Change, KeySpace

__all__ = ["Port"]


class Port(Protocol):
    """The acts of the core. Each `async` one may suspend, and others may act meanwhile."""

    def now(self) -> float:
        """Return the wall clock in seconds."""
        ...

    async def read(self, space: KeySpace, key: str) -> Entry | None: ...

    async def read_many(self, space: KeySpace, keys: Sequence[str]) -> dict[str, Entry]: ...

    async def write(self, space: KeySpace, key: str, entry: Entry) -> bool: ...

    async def write_many(self, space: KeySpace, entries: Mapping[str, Entry]) -> list[str]: ...

    async def update(self, space: KeySpace, key: str, change: Change) -> Entry | None: ...

    async def delete(self, space: KeySpace, key: str) -> bool: ...

    async def delete_many(self, space: KeySpace, keys: Sequence[str]) -> int: ...

    async def clear(self, space: KeySpace) -> None: ...

    async def load(self, loader: Callable[[], Any]) -> Any:
        """Return what `loader` returns; what it raises, passes."""
        ...

    async def join(self, flight: Flight) -> Entry:
        """Wait until `flight` lands and return its entry, or raise what it landed with."""
        ...
