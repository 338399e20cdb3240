"""What processes did to one cache, and whether what they read was right.

A *history* is a list of `Event`s in any order, of any number of nodes, on one clock (`time.monotonic()` is that of all
processes of a machine). Two rules, see `objections`:

1. A read returns nothing, or a value that was written or loaded for that key.
2. It never returns what an operation that had *completed* more than `max_staleness` before the read began has replaced,
   deleted, invalidated or cleared; nor, on the node that did it, what it had done so to before the read began.

What the operations are, and what is to be noted of them:

    read        key, value (None: nothing was found). Not for a miss that was loaded: the load says that.
    write       key, value, tags: `set`, or an `add` or `update` that stored.
    load        key, value, tags, of a loader: from before it is called until it has returned. What it loads is as
                old as its beginning.
    delete      key.
    invalidate  tags.
    clear       nothing more.
    delivered   what this node did with an unknown outcome before it `began` is done by the time it `ended`: its
                outbox was delivered.
    outage      the node served without the far store, and might show what it had. Of node `*`: all did, as when
                the store was set back and nobody had seen that yet; it ended when that was made good. value: as of
                when what they may show is; left out, as of its beginning.

An operation that failed, timed out, or whose node was killed meanwhile has the outcome "unknown": it may have been
done, never be, or be done at any time later. So may those that were made in an outage, until they are delivered.

Values of one key should be different; of equal ones the newest is taken to be read.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any, Literal, TypeAlias

__all__ = ["EVERY_NODE", "Event", "History", "Objection", "events_of", "objections"]

Operation: TypeAlias = Literal[
    "read", "write", "load", "delete", "invalidate", "clear", "delivered", "outage"
]

EVERY_NODE = "*"


@dataclass(frozen=True, slots=True)
class Event:
    """One operation of one node.

    Attributes:
        began, ended: seconds; before it was called, after it had returned. What never returned ended at infinity.
        outcome: whether it is known to be done.
    """

    node: str
    operation: Operation
    key: str = ""
    tags: tuple[str, ...] = ()
    value: Any = None
    began: float = 0.0
    ended: float = inf
    outcome: Literal["done", "unknown"] = "done"

    def line(self) -> str:
        """Return it as a line of JSON, without the end of the line."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, line: str) -> Event:
        """Return the event of such a line."""
        fields = json.loads(line)
        return cls(**{**fields, "tags": tuple(fields["tags"])})

    def __str__(self) -> str:
        of = f" {self.key}" if self.key else ""
        value = f" = {self.value!r}" if self.operation in {"read", "write", "load"} else ""
        tags = f" {list(self.tags)}" if self.tags else ""
        doubt = "" if self.outcome == "done" else " (outcome unknown)"
        return f"{self.node}: {self.operation}{of}{value}{tags}, {self.began:.3f} to {self.ended:.3f}{doubt}"


@dataclass(frozen=True, slots=True)
class Objection:
    """What is wrong with a read.

    Attributes:
        rule: what it breaks.
        written: how the value came to be; None where it never did.
        by: what should have made it a thing of the past.
    """

    rule: Literal["never written", "too old", "older than what this node did"]
    read: Event
    written: Event | None = None
    by: Event | None = None

    def __str__(self) -> str:
        said = [f"{self.rule}: {self.read}"]
        said += [] if self.written is None else [f"  it was made by {self.written}"]
        said += [] if self.by is None else [f"  and its end should have been {self.by}"]
        return "\n".join(said)


def events_of(*files: Path) -> list[Event]:
    """Return the events of files of lines; a last line that is cut off, as that of a process that was killed, is
    ignored."""
    events: list[Event] = []
    for file in files:
        lines = file.read_text(encoding="utf-8").split("\n")
        events += [Event.of(line) for line in lines[:-1] if line]
    return events


def objections(
    events: Iterable[Event], max_staleness: float, *, late: bool = True, own: bool = True
) -> list[Objection]:
    """Return what is wrong with the reads among `events`.

    Args:
        late: whether a request that nobody waits for any more may be done even after its node's outbox was
            delivered, as where the network has kept it. Where it cannot be, more is wrong.
        own: whether a node is to see at once what it did itself, with any outcome.
    """
    return list(History(events, max_staleness, late=late, own=own).objections())


class History:
    """Events, and what follows from them; see `objections` for the arguments."""

    def __init__(
        self, events: Iterable[Event], max_staleness: float, *, late: bool = True, own: bool = True
    ) -> None:
        self._max_staleness, self._late, self._own = max_staleness, late, own
        self.reads: list[Event] = []
        self._makers: defaultdict[str, list[Event]] = defaultdict(list)  # by key
        self._ends_of_keys: defaultdict[str, list[Event]] = defaultdict(list)
        self._ends_of_many: list[Event] = []
        self._delivered: defaultdict[str, list[Event]] = defaultdict(list)  # by node
        self._outages: defaultdict[str, list[Event]] = defaultdict(list)
        for event in events:
            self._take(event)
        self._overwritten: dict[tuple[int, str | None], tuple[float, Event | None]] = {}

    def _take(self, event: Event) -> None:
        if event.operation == "read":
            self.reads.append(event)
        elif event.operation == "delivered":
            self._delivered[event.node].append(event)
        elif event.operation == "outage":
            self._outages[event.node].append(event)
        elif event.operation in {"invalidate", "clear"}:
            self._ends_of_many.append(event)
        else:
            if event.operation in {"write", "load"}:
                self._makers[event.key].append(event)
            if event.operation in {"write", "delete"}:
                self._ends_of_keys[event.key].append(event)

    def objections(self) -> Iterator[Objection]:
        for read in self.reads:
            if read.value is not None:
                objection = self._judged(read)
                if objection is not None:
                    yield objection

    def _judged(self, read: Event) -> Objection | None:
        made = [
            maker
            for maker in self._makers[read.key]
            if maker.value == read.value and maker.began <= read.ended
        ]
        if not made:
            return Objection("never written", read)
        newest = max(made, key=self._since)
        gone_at, by = self._end_of(newest)
        if self._counts_from(read, read.node, EVERY_NODE) - self._max_staleness > gone_at:
            return Objection("too old", read, newest, by)
        gone_at, by = self._end_of(newest, read.node)
        if self._own and self._counts_from(read, EVERY_NODE) > gone_at:  # it may have been lost
            return Objection("older than what this node did", read, newest, by)
        return None

    def _counts_from(self, read: Event, *nodes: str) -> float:
        """Return when the read has begun; in an outage of one of `nodes`, when that has."""
        began = read.began
        for node in nodes:
            for outage in self._outages[node]:
                # all that was kept near is emptied when it ends; where all were in it, within `max_staleness`
                grace = self._max_staleness if node == EVERY_NODE else 0.0
                if outage.began <= read.ended and read.began <= outage.ended + grace:
                    began = min(began, outage.began if outage.value is None else outage.value)
        return began

    def _since(self, maker: Event) -> float:
        """Return the latest moment at which the value may have come to be."""
        if maker.operation == "load":
            return maker.began
        if maker.outcome == "done":
            return maker.ended
        return inf if self._late else self._done_at(maker)

    def _done_at(self, event: Event) -> float:
        """Return when it was done for certain."""
        if event.outcome == "done":
            return event.ended
        later = [each.ended for each in self._delivered[event.node] if each.began >= event.ended]
        return min(later, default=inf)

    def _end_of(self, maker: Event, node: str | None = None) -> tuple[float, Event | None]:
        """Return from when on the value of `maker` is a thing of the past for certain, and by what; for `node`, by
        what it did itself."""
        known = (id(maker), node)
        found = self._overwritten.get(known)
        if found is None:
            since = self._since(maker)
            found = inf, None
            for event in (*self._ends_of_keys[maker.key], *self._ends_of_many):
                if event is maker or event.began <= since or (node is not None and event.node != node):
                    continue
                if event.operation == "invalidate" and not set(event.tags) & set(maker.tags):
                    continue
                done_at = self._done_at(event) if node is None else event.ended
                if done_at < found[0]:
                    found = done_at, event
            self._overwritten[known] = found
        return found
