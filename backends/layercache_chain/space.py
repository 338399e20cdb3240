"""The keys of one cache in every layer of a chain.

Reads go through the layers until one has the key fresh, and fill the nearer ones with what is left of its life. Writes
go to the farthest layer first, so that no near layer ever knows what the far one does not.

Rules:
1. A layer that fails is a miss; it is counted, logged once when it begins and once when it ends, and never raised. What
   it should have been told of, it is owed (`core.outbox`).
2. A nearer layer is filled by ticket only: opened before the farther one is asked, voided by whatever changes the key,
   here or, as far as the log tells, in another process.
3. Of two writes of a key that overlap here nobody knows in which order they arrive far away, so neither stays near.
4. Nor does what was there before a write that was stopped on its way: it may have arrived far away.
5. Nearer layers are passed over while they cannot be relied on (`hearing.Trust`).
6. What a nearer layer is given while the farthest does not answer lives for `degraded_ttl` at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from threading import Lock
from typing import Any

from layercache.core.layer import Layer
from layercache.core.outbox import Owed
from layercache.core.port import Port
from layercache.core.tickets import Ticket
from layercache.entry import CACHE_TAG, Entry, Stamps
from layercache.errors import BackendError, CannotList, InvalidOption
from layercache.inline import InlinePort, run
from layercache.loop import LoopPort
from layercache.spi import Change, KeyPage, Lease, LeasingKeySpace, Listener, Sight
from layercache_chain.hearing import Hearing, Trust

__all__ = ["ChainSpace"]


class ChainSpace(LeasingKeySpace):
    """The keys of one cache in every layer: logic in coroutines, which the verbs run inline or on the loop."""

    def __init__(
        self,
        layers: Sequence[Layer],
        now: Callable[[], float],
        *,
        serves: bool = True,
        degraded_ttl: float = math.inf,
    ) -> None:
        self._layers = list(layers)
        *self._nearer, self._farthest = self._layers
        self._inline, self._loop = InlinePort(now), LoopPort(now)
        self._serves, self._degraded_ttl = serves, degraded_ttl
        self.near = self._layers[0].space.near
        self._granted: dict[tuple[bytes, str], _Granted] = {}  # by token and key
        self._trust = Trust(self.near, serves=serves)
        for index, layer in enumerate(self._layers[1:], 1):
            self._trust.follow(Hearing(layer, self._layers[:index], self._trust, self._inline))

    @property
    def is_out(self) -> bool:
        """Whether stale entries count, as there is nobody to ask for fresh ones."""
        return self._serves and any(layer.space.is_out for layer in self._layers[1:])

    def owes(self, keys: Collection[str] = (), tags: Collection[str] = ()) -> bool:
        outboxes = [layer.outbox for layer in self._layers if layer.outbox is not None]
        return any(outbox.owes(keys, tags) for outbox in outboxes)

    def _asked(self, port: Port) -> tuple[Sequence[Layer], Sequence[Layer]]:
        """Return the layers that may be asked now, and those that are passed over, to be filled all the same."""
        if port.now() < self._trust.until:
            return self._layers, ()
        for layer in self._nearer:
            layer.bypasses += 1
        return (self._farthest,), self._nearer

    # -- reading: nearest first

    async def _read(self, port: Port, key: str) -> Entry | None:
        """Return the nearest entry of `key` that is fresh, else the latest there is."""
        found: Entry | None = None
        asked, passed = self._asked(port)
        opened = [layer.tickets.open(key) for layer in passed]  # for each that is nearer than the one asked
        try:
            for layer in asked:
                entry = await layer.read(port, key)
                if entry is not None and entry.fresh_until > port.now():
                    await self._fill_near(port, opened, entry)
                    return entry
                if entry is not None and (found is None or entry.created_at > found.created_at):
                    found = entry
                if layer is not self._farthest:
                    opened.append(layer.tickets.open(key))
        finally:
            self._close(opened)
        return found

    async def _read_many(self, port: Port, keys: Sequence[str]) -> dict[str, Entry]:
        """As `_read`, of all `keys`."""
        found: dict[str, Entry] = {}
        asked, passed = self._asked(port)
        tickets = {key: [layer.tickets.open(key) for layer in passed] for key in keys}
        opened = dict(tickets)  # of what is still wanted
        try:
            for layer in asked:
                here = await layer.read_many(port, list(opened))
                now = port.now()
                for key, entry in here.items():
                    if entry.fresh_until > now:
                        await self._fill_near(port, opened.pop(key), entry)
                    elif key in found and entry.created_at <= found[key].created_at:
                        continue
                    found[key] = entry
                if not opened:
                    break
                if layer is not self._farthest:
                    for key, until_here in opened.items():
                        until_here.append(layer.tickets.open(key))
        finally:
            for until_here in tickets.values():
                self._close(until_here)
        return found

    # -- writing: farthest first

    async def _write_many(self, port: Port, entries: Mapping[str, Entry]) -> list[str]:
        with ExitStack() as writing:
            opened = [writing.enter_context(layer.tickets.writing(entries)) for layer in self._nearer]
            async with _OrForget(self._nearer, lambda layer: layer.delete_many(port, list(entries))):
                refused = await self._farthest.try_write_many(port, entries)
                if refused is None:  # they are kept near, until it answers again
                    refused = []
                    entries = {key: self._degraded(port, entry) for key, entry in entries.items()}
                for layer, tickets in reversed([*zip(self._nearer, opened, strict=True)]):
                    for ticket in tickets:
                        # what only a near layer does not keep is stored all the same, and read from farther away
                        if not await layer.fill(port, ticket, entries[ticket.key]):
                            await layer.delete(port, ticket.key)
        return refused

    async def _update(self, port: Port, key: str, change: Change) -> Entry | None:
        """The farthest layer that answers decides; the nearer ones drop what they have. Were they given what was
        decided, those of two callers could arrive in the other order, and the older one stay."""
        with ExitStack() as writing:
            for layer in self._nearer:
                writing.enter_context(layer.tickets.writing((key,)))
            answered, changed = False, None
            async with _OrForget(self._nearer, lambda layer: layer.delete(port, key)):
                failed: list[Layer] = []
                for layer in reversed(self._layers):
                    if answered:
                        if changed is not None:
                            await layer.delete(port, key)
                        continue
                    if failed:
                        answered, changed = await layer.try_update(port, key, self._degrading(port, change))
                    else:
                        answered, changed = await layer.try_update(port, key, change)
                    if not answered:
                        failed.append(layer)
                for layer in failed:
                    if changed is not None and layer.outbox is not None:
                        layer.outbox.owe(Owed((key,)))
        return changed

    def _degraded(self, port: Port, entry: Entry) -> Entry:
        """Return `entry` as a nearer layer may have it while the farthest does not answer."""
        return entry.living_at_most(self._degraded_ttl, port.now())

    def _degrading(self, port: Port, change: Change) -> Change:
        def changed(entry: Entry | None) -> Entry | None:
            made = change(entry)
            return None if made is None else self._degraded(port, made)

        return changed

    async def _delete_many(self, port: Port, keys: Sequence[str]) -> int:
        with ExitStack() as writing:
            for layer in self._nearer:
                writing.enter_context(layer.tickets.writing(keys))
            async with _OrForget(self._nearer, lambda layer: layer.delete_many(port, keys)):
                counts = [await layer.delete_many(port, keys) for layer in reversed(self._layers)]
        return max(counts)

    async def _clear(self, port: Port) -> None:
        with ExitStack() as clearing:
            for layer in self._nearer:
                clearing.enter_context(layer.tickets.clearing())
            async with _OrForget(self._nearer, lambda layer: layer.clear(port)):
                for layer in reversed(self._layers):
                    await layer.clear(port)

    async def _invalidate(self, port: Port, tags: Sequence[str], soft: bool) -> None:
        for layer in self._nearer:
            layer.tickets.void_tags(tags)
        async with _OrForget(self._nearer, lambda layer: layer.invalidate(port, tags, soft)):
            for layer in reversed(self._layers):
                # a near one voids the tickets that were opened meanwhile
                await layer.invalidate(port, tags, soft)

    async def _stamps(self, port: Port, tags: Sequence[str]) -> Stamps:
        """Return the stamps of the farthest layer; where it does not answer, what a near one goes by: the names."""
        return await self._farthest.stamps(port, tags) or tuple((tag, 0) for tag in tags)

    # -- loading: the farthest layer grants, and the nearer ones are filled after it

    async def _lease_many(
        self,
        port: Port,
        keys: Sequence[str],
        token: bytes,
        seconds: float,
        after: float,
        tags: Sequence[str],
    ) -> dict[str, Lease]:
        opened = {key: [layer.tickets.open(key) for layer in self._nearer] for key in keys}
        try:
            asked = await self._farthest.leases.take(port, keys, token, seconds, after, tags)
            leases = dict(zip(keys, asked, strict=True))
            for key, lease in leases.items():
                if lease.state == "fresh" and lease.entry is not None:
                    await self._fill_near(port, opened[key], lease.entry)
                elif lease.state != "busy":
                    self._granted[token, key] = _Granted(lease, opened.pop(key))
                    stamps = lease.stamps or ((CACHE_TAG, 0), *((tag, 0) for tag in tags))
                    leases[key] = lease._replace(state="granted", stamps=stamps, token=token)
        finally:
            for tickets in opened.values():
                self._close(tickets)
        return leases

    async def _fill_many(self, port: Port, token: bytes, entries: Mapping[str, Entry]) -> list[str]:
        granted = {key: self._granted.pop((token, key), None) for key in entries}
        held = {key: grant for key, grant in granted.items() if grant is not None}
        try:
            refused = [key for key in entries if key not in held]
            leases = [grant.lease for grant in held.values()]
            void = await self._farthest.leases.fill(port, list(held), leases, [entries[key] for key in held])
            for (key, grant), is_void in zip(held.items(), void, strict=True):
                if is_void:
                    refused.append(key)
                    continue
                is_down = grant.lease.state == "down"
                entry = self._degraded(port, entries[key]) if is_down else entries[key]
                if not await self._fill_near(port, grant.tickets, entry) and is_down:
                    refused.append(key)  # it is nowhere
        finally:
            for grant in held.values():
                self._close(grant.tickets)
        return refused

    async def _fill_near(self, port: Port, tickets: Sequence[Ticket], entry: Entry) -> bool:
        """Give `entry` to the nearest layers, for which there are tickets; its times say what is left of its life.
        Return whether one of them has it now."""
        pairs = reversed([*zip(self._nearer, tickets, strict=False)])
        return any([await layer.fill(port, ticket, entry) for layer, ticket in pairs])

    async def _release_many(self, port: Port, keys: Sequence[str], token: bytes, seconds: float) -> None:
        leases: list[Lease] = []
        for key in keys:
            grant = self._granted.pop((token, key), None)
            if grant is not None:
                self._close(grant.tickets)
            # one that we were not told of may have been granted all the same
            leases.append(Lease("granted", None, token=token) if grant is None else grant.lease)
        await self._farthest.leases.release(port, keys, leases, seconds)

    async def _late_stamps(self, port: Port, tags: Sequence[str], mark: bytes | None) -> Stamps | None:
        if mark is None and self._farthest.health.degraded:
            return tuple((tag, 0) for tag in tags)  # nothing is stored but near, where the tickets know
        return await self._farthest.leases.late_stamps(port, Lease("granted", None, mark=mark), tags)

    def _close(self, tickets: Sequence[Ticket]) -> None:
        for layer, ticket in zip(self._nearer, tickets, strict=False):
            layer.tickets.close(ticket)

    # -- seen from outside

    async def _explain(self, port: Port, key: str) -> Sight:
        """Return what the nearest layer has that has something; who wants all of them asks each of `layers`."""
        sight = Sight()
        for layer in self._layers:
            try:
                sight = await port.explain(layer.space, key)
            except BackendError:
                continue
            if sight.entry is not None:
                break
        return sight

    async def _list_keys(self, port: Port, prefix: str, limit: int, cursor: str) -> KeyPage:
        """Return keys of the farthest layer, which has them all; where it does not answer, of the next one. The cursor
        begins with the number of the layer that it is of."""
        number, _, rest = cursor.partition(":")
        if cursor:
            if number not in map(str, range(len(self._layers))):
                raise InvalidOption("a cursor is what the page before came with; it is none of these")
            return await self._page(port, int(number), prefix, limit, rest)
        for index in range(len(self._layers) - 1, 0, -1):
            try:
                return await self._page(port, index, prefix, limit, "")
            except (BackendError, CannotList):
                continue
        return await self._page(port, 0, prefix, limit, "")

    async def _page(self, port: Port, index: int, prefix: str, limit: int, cursor: str) -> KeyPage:
        page = await port.list_keys(self._layers[index].space, prefix, limit, cursor)
        return page if page.cursor is None else page._replace(cursor=f"{index}:{page.cursor}")

    # -- the verbs

    def explain(self, key: str) -> Sight:
        return run(self._explain(self._inline, key))

    async def aexplain(self, key: str) -> Sight:
        return await self._explain(self._loop, key)

    def list_keys(self, prefix: str, limit: int, cursor: str) -> KeyPage:
        return run(self._list_keys(self._inline, prefix, limit, cursor))

    async def alist_keys(self, prefix: str, limit: int, cursor: str) -> KeyPage:
        return await self._list_keys(self._loop, prefix, limit, cursor)

    def get(self, key: str) -> Entry | None:
        return run(self._read(self._inline, key))

    async def aget(self, key: str) -> Entry | None:
        return await self._read(self._loop, key)

    def get_many(self, keys: Sequence[str]) -> dict[str, Entry]:
        return run(self._read_many(self._inline, keys))

    async def aget_many(self, keys: Sequence[str]) -> dict[str, Entry]:
        return await self._read_many(self._loop, keys)

    def set(self, key: str, entry: Entry) -> bool:
        return not run(self._write_many(self._inline, {key: entry}))

    async def aset(self, key: str, entry: Entry) -> bool:
        return not await self._write_many(self._loop, {key: entry})

    def set_many(self, entries: Mapping[str, Entry]) -> list[str]:
        return run(self._write_many(self._inline, entries))

    async def aset_many(self, entries: Mapping[str, Entry]) -> list[str]:
        return await self._write_many(self._loop, entries)

    def update(self, key: str, change: Change) -> Entry | None:
        return run(self._update(self._inline, key, change))

    async def aupdate(self, key: str, change: Change) -> Entry | None:
        return await self._update(self._loop, key, change)

    def delete(self, key: str) -> bool:
        return run(self._delete_many(self._inline, [key])) > 0

    async def adelete(self, key: str) -> bool:
        return await self._delete_many(self._loop, [key]) > 0

    def delete_many(self, keys: Sequence[str]) -> int:
        return run(self._delete_many(self._inline, keys))

    async def adelete_many(self, keys: Sequence[str]) -> int:
        return await self._delete_many(self._loop, keys)

    def clear(self) -> None:
        run(self._clear(self._inline))

    async def aclear(self) -> None:
        await self._clear(self._loop)

    def stamps(self, tags: Sequence[str]) -> Stamps:
        return run(self._stamps(self._inline, tags))

    async def astamps(self, tags: Sequence[str]) -> Stamps:
        return await self._stamps(self._loop, tags)

    def invalidate(self, tags: Sequence[str], soft: bool = False) -> None:
        run(self._invalidate(self._inline, tags, soft))

    async def ainvalidate(self, tags: Sequence[str], soft: bool = False) -> None:
        await self._invalidate(self._loop, tags, soft)

    def lease_many(
        self, keys: Sequence[str], token: bytes, seconds: float, after: float = 0.0, tags: Sequence[str] = ()
    ) -> dict[str, Lease]:
        return run(self._lease_many(self._inline, keys, token, seconds, after, tags))

    async def alease_many(
        self, keys: Sequence[str], token: bytes, seconds: float, after: float = 0.0, tags: Sequence[str] = ()
    ) -> dict[str, Lease]:
        return await self._lease_many(self._loop, keys, token, seconds, after, tags)

    def fill_many(self, token: bytes, entries: Mapping[str, Entry]) -> list[str]:
        return run(self._fill_many(self._inline, token, entries))

    async def afill_many(self, token: bytes, entries: Mapping[str, Entry]) -> list[str]:
        return await self._fill_many(self._loop, token, entries)

    def release_many(self, keys: Sequence[str], token: bytes, seconds: float = 0.0) -> None:
        run(self._release_many(self._inline, keys, token, seconds))

    async def arelease_many(self, keys: Sequence[str], token: bytes, seconds: float = 0.0) -> None:
        await self._release_many(self._loop, keys, token, seconds)

    def late_stamps(self, tags: Sequence[str], mark: bytes | None) -> Stamps | None:
        return run(self._late_stamps(self._inline, tags, mark))

    async def alate_stamps(self, tags: Sequence[str], mark: bytes | None) -> Stamps | None:
        return await self._late_stamps(self._loop, tags, mark)

    def subscribe(self, listener: Listener) -> bool:
        """Tell `listener` what each layer is told of."""
        return any([layer.space.subscribe(listener) for layer in self._layers])  # noqa: C419  (all are asked)

    def layers(self) -> Sequence[Layer]:
        return self._layers

    def after_fork(self) -> None:
        """Nobody here has a ticket that the parent's threads had, nor owes what they do."""
        self._granted.clear()
        self._trust.after_fork()
        for layer in self._layers:
            layer.tickets.reset(Lock())
            if layer.outbox is not None:
                layer.outbox.reset(Lock())


class _Granted:
    """What a load under way may fill: its lease of the farthest layer, and a ticket for each nearer one."""

    __slots__ = ("lease", "tickets")

    def __init__(self, lease: Lease, tickets: Sequence[Ticket]) -> None:
        self.lease, self.tickets = lease, tickets


class _OrForget:
    """Around a change: where it is stopped midway, as by a cancellation, the nearer layers forget what they have."""

    __slots__ = ("_forget", "_layers")

    def __init__(self, layers: Sequence[Layer], forget: Callable[[Layer], Coroutine[Any, Any, Any]]) -> None:
        self._layers, self._forget = layers, forget

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None and not isinstance(error, Exception):
            for layer in self._layers:
                await self._forget(layer)
