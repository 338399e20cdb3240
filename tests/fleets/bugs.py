"""Old bugs, to be put back into a process."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from layercache.core.outbox import Outbox
from layercache.core.tickets import Ticket
from layercache_chain.hearing import Hearing, Trust
from layercache_redis.log import Log

__all__ = ["BUGS"]

Patch = tuple[type, str, Any]


def _trust_for_ever(trust: Trust) -> None:
    trust.until = math.inf
    if trust._near is not None:
        trust._near.trusted_until = math.inf


NO_LOG: Patch = (Log, "_follow", lambda self: None)

BUGS: dict[str, Iterable[Patch]] = {
    "": [],
    "what was read or loaded before a change is kept near": [(Ticket, "permits", lambda self, entry: True)],
    "what others changed is not dropped near": [
        (Hearing, news, lambda self, *args: None) for news in ("written", "invalidated")
    ],
    "what could not be invalidated in an outage never is": [(Outbox, "owe", lambda self, owed: None)],
    "a server that was set back is believed": [(Hearing, "lost_writes", lambda self: None)],
    "nobody hears of changes": [NO_LOG],  # which is no bug as long as nobody relies on what is near
    "nobody hears of changes, and what is near is relied on": [NO_LOG, (Trust, "weigh", _trust_for_ever)],
}


def put_back(bug: str) -> Callable[[], None]:
    """Put it into this process; call what is returned to take it out again."""
    former = [(target, name, target.__dict__[name]) for target, name, _ in BUGS[bug]]
    for target, name, broken in BUGS[bug]:
        setattr(target, name, broken)

    def take_out() -> None:
        for target, name, whole in former:
            setattr(target, name, whole)

    return take_out
