"""What the core needs from the world around it: time, stores, loaders and waiting.

There are three: `inline.InlinePort` (never suspends, so a whole verb runs on the calling
thread), `loop.LoopPort` (awaits on the running event loop) and `testing.stepping.StepPort` (pauses before
each act, so that tests can try every order).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from layercache.core.flights import Flight
from layercache.entry import Entry
from layercache.spi import Change, KeySpace

__all__ = ["Port"]


class Port(Protocol):
    """The acts of the core. Each that is awaited may suspend, and others may act meanwhile."""

    def now(self) -> float:
        """Return the wall clock in seconds."""
        ...

    def read(self, space: KeySpace, key: str) -> Coroutine[Any, Any, Entry | None]: ...

    def read_many(self, space: KeySpace, keys: Sequence[str]) -> Coroutine[Any, Any, dict[str, Entry]]: ...

    def write(self, space: KeySpace, key: str, entry: Entry) -> Coroutine[Any, Any, bool]: ...

    def write_many(self, space: KeySpace, entries: Mapping[str, Entry]) -> Coroutine[Any, Any, list[str]]: ...

    def update(self, space: KeySpace, key: str, change: Change) -> Coroutine[Any, Any, Entry | None]: ...

    def delete(self, space: KeySpace, key: str) -> Coroutine[Any, Any, bool]: ...

    def delete_many(self, space: KeySpace, keys: Sequence[str]) -> Coroutine[Any, Any, int]: ...

    def clear(self, space: KeySpace) -> Coroutine[Any, Any, None]: ...

    async def load(self, loader: Callable[[], Any]) -> Any:
        """Return what `loader` returns; what it raises, passes."""
        ...

    async def join(self, flight: Flight) -> Entry:
        """Wait until `flight` lands and return its entry, or raise what it landed with."""
        ...
