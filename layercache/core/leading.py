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
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from math import inf
from types import TracebackType
from typing import Any, Final, TypeAlias

from layercache.core.context import LoadContext, NotModified, loads_under_way, with_context
from layercache.core.flights import Flight, Flights, Landed, LoadAbandoned, LoadOverdue
from layercache.core.holding import Holding
from layercache.core.policy import Plan, checked_tags
from layercache.core.port import Port
from layercache.core.times import Histogram
from layercache.core.verbs import Verbs
from layercache.durations import DEFAULT, parse_duration
from layercache.entry import CACHE_TAG, MISSING, Entry
from layercache.errors import BackendError, CacheError, LoadTimeout
from layercache.spi import Lease

__all__ = ["Leading", "Load"]

log = logging.getLogger("layercache.loading")

_SHORTEST_PAUSE: Final = 1e-6
_FIRST_WAIT: Final = 0.002
_LONGEST_WAIT: Final = 0.25
_WAITED_SHARE: Final = 8
"""Whoever waits for another process looks again after an eighth of the time it has waited already, so that it notices a
load of 50 ms within 7 ms, and one of 2 s within a quarter of a second, at a few dozen looks in all."""

_OURS: Final = frozenset({__name__, "layercache.inline", "layercache.loop"})
"""The modules between a load and its loader."""


_Watched: TypeAlias = Callable[[Sequence[str], bool], AbstractContextManager[object]]


class Load:
    """What one leader sees to.

    Attributes:
        loader: called without arguments (or with a context) for the value of the one key; where there are `many`, with
            the list of keys that it is to load, for a mapping of these to values.
        plan: of all keys together.
        flights: of one party.
        known: by key the entries that are there, stale or to be refreshed early.
        after: only an entry that is fresh beyond this time, wall-clock seconds, is fresh enough; `inf`: none is.
        masks: whether what is known is served where the loader fails.
        many: whether the loader is one of several keys.
        background: whether nobody waits for it.
        was_busy: whether another process loads one of the keys.
    """

    __slots__ = ("after", "background", "flights", "known", "loader", "many", "masks", "plan", "was_busy")

    def __init__(
        self,
        loader: Callable[..., Any],
        plan: Plan,
        flights: Sequence[Flight],
        known: dict[str, Entry],
        after: float = 0.0,
        *,
        masks: bool = True,
        many: bool = False,
        background: bool = False,
    ) -> None:
        self.loader, self.plan, self.flights, self.known, self.after = loader, plan, flights, known, after
        self.masks, self.many, self.background = masks, many, background
        self.was_busy = False


class Leading:
    """The leader's part of the loads of one cache, with its counters.

    Attributes:
        loads: loaders that returned.
        failures: loaders that raised, or were stopped at their `hard_timeout`.
        refreshes: loads that were begun in the background.
        refused: loaded values that were not stored, as they were of the past by then.
        load_seconds: spent in loaders, in all.
        times: that each took, those that failed included.
        holding: keys that nobody here is to refresh now.
    """

    def __init__(self, verbs: Verbs, flights: Flights) -> None:
        self.verbs, self.flights = verbs, flights
        self.loads = self.failures = self.refreshes = self.refused = 0
        self.load_seconds = 0.0
        self.times = Histogram()
        self._watched: _Watched = _unwatched
        self.holding = Holding()

    async def lead(self, port: Port, load: Load) -> None:
        """See to `load`; what comes of it, its flights tell, now or later."""
        token = port.token()
        try:
            flights, leases = await self._leased(port, load, load.flights, token)
            if flights:
                if load.was_busy:
                    job = self._see_to(port, load, flights, leases, token)
                else:
                    job = self._load(port, load, flights, leases)
                try:
                    ended = partial(self._abandon, load)
                    await port.start(job, flights[0].party, ended, apart=load.plan.has_timeout)
                except BaseException:
                    job.close()
                    await self._release(port, flights, leases)
                    raise
        except BaseException as error:
            self._fail(load.flights, error)
            if not isinstance(error, Exception):
                raise

    def refresh(self, port: Port, load: Load) -> None:
        """See to `load` in the background; nobody waits for it."""
        party = load.flights[0].party
        if port.spawn(partial(self._refreshed, load=load), party, partial(self._abandon, load)):
            self.refreshes += 1
        else:
            self._fail(load.flights, LoadAbandoned())

    async def _refreshed(self, port: Port, load: Load) -> None:
        token = port.token()
        try:
            flights, leases = await self._leased(port, load, load.flights, token)
            for flight, lease in zip(flights, leases, strict=True):
                if lease.state == "busy":
                    self.holding.busy(port, flight.key)
                    self.flights.land(flight, load.known[flight.key])
            granted = [pair for pair in zip(flights, leases, strict=True) if pair[1].state != "busy"]
            if granted:
                await self._load(
                    port, load, [flight for flight, _ in granted], [lease for _, lease in granted]
                )
        except BaseException as error:
            self._fail(load.flights, error)
            if not isinstance(error, Exception):
                raise  # else: of the store, and the layer has counted and logged it

    def watch(self, watched: _Watched | None) -> None:
        """Enter what `watched` returns, of the keys and whether it is in the background, while a loader runs."""
        self._watched = watched or _unwatched

    # -- leases

    async def _leased(
        self, port: Port, load: Load, flights: Sequence[Flight], token: bytes
    ) -> tuple[Sequence[Flight], Sequence[Lease]]:
        """Ask for leases; land what is there already, and return the rest: granted, down, or busy without an entry."""
        plan, form = load.plan, self.verbs.form
        keys = [flight.key for flight in flights]
        leases = await self.verbs.layer.leases.take(port, keys, token, plan.lease_ttl, load.after, plan.tags)
        for lease in leases:
            if lease.entry is not None or lease.state == "busy":
                break
        else:
            return flights, leases  # as a rule
        left: list[Flight] = []
        kept: list[Lease] = []
        for flight, given in zip(flights, leases, strict=True):
            lease, entry = given, given.entry
            if entry is not None:
                if form.readable(entry) is MISSING:  # of another type, so of no use to us
                    if lease.state == "fresh":
                        lease = await self._leased_again(port, load, flight, token, flights, leases)
                    lease = lease._replace(entry=None)
                elif lease.state == "fresh" or (lease.state == "busy" and load.after < inf):
                    if (
                        lease.state == "busy"
                    ):  # it is being refreshed elsewhere: not every hit is to ask again
                        self.holding.busy(port, flight.key)
                    self.flights.land(flight, entry)
                    continue
                else:
                    load.known[flight.key] = entry
            if lease.state == "busy":
                load.was_busy = True
            left.append(flight)
            kept.append(lease)
        return left, kept

    async def _leased_again(
        self,
        port: Port,
        load: Load,
        flight: Flight,
        token: bytes,
        flights: Sequence[Flight],
        leases: Sequence[Lease],
    ) -> Lease:
        """Take the lease of a key although an entry is there that is fresh."""
        plan = load.plan
        try:
            (lease,) = await self.verbs.layer.leases.take(
                port, (flight.key,), token, plan.lease_ttl, inf, plan.tags
            )
        except BaseException:
            await self._release(port, flights, leases)  # what was granted before
            raise
        return lease

    async def _see_to(
        self, port: Port, load: Load, flights: Sequence[Flight], leases: Sequence[Lease], token: bytes
    ) -> None:
        """Load what is granted, and wait for what is busy until it is there, or granted too."""
        waited, wait = 0.0, load.plan.wait
        try:
            while True:
                pairs = list(zip(flights, leases, strict=True))
                granted = [pair for pair in pairs if pair[1].state != "busy"]
                if granted:
                    await self._load(
                        port, load, [flight for flight, _ in granted], [lease for _, lease in granted]
                    )
                busy = [flight for flight, lease in pairs if lease.state == "busy"]
                if not busy:
                    return
                if wait - waited < _SHORTEST_PAUSE:
                    self._fail(busy, LoadTimeout(busy[0].key, wait))
                    return
                pause = min(max(waited / _WAITED_SHARE, _FIRST_WAIT), _LONGEST_WAIT)
                # spread, so that those of many hosts do not ask in step
                pause = min(pause * (0.75 + 0.25 * port.uniform()), wait - waited)
                await port.sleep(pause)
                waited += pause
                flights, leases = await self._leased(port, load, busy, token)
        except BaseException as error:
            self._fail(load.flights, error)
            if not isinstance(error, Exception):
                raise

    async def _release(
        self, port: Port, flights: Sequence[Flight], leases: Sequence[Lease], seconds: float = 0.0
    ) -> None:
        await self.verbs.layer.leases.release(port, [flight.key for flight in flights], leases, seconds)

    # -- loading

    async def _load(self, port: Port, load: Load, flights: Sequence[Flight], leases: Sequence[Lease]) -> None:
        """Load, fill and land, or fail: the whole of what is done under leases."""
        first = flights[0].key
        context: LoadContext[Any] = LoadContext(first, load.known.get(first), self._read, load.flights)
        try:
            try:
                values = await self._run(port, load, flights, context)
            except Exception as error:
                await self._masked(port, load, flights, leases, error)
                return
            landing = await self._fill(port, load, flights, leases, values, context)
        except BaseException as error:
            try:
                await self._release(port, flights, leases)
            finally:
                self._fail(flights, error)
            if not isinstance(error, Exception):
                raise
            return
        for flight, landed in zip(flights, landing, strict=True):
            self.holding.works(flight.key)
            if landed is MISSING and flight.key not in values:  # others may have a loader that knows it
                self.flights.fail(flight, LoadAbandoned())
            else:
                self.flights.land(flight, landed)

    async def _fill(
        self,
        port: Port,
        load: Load,
        flights: Sequence[Flight],
        leases: Sequence[Lease],
        values: Mapping[str, Any],
        context: LoadContext[Any],
    ) -> list[Landed]:
        """Store what the loader gave, as far as it may be, and end the leases; return what `flights` land with."""
        landing: list[Landed] = []
        keys: list[str] = []  # of what is to be stored, under which leases
        under: list[Lease] = []
        entries: list[Entry] = []
        for flight, lease in zip(flights, leases, strict=True):
            value = values.get(flight.key, MISSING)
            if value is MISSING:
                landing.append(MISSING)
                await self._release(port, (flight,), (lease,))
                continue
            entry, value = self._made(port, flight, value, load, context)
            landing.append(entry)
            if await self._stamped(port, entry, value, lease, flight.plan, load, context):
                keys.append(flight.key)
                under.append(lease)
                entries.append(entry)
            else:
                await self._not_stored(port, flight, lease, entry)
        if keys:
            try:
                self.refused += sum(await self.verbs.layer.leases.fill(port, keys, under, entries))
            except BackendError:
                # the layer has counted and logged it, and the callers have what was loaded
                self.refused += len(keys)
        return landing

    async def _run(
        self, port: Port, load: Load, flights: Sequence[Flight], context: LoadContext[Any]
    ) -> Mapping[str, Any]:
        """Return what the loader gives for `flights`, counted and timed; raise what it raises."""
        loader: Callable[[], Any]
        if load.many:
            loader = partial(load.loader, [flight.key for flight in flights])
        else:
            loader = with_context(load.loader, context)
        under_way = loads_under_way.set((*loads_under_way.get(), context))
        began = port.now()
        try:
            with self._watched([flight.key for flight in flights], load.background):
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
            self.times.add(context.seconds)
            loads_under_way.reset(under_way)
        self.loads += 1
        if not load.many:
            return {context.key: loaded}
        if not isinstance(loaded, Mapping):
            raise TypeError(
                f"the loader of several keys returns a mapping of keys to values, not {type(loaded).__name__}"
            )
        return loaded

    async def _masked(
        self,
        port: Port,
        load: Load,
        flights: Sequence[Flight],
        leases: Sequence[Lease],
        error: Exception,
    ) -> None:
        """Serve what is known instead of `error`, and keep everybody from trying again for a while; or fail."""
        # from the loader on: the frames of ours hold the flights, and these the error, in a circle
        error.__traceback__ = _without_ours(error.__traceback__)
        now, retry_after = port.now(), load.plan.retry_after
        for flight, lease in zip(flights, leases, strict=True):
            known = load.known.get(flight.key) if load.masks else None
            if known is not None and known.dead_at > now:
                held_back = min(retry_after, known.dead_at - now)  # without it, nobody has anything to serve
                self.holding.fails(port, flight.key, held_back, error)
                await self._release(port, (flight,), (lease,), held_back)
                self.flights.land(flight, known)
            else:
                await self._release(port, (flight,), (lease,))
                if load.background:
                    log.warning("loading %r in the background failed", flight.key, exc_info=error)
                self.flights.fail(flight, error)

    # -- storing

    def _made(
        self, port: Port, flight: Flight, value: Any, load: Load, context: LoadContext[Any]
    ) -> tuple[Entry, Any]:
        """Return the entry of what a loader gave for `flight`, without stamps yet, and the value itself."""
        plan = flight.plan
        if value is NotModified:
            known = load.known.get(flight.key)
            if known is None:
                raise CacheError(
                    f"the loader of {flight.key!r} returned NotModified, and there is nothing that could be kept; "
                    "return it only where the context has a stale value"
                )
            payload, shared, value = known.payload, known.value, self._read(known)
        else:
            payload, shared = self.verbs.form.encode(value)
        seconds = _ttl(value, plan, context)
        if plan.jitter and seconds < inf:
            seconds *= 1.0 - plan.jitter * port.uniform()
        stale = 0.0 if value is None and plan.none_ttl is not None else plan.stale_ttl
        if context.stale_ttl is not DEFAULT:
            stale = parse_duration(context.stale_ttl)
        spread = context.seconds * plan.early_beta if plan.refresh == "early" else 0.0
        now = port.now()
        return Entry(payload, shared, now, now + seconds, now + seconds + stale, (), spread), value

    async def _stamped(
        self,
        port: Port,
        entry: Entry,
        value: Any,
        lease: Lease,
        plan: Plan,
        load: Load,
        context: LoadContext[Any],
    ) -> bool:
        """Give `entry` the stamps that it carries; return False where it is not to be stored: it has no life, or one of
        the tags that only the load has told may have been invalidated since that began."""
        if entry.fresh_until <= entry.created_at:
            return False
        if plan.tags_of is None and not context.tags and not load.many:
            entry.stamps = lease.stamps
            return True
        told = context.tags
        if plan.tags_of is not None:
            told += checked_tags(plan.tags_of(value))
        own = {CACHE_TAG, *plan.tags}
        entry.stamps = tuple(pair for pair in lease.stamps if pair[0] in own)
        late = [tag for tag in dict.fromkeys(told) if tag not in own]
        if not late:
            return True
        try:
            stamps = await self.verbs.layer.leases.late_stamps(port, lease, late)
        except BackendError:  # as where the store fails when it is filled
            stamps = None
        if stamps is None:
            self.refused += 1
            return False
        entry.stamps += stamps
        return True

    async def _not_stored(self, port: Port, flight: Flight, lease: Lease, entry: Entry) -> None:
        await self._release(port, (flight,), (lease,))
        if entry.fresh_until <= entry.created_at:
            # what was there is gone, as with a `set` of such a ttl
            await self.verbs.layer.delete(port, flight.key)

    def _read(self, entry: Entry) -> Any:
        return self.verbs.form.readable(entry)

    def _abandon(self, load: Load, _: object) -> None:
        """Let others board who wait for a load that has ended: one whose loop was shut down before its first step has
        failed nothing itself."""
        self._fail(load.flights, LoadAbandoned())

    def _fail(self, flights: Sequence[Flight], error: BaseException) -> None:
        """Fail those of `flights` that are not over."""
        for flight in flights:
            if not flight.is_over:
                self.flights.fail(flight, error)


_NOBODY: Final = nullcontext()


def _unwatched(keys: Sequence[str], background: bool) -> AbstractContextManager[object]:
    return _NOBODY


def _without_ours(traceback: TracebackType | None) -> TracebackType | None:
    while traceback is not None and traceback.tb_frame.f_globals.get("__name__") in _OURS:
        traceback = traceback.tb_next
    return traceback


def _ttl(value: Any, plan: Plan, context: LoadContext[Any]) -> float:
    ttl = context.ttl
    if ttl is DEFAULT and plan.ttl_of is not None:
        ttl = plan.ttl_of(value)
    if ttl is not DEFAULT:
        return parse_duration(ttl)
    return plan.none_ttl if value is None and plan.none_ttl is not None else plan.ttl
