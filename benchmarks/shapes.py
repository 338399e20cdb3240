"""Which shape of Python answers a hit fastest: `python benchmarks/shapes.py`. The lab behind decision 0004."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from rounds import async_rounds, print_table, statement_rounds

now = time.time
KEY = "key:500"
FLOOR = "dict + inlined TTL check"


class Record:
    __slots__ = ("end", "hits", "kind", "value")

    def __init__(self) -> None:
        self.value, self.end, self.hits, self.kind = "value", now() + 3600, 0, None


def records() -> dict[str, Any]:
    return {f"key:{number}": Record() for number in range(1000)}


class Method:
    def __init__(self, entries: dict[str, Any]) -> None:
        self.entries = entries
        self.now = now

    def global_clock(self, key: str, default: Any = None) -> Any:
        record = self.entries.get(key)
        if record is not None and record.end > now():
            record.hits += 1
            return record.value
        return default

    def own_clock(self, key: str, default: Any = None) -> Any:
        record = self.entries.get(key)
        if record is not None and record.end > self.now():
            record.hits += 1
            return record.value
        return default

    def one_more_frame(self, key: str, default: Any = None) -> Any:
        return self.own_clock(key, default)


class Slotted(Method):
    __slots__ = ("get",)


def closure(entries: dict[str, Any], *, clock: bool = True, count: bool = True) -> Callable[..., Any]:
    def full(key: str, default: Any = None) -> Any:
        try:
            record = entries[key]
        except (KeyError, TypeError):
            record = None
        if record is not None and record.end > now():
            record.hits += 1
            kind = record.kind
            return record.value if kind is None else kind(record.value)
        return default

    def uncounted(key: str, default: Any = None) -> Any:
        record = entries.get(key)
        return record.value if record is not None and record.end > now() else default

    def timeless(key: str, default: Any = None) -> Any:
        record = entries.get(key)
        return default if record is None else record.value

    return full if count else uncounted if clock else timeless


def locked(entries: dict[str, Any]) -> Callable[..., Any]:
    lock, ordered = threading.Lock(), OrderedDict(entries)

    def get(key: str, default: Any = None) -> Any:
        with lock:
            record = ordered.get(key)
            if record is not None and record.end > now():
                ordered.move_to_end(key)
                return record.value
        return default

    return get


def main() -> None:
    entries = records()
    method, slotted = Method(entries), Slotted(entries)
    slotted.get = closure(entries)

    class Holder:
        pass

    holder: Any = Holder()
    holder.get = closure(entries)
    inline = (
        "record = entries.get(key)\nif record is not None and record.end > now():\n    value = record.value"
    )
    names: dict[str, Any] = {
        "entries": entries, "key": KEY, "now": now, "method": method, "slotted": slotted, "holder": holder,
        "full": closure(entries), "uncounted": closure(entries, count=False),
        "timeless": closure(entries, clock=False, count=False), "locked": locked(entries),
    }  # fmt: skip
    statements = {
        FLOOR: inline,
        "closure, no clock, no count": "timeless(key)",
        "closure, no count": "uncounted(key)",
        "closure: clock, count, kind of value": "full(key)",
        "the same, found on an instance (what layercache does)": "holder.get(key)",
        "the same, found in a slot": "slotted.get(key)",
        "method, clock a global": "method.global_clock(key)",
        "method, clock on self": "method.own_clock(key)",
        "method under one more frame": "method.one_more_frame(key)",
        "closure over an OrderedDict under a lock": "locked(key)",
    }
    print_table(
        "A hit, sync",
        statement_rounds({name: (code, names) for name, code in statements.items()}, 100_000),
        FLOOR,
    )
    print_table("A hit, awaited", async_rounds(asynchronous(entries), 50_000), "bare coroutine over a dict")


def asynchronous(entries: dict[str, Any]) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    get = closure(entries)

    async def bare(key: str) -> Any:
        return entries[key]

    async def inlined(key: str, default: Any = None) -> Any:
        try:
            record = entries[key]
        except (KeyError, TypeError):
            record = None
        if record is not None and record.end > now():
            record.hits += 1
            kind = record.kind
            return record.value if kind is None else kind(record.value)
        return default

    async def wrapping(key: str, default: Any = None) -> Any:
        return get(key, default)

    return {
        "bare coroutine over a dict": (bare, (KEY,)),
        "body written out (what layercache does)": (inlined, (KEY,)),
        "coroutine around the sync closure": (wrapping, (KEY,)),
    }


if __name__ == "__main__":
    main()
