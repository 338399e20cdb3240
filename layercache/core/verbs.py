"""What each verb of a cache does, once for both faces.

Rule: everything is checked and encoded before anything is stored, so nothing is stored by halves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from layercache.codecs.normal import NormalForm
from layercache.core.changes import Add, Increment, Touch
from layercache.core.layer import Layer
from layercache.core.policy import Policy
from layercache.core.port import Port
from layercache.durations import DEFAULT, Ttl
from layercache.entry import MISSING, Entry
from layercache.keys import check_key

__all__ = ["Verbs"]


class Verbs:
    """The verbs over one layer; values in one normal form."""

    def __init__(self, layer: Layer, policy: Policy, form: NormalForm) -> None:
        self.layer, self.policy, self.form = layer, policy, form
        self.undecodable = 0  # entries that were there but no value of this form: counted as misses

    async def get(self, port: Port, key: str, default: Any = None) -> Any:
        self.check(key)
        entry = await self.layer.read(port, key)
        value = MISSING if entry is None else self.decoded(entry)
        return default if value is MISSING else value

    async def get_many(self, port: Port, keys: Iterable[str]) -> dict[str, Any]:
        wanted = self.check_all(keys)
        entries = await self.layer.read_many(port, wanted)
        values = {key: self.decoded(entries[key]) for key in wanted if key in entries}
        return {key: value for key, value in values.items() if value is not MISSING}

    async def has_key(self, port: Port, key: str) -> bool:
        return await self.get(port, key, MISSING) is not MISSING

    async def ttl_left(self, port: Port, key: str) -> float | None:
        self.check(key)
        entry = await self.layer.look(port, key)
        if entry is None:
            return 0.0
        left = entry.left(port.now())
        return None if math.isinf(left) else max(left, 0.0)

    async def set(self, port: Port, key: str, value: Any, ttl: Ttl = DEFAULT) -> None:
        await self.store(port, key, self.entry(port, key, value, ttl))

    async def set_many(self, port: Port, values: Mapping[str, Any], ttl: Ttl = DEFAULT) -> list[str]:
        entries = {key: self.entry(port, key, value, ttl) for key, value in values.items()}
        living = {key: entry for key, entry in entries.items() if entry is not None}
        dead = [key for key, entry in entries.items() if entry is None]
        if dead:
            await self.layer.delete_many(port, dead)
        return await self.layer.write_many(port, living) if living else []

    async def add(self, port: Port, key: str, value: Any, ttl: Ttl = DEFAULT) -> bool:
        entry = self.entry(port, key, value, ttl)
        if entry is None:
            # it would be gone at once: as Django has it, added if it could have been
            return not await self.has_key(port, key)
        return await self.layer.update(port, key, Add(entry, self.form)) is not None

    async def touch(self, port: Port, key: str, ttl: Ttl = DEFAULT) -> bool:
        self.check(key)
        seconds = self.policy.ttl_for(key, ttl)
        if seconds <= 0:
            return await self.layer.delete(port, key)
        return await self.layer.update(port, key, Touch(seconds, port.now())) is not None

    async def incr(self, port: Port, key: str, delta: int = 1) -> int:
        self.check(key)
        if type(delta) is not int:
            raise TypeError(f"delta is an int, not {type(delta).__name__}")
        entry = await self.layer.update(port, key, Increment(key, delta, self.form))
        assert entry is not None
        count: int = self.form.decode(entry)
        return count

    async def delete(self, port: Port, key: str) -> bool:
        self.check(key)
        return await self.layer.delete(port, key)

    async def delete_many(self, port: Port, keys: Iterable[str]) -> int:
        unwanted = self.check_all(keys)
        return await self.layer.delete_many(port, unwanted) if unwanted else 0

    async def clear(self, port: Port) -> None:
        await self.layer.clear(port)

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

    def entry(self, port: Port, key: str, value: Any, ttl: Ttl) -> Entry | None:
        """Return the entry to store for `key`, or None when its ttl leaves it no life."""
        self.check(key)
        payload, shared = self.form.encode(value)
        seconds = self.policy.ttl_for(key, ttl)
        if seconds <= 0:
            return None
        now = port.now()
        return Entry(payload, shared, now, now + seconds, now + seconds)

    async def store(self, port: Port, key: str, entry: Entry | None) -> None:
        if entry is None:
            await self.layer.delete(port, key)
        else:
            await self.layer.write(port, key, entry)

    def decoded(self, entry: Entry) -> Any:
        """Return the value of `entry`, or `MISSING` when it is none of this form: a miss, and counted."""
        value = self.form.readable(entry)
        if value is MISSING:
            self.undecodable += 1
        return value
