"""One process of a fleet whose history is judged: runs seeded programs over one cache, and notes what they did.

It does what it is told on standard input, an act a line, as `Process` has it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any, Final

from bugs import BUGS
from histories import Event

from layercache import Caches

TAGS: Final[dict[str, tuple[str, ...]]] = {
    "k0": ("t0",), "k1": ("t0", "t1"), "k2": ("t1",), "k3": (), "k4": ("t2",), "k5": ("t2", "t0"),
}  # fmt: skip
"""Of each key, the same in all processes."""

OPERATIONS: Final = {
    "get": 40, "get_many": 6, "get_or_set": 20, "set": 12, "set_many": 2, "add": 2, "delete": 6, "invalidate": 8, "clear": 0.3,
}  # fmt: skip
"""How often, among each other."""

PAUSE: Final = 0.004  # seconds between two calls of a program, on the average

Call = tuple[str, tuple[Any, ...], dict[str, Any]]


class Node:
    """What the programs of one process share."""

    def __init__(self, name: str) -> None:
        self.name = name

    def begin(
        self, settings: dict[str, Any], seed: int, history: str, tasks: int = 0, threads: int = 0, bug: str = ""
    ) -> None:
        """Run so many programs, in tasks of one loop and in threads, until told to `end`."""
        self._undo = BUGS[bug]()
        self._history = Path(history)
        self._caches = Caches(settings)
        self.cache = self._caches["default"]
        self.far = self.cache._layer.space.layers()[-1]
        self.ended = threading.Event()
        self.events: list[Event] = []
        self.raised: list[str] = []
        self.doubtful_at = 0.0
        programs = [Program(self, number, seed) for number in range(tasks + threads)]
        self._threads = [threading.Thread(target=program.run) for program in programs[tasks:]]
        self._threads.append(threading.Thread(target=lambda: asyncio.run(self._run_tasks(programs[:tasks]))))
        self._threads.append(threading.Thread(target=self._watch))
        for thread in self._threads:
            thread.start()

    async def _run_tasks(self, programs: list[Program]) -> None:
        await asyncio.gather(*(program.arun() for program in programs))
        await asyncio.sleep(0)

    def state(self) -> dict[str, Any]:
        """How it is now: whether it is served by the server, owes it nothing, and hears of what others do."""
        gauges = self.far.space.gauges()
        return {"out": self.is_out(), "owes": self.owes(), "lag": gauges.get("log_lag", 1e9)}

    def end(self) -> dict[str, Any]:
        """End the programs, write the history, and say what there was."""
        self.ended.set()
        for thread in self._threads:
            thread.join()
        stats = self.cache.stats()
        self._caches.close()
        self._undo()
        self._history.write_text("".join(f"{event.line()}\n" for event in self.events), encoding="utf-8")
        near, far = stats.layers
        return {
            "raised": self.raised[:10],
            "operations": Counter(event.operation for event in self.events),
            "doubtful": sum(event.outcome == "unknown" for event in self.events),
            "near hits": near.hits,
            "far hits": far.hits,
            "errors": far.errors,
        }

    # -- what is to be known of the far layer

    def is_out(self) -> bool:
        return bool(getattr(self.far.space, "is_out", self.far.space.gauges()["circuits_open"]))

    def owes(self) -> bool:
        outbox = getattr(self.far, "outbox", None)
        return outbox is not None and not outbox.is_empty

    def trouble(self) -> tuple[Any, ...]:
        """Return what is another where something went wrong meanwhile, and begins with True while it does."""
        return self.is_out() or self.owes(), self.far.errors

    def note(self, *events: Event) -> None:
        self.events += events
        self.doubtful_at = max(
            [self.doubtful_at, *(event.ended for event in events if event.outcome == "unknown")]
        )

    def _watch(self) -> None:
        """Note outages, from before they begin until after they have ended, and when everything was delivered."""
        last_fine, settled, openings = monotonic(), 0.0, 0
        while True:
            ending = self.ended.is_set()
            began = monotonic()
            count = self.far.space.gauges()["circuit_openings"]
            is_out = self.is_out()
            if (not is_out or ending) and count != openings:
                self.note(Event(self.name, "outage", began=last_fine, ended=monotonic()))
                openings = count
            if not is_out:
                last_fine = began
            if not is_out and not self.owes() and not self.is_out() and settled < self.doubtful_at <= began:
                self.note(Event(self.name, "delivered", began=began, ended=monotonic()))
                settled = began
            if ending:
                return
            time.sleep(0.002)


class Program:
    """A seeded sequence of calls, and what came of each."""

    def __init__(self, node: Node, number: int, seed: int) -> None:
        self._node, self._name = node, f"{node.name}{number}"
        self._random, self._made = Random(f"{seed} {self._name}"), 0

    def run(self) -> None:
        """Make the calls plainly."""
        calls, answer = self._calls(self._load), None
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
            key = self._random.choice(list(TAGS))
            yield from getattr(self, f"_{operation}")(key, *([loader] if operation == "get_or_set" else []))

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
        self._node.note(
            Event(self._node.name, "read", key=key, value=value, began=began, ended=monotonic())
        )

    def _get_many(self, key: str) -> Generator[Call, Any, None]:
        began = monotonic()
        found = yield "get_many", (list(TAGS),), {}
        ended = monotonic()
        self._node.note(
            *(Event(self._node.name, "read", key=key, value=found[key], began=began, ended=ended) for key in found or ())
        )

    def _get_or_set(self, key: str, loader: Callable[..., Any]) -> Generator[Call, Any, None]:
        loaded: list[Any] = []
        seconds = self._random.choice([0, 0.002, 0.02])
        began = monotonic()
        value = yield "get_or_set", (key, loader(key, seconds, loaded)), {"tags": TAGS[key]}
        if value not in loaded:
            self._node.note(
                Event(self._node.name, "read", key=key, value=value, began=began, ended=monotonic())
            )

    def _load(self, key: str, seconds: float, loaded: list[Any]) -> Callable[[], str]:
        def load() -> str:
            began, value = monotonic(), self._value()
            loaded.append(value)
            time.sleep(seconds)
            self._loaded(key, value, began)
            return value

        return load

    def _aload(self, key: str, seconds: float, loaded: list[Any]) -> Callable[[], Any]:
        async def load() -> str:
            began, value = monotonic(), self._value()
            loaded.append(value)
            await asyncio.sleep(seconds)
            self._loaded(key, value, began)
            return value

        return load

    def _loaded(self, key: str, value: str, began: float) -> None:
        event = Event(
            self._node.name, "load", key=key, tags=TAGS[key], value=value, began=began, ended=monotonic()
        )
        self._node.note(event)

    def _set(self, key: str) -> Generator[Call, Any, None]:
        value, before, began = self._value(), self._node.trouble(), monotonic()
        yield "set", (key, value), {"tags": TAGS[key]}
        self._node.note(self._noted("write", before, key=key, tags=TAGS[key], value=value, began=began))

    def _set_many(self, key: str) -> Generator[Call, Any, None]:
        tags = TAGS[key]
        keys = [other for other, others in TAGS.items() if others == tags]
        values = {key: self._value() for key in keys}
        before, began = self._node.trouble(), monotonic()
        yield "set_many", (values,), {"tags": tags}
        self._node.note(
            *(self._noted("write", before, key=key, tags=tags, value=value, began=began) for key, value in values.items())
        )

    def _add(self, key: str) -> Generator[Call, Any, None]:
        value, before, began = self._value(), self._node.trouble(), monotonic()
        is_added = yield "add", (key, value), {"tags": TAGS[key]}
        event = self._noted("write", before, key=key, tags=TAGS[key], value=value, began=began)
        if is_added or event.outcome == "unknown":
            self._node.note(event)

    def _delete(self, key: str) -> Generator[Call, Any, None]:
        before, began = self._node.trouble(), monotonic()
        yield "delete", (key,), {}
        self._node.note(self._noted("delete", before, key=key, began=began))

    def _invalidate(self, key: str) -> Generator[Call, Any, None]:
        tags = TAGS[key] or ("t1",)
        before, began = self._node.trouble(), monotonic()
        yield "invalidate", tags, {}
        self._node.note(self._noted("invalidate", before, tags=tags, began=began))

    def _clear(self, key: str) -> Generator[Call, Any, None]:
        before, began = self._node.trouble(), monotonic()
        yield "clear", (), {}
        self._node.note(self._noted("clear", before, began=began))


def main() -> None:
    node = Node(**json.loads(sys.argv[1]))
    print(json.dumps("ready"), flush=True)  # noqa: T201
    for line in sys.stdin:
        act, options = json.loads(line)
        print(json.dumps(getattr(node, act)(**options)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
