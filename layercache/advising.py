"""Advice: what the counters of a world of caches say should be looked at: memory, times to live, and what is of no use.

It is about this process and since the caches were opened. Nothing is asked of a store.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from layercache.durations import spell_duration

if TYPE_CHECKING:
    from layercache.caches import Caches
    from layercache.core.stats import CacheStats, LayerStats
    from layercache.spi import Curve, Lapse

__all__ = ["Advice", "Kind", "advise"]

Kind: TypeAlias = Literal["memory", "ttl", "never hit", "unused", "curve"]

_LEAST_SAMPLED: Final = 1000  # reads; of fewer a curve is a guess
_LEAST_READS: Final = 100
_GAIN, _GREAT_GAIN, _LOSS = 0.02, 0.05, 0.005  # parts of all reads
_LAPSED: Final = 0.1  # of the reads of keys that begin alike
_LEAST_LAPSED: Final = 20.0


class Advice(NamedTuple):
    """One thing to look at.

    Attributes:
        kind: "memory", more or less of it; "ttl", one that is too short for how often it is read; "never hit",
            "unused", caches that are; "curve", what has to be switched on for the first two.
        about: the cache or layer by its name, or the pattern of keys.
        message: how it is.
        fix: what to do about it.
    """

    kind: Kind
    about: str
    message: str
    fix: str


def advise(caches: Caches) -> list[Advice]:
    """Return what there is to say of `caches`; nothing where too little was read."""
    opened = [cache.stats() for cache in caches.opened]
    return [*_of_memory(caches, opened), *_of_ttls(opened), *_of_use(caches, opened)]


def _of_memory(caches: Caches, opened: list[CacheStats]) -> Iterator[Advice]:
    told: set[str] = set()
    for stats in opened:
        for layer in stats.layers:
            if layer.name in told or layer.type != "memory":
                continue
            told.add(layer.name)
            if layer.curve is not None:
                if layer.curve.sampled >= _LEAST_SAMPLED:
                    yield from _of_curve(layer, layer.curve)
            elif layer.hits + layer.misses >= _LEAST_READS:
                options = caches.settings.backends[layer.name].options
                if not getattr(options, "miss_ratio_curve", True):
                    yield Advice(
                        "curve",
                        layer.name,
                        "nobody keeps book of what more or less memory, and longer ttls, would do",
                        f"miss_ratio_curve = true in backends.{layer.name}, and ask again after a while",
                    )


def _of_curve(layer: LayerStats, curve: Curve) -> Iterator[Advice]:
    half, now, twice, ten = (curve.at(memory) for memory in (0.5, 1.0, 2.0, 10.0))
    entries = f"{curve.entries:,} entries"
    bound = f"backends.{layer.name}"
    if twice - now >= _GAIN:
        text = f"twice the memory ({entries} now) would answer {_percent(twice - now)} more of the reads"
        if ten - twice >= _GAIN:
            text += f", ten times {_percent(ten - now)}"
        yield Advice("memory", layer.name, text, f"raise max_entries and max_bytes in {bound}")
    elif ten - now >= _GREAT_GAIN:
        text = (
            f"twice the memory ({entries} now) would change little, but ten times would answer "
            f"{_percent(ten - now)} more of the reads"
        )
        yield Advice("memory", layer.name, text, f"raise max_entries and max_bytes in {bound}, by much")
    elif now - half < _LOSS and layer.evictions:
        text = f"half the memory ({entries} now) would answer as many of the reads"
        yield Advice(
            "memory", layer.name, text, f"lower max_entries or max_bytes in {bound}, if it is needed"
        )


def _of_ttls(opened: list[CacheStats]) -> Iterator[Advice]:
    for stats in opened:
        for layer in stats.layers:
            for lapse in layer.curve.lapses if layer.curve is not None else ():
                if _is_too_short(lapse):
                    yield _of_lapse(stats.name, lapse)


def _is_too_short(lapse: Lapse) -> bool:
    often = lapse.lapsed >= max(_LAPSED * lapse.reads, _LEAST_LAPSED)
    return often and lapse.median <= lapse.ttl < math.inf


def _of_lapse(cache: str, lapse: Lapse) -> Advice:
    enough = math.ceil(lapse.ttl + lapse.median)
    pattern = f"{lapse.prefix}*"
    part = lapse.lapsed / lapse.reads
    text = (
        f"{_percent(part)} of the reads came when the ttl of {_spell(lapse.ttl)} was over, half of "
        f"these within {_spell(lapse.median)} of that"
    )
    ttls = f'ttls = {{ "{pattern}" = "{spell_duration(enough)}" }}'
    fix = f"{ttls} in caches.{cache}, or a stale_ttl, where they may be older"
    return Advice("ttl", f"{cache} {pattern}", text, fix)


def _of_use(caches: Caches, opened: list[CacheStats]) -> Iterator[Advice]:
    for stats in opened:
        if stats.hits + stats.misses == 0:
            yield Advice("unused", stats.name, "it is open, and was never read in this process", "")
        elif stats.hits == 0 and stats.misses >= _LEAST_READS:
            text = f"{stats.misses:,} reads, and never a hit"
            fix = "look whether its keys repeat (explain, list_keys), whether its ttl outlives them, and what clears it"
            yield Advice("never hit", stats.name, text, fix)
    names = {stats.name for stats in opened}
    for name in caches:
        if name not in names and name != "default":
            yield Advice("unused", name, "it is defined, and this process has not opened it", "")


def _spell(seconds: float) -> str:
    return spell_duration(round(seconds, 3 if seconds < 2 else None))


def _percent(part: float) -> str:
    return f"{part * 100:.1f} %"
