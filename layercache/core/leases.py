"""Permission to load, and to store what was loaded: leases where the store grants some, else tickets of this process.

Rules:
1. Every lease that is granted is filled or released, whatever happens, even when its cache was closed meanwhile.
2. One that could not be ended, or of which we were not told, is ended by what the layer is owed: else everybody would
   wait for it until its time is over.
3. What the layer is owed is not there: such an entry is neither fresh nor stale, and is not filled over.
4. A ticket sees for itself what is invalidated while it is open, so it needs no stamps but the names of the tags.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, cast

from layercache.core.outbox import Owed
from layercache.core.port import Port
from layercache.core.tickets import Ticket
from layercache.entry import Entry, Stamps
from layercache.errors import BackendError
from layercache.spi import Lease, LeasingKeySpace

if TYPE_CHECKING:
    from layercache.core.layer import Layer

__all__ = ["Leases", "StoreLeases", "TicketLeases"]

_DOWN = Lease("down", None)


class Leases(Protocol):
    """Permission to load, of one layer."""

    async def take(
        self, port: Port, keys: Sequence[str], token: bytes, seconds: float, after: float, tags: Sequence[str]
    ) -> list[Lease]:
        """As `LeasingKeySpace.lease_many`, in the order of `keys`; each that is granted is to be filled or released."""
        ...

    async def fill(
        self, port: Port, keys: Sequence[str], leases: Sequence[Lease], entries: Sequence[Entry]
    ) -> list[bool]:
        """Store what was loaded under `leases`, and end these; return of each whether it was void."""
        ...

    async def release(
        self, port: Port, keys: Sequence[str], leases: Sequence[Lease], seconds: float = 0.0
    ) -> None:
        """Give `leases` back; or, with `seconds`, keep everybody from loading for as long, where the store can.

        A store that fails now lets them go when their time is over, or when it is given what it is owed; whoever loaded
        has an error of its own to tell.
        """
        ...

    async def late_stamps(self, port: Port, lease: Lease, tags: Sequence[str]) -> Stamps | None:
        """As `LeasingKeySpace.late_stamps`."""
        ...


class TicketLeases:
    """Tickets, of a store that grants no leases: other processes are not kept from loading."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer

    async def take(
        self, port: Port, keys: Sequence[str], token: bytes, seconds: float, after: float, tags: Sequence[str]
    ) -> list[Lease]:
        layer, stamps = self._layer, _named(tags)
        leases: list[Lease] = []
        try:
            for key in keys:
                ticket = layer.tickets.open(key)
                leases.append(Lease("granted", None, stamps, None, ticket))
                # somebody may have stored it between our read and this
                entry = await layer.tried(port, None, port.read(layer.space, key), None)
                if entry is None:
                    continue
                if entry.fresh_until > max(port.now(), after):
                    layer.tickets.close(ticket)
                    leases[-1] = Lease("fresh", entry)
                else:
                    leases[-1] = Lease("granted", entry, stamps, None, ticket)
        except BaseException:
            await self.release(port, keys[: len(leases)], leases)
            raise
        return leases

    async def fill(
        self, port: Port, keys: Sequence[str], leases: Sequence[Lease], entries: Sequence[Entry]
    ) -> list[bool]:
        refused: list[bool] = []
        for lease, entry in zip(leases, entries, strict=True):
            try:
                refused.append(await self._layer.fill(port, lease.token, entry) is False)
            finally:
                self._layer.tickets.close(lease.token)
        return refused

    async def release(
        self, port: Port, keys: Sequence[str], leases: Sequence[Lease], seconds: float = 0.0
    ) -> None:
        for lease in leases:
            if isinstance(lease.token, Ticket):  # else of a load that never had one
                self._layer.tickets.close(lease.token)

    async def late_stamps(self, port: Port, lease: Lease, tags: Sequence[str]) -> Stamps | None:
        return _named(tags)


class StoreLeases:
    """Leases of the store: one holder of a key among all processes that share it.

    Args:
        space: gives leases back even when the cache is closed, and `layer.space` another one.
    """

    def __init__(self, layer: Layer, space: LeasingKeySpace) -> None:
        self._layer, self._space = layer, space

    async def take(
        self, port: Port, keys: Sequence[str], token: bytes, seconds: float, after: float, tags: Sequence[str]
    ) -> list[Lease]:
        layer, asked = self._layer, keys
        outbox = layer.outbox
        past: Collection[str] = ()
        if outbox is not None:
            past = outbox.tags()
            asked = [] if outbox.owes(tags=tags) else [key for key in keys if not outbox.withholds(key)]
        leases: dict[str, Lease] = {}
        try:
            if asked:
                asking = port.lease_many(self._open, asked, token, seconds, after, tags)
                leases = await layer.tried(
                    port, layer.read_times, asking, leases, owed=Owed(tuple(asked)), in_doubt=True
                )
        except BaseException as error:
            if not isinstance(error, Exception):  # they may have been granted while we were stopped
                giving_back = port.release_many(self._space, asked, token, 0.0)
                await layer.tried(port, None, giving_back, None)
            raise
        if outbox is not None:
            for key, lease in leases.items():
                if lease.entry is not None and outbox.withholds(key, lease.entry, past):
                    leases[key] = _DOWN if lease.state == "fresh" else lease._replace(entry=None)
        return [leases.get(key, _DOWN) for key in keys]

    async def fill(
        self, port: Port, keys: Sequence[str], leases: Sequence[Lease], entries: Sequence[Entry]
    ) -> list[bool]:
        layer, outbox = self._layer, self._layer.outbox
        granted = {
            key: entry
            for key, lease, entry in zip(keys, leases, entries, strict=True)
            if lease.state == "granted"
        }
        void: list[str] = []
        if outbox is not None:
            # it was invalidated since, as far as the store could not be told
            void = [key for key, entry in granted.items() if outbox.withholds(key, entry)]
            if void:
                outbox.owe(Owed(void))
        stored: Mapping[str, Entry] = {key: entry for key, entry in granted.items() if key not in void}
        if stored:
            filling = port.fill_many(self._open, leases[0].token, stored)
            nothing: list[str] = []
            void += await layer.tried(
                port, layer.write_times, filling, nothing, owed=Owed(tuple(stored)), is_write=True
            )
        return [key in void for key in keys]

    async def release(
        self, port: Port, keys: Sequence[str], leases: Sequence[Lease], seconds: float = 0.0
    ) -> None:
        held = [key for key, lease in zip(keys, leases, strict=True) if lease.state == "granted"]
        if held:
            token = next(lease.token for lease in leases if lease.state == "granted")
            try:
                await port.release_many(self._space, held, token, seconds)
            except BackendError:
                self._layer.errors += 1
                if self._layer.outbox is not None:
                    self._layer.outbox.owe(Owed(held))

    async def late_stamps(self, port: Port, lease: Lease, tags: Sequence[str]) -> Stamps | None:
        return await self._layer.tried(port, None, port.late_stamps(self._open, tags, lease.mark), None)

    @property
    def _open(self) -> LeasingKeySpace:
        """The key space; when the cache is closed, what says so."""
        return cast("LeasingKeySpace", self._layer.space)


def _named(tags: Sequence[str]) -> Stamps:
    return tuple([(tag, 0) for tag in tags])
