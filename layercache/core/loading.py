"""get_or_set: one load per key at a time, and nobody left waiting.

    look ── fresh ──────────────────────────────────────────────► value
      ├──── stale ── one caller's loader runs in the background ─► stale value
      └──── none ─── board the key's flight
                       ├─ follower: wait for the leader ─────────► value
                       └─ leader (`leading`) ────────────────────► value

What leader and followers get is decoded from the one entry the leader made, each a copy of their own
and each in the normal form: the same as a later hit gives.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any, cast

from layercache.core.context import loads_under_way
from layercache.core.flights import Flight, Flights, Landed, LoadAbandoned, waits_in_a_circle
from layercache.core.leading import Leading, Load
from layercache.core.policy import NOTHING, Overrides, Plan
from layercache.core.port import Port
from layercache.core.verbs import Verbs
from layercache.entry import MISSING, Entry
from layercache.errors import LoadTimeout, RecursiveLoad

__all__ = ["Loading"]


class Loading:
    """Loads of one cache as their callers see them, with their counters.

    Attributes:
        leading: does what leaders do.
        waits: callers that waited for another's load.
        stale_hits: callers that were given a stale value.
        timeouts: callers that did not wait until a load was over.
    """

    def __init__(self, verbs: Verbs, flights: Flights) -> None:
        self.verbs, self.flights = verbs, flights
        verbs.layer.changed = flights.outdate
        self.leading = Leading(verbs, flights)
        self.waits = self.stale_hits = self.timeouts = 0

    async def get_or_set(
        self, port: Port, key: str, loader: Callable[..., Any], overrides: Overrides = NOTHING
    ) -> Any:
        """Return the value of `key`; when there is no fresh one, load and store it, once.

        `MISSING` where the loader says that there is nothing.
        """
        verbs = self.verbs
        verbs.check(key)
        plan = overrides.over(verbs.policy.plan_for(key))
        stale: Entry | None = None
        entry, is_near = await self._look(port, key, plan)
        if entry is not None:
            value = verbs.decoded(entry)
            if value is not MISSING:
                is_fresh = entry.fresh_until > port.now()
                if is_fresh or plan.refreshes or self.leading.holding.is_held(port, key):
                    if not is_fresh or self._is_due(port, entry, is_near=is_near):
                        self.stale_hits += not is_fresh
                        self._refresh(port, loader, plan, {key: plan}, {key: entry}, many=False)
                    return value
                stale = entry
        return await self._loaded(port, key, loader, plan, stale)

    async def get_or_set_many(
        self, port: Port, keys: Iterable[str], loader: Callable[..., Any], overrides: Overrides = NOTHING
    ) -> dict[str, Any]:
        """Return the values of `keys`, in their order; load those that are not there in one call.

        Args:
            loader: given the list of keys to load, returns a mapping of these to values; those that it leaves out have
                none.
        """
        verbs = self.verbs
        wanted = verbs.check_all(keys)
        plans = {key: overrides.over(verbs.policy.plan_for(key)) for key in wanted}
        if not wanted:
            return {}
        plan = _joint(plans)
        values, stale = await self._look_many(port, loader, plan, plans)
        missing = [key for key in wanted if key not in values]
        while missing:
            missing = await self._loaded_many(port, missing, loader, plan, plans, stale, values)
        return {key: values[key] for key in wanted if values.get(key, MISSING) is not MISSING}

    async def refresh(
        self,
        port: Port,
        key: str,
        loader: Callable[..., Any],
        overrides: Overrides = NOTHING,
        after: float = inf,
    ) -> Any:
        """Load `key`, store and return it, unless an entry is there that is fresh beyond `after`.

        A load of another caller is waited for first, as it may have begun before what the caller wants to see.
        """
        self.verbs.check(key)
        plan = overrides.over(self.verbs.policy.plan_for(key))
        return await self._loaded(port, key, loader, plan, None, after)

    # -- looking

    async def _look(self, port: Port, key: str, plan: Plan) -> tuple[Entry | None, bool]:
        """Return what is there, and whether it is from near."""
        layer = self.verbs.layer
        near = layer.space.near
        if near is not None:
            entry = near.take(key, stale=plan.refreshes)
            if entry is not None:
                return entry, True
            if near is cast("Any", layer.space) and plan.refreshes:  # there is nothing farther
                layer.misses += 1
                return None, False
        return await layer.read(port, key, stale=plan.refreshes), False

    async def _look_many(
        self, port: Port, loader: Callable[..., Any], plan: Plan, plans: Mapping[str, Plan]
    ) -> tuple[dict[str, Any], dict[str, Entry]]:
        """Return the values that are there, and the stale entries of keys that are to be loaded before they are served;
        see that what is stale, or due, is refreshed."""
        layer = self.verbs.layer
        near = layer.space.near
        found: dict[str, Entry] = {}
        if near is not None:
            taken = {key: near.take(key, stale=plans[key].refreshes) for key in plans}
            found = {key: entry for key, entry in taken.items() if entry is not None}
        is_near = set(found)
        if len(found) < len(plans):
            farther = [key for key in plans if key not in found]
            found |= await layer.read_many(port, farther, stale=plan.refreshes)
        values: dict[str, Any] = {}
        stale: dict[str, Entry] = {}
        due: dict[str, Entry] = {}
        now = port.now()
        for key, entry in found.items():
            value = self.verbs.decoded(entry)
            if value is MISSING:
                continue
            is_fresh = entry.fresh_until > now
            if not (is_fresh or plans[key].refreshes or self.leading.holding.is_held(port, key)):
                stale[key] = entry
                continue
            values[key] = value
            if not is_fresh or self._is_due(port, entry, is_near=key in is_near):
                self.stale_hits += not is_fresh
                due[key] = entry
        if due:
            self._refresh(port, loader, plan, plans, due, many=True)
        return values, stale

    def _is_due(self, port: Port, entry: Entry, *, is_near: bool) -> bool:
        """Whether a fresh entry is to be refreshed early. Near memory has drawn when that is, and answers hits itself
        until then; elsewhere each read draws."""
        return entry.spread > 0 and (is_near or entry.early_at(port.exponential()) <= port.now())

    def _refresh(
        self,
        port: Port,
        loader: Callable[..., Any],
        plan: Plan,
        plans: Mapping[str, Plan],
        entries: Mapping[str, Entry],
        *,
        many: bool,
    ) -> None:
        """Have the loader run in the background for what nobody loads yet, while all go on with `entries`."""
        led = self.flights.board_idle(
            [(key, plans[key]) for key in entries if not self.leading.holding.is_held(port, key)]
        )
        if not led:
            return
        known = {flight.key: entries[flight.key] for flight in led}
        # what is there now is not good enough, even where it is still fresh
        after = max(port.now(), *(entry.fresh_until for entry in known.values())) + _ROUNDED
        self.leading.refresh(port, Load(loader, plan, led, known, after, many=many, background=True))

    # -- loading

    async def _loaded(
        self,
        port: Port,
        key: str,
        loader: Callable[..., Any],
        plan: Plan,
        stale: Entry | None,
        after: float = 0.0,
    ) -> Any:
        load: Load | None = None
        stopped: BaseException | None = None  # our own load
        while True:
            flight, is_leader = self.flights.board(key, plan)
            limit = min(plan.hard_timeout, plan.wait)
            if is_leader:
                known = {} if stale is None else {key: stale}
                # who wants to load now, wants its error and not what was there
                load = Load(loader, plan, (flight,), known, after, masks=after == 0.0)
                await self.leading.lead(port, load)
                limit = plan.hard_timeout + plan.wait if load.was_busy else plan.hard_timeout
                stale = known.get(key) if load.masks else None
            else:
                self.waits += 1
            try:
                landed = await self._landed(port, flight, plan, stale, limit, is_leader=is_leader)
            except LoadAbandoned:
                if is_leader and stopped is not None and flight.stopped is not None:
                    raise flight.stopped from None  # twice: that is the loader's doing, such as a test's that gives up
                stopped = flight.stopped if is_leader else stopped
                continue  # the leader was stopped: somebody else must lead
            except BaseException as error:
                if after and not is_leader and flight.is_over and isinstance(error, Exception):
                    continue  # another's load may fail; ours has not been tried
                del flight, load  # which hold the error, as its traceback would them
                raise
            if after and not is_leader:
                continue  # what it waited for may have begun too early
            if landed is MISSING:
                return MISSING
            value = self._served(port, landed)
            if value is not MISSING:
                return value
            after = inf  # it is of another type: what is there is of no use to us

    async def _loaded_many(
        self,
        port: Port,
        keys: Sequence[str],
        loader: Callable[..., Any],
        plan: Plan,
        plans: Mapping[str, Plan],
        stale: Mapping[str, Entry],
        values: dict[str, Any],
    ) -> list[str]:
        """Load `keys`, or wait for those who do; add to `values`, and return the keys that have to be tried again."""
        led, followed = self.flights.board_many([(key, plans[key]) for key in keys])
        self.waits += len(followed)
        limit = min(plan.hard_timeout, plan.wait)
        # first what we lead: who waits before that may wait for somebody who waits for us
        pending = [*reversed(followed), *reversed(led)]
        known = {key: stale[key] for key in keys if key in stale}
        again: list[str] = []
        load: Load | None = None
        flight: Flight | None = None
        leading = set(led)
        try:
            if led:
                load = Load(loader, plan, led, known, many=True)
                await self.leading.lead(port, load)
                limit = plan.hard_timeout + plan.wait if load.was_busy else plan.hard_timeout
            while pending:
                flight = pending.pop()
                key, is_leader = flight.key, flight in leading
                try:
                    landed = await self._landed(
                        port, flight, plan, known.get(key), limit, is_leader=is_leader
                    )
                except LoadAbandoned:
                    if is_leader and flight.stopped is not None:
                        raise flight.stopped from None
                    if not is_leader:
                        again.append(key)
                    continue
                if not flight.is_over:
                    limit = 0.0  # the others were waited for just as long
                value = landed if landed is MISSING else self._served(port, landed)
                if value is MISSING and landed is not MISSING:
                    again.append(key)
                else:
                    values[key] = value
        except BaseException as error:
            # our own load goes on only where it was slow, not where the caller was cancelled
            slow = isinstance(error, LoadTimeout)
            for flight in pending:
                self.flights.leave(flight, goes_on=slow)
            del (
                led,
                followed,
                pending,
                load,
                flight,
                leading,
            )  # which hold the error, as its traceback would them
            raise
        return again

    def _served(self, port: Port, landed: Entry) -> Any:
        """Return the value that a flight landed with, counted where it is stale; `MISSING` for another type's."""
        value = self.verbs.form.readable(landed)
        if value is not MISSING:
            self.stale_hits += landed.fresh_until <= port.now() < landed.dead_at
        return value

    # -- waiting

    async def _landed(
        self, port: Port, flight: Flight, plan: Plan, stale: Entry | None, limit: float, *, is_leader: bool
    ) -> Landed:
        """Wait for `flight`, for at most `limit` seconds, and return what it landed with; or the stale entry, where it
        takes too long or fails.

        Raises what the loader raised, `LoadTimeout`, and `LoadAbandoned` where somebody else has to lead.
        """
        if not flight.is_over:
            if stale is not None:
                limit = min(limit, plan.soft_timeout)
            try:
                is_over = await self._joined(port, flight, limit)
            except BaseException:  # cancelled, as a rule
                self.flights.leave(flight, goes_on=False)
                raise
            if not is_over:
                self.timeouts += 1
                self.flights.leave(flight, goes_on=True)
                if stale is not None and stale.dead_at > port.now():
                    return stale
                raise LoadTimeout(flight.key, limit)
        error = flight.error
        if error is None:
            return flight.landed
        if isinstance(error, LoadAbandoned):
            raise error
        if stale is not None and not is_leader and stale.dead_at > port.now():
            return stale
        try:
            raise error if is_leader else _own(error)
        finally:
            del error, flight  # which would hold each other in a circle, by way of the traceback

    async def _joined(self, port: Port, flight: Flight, limit: float) -> bool:
        """Join `flight`, unless it waits for a load that the caller is part of."""
        own = [each for context in loads_under_way.get() for each in context.flights]
        if not own:
            return await port.join(flight, limit)
        for each in own:
            each.waits_for.append(flight)  # first, so that of two that do this at once one sees the other
        try:
            if waits_in_a_circle(flight, own):
                raise RecursiveLoad(flight.key)
            return await port.join(flight, limit)
        finally:
            for each in own:
                each.waits_for.remove(flight)


_ROUNDED = 0.002
"""Seconds that the times of one entry may differ by, as they are rounded where they are kept."""


def _joint(plans: Mapping[str, Plan]) -> Plan:
    """Return one plan for keys that are loaded together: the most patient lease, the least patient caller."""
    first, *others = plans.values()
    if all(plan is first for plan in others):
        return first
    all_plans = (first, *others)
    return replace(
        first,
        wait=min(plan.wait for plan in all_plans),
        soft_timeout=min(plan.soft_timeout for plan in all_plans),
        hard_timeout=min(plan.hard_timeout for plan in all_plans),
        retry_after=max(plan.retry_after for plan in all_plans),
        lease_ttl=max(plan.lease_ttl for plan in all_plans),
        refresh=first.refresh if all(plan.refresh == first.refresh for plan in all_plans) else "background",
        tags=tuple(dict.fromkeys(tag for plan in all_plans for tag in plan.tags)),
    )


def _own(error: BaseException) -> BaseException:
    """Return `error` for one of several who raise it: each has a traceback of its own, which raising adds to.

    What cannot be copied exactly is shared.
    """
    try:
        own = copy.copy(error)
    except Exception:  # of its own __init__ or __reduce__
        return error
    if type(own) is not type(error) or own.args != error.args:
        return error
    own.__cause__, own.__context__ = error.__cause__, error.__context__
    own.__suppress_context__ = error.__suppress_context__
    return own.with_traceback(error.__traceback__)
