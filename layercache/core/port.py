"""What the core needs from the world around it: time, chance, stores, loaders and waiting.

There are three: `inline.InlinePort` (never suspends, so a whole verb runs on the calling
thread), `loop.LoopPort` (awaits on the running event loop) and `testing.stepping.StepPort` (pauses before
each act, so that tests can try every order).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from layercache.core.flights import Flight, Party
from layercache.core.tickets import Ticket
from layercache.entry import Entry, Stamps
from layercache.spi import Change, KeyPage, KeySpace, Lease, LeasingKeySpace, Sight

__all__ = ["Port"]


class Port(Protocol):
    """The acts of the core. Each that is awaited may suspend, and others may act meanwhile."""

    def now(self) -> float:
        """Return the wall clock in seconds."""
        ...

    def uniform(self) -> float:
        """Return a number from 0.0 to 1.0 by chance."""
        ...

    def exponential(self) -> float:
        """Return a number from the exponential distribution with the mean 1."""
        ...

    def token(self) -> bytes:
        """Return a name that nobody else has."""
        ...

    # -- stores

    def read(self, space: KeySpace, key: str) -> Coroutine[Any, Any, Entry | None]: ...

    def read_many(self, space: KeySpace, keys: Sequence[str]) -> Coroutine[Any, Any, dict[str, Entry]]: ...

    def write(self, space: KeySpace, key: str, entry: Entry) -> Coroutine[Any, Any, bool]:
        """As the key space's `set`."""
        ...

    def write_many(self, space: KeySpace, entries: Mapping[str, Entry]) -> Coroutine[Any, Any, list[str]]: ...

    def update(self, space: KeySpace, key: str, change: Change) -> Coroutine[Any, Any, Entry | None]: ...

    def fill(self, space: KeySpace, ticket: Ticket, entry: Entry) -> Coroutine[Any, Any, bool]: ...

    def delete(self, space: KeySpace, key: str) -> Coroutine[Any, Any, bool]: ...

    def delete_many(self, space: KeySpace, keys: Sequence[str]) -> Coroutine[Any, Any, int]: ...

    def clear(self, space: KeySpace) -> Coroutine[Any, Any, None]: ...

    def invalidate(self, space: KeySpace, tags: Sequence[str], soft: bool) -> Coroutine[Any, Any, None]: ...

    def stamps(self, space: KeySpace, tags: Sequence[str]) -> Coroutine[Any, Any, Stamps]: ...

    def lease_many(
        self,
        space: LeasingKeySpace,
        keys: Sequence[str],
        token: bytes,
        seconds: float,
        after: float,
        tags: Sequence[str],
    ) -> Coroutine[Any, Any, dict[str, Lease]]: ...

    def fill_many(
        self, space: LeasingKeySpace, token: bytes, entries: Mapping[str, Entry]
    ) -> Coroutine[Any, Any, list[str]]: ...

    def release_many(
        self, space: LeasingKeySpace, keys: Sequence[str], token: bytes, seconds: float
    ) -> Coroutine[Any, Any, None]: ...

    def late_stamps(
        self, space: LeasingKeySpace, tags: Sequence[str], mark: bytes | None
    ) -> Coroutine[Any, Any, Stamps | None]: ...

    def explain(self, space: KeySpace, key: str) -> Coroutine[Any, Any, Sight]: ...

    def list_keys(
        self, space: KeySpace, prefix: str, limit: int, cursor: str
    ) -> Coroutine[Any, Any, KeyPage]: ...

    # -- loaders, and waiting

    async def load(self, loader: Callable[[], Any], seconds: float) -> Any:
        """Return what `loader` returns; what it raises, passes. One that can be stopped is, after `seconds`, with
        `LoadOverdue`."""
        ...

    async def start(
        self, job: Coroutine[Any, Any, None], party: Party, ended: Callable[[object], None], *, apart: bool
    ) -> None:
        """Have `job` done, which ends by landing what `party` waits for: on its own if it is to go on `apart` from the
        caller, which then waits no longer than it wants; else perhaps at once.

        Args:
            ended: called, with whatever, when the job has ended, even if it never began.
        """
        ...

    def spawn(
        self,
        job: Callable[[Port], Coroutine[Any, Any, None]],
        party: Party,
        ended: Callable[[object], None],
    ) -> bool:
        """Have a job done that nobody waits for, over the port it is given; return False when there are too many."""
        ...

    async def join(self, flight: Flight, seconds: float) -> bool:
        """Wait until `flight` has landed, for at most `seconds`; return whether it has."""
        ...

    def sleep(self, seconds: float) -> Coroutine[Any, Any, None]: ...
