"""Old bugs, to be put back in a process: each is known to be seen by the judge of histories."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from layercache.core.tickets import Ticket
from layercache_redis.log import Log

__all__ = ["BUGS"]

Undo = Callable[[], None]


def patched(target: Any, name: str, replacement: Any) -> Undo:
    former = target.__dict__[name]
    setattr(target, name, replacement)
    return lambda: setattr(target, name, former)


def no_tickets() -> Undo:
    """Whatever was loaded or read is stored near, whatever was changed meanwhile."""
    return patched(Ticket, "permits", lambda self, entry: True)


def deaf() -> Undo:
    """The log is followed, and nothing done about what it says."""
    return patched(Log, "_hear", lambda self, *args: None)


BUGS: dict[str, Callable[[], Undo]] = {
    "": lambda: lambda: None,
    "no tickets": no_tickets,
    "deaf": deaf,
}
