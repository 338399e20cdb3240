"""get_or_set: one load per key at a time in this process.

What leader and followers get is decoded from the one entry the leader made, each a copy of their own
and each in the normal form: the same as a later hit gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from layercache.core.flights import Flight, Flights, LoadAbandoned
from layercache.core.port import Port
from layercache.core.verbs import Verbs
from layercache.durations import Ttl
from layercache.entry import MISSING, Entry

__all__ = ["Loading"]


class Loading:
    """Loads of one cache, with their counters.

    Attributes:
        loads: loaders that returned a value.
        failures: loaders that raised.
        waits: callers that waited for another's load.
        load_seconds: spent in loaders, in all.
    """

    def __init__(self, verbs: Verbs, flights: Flights) -> None:
        self.verbs, self.flights = verbs, flights
        self.loads = self.failures = self.waits = 0
        self.load_seconds = 0.0

    async def get_or_set(self, port: Port, key: str, loader: Callable[[], Any], ttl: Ttl) -> Any:
        """Return the value of `key`; when there is none, load and store it, once."""
        verbs = self.verbs
        verbs.check(key)
        verbs.policy.ttl_for(key, ttl)  # a ttl that is none is refused before anything is loaded
        value = await verbs.get(port, key, MISSING)
        while value is MISSING:
            flight, is_leader = self.flights.board(key)
            if is_leader:
                return verbs.form.decode(await self._lead(port, key, loader, ttl, flight))
            self.waits += 1
            try:
                value = verbs.form.readable(await port.join(flight))
            except LoadAbandoned:
                value = await verbs.get(port, key, MISSING)  # the leader was stopped: somebody else must lead
        return value

    async def _lead(self, port: Port, key: str, loader: Callable[[], Any], ttl: Ttl, flight: Flight) -> Entry:
        try:
            entry = await self._look_again(port, key) or await self._load(port, key, loader, ttl)
        except BaseException as error:
            self.flights.fail(key, flight, error)
            raise
        self.flights.land(key, flight, entry)
        return entry

    async def _look_again(self, port: Port, key: str) -> Entry | None:
        """Somebody may have landed between our read and our boarding.

        Who landed here has filled the near layer too, so where there is one it alone is asked.
        """
        layer = self.verbs.layer
        near = layer.space.near
        entry = near.peek(key) if near is not None else await layer.look(port, key)
        return None if entry is None or self.verbs.form.readable(entry) is MISSING else entry

    async def _load(self, port: Port, key: str, loader: Callable[[], Any], ttl: Ttl) -> Entry:
        began = port.now()
        try:
            value = await port.load(loader)
        except BaseException:
            self.failures += 1
            raise
        finally:
            self.load_seconds += port.now() - began
        self.loads += 1
        entry = self.verbs.entry(port, key, value, ttl)
        await self.verbs.store(port, key, entry)
        return entry or self._unstored(port, value)

    def _unstored(self, port: Port, value: Any) -> Entry:
        """An entry to hand round of a value whose ttl leaves it no life."""
        payload, shared = self.verbs.form.encode(value)
        return Entry(payload, shared, port.now(), port.now(), port.now())
