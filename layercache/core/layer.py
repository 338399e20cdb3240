"""A key space with its counters: what a cache reads from, and what a chain is made of."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from layercache.core.outbox import Outbox, Owed
from layercache.core.port import Port
from layercache.core.tickets import Ticket, Tickets
from layercache.core.times import Histogram, Times
from layercache.core.watching import Watcher
from layercache.entry import CACHE_TAG, Entry, Stamps
from layercache.errors import BackendError, CircuitOpen
from layercache.spi import Change, KeySpace, Lease, LeasingKeySpace

if TYPE_CHECKING:
    from layercache.spi import Curve

__all__ = ["LEVELS", "Health", "Layer", "LayerStats"]

log = logging.getLogger("layercache.layer")

R = TypeVar("R")

LEVELS: Final = frozenset(
    {"entries", "bytes", "max_entries", "max_bytes", "circuits_open", "log_lag", "owed"}
)
"""Gauges that say how it is now; all others only ever grow."""


@dataclass(frozen=True, slots=True)
class LayerStats:
    """What one layer has done since it was opened, in this process.

    Attributes:
        name, type: of the backend, as in the settings.
        hits, misses: reads that found a living entry, and that did not.
        errors: operations that its store failed.
        degraded: whether the last operation failed.
        gauges: what the backend says of itself without I/O, such as `entries`, `bytes`, `evictions`.
        layers: of a chain, nearest first.
        read_times, write_times: how long its operations took, of those that wait for a network or a disk; else None.
        write_errors: how many of the errors were of changes, and of storing what was loaded.
        curve: what the hit rate would be with less and more memory, where that is kept book of.
    """

    name: str
    type: str
    hits: int
    misses: int
    errors: int
    degraded: bool
    gauges: dict[str, int | float] = field(default_factory=dict)
    layers: tuple[LayerStats, ...] = ()
    read_times: Times | None = None
    write_times: Times | None = None
    write_errors: int = 0
    curve: Curve | None = None

    @property
    def hit_rate(self) -> float:
        """Hits among all reads, 0.0 to 1.0; 0.0 before the first."""
        reads = self.hits + self.misses
        return self.hits / reads if reads else 0.0

    @property
    def entries(self) -> int | None:
        """How many entries it holds now; None where it cannot tell without I/O."""
        return self._count("entries")

    @property
    def bytes(self) -> int | None:
        """How many bytes they take; None where it cannot tell without I/O."""
        return self._count("bytes")

    @property
    def evictions(self) -> int | None:
        """How many made room for others; None where it cannot tell."""
        return self._count("evictions")

    def since(self, earlier: LayerStats) -> LayerStats:
        """Return what was counted after `earlier`; gauges that say how it is now stay as they are."""
        then = earlier.gauges
        gauges = {
            name: value if name in LEVELS else value - then.get(name, 0)
            for name, value in self.gauges.items()
        }
        return replace(
            self,
            hits=self.hits - earlier.hits,
            misses=self.misses - earlier.misses,
            errors=self.errors - earlier.errors,
            write_errors=self.write_errors - earlier.write_errors,
            gauges=gauges,
            layers=tuple(now.since(then) for now, then in zip(self.layers, earlier.layers, strict=True)),
            read_times=_after(self.read_times, earlier.read_times),
            write_times=_after(self.write_times, earlier.write_times),
        )

    def _count(self, gauge: str) -> int | None:
        value = self.gauges.get(gauge)
        return None if value is None else int(value)


def _after(now: Times | None, then: Times | None) -> Times | None:
    return now if now is None or then is None else now.since(then)


class Health:
    """Whether a backend answers, for all caches that use it; logged once when that ends and once when it begins anew.

    Attributes:
        degraded: whether the last operation failed.
    """

    __slots__ = ("_name", "degraded")

    def __init__(self, name: str) -> None:
        self._name, self.degraded = name, False

    def failed(self, error: BackendError, *, forgiven: bool) -> None:
        if not self.degraded:
            self.degraded = True
            serving = "; serving without it" if forgiven else ""
            log.warning("layer %r failed%s: %s", self._name, serving, error)

    def answers(self) -> None:
        if self.degraded:
            self.degraded = False
            log.warning("layer %r answers again", self._name)


class Layer:
    """One key space and what it answered.

    Rules:
    1. A store that fails is counted. Where the layer is `forgiving` the operation then finds nothing and stores
       nothing, else its `BackendError` is raised.
    2. A layer with an `outbox` owes what a change that failed would have invalidated, and what it owes is not there.
       A lease that could not be ended, or of which we were not told, is ended by what is owed as well: else everybody
       would wait for it.

    The counters are plain attributes raised by `+= 1`: CPython changes threads between
    statements of a function only where it calls or jumps back, so none is lost under the GIL.

    Args:
        tickets: for a key space that has none of its own and grants no leases.
        health: of the backend, shared by the layers of all caches that use it.
        outbox: of a layer of a chain.

    Attributes:
        bypasses: how many reads passed it over, as it could not be relied on.
        changed: told of the keys and the tags of each change that was made here, or may have been, when it is over.
    """

    __slots__ = (
        "_leasing", "_registers", "bypasses", "changed", "errors", "forgiving", "health", "hits", "misses", "name",
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
        self._registers = space.tickets is None and not isinstance(space, LeasingKeySpace)
        # of this, leases are given back even when the cache is closed and `space` another one
        self._leasing = space if isinstance(space, LeasingKeySpace) else None

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
        found: dict[str, Entry] = {}
        outbox, wanted = self.outbox, keys
        past: Collection[str] = ()
        if outbox is not None and not outbox.is_empty:
            past, wanted = outbox.tags(), [key for key in keys if not outbox.withholds(key)]
        if wanted:
            asking = _timed(port, self.read_times, port.read_many(self.space, wanted))
            found = await self._tried(asking, found)
        if outbox is not None and (past or not outbox.is_empty):
            # what it is owed since it was asked is of the past as well
            found = {
                key: entry
                for key, entry in found.items()
                if not outbox.withholds(key) and outbox.passes(entry, past)
            }
        now = port.now()
        hits = len(found) if stale else sum(entry.fresh_until > now for entry in found.values())
        self.hits += hits
        self.misses += len(keys) - hits
        return found

    async def look(self, port: Port, key: str) -> Entry | None:
        """As `read`, for who only wants to know: it counts neither a hit nor a miss."""
        outbox = self.outbox
        past: Collection[str] = ()
        if outbox is None or outbox.is_empty:
            try:
                reading = port.read(self.space, key)
                entry = await (reading if self.read_times is None else _timed(port, self.read_times, reading))
            except BackendError as error:
                self._failed(error)
                return None
            if self.health.degraded:
                self.health.answers()
        elif outbox.withholds(key):
            return None
        else:
            past = outbox.tags()
            entry = await self._tried(_timed(port, self.read_times, port.read(self.space, key)), None)
        if entry is None or outbox is None or (outbox.is_empty and not past):
            return entry
        # what it is owed since it was asked is of the past as well
        return None if outbox.withholds(key) or not outbox.passes(entry, past) else entry

    # -- writing

    async def write(self, port: Port, key: str, entry: Entry) -> bool:
        return await self._change(
            _timed(port, self.write_times, port.write(self.space, key, entry)), Owed((key,)), False
        )

    async def write_many(self, port: Port, entries: Mapping[str, Entry]) -> list[str]:
        """As the key space's; where that fails and is forgiven, none is kept."""
        return (await self.try_write_many(port, entries))[1]

    async def try_write_many(self, port: Port, entries: Mapping[str, Entry]) -> tuple[bool, list[str]]:
        """Return whether the store answered, and the keys of those that are not kept."""
        failed = False, list(entries)
        answered, refused = await self._change(
            _timed(port, self.write_times, _answer(port.write_many(self.space, entries))),
            Owed(entries),
            failed,
        )
        if answered and refused and self.outbox is not None:
            self.outbox.owe(Owed(refused))  # a server that refuses a write may have kept what was there
        return answered, refused

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
        nothing: tuple[bool, Entry | None] = (False, None)
        outbox = self.outbox
        if outbox is not None and outbox.withholds(key):
            return nothing
        update = _timed(port, self.write_times, _answer(port.update(self.space, key, change)))
        if not self._registers:
            return await self._tried(update, nothing, is_write=True)
        with self.tickets.writing((key,)):
            return await self._tried(update, nothing, is_write=True)

    async def delete(self, port: Port, key: str, *, strict: bool = False) -> bool:
        deletion = _timed(port, self.write_times, port.delete(self.space, key))
        return await self._change(deletion, Owed((key,)), False, strict=strict)

    async def delete_many(self, port: Port, keys: Sequence[str], *, strict: bool = False) -> int:
        """Drop `keys` and return how many there were; `strict` raises `BackendError` where one may not be gone."""
        return await self._change(
            _timed(port, self.write_times, port.delete_many(self.space, keys)), Owed(keys), 0, strict=strict
        )

    async def clear(self, port: Port, *, strict: bool = False) -> None:
        await self._change(
            _timed(port, self.write_times, port.clear(self.space)),
            Owed(tags=(CACHE_TAG,)),
            None,
            strict=strict,
        )

    async def stamps(self, port: Port, tags: Sequence[str]) -> Stamps:
        """Return what an entry with `tags` has to carry that is stored now."""
        try:
            return await port.stamps(
                self.space, tags
            )  # which may be known: no sign that the store answers again
        except BackendError as error:
            self._failed(error)
            return ()

    async def invalidate(
        self, port: Port, tags: Sequence[str], soft: bool = False, *, strict: bool = False
    ) -> None:
        owed = Owed(tags=tags, soft=soft)
        await self._change(
            _timed(port, self.write_times, port.invalidate(self.space, tags, soft)), owed, None, strict=strict
        )

    async def _change(
        self, operation: Coroutine[Any, Any, R], owed: Owed, otherwise: R, *, strict: bool = False
    ) -> R:
        """Make a change, which voids the tickets of what it changes; `owed` where it does not arrive."""
        try:
            if not self._registers:
                result = await self._changed(operation, owed, otherwise, strict=strict)
            else:
                with self.tickets.clearing() if owed.tags else self.tickets.writing(owed.keys):
                    result = await self._changed(operation, owed, otherwise, strict=strict)
        finally:
            self.changed(owed.keys, owed.tags)
        if strict and self.space.owes(owed.keys, owed.tags):
            raise BackendError(
                self.name, "the change did not reach every layer; it will when they answer again"
            )
        return result

    async def _changed(
        self, operation: Coroutine[Any, Any, R], owed: Owed, otherwise: R, *, strict: bool
    ) -> R:
        try:
            result = await operation
        except BackendError as error:
            if self.outbox is not None:
                self.outbox.owe(owed)
            self.write_errors += 1
            self._failed(error)
            if strict:
                raise
            return otherwise
        if self.health.degraded:
            self.health.answers()
        return result

    # -- loading: by leases where the store grants some, else by tickets of this process

    async def lease(
        self, port: Port, keys: Sequence[str], token: bytes, seconds: float, after: float, tags: Sequence[str]
    ) -> list[Lease]:
        """As `LeasingKeySpace.lease_many`, in the order of `keys`; each that is granted is to be filled or released."""
        leasing = self._leasing
        if leasing is not None and leasing is self.space:  # as long as it is not closed
            return await self._leased(port, leasing, keys, token, seconds, after, tags)
        stamps = tuple([(tag, 0) for tag in tags])
        leases: list[Lease] = []
        try:
            for key in keys:
                ticket = self.tickets.open(key)
                leases.append(Lease("granted", None, stamps, None, ticket))
                # somebody may have stored it between our read and this
                try:
                    entry = await port.read(self.space, key)
                except BackendError as error:
                    self._failed(error)
                    continue
                if entry is not None:
                    if entry.fresh_until > max(port.now(), after):
                        self.tickets.close(ticket)
                        leases[-1] = Lease("fresh", entry)
                    else:
                        leases[-1] = Lease("granted", entry, stamps, None, ticket)
        except BaseException:
            await self.release(port, keys[: len(leases)], leases)
            raise
        return leases

    async def _leased(
        self,
        port: Port,
        space: LeasingKeySpace,
        keys: Sequence[str],
        token: bytes,
        seconds: float,
        after: float,
        tags: Sequence[str],
    ) -> list[Lease]:
        outbox = self.outbox
        asked = keys
        past: Collection[str] = ()
        if outbox is not None and not outbox.is_empty:
            past = outbox.tags()
            asked = [] if outbox.owes(tags=tags) else [key for key in keys if not outbox.withholds(key)]
        leases = down = dict.fromkeys(asked, Lease("down", None))
        try:
            if asked:
                asking = port.lease_many(space, asked, token, seconds, after, tags)
                leases = await self._tried(_timed(port, self.read_times, asking), down, asked)
        except BaseException as error:
            if not isinstance(error, Exception):  # they may have been granted while we were stopped
                await self._tried(port.release_many(space, asked, token, 0.0), None)
            raise
        if outbox is not None and (past or not outbox.is_empty):
            for key, lease in leases.items():
                found = lease.entry
                if found is not None and (outbox.withholds(key) or not outbox.passes(found, past)):
                    leases[key] = (
                        Lease("down", None) if lease.state == "fresh" else lease._replace(entry=None)
                    )
        return [leases.get(key) or Lease("down", None) for key in keys]

    async def fill(
        self, port: Port, keys: Sequence[str], leases: Sequence[Lease], entries: Sequence[Entry]
    ) -> list[bool]:
        """Store what was loaded under `leases`, and end these; return of each whether it was void."""
        leasing = self._leasing
        if leasing is not None and leasing is self.space:
            granted = {
                key: entry
                for key, lease, entry in zip(keys, leases, entries, strict=True)
                if lease.state == "granted"
            }
            void: list[str] = []
            outbox = self.outbox
            if outbox is not None and not outbox.is_empty:
                # it was invalidated since, as far as the store could not be told
                void = [
                    key for key, entry in granted.items() if outbox.withholds(key) or not outbox.passes(entry)
                ]
                granted = {key: entry for key, entry in granted.items() if key not in void}
                if void:
                    outbox.owe(Owed(void))
            if granted:
                nothing: list[str] = []
                filling = _timed(port, self.write_times, port.fill_many(leasing, leases[0].token, granted))
                void += await self._tried(filling, nothing, granted, in_doubt=True, is_write=True)
            return [key in void for key in keys]
        refused: list[bool] = []
        for lease, entry in zip(leases, entries, strict=True):
            try:
                refused.append(await self.fill_by(port, lease.token, entry) is False)
            finally:
                self._close(lease)
        return refused

    async def fill_by(self, port: Port, ticket: Ticket, entry: Entry) -> bool | None:
        """Store `entry` if its ticket still permits that; return whether it did, None where the store fails."""
        try:
            # no change to be registered: whatever is stored beside it is as new, or it is void
            stored = await _timed(port, self.write_times, port.fill(self.space, ticket, entry))
        except BackendError as error:
            self.write_errors += 1
            self._failed(error)
            return None
        if self.health.degraded:
            self.health.answers()
        return stored

    async def release(
        self, port: Port, keys: Sequence[str], leases: Sequence[Lease], seconds: float = 0.0
    ) -> None:
        """Give `leases` back; or, with `seconds`, keep everybody from loading for as long, where the store can.

        A store that fails now lets them go when their time is over, or when it is given what it is owed; whoever loaded
        has an error of its own to tell.
        """
        if self._leasing is None:
            for lease in leases:
                self._close(lease)
            return
        held = [key for key, lease in zip(keys, leases, strict=True) if lease.state == "granted"]
        if held:
            token = next(lease.token for lease in leases if lease.state == "granted")
            try:
                await port.release_many(self._leasing, held, token, seconds)
            except BackendError:
                self.errors += 1
                if self.outbox is not None:
                    self.outbox.owe(Owed(held))

    def _close(self, lease: Lease) -> None:
        if isinstance(lease.token, Ticket):
            self.tickets.close(lease.token)

    async def late_stamps(self, port: Port, lease: Lease, tags: Sequence[str]) -> Stamps | None:
        """As `LeasingKeySpace.late_stamps`; a ticket sees for itself."""
        leasing = self._leasing
        if leasing is not None and leasing is self.space:
            return await self._tried(port.late_stamps(leasing, tags, lease.mark), None)
        return tuple((tag, 0) for tag in tags)

    # -- failures

    async def _tried(
        self,
        operation: Coroutine[Any, Any, R],
        otherwise: R,
        leased: Iterable[str] = (),
        *,
        in_doubt: bool = False,
        is_write: bool = False,
    ) -> R:
        """Return what comes of it, `otherwise` where it fails; the leases of `leased` are then in doubt, or may be."""
        try:
            result = await operation
        except BackendError as error:
            if leased and self.outbox is not None and (in_doubt or error.in_doubt):
                self.outbox.owe(Owed(tuple(leased)))
            self.write_errors += is_write
            self._failed(error)
            return otherwise
        if self.health.degraded:
            self.health.answers()
        return result

    def _failed(self, error: BackendError) -> None:
        self.errors += 1
        if self.space.is_out or not isinstance(error, CircuitOpen):  # else it was said while the outage ended
            self.health.failed(error, forgiven=self.forgiving)
        if not self.forgiving:
            raise error

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


def _timed(port: Port, times: Histogram | None, operation: Coroutine[Any, Any, R]) -> Coroutine[Any, Any, R]:
    return operation if times is None else _measured(port, times, operation)


async def _measured(port: Port, times: Histogram, operation: Coroutine[Any, Any, R]) -> R:
    began, failed = port.now(), True
    try:
        result = await operation
        failed = False
        return result
    finally:
        seconds = port.now() - began
        times.add(seconds)
        if times.heard is not None:
            times.heard(began, seconds, failed)


async def _answer(operation: Coroutine[Any, Any, R]) -> tuple[bool, R]:
    return True, await operation


def _nobody_listens(keys: Collection[str], tags: Collection[str]) -> None:
    pass
