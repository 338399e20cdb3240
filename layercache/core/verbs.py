"""What each verb of a cache does, once for both faces.

Rule: everything is checked and encoded before anything is stored, so nothing is stored by halves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from layercache.codecs.normal import NormalForm
from layercache.core.changes import Add, Increment, Touch
from layercache.core.layer import Layer
from layercache.core.policy import Policy, checked_tags
from layercache.core.port import Port
from layercache.durations import DEFAULT, Ttl, parse_duration
from layercache.entry import CACHE_TAG, MISSING, Entry
from layercache.errors import InvalidOption
from layercache.keys import check_key

__all__ = ["Verbs"]


class Verbs:
    """The verbs over one layer; values in one normal form."""

    def __init__(self, layer: Layer, policy: Policy, form: NormalForm) -> None:
        self.layer, self.policy, self.form = layer, policy, form
        self.undecodable = 0  # entries that were there but no value of this form: counted as misses

    async def get(self, port: Port, key: str, default: Any = None) -> Any:
        self.check(key)
        entry = await self.layer.read(port, key, stale=self.layer.space.is_out)
        value = MISSING if entry is None or not self._counts(entry, port.now()) else self.decoded(entry)
        return default if value is MISSING else value

    async def peek(self, port: Port, key: str, default: Any = None) -> Any:
        self.check(key)
        entry = await self.layer.look(port, key)
        value = MISSING if entry is None else self.form.readable(entry)
        return default if value is MISSING else value

    async def get_many(self, port: Port, keys: Iterable[str]) -> dict[str, Any]:
        wanted = self.check_all(keys)
        entries = await self.layer.read_many(port, wanted, stale=self.layer.space.is_out)
        now = port.now()
        fresh = [key for key in wanted if key in entries and self._counts(entries[key], now)]
        values = {key: self.decoded(entries[key]) for key in fresh}
        return {key: value for key, value in values.items() if value is not MISSING}

    def _counts(self, entry: Entry, now: float) -> bool:
        """Whether a read returns it: if it is fresh, or there is nobody to ask for what is."""
        return entry.fresh_until > now or self.layer.space.is_out

    async def has_key(self, port: Port, key: str) -> bool:
        return await self.get(port, key, MISSING) is not MISSING

    async def ttl_left(self, port: Port, key: str) -> float | None:
        self.check(key)
        entry = await self.layer.look(port, key)
        if entry is None:
            return 0.0
        now = port.now()
        left = min(entry.fresh_until - now, entry.fresh_until - entry.created_at)
        return None if math.isinf(left) else max(left, 0.0)

    async def set(
        self, port: Port, key: str, value: Any, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> None:
        entry, named = self.entry(port, key, value, ttl, tags)
        if entry is None:
            await self.layer.delete(port, key)
            return
        if named:
            entry.stamps = await self.layer.stamps(port, named)
        await self.layer.write(port, key, entry)

    async def set_many(
        self, port: Port, values: Mapping[str, Any], ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> list[str]:
        tags = checked_tags(tags)
        made = {key: self.entry(port, key, value, ttl, tags) for key, value in values.items()}
        living = {key: entry for key, (entry, _) in made.items() if entry is not None}
        dead = [key for key, (entry, _) in made.items() if entry is None]
        if dead:
            await self.layer.delete_many(port, dead)
        if not living:
            return []
        await self._stamp(port, living, {key: made[key][1] for key in living})
        return await self.layer.write_many(port, living)

    async def _stamp(
        self, port: Port, entries: Mapping[str, Entry], named: Mapping[str, tuple[str, ...]]
    ) -> None:
        """Give entries the stamps of the tags that are named for each."""
        tags = tuple(dict.fromkeys(tag for names in named.values() for tag in names))
        if not tags:
            return
        stamps = await self.layer.stamps(port, tags)
        for key, entry in entries.items():
            carried = {CACHE_TAG, *named[key]}
            entry.stamps = tuple(pair for pair in stamps if pair[0] in carried)

    async def add(
        self, port: Port, key: str, value: Any, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        entry, named = self.entry(port, key, value, ttl, tags)
        if entry is None:
            # it would be gone at once: as Django has it, added if it could have been
            return not await self.has_key(port, key)
        if named:
            entry.stamps = await self.layer.stamps(port, named)
        return await self.layer.update(port, key, Add(entry, self.form, port.now())) is not None

    async def touch(self, port: Port, key: str, ttl: Ttl = DEFAULT) -> bool:
        self.check(key)
        plan = self.policy.plan_for(key)
        seconds = plan.ttl if ttl is DEFAULT else parse_duration(ttl)
        if seconds <= 0:
            return await self.layer.delete(port, key)
        return await self.layer.update(port, key, Touch(seconds, port.now(), plan.stale_ttl)) is not None

    async def incr(self, port: Port, key: str, delta: int = 1) -> int:
        self.check(key)
        if type(delta) is not int:
            raise TypeError(f"delta is an int, not {type(delta).__name__}")
        entry = await self.layer.update(port, key, Increment(key, delta, self.form, port.now()))
        assert entry is not None
        count: int = self.form.decode(entry)
        return count

    async def delete(self, port: Port, key: str, *, strict: bool = False) -> bool:
        self.check(key)
        return await self.layer.delete(port, key, strict=strict)

    async def delete_many(self, port: Port, keys: Iterable[str], *, strict: bool = False) -> int:
        unwanted = self.check_all(keys)
        return await self.layer.delete_many(port, unwanted, strict=strict) if unwanted else 0

    async def clear(self, port: Port, *, strict: bool = False) -> None:
        await self.layer.clear(port, strict=strict)

    async def invalidate(
        self, port: Port, tags: Sequence[str], soft: bool = False, *, strict: bool = False
    ) -> None:
        tags = checked_tags(tags)
        if not tags:
            raise InvalidOption("no tag is named; clear() drops everything")
        await self.layer.invalidate(port, tags, soft, strict=strict)

    # -- shared with loading

    def check(self, key: str) -> None:
        check_key(key, self.policy.max_key_bytes)

    def check_all(self, keys: Iterable[str]) -> list[str]:
        """Return `keys` without repetitions, in order, each checked."""
        if isinstance(keys, str):
            raise TypeError(f"several keys are wanted, such as [{keys!r}]; got one str")
        unique = list(dict.fromkeys(keys))
        for key in unique:
            self.check(key)
        return unique

    def entry(
        self, port: Port, key: str, value: Any, ttl: Ttl, tags: Iterable[str]
    ) -> tuple[Entry | None, tuple[str, ...]]:
        """Return the entry to store for `key`, None when its ttl leaves it no life, and its tags; it has no stamps."""
        self.check(key)
        payload, shared = self.form.encode(value)
        plan = self.policy.plan_for(key)
        seconds = plan.ttl if ttl is DEFAULT else parse_duration(ttl)
        named = tuple(dict.fromkeys((*plan.tags, *checked_tags(tags)))) if tags else plan.tags
        if seconds <= 0:
            return None, named
        now = port.now()
        return Entry(payload, shared, now, now + seconds, now + seconds + plan.stale_ttl), named

    def decoded(self, entry: Entry) -> Any:
        """Return the value of `entry`, or `MISSING` when it is none of this form: a miss, and counted."""
        value = self.form.readable(entry)
        if value is MISSING:
            self.undecodable += 1
        return value
