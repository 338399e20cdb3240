"""The hit path: what answers from this process's memory, as plain functions with everything bound once.

Rule: a hit finds a record, compares the clock with its end and with that of the trust in what is near, and raises its
count; it takes no lock, calls nothing of ours and awaits nothing. What is no hit goes on to the slow path, which
checks, counts and asks farther layers. The bodies are written out four times, because one more Python frame costs a
third of a hit (docs/decisions/0004).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from layercache.codecs.normal import NormalForm, TypedForm
from layercache.core.policy import Policy
from layercache.durations import DEFAULT, Ttl
from layercache.entry import MISSING
from layercache.errors import DecodeError
from layercache.spi import Near

__all__ = ["hit_path", "near_set"]

_Slow = dict[str, Callable[..., Any]]

_NUMBERS = frozenset((int, float))
_FAR = 1e10  # seconds; what is more than that, the slow path looks at


def hit_path(near: Near, form: NormalForm, slow: _Slow) -> dict[str, Callable[..., Any]]:
    """Return `get`, `aget`, `get_or_set`, `aget_or_set` and `hit` over the records of `near`.

    Args:
        near: where the records are found.
        form: how values come back.
        slow: the verbs that take over when there is no hit, by name.
    """
    # what another process has pickled, this one may have no code for
    restored = isinstance(form, TypedForm) or form.by_reference or form.serializer.names_code
    return (_restored if restored else _plain)(near, form, slow)


def _plain(near: Near, form: NormalForm, slow: _Slow) -> dict[str, Callable[..., Any]]:
    records, now = near.records, near.now
    slow_get, slow_aget = slow["get"], slow["aget"]
    slow_get_or_set, slow_aget_or_set = slow["get_or_set"], slow["aget_or_set"]

    def hit(key: str) -> Any:
        """Return the value that is near, or `MISSING`."""
        try:
            record = records[key]
        except (KeyError, TypeError):  # TypeError: not hashable, and so no key; the slow path says so
            return MISSING
        if record.hit_until > now() < near.trusted_until:
            record.hits += 1
            kind = record.kind
            return record.value if kind is None else kind(record.value)
        return MISSING

    def get(key: str, default: Any = None) -> Any:
        try:
            record = records[key]
        except (KeyError, TypeError):
            record = None
        if record is not None and record.hit_until > now() < near.trusted_until:
            record.hits += 1
            kind = record.kind
            return record.value if kind is None else kind(record.value)
        return slow_get(key, default)

    async def aget(key: str, default: Any = None) -> Any:
        try:
            record = records[key]
        except (KeyError, TypeError):
            record = None
        if record is not None and record.hit_until > now() < near.trusted_until:
            record.hits += 1
            kind = record.kind
            return record.value if kind is None else kind(record.value)
        return await slow_aget(key, default)

    def get_or_set(key: str, loader: Any, ttl: Any = DEFAULT, **options: Any) -> Any:
        try:
            record = records[key]
        except (KeyError, TypeError):
            record = None
        if record is not None and record.hit_until > now() < near.trusted_until:
            record.hits += 1
            kind = record.kind
            return record.value if kind is None else kind(record.value)
        return slow_get_or_set(key, loader, ttl, **options)

    async def aget_or_set(key: str, loader: Any, ttl: Any = DEFAULT, **options: Any) -> Any:
        try:
            record = records[key]
        except (KeyError, TypeError):
            record = None
        if record is not None and record.hit_until > now() < near.trusted_until:
            record.hits += 1
            kind = record.kind
            return record.value if kind is None else kind(record.value)
        return await slow_aget_or_set(key, loader, ttl, **options)

    return {"hit": hit, "get": get, "aget": aget, "get_or_set": get_or_set, "aget_or_set": aget_or_set}


def _restored(near: Near, form: NormalForm, slow: _Slow) -> dict[str, Callable[..., Any]]:
    """For values that their form has to restore: two frames more, which a type's microseconds hide."""
    records, now, restore = near.records, near.now, form.restore
    slow_get: Callable[..., Any] = slow["get"]
    slow_aget: Callable[..., Awaitable[Any]] = slow["aget"]
    slow_get_or_set: Callable[..., Any] = slow["get_or_set"]
    slow_aget_or_set: Callable[..., Awaitable[Any]] = slow["aget_or_set"]

    def hit(key: str) -> Any:
        try:
            record = records[key]
        except (KeyError, TypeError):
            return MISSING
        if record.hit_until > now() < near.trusted_until:
            try:
                value = restore(record.value, record.kind)
            except DecodeError:
                return MISSING  # the slow path counts it
            record.hits += 1
            return value
        return MISSING

    def get(key: str, default: Any = None) -> Any:
        value = hit(key)
        return slow_get(key, default) if value is MISSING else value

    async def aget(key: str, default: Any = None) -> Any:
        value = hit(key)
        return await slow_aget(key, default) if value is MISSING else value

    def get_or_set(key: str, loader: Any, ttl: Any = DEFAULT, **options: Any) -> Any:
        value = hit(key)
        return slow_get_or_set(key, loader, ttl, **options) if value is MISSING else value

    async def aget_or_set(key: str, loader: Any, ttl: Any = DEFAULT, **options: Any) -> Any:
        value = hit(key)
        return await slow_aget_or_set(key, loader, ttl, **options) if value is MISSING else value

    return {"hit": hit, "get": get, "aget": aget, "get_or_set": get_or_set, "aget_or_set": aget_or_set}


def near_set(
    near: Near, form: NormalForm, policy: Policy, slow_set: Callable[..., None]
) -> Callable[..., None]:
    """Return `set` for a cache whose only layer is `near`.

    Short text is the common value: ASCII needs no encoder to say that it can be carried, so it goes in at
    once. Everything else takes the slow path.
    """
    if isinstance(form, TypedForm) or not policy.is_plain:
        return slow_set
    put_text, max_key = near.put_text, policy.max_key_bytes
    fixed = policy.base.ttl if policy.is_uniform else 0.0  # 0: the slow path looks for the pattern

    def set(key: str, value: Any, ttl: Ttl = DEFAULT, tags: Any = ()) -> None:
        if (
            type(value) is str
            and not tags
            and type(key) is str
            and value.isascii()
            and key.isascii()
            and 0 < len(key) <= max_key
        ):
            given: Any = ttl
            seconds = fixed if ttl is DEFAULT else given if type(given) in _NUMBERS and given < _FAR else 0.0
            if seconds > 0.0:
                put_text(key, value, seconds)
                return
        slow_set(key, value, ttl, tags)

    return set
