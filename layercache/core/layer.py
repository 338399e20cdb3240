"""A key space with its counters: what a cache reads from, and what a chain is made of."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, TypeVar

from layercache.core.leases import Leases, StoreLeases, TicketLeases
from layercache.core.outbox import Outbox, Owed
from layercache.core.port import Port
from layercache.core.stats import LayerStats
from layercache.core.tickets import Ticket, Tickets
from layercache.core.times import Histogram
from layercache.core.watching import Watcher
from layercache.entry import CACHE_TAG, Entry, Stamps
from layercache.errors import BackendError, CircuitOpen
from layercache.spi import Change, KeySpace, LeasingKeySpace

__all__ = ["Health", "Layer"]

log = logging.getLogger("layercache.layer")

R = TypeVar("R")
D = TypeVar("D")


class Health:
    """Whether a backend answers, for all caches that use it; logged once when that ends and once when it begins anew.

    A store may refuse all but reads, as one that is full does, or a replica. Then that it answers these says nothing:
    it began with something else, and ends with something else.

    Attributes:
        degraded: whether it fails.
    """

    __slots__ = ("_name", "_only_reads", "degraded")

    def __init__(self, name: str) -> None:
        self._name, self.degraded, self._only_reads = name, False, False

    def failed(self, error: BackendError, *, forgiven: bool, is_read: bool = False) -> None:
        self._only_reads = self._only_reads or (error.refused and not is_read)
        if not self.degraded:
            self.degraded = True
            serving = "; serving without it" if forgiven else ""
            log.warning("layer %r failed%s: %s", self._name, serving, error)

    def answers(self, *, is_read: bool = False) -> None:
        if self.degraded and not (is_read and self._only_reads):
            self.degraded = self._only_reads = False
            log.warning("layer %r answers again", self._name)


class Layer:
    """One key space and what it answered.

    Rules:
    1. A store that fails is counted. Where the layer is `forgiving` the operation then finds nothing and stores
       nothing, else its `BackendError` is raised.
    2. A layer with an `outbox` owes what a change that failed would have invalidated, and what it owes is not there.

    The counters are plain attributes raised by `+= 1`: CPython changes threads between
    statements of a function only where it calls or jumps back, so none is lost under the GIL.

    Args:
        tickets: for a key space that has none of its own and grants no leases.
        health: of the backend, shared by the layers of all caches that use it.
        outbox: of a layer of a chain.

    Attributes:
        leases: permission to load, and to store what was loaded.
        bypasses: how many reads passed it over, as it could not be relied on.
        changed: told of the keys and the tags of each change that was made here, or may have been, when it is over.
    """

    __slots__ = (
        "_registers", "bypasses", "changed", "errors", "forgiving", "health", "hits", "leases", "misses", "name",
        "outbox", "read_times", "space", "tickets", "type", "write_errors", "write_times",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        type_: str,
        space: KeySpace,
        tickets: Tickets,
        health: Health,
        *,
        forgiving: bool = False,
        outbox: Outbox | None = None,
    ) -> None:
        self.name, self.type, self.space, self.forgiving = name, type_, space, forgiving
        self.health, self.outbox = health, outbox
        self.changed: Callable[[Collection[str], Collection[str]], None] = _nobody_listens
        self.hits = self.misses = self.errors = self.write_errors = self.bypasses = 0
        # what is in this process takes less than the clock that would time it
        self.read_times = Histogram() if space.blocks else None
        self.write_times = Histogram() if space.blocks else None
        self.tickets = tickets if space.tickets is None else space.tickets
        self.leases: Leases = TicketLeases(self)
        self._registers = space.tickets is None
        if isinstance(space, LeasingKeySpace):
            self.leases, self._registers = StoreLeases(self, space), False

    # -- reading

    async def read(self, port: Port, key: str, *, stale: bool = False) -> Entry | None:
        """Return the entry of `key`, fresh or stale; one that is stale counts as a hit if it may be."""
        entry = await self.look(port, key)
        if entry is not None and (stale or entry.fresh_until > port.now()):
            self.hits += 1
        else:
            self.misses += 1
        return entry

    async def read_many(self, port: Port, keys: Sequence[str], *, stale: bool = False) -> Mapping[str, Entry]:
        """As `read`, of all `keys` that have an entry."""
        outbox, wanted = self.outbox, keys
        found: dict[str, Entry] = {}
        past: Collection[str] = ()
        if outbox is not None:
            past, wanted = outbox.tags(), [key for key in keys if not outbox.withholds(key)]
        if wanted:
            found = await self.tried(
                port, self.read_times, port.read_many(self.space, wanted), found, is_read=True
            )
        if outbox is not None:
            found = {key: entry for key, entry in found.items() if not outbox.withholds(key, entry, past)}
        now = port.now()
        hits = len(found) if stale else sum(entry.fresh_until > now for entry in found.values())
        self.hits += hits
        self.misses += len(keys) - hits
        return found

    async def look(self, port: Port, key: str) -> Entry | None:
        """As `read`, for who only wants to know: it counts neither a hit nor a miss."""
        outbox = self.outbox
        if outbox is None:
            return await self.tried(port, self.read_times, port.read(self.space, key), None, is_read=True)
        if outbox.withholds(key):
            return None
        past = outbox.tags()
        entry = await self.tried(port, self.read_times, port.read(self.space, key), None, is_read=True)
        return None if entry is None or outbox.withholds(key, entry, past) else entry

    # -- writing

    async def write(self, port: Port, key: str, entry: Entry) -> bool:
        """As the key space's `set`; False where that fails and is forgiven."""
        return await self._change(port, port.write(self.space, key, entry), Owed((key,)), False)

    async def write_many(self, port: Port, entries: Mapping[str, Entry]) -> list[str]:
        """As the key space's; where that fails and is forgiven, none is kept."""
        refused = await self.try_write_many(port, entries)
        return list(entries) if refused is None else refused

    async def try_write_many(self, port: Port, entries: Mapping[str, Entry]) -> list[str] | None:
        """Return the keys of those that are not kept; None where the store fails."""
        writing = port.write_many(self.space, entries)
        refused = await self._change(port, writing, Owed(entries), None)
        if refused and self.outbox is not None:
            self.outbox.owe(Owed(refused))  # a server that refuses a write may have kept what was there
        return refused

    async def update(self, port: Port, key: str, change: Change) -> Entry | None:
        """As the key space's. Where that fails and is forgiven, nothing is there to change: an increment says so."""
        try:
            answered, changed = await self.try_update(port, key, change)
        finally:
            self.changed((key,), ())
        if not answered:
            change(None)
        return changed

    async def try_update(self, port: Port, key: str, change: Change) -> tuple[bool, Entry | None]:
        """Return whether the store answered, and what it stored. What it is owed otherwise, the caller knows."""
        if self.outbox is not None and self.outbox.withholds(key):
            return False, None
        update = _answer(port.update(self.space, key, change))
        with self._registered((key,)):
            return await self.tried(port, self.write_times, update, (False, None), is_write=True)

    async def delete(self, port: Port, key: str, *, strict: bool = False) -> bool:
        return await self._change(port, port.delete(self.space, key), Owed((key,)), False, strict=strict)

    async def delete_many(self, port: Port, keys: Sequence[str], *, strict: bool = False) -> int:
        """Drop `keys` and return how many there were; `strict` raises `BackendError` where one may not be gone."""
        return await self._change(port, port.delete_many(self.space, keys), Owed(keys), 0, strict=strict)

    async def clear(self, port: Port, *, strict: bool = False) -> None:
        await self._change(port, port.clear(self.space), Owed(tags=(CACHE_TAG,)), None, strict=strict)

    async def invalidate(
        self, port: Port, tags: Sequence[str], soft: bool = False, *, strict: bool = False
    ) -> None:
        owed = Owed(tags=tags, soft=soft)
        await self._change(port, port.invalidate(self.space, tags, soft), owed, None, strict=strict)

    async def stamps(self, port: Port, tags: Sequence[str]) -> Stamps:
        """Return what an entry with `tags` has to carry that is stored now."""
        try:
            # they may be known: no sign that the store answers again
            return await port.stamps(self.space, tags)
        except BackendError as error:
            self._failed(error)
            return ()

    async def fill(self, port: Port, ticket: Ticket, entry: Entry) -> bool | None:
        """Store `entry` if its ticket still permits that; return whether it did, None where the store fails."""
        # no change to be registered: whatever is stored beside it is as new, or it is void
        filling = port.fill(self.space, ticket, entry)
        return await self.tried(port, self.write_times, filling, None, is_write=True)

    async def _change(
        self,
        port: Port,
        operation: Coroutine[Any, Any, R],
        owed: Owed,
        otherwise: D,
        *,
        strict: bool = False,
    ) -> R | D:
        """Make a change, which voids the tickets of what it changes; `owed` where it does not arrive."""
        try:
            with self._registered(owed.keys, everything=bool(owed.tags)):
                result = await self.tried(
                    port, self.write_times, operation, otherwise, owed=owed, is_write=True, strict=strict
                )
        finally:
            self.changed(owed.keys, owed.tags)
        if strict and self.space.owes(owed.keys, owed.tags):
            raise BackendError(
                self.name, "the change did not reach every layer; it will when they answer again"
            )
        return result

    def _registered(
        self, keys: Collection[str], *, everything: bool = False
    ) -> AbstractContextManager[object]:
        """Register a change in the tickets while it is made, for a key space that does not do so itself."""
        if not self._registers:
            return _REGISTERED
        return self.tickets.clearing() if everything else self.tickets.writing(keys)

    # -- failures

    async def tried(
        self,
        port: Port,
        times: Histogram | None,
        operation: Coroutine[Any, Any, R],
        otherwise: D,
        *,
        owed: Owed | None = None,
        in_doubt: bool = False,
        is_read: bool = False,
        is_write: bool = False,
        strict: bool = False,
    ) -> R | D:
        """Return what comes of `operation`, timed in `times`; where the store fails, and that is forgiven, `otherwise`.

        Args:
            owed: where it fails; with `in_doubt`, only where it may have been done all the same.
            is_read: whether a store that refuses all else answers it.
            is_write: whether it is counted among those.
            strict: raise what it fails with although that is forgiven.
        """
        began = 0.0 if times is None else port.now()
        failed = True
        try:
            result = await operation
            failed = False
        except BackendError as error:
            if owed is not None and self.outbox is not None and (error.in_doubt or not in_doubt):
                self.outbox.owe(owed)
            self.write_errors += is_write
            self._failed(error, is_read=is_read)
            if strict:
                raise
            return otherwise
        finally:
            if times is not None:
                seconds = port.now() - began
                times.add(seconds)
                if times.heard is not None:
                    times.heard(began, seconds, failed)
        if self.health.degraded:
            self.health.answers(is_read=is_read)
        return result

    def _failed(self, error: BackendError, *, is_read: bool = False) -> None:
        self.errors += 1
        if self.space.is_out or not isinstance(error, CircuitOpen):  # else it was said while the outage ended
            self.health.failed(error, forgiven=self.forgiving, is_read=is_read)
        if not self.forgiving:
            raise error

    # -- seen from outside

    def watch(self, cache: str, watcher: Watcher | None) -> None:
        """Have `watcher` told of the operations that are timed."""
        for op, times in (("read", self.read_times), ("write", self.write_times)):
            if times is not None:
                times.heard = None if watcher is None else _heard(watcher, cache, self, op)

    def stats(self) -> LayerStats:
        """Return the counters. Hits without a lock are counted by the records themselves, once for a chain and its
        nearest layer."""
        gauges = dict(self.space.gauges())
        if self.outbox is not None:
            gauges.update(
                owed=len(self.outbox), outbox_overflows=self.outbox.overflows, bypasses=self.bypasses
            )
        near = self.space.near
        near_hits = near.hits() if near is not None else 0
        layers = self.space.layers()
        return LayerStats(
            self.name,
            self.type,
            self.hits + near_hits,
            self.misses,
            self.errors,
            self.health.degraded,
            gauges=gauges,
            layers=tuple(layer.stats() for layer in layers),
            read_times=None if self.read_times is None else self.read_times.times(),
            write_times=None if self.write_times is None else self.write_times.times(),
            write_errors=self.write_errors,
            curve=self.space.curve(),
        )


def _heard(watcher: Watcher, cache: str, layer: Layer, op: str) -> Callable[[float, float, bool], None]:
    def heard(began: float, seconds: float, failed: bool) -> None:
        watcher.operated(cache, layer.name, layer.type, op, began, seconds, failed=failed)

    return heard


async def _answer(operation: Coroutine[Any, Any, R]) -> tuple[bool, R]:
    return True, await operation


_REGISTERED: Final = nullcontext()


def _nobody_listens(keys: Collection[str], tags: Collection[str]) -> None:
    pass
