"""A key space with its counters: what a cache reads from, and what a chain is made of."""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from layercache.core.port import Port
from layercache.core.tickets import Ticket, Tickets
from layercache.core.times import Histogram, Times
from layercache.entry import Entry, Stamps
from layercache.errors import BackendError
from layercache.spi import Change, KeySpace, Lease, LeasingKeySpace

__all__ = ["Layer", "LayerStats"]

log = logging.getLogger("layercache.layer")

R = TypeVar("R")

_COUNTERS: Final = frozenset({
    "evictions", "expirations", "refusals", "foreign", "circuit_openings", "log_entries", "log_losses",
})  # fmt: skip
"""Gauges that only ever grow; all others say how it is now."""


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
        """Return what was counted after `earlier`; gauges that are no counters stay as they are."""
        then = earlier.gauges
        gauges = {
            name: value - then.get(name, 0) if name in _COUNTERS else value
            for name, value in self.gauges.items()
        }
        return replace(
            self,
            hits=self.hits - earlier.hits,
            misses=self.misses - earlier.misses,
            errors=self.errors - earlier.errors,
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


class Layer:
    """One key space and what it answered.

    Rule: a store that fails is counted, and logged once when that begins and once when it ends; where the layer is
    `forgiving` the operation then finds nothing and stores nothing, else its `BackendError` is raised.

    The counters are plain attributes raised by `+= 1`: CPython changes threads between
    statements of a function only where it calls or jumps back, so none is lost under the GIL.

    Args:
        tickets: for a key space that has none of its own and grants no leases.
    """

    __slots__ = (
        "_leasing", "_registers", "degraded", "errors", "forgiving", "hits", "misses", "name", "read_times", "space",
        "tickets", "type", "write_times",
    )  # fmt: skip

    def __init__(
        self, name: str, type_: str, space: KeySpace, tickets: Tickets, *, forgiving: bool = False
    ) -> None:
        self.name, self.type, self.space, self.forgiving = name, type_, space, forgiving
        self.hits = self.misses = self.errors = 0
        self.degraded = False
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
        try:
            if self.read_times is None:
                entry = await port.read(self.space, key)
            else:
                entry = await _timed(port, self.read_times, port.read(self.space, key))
        except BackendError as error:
            self._failed(error)
            entry = None
        else:
            if self.degraded:
                self._answers_again()
        if entry is not None and (stale or entry.fresh_until > port.now()):
            self.hits += 1
        else:
            self.misses += 1
        return entry

    async def read_many(self, port: Port, keys: Sequence[str], *, stale: bool = False) -> Mapping[str, Entry]:
        """As `read`, of all `keys` that have an entry."""
        nothing: dict[str, Entry] = {}
        found = await self._tried(_timed(port, self.read_times, port.read_many(self.space, keys)), nothing)
        now = port.now()
        hits = len(found) if stale else sum(entry.fresh_until > now for entry in found.values())
        self.hits += hits
        self.misses += len(keys) - hits
        return found

    async def look(self, port: Port, key: str) -> Entry | None:
        """As `read`, for who only wants to know: it counts neither a hit nor a miss."""
        return await self._tried(port.read(self.space, key), None)

    # -- writing

    async def write(self, port: Port, key: str, entry: Entry) -> bool:
        return await self._change(self._writing(port, port.write(self.space, key, entry)), (key,), False)

    async def write_many(self, port: Port, entries: Mapping[str, Entry]) -> list[str]:
        return await self._change(
            self._writing(port, port.write_many(self.space, entries)), entries, list(entries)
        )

    async def update(self, port: Port, key: str, change: Change) -> Entry | None:
        """As the key space's. Where that fails and is forgiven, nothing is there to change: an increment says so."""
        answered, changed = await self.try_update(port, key, change)
        if not answered:
            change(None)
        return changed

    async def try_update(self, port: Port, key: str, change: Change) -> tuple[bool, Entry | None]:
        """Return whether the store answered, and what it stored."""
        return await self._change(
            self._writing(port, _answer(port.update(self.space, key, change))), (key,), (False, None)
        )

    async def delete(self, port: Port, key: str) -> bool:
        return await self._change(self._writing(port, port.delete(self.space, key)), (key,), False)

    async def delete_many(self, port: Port, keys: Sequence[str]) -> int:
        return await self._change(self._writing(port, port.delete_many(self.space, keys)), keys, 0)

    async def clear(self, port: Port) -> None:
        await self._change(self._writing(port, port.clear(self.space)), None, None)

    async def stamps(self, port: Port, tags: Sequence[str]) -> Stamps:
        """Return what an entry with `tags` has to carry that is stored now."""
        return await self._tried(port.stamps(self.space, tags), ())

    async def invalidate(self, port: Port, tags: Sequence[str]) -> None:
        await self._change(self._writing(port, port.invalidate(self.space, tags)), None, None)

    def _writing(self, port: Port, operation: Coroutine[Any, Any, R]) -> Coroutine[Any, Any, R]:
        return _timed(port, self.write_times, operation)

    async def _change(self, operation: Coroutine[Any, Any, R], keys: Iterable[str] | None, otherwise: R) -> R:
        """Make a change of `keys`, None for all, that voids the tickets of what it changes."""
        if not self._registers:
            return await self._tried(operation, otherwise)
        with self.tickets.clearing() if keys is None else self.tickets.writing(keys):
            return await self._tried(operation, otherwise)

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
        down = dict.fromkeys(keys, Lease("down", None))
        try:
            asking = port.lease_many(space, keys, token, seconds, after, tags)
            leases = await self._tried(_timed(port, self.read_times, asking), down)
        except BaseException as error:
            if not isinstance(error, Exception):  # they may have been granted while we were stopped
                await self._tried(port.release_many(space, keys, token, 0.0), None)
            raise
        return [leases[key] for key in keys]

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
            if granted:
                void = await self._tried(port.fill_many(leasing, leases[0].token, granted), void)
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
            stored = await port.fill(self.space, ticket, entry)
        except BackendError as error:
            self._failed(error)
            return None
        if self.degraded:
            self._answers_again()
        return stored

    async def release(
        self, port: Port, keys: Sequence[str], leases: Sequence[Lease], seconds: float = 0.0
    ) -> None:
        """Give `leases` back; or, with `seconds`, keep everybody from loading for as long, where the store can.

        A store that fails now lets them go when their time is over; whoever loaded has an error of its own to tell.
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

    async def _tried(self, operation: Coroutine[Any, Any, R], otherwise: R) -> R:
        try:
            result = await operation
        except BackendError as error:
            self._failed(error)
            return otherwise
        if self.degraded:
            self._answers_again()
        return result

    def _failed(self, error: BackendError) -> None:
        self.errors += 1
        if not self.degraded:
            self.degraded = True
            serving = "; serving without it" if self.forgiving else ""
            log.warning("layer %r failed%s: %s", self.name, serving, error)
        if not self.forgiving:
            raise error

    def _answers_again(self) -> None:
        self.degraded = False
        log.warning("layer %r answers again", self.name)

    def stats(self) -> LayerStats:
        """Return the counters. Hits without a lock are counted by the records themselves, once for a chain and its
        nearest layer."""
        gauges = dict(self.space.gauges())
        near = self.space.near
        near_hits = near.hits() if near is not None else 0
        layers = self.space.layers()
        return LayerStats(
            self.name,
            self.type,
            self.hits + near_hits,
            self.misses,
            self.errors,
            self.degraded,
            gauges=gauges,
            layers=tuple(layer.stats() for layer in layers),
            read_times=None if self.read_times is None else self.read_times.times(),
            write_times=None if self.write_times is None else self.write_times.times(),
        )


def _timed(port: Port, times: Histogram | None, operation: Coroutine[Any, Any, R]) -> Coroutine[Any, Any, R]:
    return operation if times is None else _measured(port, times, operation)


async def _measured(port: Port, times: Histogram, operation: Coroutine[Any, Any, R]) -> R:
    began = port.now()
    try:
        return await operation
    finally:
        times.add(port.now() - began)


async def _answer(update: Coroutine[Any, Any, Entry | None]) -> tuple[bool, Entry | None]:
    return True, await update
