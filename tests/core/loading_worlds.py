"""Worlds for the orders of loads: caches over memory, over a store that grants leases, and over a chain of both.

A world stands for as many processes as it is told: they share the store and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from threading import Lock, get_ident
from typing import Any

from layercache.codecs.normal import NormalForm
from layercache.core.flights import Flights
from layercache.core.layer import Health, Layer
from layercache.core.loading import Loading
from layercache.core.policy import Overrides, Plan, Policy
from layercache.core.tickets import Tickets
from layercache.core.verbs import Verbs
from layercache.entry import CACHE_TAG, Entry, Stamps
from layercache.spi import Change, Lease, LeasingKeySpace
from layercache.testing import Clock, StepPort, every_order
from layercache.testing.contract import open_backend
from layercache.testing.stepping import Order

CLOCK = Clock()
# opened once: thousands of worlds are made on them, each emptied first
MEMORY = open_backend("memory", now=CLOCK)
STORE = open_backend("memory", now=CLOCK)

HARD = 1 << 16  # of a stamp: what is below counts soft invalidations


class LeasingSpace(LeasingKeySpace):
    """A far store in one dict, whose every operation is one step: as the Redis backend is by its scripts."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.leases: dict[str, bytes] = {}
        self.held: set[str] = set()  # leases that were kept to hold everybody back
        self.stamp = HARD
        self.tags: dict[str, int] = {}
        self.marks = 0
        self.invalidated: dict[str, int] = {}

    def get(self, key: str) -> Entry | None:
        entry = self.entries.get(key)
        if entry is None or entry.dead_at <= CLOCK():
            return None
        if any(self._now(tag) // HARD != at // HARD for tag, at in entry.stamps):
            return None
        return entry if all(self._now(tag) == at for tag, at in entry.stamps) else entry.made_stale()

    def _now(self, tag: str) -> int:
        return self.stamp if tag == CACHE_TAG else self.tags.setdefault(tag, HARD)

    def set(self, key: str, entry: Entry) -> bool:
        self._void(key)
        self.entries[key] = self._stamped(entry)
        return True

    def _stamped(self, entry: Entry) -> Entry:
        others = tuple(pair for pair in entry.stamps if pair[0] != CACHE_TAG)
        times = (entry.created_at, entry.fresh_until, entry.dead_at)
        return Entry(entry.payload, entry.value, *times, ((CACHE_TAG, self.stamp), *others), entry.spread)

    def _void(self, key: str) -> None:
        self.leases.pop(key, None)
        self.held.discard(key)

    def update(self, key: str, change: Change) -> Entry | None:
        changed = change(self.get(key))
        if changed is not None:
            self.set(key, changed)
        return changed

    def delete(self, key: str) -> bool:
        self._void(key)
        return self.entries.pop(key, None) is not None

    def clear(self) -> None:
        self.stamp += HARD
        self.leases.clear()
        self.held.clear()

    def stamps(self, tags: Sequence[str]) -> Stamps:
        return tuple((tag, self._now(tag)) for tag in (CACHE_TAG, *tags))

    def invalidate(self, tags: Sequence[str], soft: bool = False) -> None:
        for tag in tags:
            self.tags[tag] = self._now(tag) + (1 if soft else HARD)
            self.marks += 1
            self.invalidated[tag] = self.marks

    def lease_many(
        self, keys: Sequence[str], token: bytes, seconds: float, after: float = 0.0, tags: Sequence[str] = ()
    ) -> dict[str, Lease]:
        leases: dict[str, Lease] = {}
        for key in keys:
            entry = self.get(key)
            state: Any = "granted"
            if entry is not None and entry.fresh_until > max(CLOCK(), after):
                state = "fresh"
            elif self.leases.get(key, token) != token:
                state = "busy"
            else:
                self.leases[key] = token
            leases[key] = Lease(state, entry, self.stamps(tags), b"%d" % self.marks, token)
        return leases

    def fill_many(self, token: bytes, entries: Mapping[str, Entry]) -> list[str]:
        refused: list[str] = []
        for key, entry in entries.items():
            if self.leases.get(key) == token and dict(entry.stamps)[CACHE_TAG] == self.stamp:
                self._void(key)
                self.entries[key] = entry
            else:
                refused.append(key)
        return refused

    def release_many(self, keys: Sequence[str], token: bytes, seconds: float = 0.0) -> None:
        for key in keys:
            if self.leases.get(key) == token:
                if seconds:
                    self.held.add(key)
                else:
                    self._void(key)

    def late_stamps(self, tags: Sequence[str], mark: bytes | None) -> Stamps | None:
        if any(self.invalidated.get(tag, 0) > int(mark or b"0") for tag in tags):
            return None
        return tuple((tag, self._now(tag)) for tag in tags)

    # nothing here blocks, so the twins are never asked for
    alease_many = afill_many = arelease_many = alate_stamps = None  # type: ignore[assignment]


class World:
    """Caches over one store, one for each process, and the loads that their loaders have begun.

    Args:
        kind: "memory", "leases", or "chain", which has memory in front of leases.
        processes: how many share the store.
        plan: how all keys are loaded; a wait that may end would end in some orders, so by default it does not.
    """

    def __init__(self, kind: str, processes: int = 1, **plan: Any) -> None:
        self.kind = kind
        plan = {"ttl": 60.0, "wait": math.inf, **plan}
        self.store = LeasingSpace()
        self.caches = [self._cache(kind, Plan(**plan)) for _ in range(processes)]
        self.begun = 0
        self.source = 1  # what the loaders find where they look it up

    def _cache(self, kind: str, plan: Plan) -> Loading:
        MEMORY.close()
        MEMORY.after_fork()  # nobody has a ticket
        space: Any = MEMORY.key_space("c") if kind == "memory" else self.store
        layer = Layer(kind, kind, space, Tickets(Lock()), Health("l"))
        # with no near answer the slow path looks through the port, which is where others come between
        space.near = None
        verbs = Verbs(layer, Policy(plan, {}, 1024), NormalForm(MEMORY.serializer))
        return Loading(verbs, Flights(Lock(), get_ident))

    @property
    def loading(self) -> Loading:
        return self.caches[0]

    @property
    def layer(self) -> Layer:
        return self.loading.verbs.layer

    def load(self) -> list[int]:
        self.begun += 1
        return [self.source]

    def fail(self) -> None:
        self.begun += 1
        raise LookupError("no quote")

    def get_or_set(
        self,
        port: StepPort,
        loader: Callable[..., Any] | None = None,
        key: str = "k",
        process: int = 0,
        **options: Any,
    ) -> Coroutine[Any, Any, Any]:
        overrides = Overrides(options.pop("ttl", 60.0), options)
        return self.caches[process].get_or_set(port, key, loader or self.load, overrides)

    def stored(self, key: str = "k") -> Any:
        """What a read finds, fresh or stale; None for nothing."""
        entry = self.layer.space.get(key)
        return None if entry is None else self.loading.verbs.form.decode(entry)

    def fresh(self, key: str = "k") -> Any:
        """The same of what is fresh."""
        entry = self.layer.space.get(key)
        return None if entry is None or entry.fresh_until <= CLOCK() else self.stored(key)

    def put(self, value: Any, *, stale: bool = False, key: str = "k", tags: Sequence[str] = ()) -> None:
        """Have an entry there, of a load that is long over."""
        payload, shared = self.loading.verbs.form.encode(value)
        now = CLOCK()
        fresh_until = now - 1 if stale else now + 60
        stamps = self.layer.space.stamps(tags) if tags else ()
        self.layer.space.set(key, Entry(payload, shared, now - 10, fresh_until, now + 60, stamps))

    def assert_nothing_is_left(self, why: object = None) -> None:
        for cache in self.caches:
            assert len(cache.flights) == 0, why
            assert len(cache.verbs.layer.tickets) == 0, why
        assert self.store.leases.keys() <= self.store.held, why


def orders(
    kind: str,
    callers: Callable[[World, StepPort], Any],
    *,
    processes: int = 1,
    plan: Any = None,
    **options: Any,
) -> Iterator[tuple[World, Order]]:
    """Yield each order with the world that it left behind."""
    world = World(kind, processes, **(plan or {}))

    def scenario(port: StepPort) -> Any:
        nonlocal world
        world = World(kind, processes, **(plan or {}))
        return callers(world, port)

    for order in every_order(scenario, now=CLOCK, **options):
        yield world, order
