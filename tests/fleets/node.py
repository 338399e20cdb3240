"""One process of a fleet whose history is judged: runs seeded programs over one cache, and notes what they did.

It does what it is told on standard input, an act a line, as `Process` has it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import replace
from math import inf
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any, Final

from bugs import put_back
from histories import Event
from spawned import obey

from layercache import Caches

TAGS: Final[dict[str, tuple[str, ...]]] = {
    f"k{number}": tuple({f"t{number % 3}": 0, f"t{number % 4}": 0})[: number % 3] for number in range(12)
}
"""Of each key none, one or two, and the same in all processes."""

KEYS: Final = list(TAGS)

OPERATIONS: Final = {"get": 60, "get_many": 3, "get_or_set": 30, "change": 10}
CHANGES: Final = {"set": 10, "set_many": 1, "add": 2, "delete": 6, "invalidate": 4, "clear": 0.2}
"""How often, among each other."""

TIDES: Final = 0.3
"""Seconds in which all processes change what there is, and then as many in which none does: what is of the past then
stays, and is seen, where it would have been replaced soon."""

PAUSE: Final = 0.004  # seconds between two calls of a program, on the average

Call = tuple[str, tuple[Any, ...], dict[str, Any]]


class Node:
    """What the programs of one process share."""

    def __init__(self, name: str) -> None:
        self.name = name

    def begin(
        self,
        settings: dict[str, Any],
        seed: int,
        history: str,
        tasks: int = 0,
        threads: int = 0,
        bug: str = "",
    ) -> None:
        """Run so many programs, in tasks of one loop and in threads, until told to `end`; with none of them do what is
        told by `do`."""
        self._take_out = put_back(bug)
        self._history = Path(history)
        self._staleness = settings["backends"]["far"]["max_staleness"]
        self._caches = Caches(settings)
        self.cache = self._caches["default"]
        self.far = self.cache._layer.space.layers()[-1]
        self.ended = threading.Event()
        self.events: list[Event] = []
        self.raised: list[str] = []
        self._under_way: list[threading.Thread] = []
        self.doubtful_at = 0.0
        programs = [Program(self, number, seed) for number in range(tasks + threads)]
        jobs = [self._watch, *(program.run for program in programs[tasks:])]
        if tasks:
            jobs.append(lambda: asyncio.run(_run_tasks(programs[:tasks])))
        self._led = Program(self, len(programs), seed)
        self._threads = [threading.Thread(target=job, daemon=True) for job in jobs]
        for thread in self._threads:
            thread.start()

    def do(self, operation: str, *, waits: bool = True, **arguments: Any) -> None:
        """Do one thing, on a thread that is waited for, or to "wait" for later."""
        if operation == "wait":
            self._under_way.pop().join()
            return
        calls = getattr(self._led, f"_{operation}")(**arguments)
        self._under_way.append(threading.Thread(target=lambda: self._led.make(calls), daemon=True))
        self._under_way[-1].start()
        if waits:
            self.do("wait")

    def is_well(self) -> bool:
        """Whether the server serves it and is owed nothing, and it hears of what others do."""
        return self._hears() and not self._is_in_trouble()

    def _hears(self) -> bool:
        return self.far.space.gauges().get("log_lag", inf) < self._staleness

    def end(self) -> dict[str, Any]:
        """End the programs, write the history, and say what there was."""
        self.ended.set()
        for thread in self._threads:
            thread.join()
        stats = self.cache.stats()
        self._caches.close()
        self._take_out()
        self._history.write_text("".join(f"{event.line()}\n" for event in self.events), encoding="utf-8")
        near, far = stats.layers
        return {
            "raised": self.raised,
            "done": Counter(event.operation for event in self.events),
            "unknown": sum(event.outcome == "unknown" for event in self.events),
            "near hits": near.hits,
            "far hits": far.hits,
        }

    # -- what is to be known of the far layer

    def _is_in_trouble(self) -> bool:
        return self.far.space.is_out or not self.far.outbox.is_empty

    def trouble(self) -> tuple[bool, int]:
        """Return whether something is wrong, and what is another where something was wrong meanwhile."""
        return self._is_in_trouble(), self.far.errors

    def note(self, *events: Event) -> None:
        self.events += events
        self.doubtful_at = max(
            [self.doubtful_at, *(event.ended for event in events if event.outcome == "unknown")]
        )

    def _watch(self) -> None:
        """Note outages, until after they have ended, and when everything was delivered. What is near is served in an
        outage as it was when others were heard of last, so that is when one begins."""
        last_fine, delivered, openings = monotonic(), 0.0, 0
        while True:
            is_ending = self.ended.is_set()
            began = monotonic()
            count, is_out = self.far.space.gauges()["circuit_openings"], self.far.space.is_out
            if count != openings and (is_ending or not is_out):
                self.note(Event(self.name, "outage", began=last_fine, ended=monotonic()))
                openings = count
            if not is_out and self._hears():
                last_fine = began
            if delivered < self.doubtful_at <= began and not self._is_in_trouble():
                self.note(Event(self.name, "delivered", began=began, ended=monotonic()))
                delivered = began
            if is_ending:
                return
            time.sleep(0.002)


async def _run_tasks(programs: list[Program]) -> None:
    await asyncio.gather(*(program.arun() for program in programs))


class Program:
    """A seeded sequence of calls, and what came of each."""

    def __init__(self, node: Node, number: int, seed: int) -> None:
        self._node, self._name = node, f"{node.name}{number}"
        self._random, self._made = Random(f"{seed} {self._name}"), 0

    def run(self) -> None:
        """Make the calls plainly."""
        self.make(self._calls(self._load))

    def make(self, calls: Generator[Call, Any, None]) -> None:
        answer = None
        while True:
            try:
                verb, args, options = calls.send(answer)
                answer = getattr(self._node.cache, verb)(*args, **options)
            except StopIteration:
                return
            except Exception as error:
                self._node.raised.append(repr(error))
                answer = None
            time.sleep(self._random.expovariate(1 / PAUSE))

    async def arun(self) -> None:
        """Make them through the async twins."""
        calls, answer = self._calls(self._aload), None
        while True:
            try:
                verb, args, options = calls.send(answer)
                answer = await getattr(self._node.cache, f"a{verb}")(*args, **options)
            except StopIteration:
                return
            except Exception as error:
                self._node.raised.append(repr(error))
                answer = None
            await asyncio.sleep(self._random.expovariate(1 / PAUSE))

    def _calls(self, loader: Callable[..., Any]) -> Generator[Call, Any, None]:
        operations, weights = list(OPERATIONS), list(OPERATIONS.values())
        while not self._node.ended.is_set():
            operation = self._random.choices(operations, weights)[0]
            if operation == "change" and monotonic() % (2 * TIDES) < TIDES:
                change = self._random.choices(list(CHANGES), list(CHANGES.values()))[0]
                # some of them hardly ever
                yield from getattr(self, f"_{change}")(KEYS[int(len(KEYS) * self._random.random() ** 2)])
            elif operation == "get_or_set":
                yield from self._get_or_set(self._random.choice(KEYS), loader)
            elif operation == "get_many":
                yield from self._get_many()
            else:
                yield from self._get(self._random.choice(KEYS))

    def _value(self) -> str:
        self._made += 1
        return f"{self._name} {self._made}"

    def _noted(self, operation: Any, before: tuple[Any, ...], **fields: Any) -> Event:
        after, ended = self._node.trouble(), monotonic()
        outcome: Any = "unknown" if before != after or before[0] else "done"
        return Event(self._node.name, operation, ended=ended, outcome=outcome, **fields)

    # -- the operations

    def _get(self, key: str) -> Generator[Call, Any, None]:
        began = monotonic()
        value = yield "get", (key,), {}
        self._node.note(Event(self._node.name, "read", key=key, value=value, began=began, ended=monotonic()))

    def _get_many(self) -> Generator[Call, Any, None]:
        began = monotonic()
        found = yield "get_many", (KEYS,), {}
        ended = monotonic()
        self._node.note(
            *(
                Event(self._node.name, "read", key=key, value=found[key], began=began, ended=ended)
                for key in found or ()
            )
        )

    def _get_or_set(self, key: str, loader: Callable[..., Any]) -> Generator[Call, Any, None]:
        loaded: list[tuple[str, float]] = []
        seconds = self._random.choice([0, 0.002, 0.02])
        began = monotonic()
        value = yield "get_or_set", (key, loader(seconds, loaded)), {"tags": TAGS[key]}
        event = Event(self._node.name, "read", key=key, value=value, began=began, ended=monotonic())
        if all(value != mine for mine, _ in loaded):
            self._node.note(event)
        for mine, since in loaded:
            self._node.note(replace(event, operation="load", tags=TAGS[key], value=mine, began=since))

    def _load(self, seconds: float, loaded: list[tuple[str, float]]) -> Callable[[], str]:
        def load() -> str:
            loaded.append((self._value(), monotonic()))
            time.sleep(seconds)
            return loaded[-1][0]

        return load

    def _aload(self, seconds: float, loaded: list[tuple[str, float]]) -> Callable[[], Any]:
        async def load() -> str:
            loaded.append((self._value(), monotonic()))
            await asyncio.sleep(seconds)
            return loaded[-1][0]

        return load

    def _set(self, key: str, size: int = 0) -> Generator[Call, Any, None]:
        value = self._value() + "".join(self._random.choices("0123456789abcdef", k=size))
        before, began = self._node.trouble(), monotonic()
        yield "set", (key, value), {"tags": TAGS[key]}
        self._node.note(self._noted("write", before, key=key, tags=TAGS[key], value=value, began=began))

    def _set_many(self, key: str) -> Generator[Call, Any, None]:
        tags = TAGS[key]
        keys = [other for other, others in TAGS.items() if others == tags]
        values = {key: self._value() for key in keys}
        before, began = self._node.trouble(), monotonic()
        yield "set_many", (values,), {"tags": tags}
        self._node.note(
            *(
                self._noted("write", before, key=key, tags=tags, value=value, began=began)
                for key, value in values.items()
            )
        )

    def _add(self, key: str) -> Generator[Call, Any, None]:
        value, before, began = self._value(), self._node.trouble(), monotonic()
        is_added = yield "add", (key, value), {"tags": TAGS[key]}
        event = self._noted("write", before, key=key, tags=TAGS[key], value=value, began=began)
        if is_added:
            self._node.note(event)
        elif event.outcome == "unknown":  # it may be there, but nothing was replaced as far as we know
            self._node.note(replace(event, node=f"{event.node}, perhaps"))

    def _delete(self, key: str) -> Generator[Call, Any, None]:
        before, began = self._node.trouble(), monotonic()
        yield "delete", (key,), {}
        self._node.note(self._noted("delete", before, key=key, began=began))

    def _invalidate(self, key: str) -> Generator[Call, Any, None]:
        tags = TAGS[key] or TAGS[KEYS[1]]
        before, began = self._node.trouble(), monotonic()
        yield "invalidate", tags, {}
        self._node.note(self._noted("invalidate", before, tags=tags, began=began))

    def _clear(self, key: str) -> Generator[Call, Any, None]:
        before, began = self._node.trouble(), monotonic()
        yield "clear", (), {}
        self._node.note(self._noted("clear", before, began=began))


if __name__ == "__main__":
    obey(Node)
