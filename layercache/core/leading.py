"""What the leader of flights does: take leases, run the loader, fill, land.

    lease ── fresh, or busy with a stale entry ─────────────► land
      ├───── busy ── wait, and ask again
      └───── granted ── load ── fill what the leases permit ─► land
                          └──── failed ── a stale entry ─────► land
                                  └────── none ──────────────► fail

Rules:
1. A lease (of the store), or a ticket (of this process), is taken before the loader runs, and only what it still
   permits is stored. The caller gets what was loaded in either case.
2. Whoever leads flights lands or fails each of them and gives its leases back, whatever happens. One that was stopped
   fails them with `LoadAbandoned`, and those who waited board anew.
3. Where a stale value is there, a loader's error is nobody's but the log's, and the next try waits for `retry_after`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any, Final

from layercache.core.context import LoadContext, NotModified, loads_under_way, with_context
from layercache.core.flights import Flight, Flights, Landed, LoadAbandoned, LoadOverdue
from layercache.core.policy import Plan, checked_tags
from layercache.core.port import Port
from layercache.core.verbs import Verbs
from layercache.durations import DEFAULT, parse_duration
from layercache.entry import CACHE_TAG, MISSING, Entry
from layercache.errors import CacheError, LoadTimeout
from layercache.spi import Lease

__all__ = ["Leading", "Load"]

log = logging.getLogger("layercache.loading")

_BUSY_HOLD: Final = 0.05
"""Seconds for which a key that another process loads is not asked for again by those who have a stale value."""

_FIRST_WAIT: Final = 0.002
_LONGEST_WAIT: Final = 0.25
_WAITED_SHARE: Final = 8
"""Whoever waits for another process looks again after an eighth of the time it has waited already, so that it notices a
load of 50 ms within 7 ms, and one of 2 s within a quarter of a second, at a few dozen looks in all."""

_MOST_HELD: Final = 10_000


@dataclass(slots=True)
class Load:
    """What one leader sees to.

    Attributes:
        loader: called without arguments (or with a context) for the value of the one key; where there are `many`, with
            the list of keys that it is to load, for a mapping of these to values.
        plan: of all keys together.
        plans: of each key.
        flights: by key, all of one party.
        known: the entries that are there, stale or to be refreshed early.
        after: only an entry that is fresh beyond this time, wall-clock seconds, is fresh enough; `inf`: none is.
        masks: whether what is known is served where the loader fails.
        background: whether nobody waits for it.
        was_busy: whether another process loads one of the keys.
    """

    loader: Callable[..., Any]
    plan: Plan
    plans: Mapping[str, Plan]
    flights: Mapping[str, Flight]
    known: dict[str, Entry] = field(default_factory=dict[str, Entry])
    after: float = 0.0
    masks: bool = True
    many: bool = False
    background: bool = False
    was_busy: bool = False


class Leading:
    """The leader's part of the loads of one cache, with its counters.

    Attributes:
        loads: loaders that returned.
        failures: loaders that raised, or took longer than `hard_timeout`.
        refreshes: loads that were begun in the background.
        refused: loaded values that were not stored, as they were of the past by then.
        load_seconds: spent in loaders, in all.
    """

    def __init__(self, verbs: Verbs, flights: Flights) -> None:
        self.verbs, self.flights = verbs, flights
        self.loads = self.failures = self.refreshes = self.refused = 0
        self.load_seconds = 0.0
        self._held: dict[str, float] = {}  # by key: until when nobody here refreshes it
        self._failing: set[str] = set()  # keys of which a failure was logged, and no load has worked since

    async def lead(self, port: Port, load: Load) -> None:
        """See to `load`; what comes of it, its flights tell, now or later."""
        token = port.token()
        try:
            leases = await self._leased(port, load, tuple(load.flights), token)
            if leases:
                job = self._see_to(port, load, leases, token)
                try:
                    await port.start(
                        job, next(iter(load.flights.values())).party, apart=load.plan.has_timeout
                    )
                except BaseException:
                    job.close()
                    await self.verbs.layer.release(port, leases)
                    raise
        except BaseException as error:
            self._fail(load, load.flights, error)
            if not isinstance(error, Exception):
                raise

    def refresh(self, port: Port, load: Load) -> None:
        """See to `load` in the background; nobody waits for it."""
        party = next(iter(load.flights.values())).party
        if port.spawn(partial(self._refreshed, load=load), party):
            self.refreshes += 1
        else:
            self._fail(load, load.flights, LoadAbandoned())

    async def _refreshed(self, port: Port, load: Load) -> None:
        token = port.token()
        try:
            leases = await self._leased(port, load, tuple(load.flights), token)
            for key in [key for key, lease in leases.items() if lease.state == "busy"]:
                self._hold(port, key, _BUSY_HOLD)
                self.flights.land(key, load.flights[key], load.known[key])
                del leases[key]
            if leases:
                await self._see_to(port, load, leases, token)
        except BaseException as error:
            self._fail(load, load.flights, error)
            if not isinstance(error, Exception):
                raise  # else: of the store, and the layer has counted and logged it

    # -- leases

    async def _leased(self, port: Port, load: Load, keys: Sequence[str], token: bytes) -> dict[str, Lease]:
        """Ask for leases; land what is there already, and return the rest: granted, down, or busy without an entry."""
        layer, plan, form = self.verbs.layer, load.plan, self.verbs.form
        leases = dict(await layer.lease(port, keys, token, plan.lease_ttl, load.after, plan.tags))
        useless: list[str] = []
        for key in keys:
            lease = leases[key]
            if lease.entry is not None:
                if form.readable(lease.entry) is MISSING:  # of another type
                    leases[key] = lease._replace(entry=None)
                    if lease.state == "fresh":
                        useless.append(key)
                elif lease.state == "fresh" or (lease.state == "busy" and load.after < inf):
                    self.flights.land(key, load.flights[key], lease.entry)
                    del leases[key]
                else:
                    load.known[key] = lease.entry
            if lease.state == "busy":
                load.was_busy = True
        if useless:
            leases.update(await layer.lease(port, useless, token, plan.lease_ttl, inf, plan.tags))
            for key in useless:
                leases[key] = leases[key]._replace(entry=None)
        return leases

    async def _see_to(self, port: Port, load: Load, leases: dict[str, Lease], token: bytes) -> None:
        """Load what is granted, and wait for what is busy until it is there, or granted too."""
        waited, wait = 0.0, load.plan.wait
        try:
            while True:
                granted = {key: lease for key, lease in leases.items() if lease.state != "busy"}
                if granted:
                    await self._load(port, load, granted)
                busy = tuple(key for key in leases if key not in granted)
                if not busy:
                    return
                if waited >= wait:
                    self._fail(load, busy, LoadTimeout(busy[0], wait))
                    return
                pause = min(max(waited / _WAITED_SHARE, _FIRST_WAIT), _LONGEST_WAIT, wait - waited)
                # spread, so that those of many hosts do not ask in step
                await port.sleep(pause * (0.75 + 0.25 * port.uniform()))
                waited += pause
                leases = await self._leased(port, load, busy, token)
        except BaseException as error:
            self._fail(load, load.flights, error)
            if not isinstance(error, Exception):
                raise

    # -- loading

    async def _load(self, port: Port, load: Load, leases: dict[str, Lease]) -> None:
        """Load, fill and land, or fail: the whole of what is done under leases."""
        try:
            await self._loaded(port, load, leases)
        except BaseException as error:
            try:
                await self.verbs.layer.release(port, leases)
            finally:
                self._fail(load, leases, error)
            if not isinstance(error, Exception):
                raise

    async def _loaded(self, port: Port, load: Load, leases: dict[str, Lease]) -> None:
        first = next(iter(leases))
        context = LoadContext[Any](
            first, partial(self._read, load.known.get(first)), tuple(load.flights.values())
        )
        try:
            values = await self._run(port, load, leases, context)
        except Exception as error:
            await self._masked(port, load, leases, error)
            return
        entries: dict[str, Entry] = {}  # what there is to store
        landing: dict[str, Landed] = {}
        for key, lease in leases.items():
            value = values.get(key, MISSING)
            if value is MISSING:
                landing[key] = MISSING
                continue
            entry, tags = self._made(port, key, value, load, context)
            landing[key] = entry
            if entry.fresh_until > entry.created_at:
                stamps = await self._stamps(port, lease, load.plans[key], tags)
                if stamps is None:
                    self.refused += 1
                    continue
                entry.stamps = stamps
                entries[key] = entry
        await self._store(port, leases, entries, landing)
        for key, landed in landing.items():
            if self._held or self._failing:
                self._works_again(key)
            if landed is MISSING and key not in values:  # others may have a loader that knows it
                self.flights.fail(key, load.flights[key], LoadAbandoned())
            else:
                self.flights.land(key, load.flights[key], landed)

    async def _run(
        self, port: Port, load: Load, leases: Mapping[str, Lease], context: LoadContext[Any]
    ) -> Mapping[str, Any]:
        """Return what the loader gives for the keys of `leases`, counted and timed; raise what it raises."""
        loader = partial(load.loader, list(leases)) if load.many else with_context(load.loader, context)
        under_way = loads_under_way.set((*loads_under_way.get(), context))
        began = port.now()
        try:
            loaded = await port.load(loader, load.plan.hard_timeout)
        except LoadOverdue as error:
            self.failures += 1
            raise LoadTimeout(context.key, load.plan.hard_timeout) from error
        except BaseException:
            self.failures += 1
            raise
        finally:
            context.seconds = port.now() - began
            self.load_seconds += context.seconds
            loads_under_way.reset(under_way)
        self.loads += 1
        if not load.many:
            return {context.key: loaded}
        if not isinstance(loaded, Mapping):
            raise TypeError(
                f"the loader of several keys returns a mapping of keys to values, not {type(loaded).__name__}"
            )
        return loaded

    async def _masked(self, port: Port, load: Load, leases: Mapping[str, Lease], error: Exception) -> None:
        """Serve what is known instead of `error`, and keep everybody from trying again for a while; or fail."""
        now = port.now()
        known = load.known if load.masks else {}
        served = {key: known[key] for key in leases if key in known and known[key].dead_at > now}
        for key in served:
            self._hold(port, key, load.plan.retry_after)
            self._say_failing(key, error)
        others = [key for key in leases if key not in served]
        if others and load.background:
            log.warning("loading %r in the background failed", others[0], exc_info=error)
        layer = self.verbs.layer
        await layer.release(port, {key: leases[key] for key in served}, load.plan.retry_after)
        await layer.release(port, {key: leases[key] for key in others})
        for key, entry in served.items():
            self.flights.land(key, load.flights[key], entry)
        self._fail(load, others, error)

    def _made(
        self, port: Port, key: str, value: Any, load: Load, context: LoadContext[Any]
    ) -> tuple[Entry, tuple[str, ...]]:
        """Return the entry of what a loader gave for `key`, without stamps yet, and the tags that only it told."""
        plan = load.plans[key]
        if value is NotModified:
            known = load.known.get(key)
            if known is None:
                raise CacheError(
                    f"the loader of {key!r} returned NotModified, and there is nothing that could be kept; "
                    "return it only where the context has a stale value"
                )
            payload, shared, value = known.payload, known.value, self._read(known)
        else:
            payload, shared = self.verbs.form.encode(value)
        seconds = _ttl(value, plan, context)
        if plan.jitter and seconds < inf:
            seconds *= 1.0 - plan.jitter * port.uniform()
        stale = 0.0 if value is None and plan.none_ttl is not None else plan.stale_ttl
        spread = context.seconds * plan.early_beta if plan.refresh == "early" else 0.0
        tags = context.tags
        if plan.tags_of is not None:
            tags += checked_tags(plan.tags_of(value))
        now = port.now()
        return Entry(payload, shared, now, now + seconds, now + seconds + stale, (), spread), tags

    async def _stamps(
        self, port: Port, lease: Lease, plan: Plan, told: tuple[str, ...]
    ) -> tuple[tuple[str, int], ...] | None:
        """Return the stamps that an entry carries; None where one of the tags it was told may have been invalidated
        since its load began."""
        own = {CACHE_TAG, *plan.tags}
        stamps = tuple(pair for pair in lease.stamps if pair[0] in own)
        late = [tag for tag in dict.fromkeys(told) if tag not in own]
        if not late:
            return stamps
        found = await self.verbs.layer.late_stamps(port, lease, late)
        return None if found is None else stamps + found

    async def _store(
        self,
        port: Port,
        leases: Mapping[str, Lease],
        entries: Mapping[str, Entry],
        landing: Mapping[str, Landed],
    ) -> None:
        """Fill `entries`, and give the other leases back."""
        layer = self.verbs.layer
        if entries:
            self.refused += len(await layer.fill(port, leases, entries))
        if len(entries) == len(leases):
            return
        await layer.release(port, {key: lease for key, lease in leases.items() if key not in entries})
        lifeless = [
            key
            for key, entry in landing.items()
            if entry is not MISSING and entry.fresh_until <= entry.created_at
        ]
        if lifeless:  # what was there is gone, as with a `set` of such a ttl
            await layer.delete_many(port, lifeless)

    def _read(self, entry: Entry | None) -> Any:
        return MISSING if entry is None else self.verbs.form.readable(entry)

    def _fail(self, load: Load, keys: Iterable[str], error: BaseException) -> None:
        """Fail those of the flights that have not landed."""
        for key in keys:
            flight = load.flights[key]
            if not flight.future.done():
                self.flights.fail(key, flight, error)

    # -- holding back

    def is_held(self, port: Port, key: str) -> bool:
        """Whether nobody here is to refresh `key` now: its load has failed, or another process is at it."""
        if not self._held:
            return False
        until = self._held.get(key)
        if until is None:
            return False
        if until > port.now():
            return True
        self._held.pop(key, None)
        return False

    def _hold(self, port: Port, key: str, seconds: float) -> None:
        if len(self._held) >= _MOST_HELD:
            self._held.clear()
        self._held[key] = port.now() + seconds

    def _say_failing(self, key: str, error: Exception) -> None:
        if key in self._failing:
            return
        if len(self._failing) >= _MOST_HELD:
            self._failing.clear()
        self._failing.add(key)
        log.warning("loading %r fails; its stale value is served meanwhile", key, exc_info=error)

    def _works_again(self, key: str) -> None:
        self._held.pop(key, None)
        if key in self._failing:
            self._failing.discard(key)
            log.warning("loading %r works again", key)


def _ttl(value: Any, plan: Plan, context: LoadContext[Any]) -> float:
    ttl = context.ttl
    if ttl is DEFAULT and plan.ttl_of is not None:
        ttl = plan.ttl_of(value)
    if ttl is not DEFAULT:
        return parse_duration(ttl)
    return plan.none_ttl if value is None and plan.none_ttl is not None else plan.ttl
