"""What a cache knows of one key, layer by layer, and what `get_or_set` would do now.

Rule: looking changes nothing and counts nothing. What it says was true when each layer was asked, one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, cast

from layercache.core.flights import Flights
from layercache.core.layer import Layer
from layercache.core.leading import Leading
from layercache.core.policy import Plan
from layercache.core.port import Port
from layercache.durations import spell_duration
from layercache.entry import MISSING, Freshness
from layercache.errors import BackendError
from layercache.spi import LeaseSight, Sight, TagSight

__all__ = ["Explanation", "LayerSight", "State", "Would", "explained"]

Would: TypeAlias = Literal["hit", "serve stale", "serve stale and refresh", "wait for the holder", "load"]
State: TypeAlias = Literal["fresh", "stale", "dead", "invalid", "unreadable", "absent", "failed"]


@dataclass(frozen=True, slots=True)
class LayerSight:
    """What one layer has under a key.

    Attributes:
        name, type: of the backend, as in the settings.
        state: "fresh"; "stale", served while a new one is loaded; "dead", its time is over; "invalid", one of its tags
            or the cache was invalidated; "unreadable"; "absent"; "failed", the layer did not answer.
        fresh_left, ttl_left: seconds until it is stale, and dead; None for ever; 0.0 where that is past.
        age: seconds since it was made; None where that is not known.
        size: bytes that it takes; None where that is not known.
        tags: stamps that it carries, beside the current ones; `*` is the whole cache.
        stages: that its bytes went through; () where it is kept as a value.
        dictionary: that it was compressed with, by its id.
        lease: the right to load the key, where somebody has it.
        note: what is wrong, in words; "" where nothing is.
        is_asked: False for what is passed over, as it is not to be relied on now.
    """

    name: str
    type: str
    state: State
    fresh_left: float | None = 0.0
    ttl_left: float | None = 0.0
    age: float | None = None
    size: int | None = None
    tags: tuple[TagSight, ...] = ()
    stages: tuple[str, ...] = ()
    dictionary: int | None = None
    lease: LeaseSight | None = None
    note: str = ""
    is_asked: bool = True

    def __str__(self) -> str:
        return f"{self.name} ({self.type}): {'; '.join(self._said())}"

    def _said(self) -> list[str]:
        said = [self._lifetime()]
        if self.size is not None:
            said.append(f"{self.size:,} bytes")
        if self.stages:
            dictionary = f" with dictionary {self.dictionary}" if self.dictionary is not None else ""
            said.append(f"{' + '.join(self.stages)}{dictionary}")
        if self.tags:
            said.append("tags " + ", ".join(_spelt(tag) for tag in self.tags))
        if self.note:
            said.append(self.note)
        if self.lease is not None:
            left = f"for {_seconds(self.lease.left)} at most"
            who = self.lease.holder
            said.append(
                f"lease held by {who} {left}" if who else f"loads are held back {left}, after one that failed"
            )
        return said

    def _lifetime(self) -> str:
        if self.state == "fresh":
            stale = self.ttl_left != self.fresh_left
            return f"fresh for {_seconds(self.fresh_left)}" + (
                f", dead in {_seconds(self.ttl_left)}" if stale else ""
            )
        if self.state == "stale":
            return f"stale, dead in {_seconds(self.ttl_left)}"
        return "nothing there" if self.state == "absent" else self.state


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a cache knows of one key, and what `get_or_set` would do now.

    Attributes:
        cache, key: what was asked for.
        would: "hit"; "serve stale" (somebody else refreshes it, or it is held back), "serve stale and refresh"; "wait
            for the holder" of the key's flight or lease; "load".
        why: the same in a sentence.
        loading: whether a load of it is under way in this process.
        layers: nearest first.
        value: that of the nearest layer that has one alive, where it was asked for; else `MISSING`.
    """

    cache: str
    key: str
    would: Would
    why: str
    loading: bool
    layers: tuple[LayerSight, ...]
    value: Any = MISSING

    def __str__(self) -> str:
        lines = [f"{self.cache}: {self.key}", f"  get_or_set would {self.would}: {self.why}"]
        lines += [f"  {layer}" for layer in self.layers]
        if self.value is not MISSING:
            lines.append(f"  value: {self.value!r}")
        return "\n".join(lines)


def _seconds(seconds: float | None) -> str:
    return "ever" if seconds is None else spell_duration(round(seconds, 3 if seconds < 10 else 0))


def _spelt(tag: TagSight) -> str:
    name = "* (the cache)" if tag.tag == "*" else tag.tag
    if tag.is_current:
        return name
    happened = "lost" if tag.current is None else "invalidated softly" if tag.is_alive else "invalidated"
    return f"{name} ({happened})"


async def explained(
    port: Port,
    name: str,
    key: str,
    whole: Layer,
    plan: Plan,
    flights: Flights,
    leading: Leading,
    *,
    value: bool,
) -> Explanation:
    """Return what is known of `key`, which was checked.

    Args:
        name: of the cache.
        whole: what it reads from, which may be made of layers.
        value: whether to read the value as well.
    """
    layers: Sequence[Layer] = whole.space.layers() or (whole,)
    near = whole.space.near
    sights: list[LayerSight] = []
    for layer in layers:
        try:
            sight = _of(layer, key, await port.explain(layer.space, key), port.now())
        except BackendError as error:
            sight = LayerSight(layer.name, layer.type, "failed", note=str(error))
        if near is not None and port.now() >= near.trusted_until and layer is not layers[-1]:
            note = "passed over: the layer behind it has not vouched for it lately"
            sight = replace(sight, is_asked=False, note=note)
        sights.append(sight)
    loading = flights.has(key)
    held = leading.holding.is_held(port, key)
    would, why = _would(sights, plan, is_near=near is not None, loading=loading, held=held)
    found: Any = MISSING
    if value:
        alive = (
            layer for layer, sight in zip(layers, sights, strict=True) if sight.state in {"fresh", "stale"}
        )
        found = await _value(port, leading, next(alive, None), key)
    return Explanation(name, key, would, why, loading, tuple(sights), found)


async def _value(port: Port, leading: Leading, layer: Layer | None, key: str) -> Any:
    if layer is None:
        return MISSING
    try:
        entry = await port.read(layer.space, key)
    except BackendError:
        return MISSING
    return MISSING if entry is None else leading.verbs.form.readable(entry)


def _of(layer: Layer, key: str, sight: Sight, now: float) -> LayerSight:
    entry = sight.entry
    about = {"size": sight.size, "stages": sight.stages, "dictionary": sight.dictionary, "lease": sight.lease}
    if sight.fault or entry is None:
        state: State = "unreadable" if sight.fault else "absent"
        return LayerSight(layer.name, layer.type, state, note=sight.fault, **cast("Any", about))
    dead = entry.freshness(now) is Freshness.DEAD
    state = entry.freshness(now).value
    note = ""
    if not dead and not all(tag.is_current for tag in sight.tags):
        state = "stale" if all(tag.is_current or tag.is_alive for tag in sight.tags) else "invalid"
    outbox = layer.outbox
    if outbox is not None and (outbox.withholds(key, entry)):
        state, note = "invalid", "an invalidation of it has not reached this layer yet"
    return LayerSight(
        layer.name,
        layer.type,
        state,
        _left(min(entry.fresh_until - now, entry.fresh_until - entry.created_at))
        if state == "fresh"
        else 0.0,
        _left(entry.left(now)),
        None if math.isinf(entry.created_at) else max(now - entry.created_at, 0.0),
        tags=sight.tags,
        note=note,
        **cast("Any", about),
    )


def _left(seconds: float) -> float | None:
    return None if math.isinf(seconds) else max(seconds, 0.0)


def _would(
    sights: Sequence[LayerSight], plan: Plan, *, is_near: bool, loading: bool, held: bool
) -> tuple[Would, str]:
    """Return what `get_or_set` does, as `loading` and `leading` have it, and why."""
    last, nearest = sights[-1], sights[0]
    sights = [sight for sight in sights if sight.is_asked]
    if is_near and nearest.is_asked and nearest.state == "stale" and plan.refreshes:
        return _stale(nearest, sights, loading=loading, held=held)
    for sight in sights:
        if sight.state == "fresh":
            return "hit", f"it is fresh in {sight.name}"
    stale = next((sight for sight in sights if sight.state == "stale"), None)
    if stale is not None and (plan.refreshes or held):
        return _stale(stale, sights, loading=loading, held=held)
    if loading:
        return "wait for the holder", "a load of it is under way in this process"
    lease = last.lease
    if lease is not None and lease.holder:
        if stale is not None:
            return "serve stale", f"somebody else has the lease, and it is stale in {stale.name}"
        return "wait for the holder", f"somebody else has the lease, for {_seconds(lease.left)} at most"
    if last.state == "failed":
        return "load", f"{last.name} does not answer; each process loads for itself"
    return "load", "no layer has it" if stale is None else "it is stale, and refresh is off"


def _stale(
    stale: LayerSight, sights: Sequence[LayerSight], *, loading: bool, held: bool
) -> tuple[Would, str]:
    lease = sights[-1].lease
    if loading:
        return "serve stale", f"it is stale in {stale.name}, and this process loads it"
    if held or (lease is not None and not lease.holder):
        return "serve stale", f"it is stale in {stale.name}, and not to be loaded for a moment"
    if lease is not None:
        return "serve stale", f"it is stale in {stale.name}, and somebody else has the lease to load it"
    return "serve stale and refresh", f"it is stale in {stale.name}"
