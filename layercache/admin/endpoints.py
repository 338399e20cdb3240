"""What each route does. Each is a few lines over a verb of the cache."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from itertools import islice
from typing import Annotated, Any, Final, TypeAlias

from fastapi import Body, Path, Query, Request, Response

from layercache.admin.models import (
    AdviceList,
    CacheList,
    CacheSummary,
    Cleared,
    Deleted,
    Explained,
    Health,
    HealthState,
    Invalidated,
    Invalidation,
    KeyList,
    Prefixes,
    PrefixModel,
    StatsAndWindows,
    Warmed,
    WarmedFunction,
    Warming,
)
from layercache.admin.problems import refuse
from layercache.advising import advise
from layercache.caches import Caches
from layercache.core.warming import Item
from layercache.decorator import Calls, declared
from layercache.entry import MISSING
from layercache.errors import CacheError, CannotList
from layercache.face import Cache
from layercache.warming import WarmReport, awarm, warm

__all__ = ["Endpoints", "World"]

World: TypeAlias = Callable[[], Caches]

_Name = Annotated[str, Path(description="Of the cache.", max_length=200, examples=["stock"])]
_Key = Annotated[
    str, Path(description="As the application uses it, percent-encoded.", examples=["quote:AAPL"])
]
_Prefix = Annotated[str, Query(max_length=1024, examples=["quote:"])]
_Limit = Annotated[int, Query(ge=1, le=1000)]
_Cursor = Annotated[
    str, Query(max_length=1100, description="That of the page before; empty: the first page.")
]
_Value = Annotated[bool, Query(description="Whether to show the value, where settings permit that.")]

_LONGEST_VALUE: Final = 1 << 18
_LOOKED_AT: Final = 50_000


class Endpoints:
    """The routes' functions, about one world of caches."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._warming: set[str] = set()

    def _cache(self, name: str) -> Cache[Any]:
        return self._world()[name]

    # -- looking; plain functions run on a thread, as counting takes a while with many entries

    def caches(self) -> CacheList:
        """The caches that the settings define."""
        world = self._world()
        opened = {cache.name: cache for cache in world.opened}
        summaries = [_summary(world, name, opened.get(name)) for name in world]
        return CacheList(environment=world.settings.environment, caches=summaries)

    def stats(self, name: _Name) -> StatsAndWindows:
        """What a cache did in this process: since it was opened, and in the last minute, five minutes and hour."""
        world = self._world()
        windows, stats = world.windows(name), world[name].stats()
        return StatsAndWindows.model_validate({"name": stats.name, "total": stats, "windows": windows})

    def advice(self) -> AdviceList:
        """What would help the caches of this process: more or less memory, longer ttls; and which are of no use."""
        return AdviceList.model_validate({"advice": advise(self._world())})

    async def keys(
        self, name: _Name, prefix: _Prefix = "", limit: _Limit = 100, cursor: _Cursor = ""
    ) -> KeyList:
        """Some of the keys of a cache; of a chain, those in its farthest layer. In bounded time, so a page may be
        short, or even empty; with some stores it may be a little longer than `limit`."""
        page = await self._cache(name).alist_keys(prefix, limit=limit, cursor=cursor)
        return KeyList(keys=list(page.keys), cursor=page.cursor)

    async def prefixes(self, name: _Name, limit: Annotated[int, Query(ge=1, le=100)] = 10) -> Prefixes:
        """The most common beginnings of keys: in this process's memory where the cache keeps some there, else of a
        thousand keys of the store."""
        cache = self._cache(name)
        near = await asyncio.to_thread(_near_prefixes, cache)
        keys, hits = near or (await _listed_prefixes(cache), None)
        ranked = sorted(keys, key=lambda prefix: (-(hits or keys)[prefix], -keys[prefix], prefix))[:limit]
        models = [
            PrefixModel(prefix=prefix, keys=keys[prefix], hits=None if hits is None else hits[prefix])
            for prefix in ranked
        ]
        return Prefixes(looked_at=keys.total(), prefixes=models)

    async def explain(self, name: _Name, key: _Key, value: _Value = False) -> Explained:
        """What each layer has under a key, how fresh, who holds its lease, and what `get_or_set` would do now."""
        if value and not self._world().settings.admin.show_values:
            refuse("values-hidden", "show_values = true in [default.admin] of the settings would show them")
        found = await self._cache(name).aexplain(key, value=value)
        shown = Explained.of(found)
        if value:
            shown.value, shown.value_note = _shown(found.value)
        return shown

    def health(self, response: Response) -> Health:
        """Whether the caches of this process can be used; answered without asking any store. 503 where one cannot."""
        world = self._world()
        states: dict[str, HealthState] = {cache.name: _state(world, cache) for cache in world.opened}
        ready = "down" not in states.values()
        response.status_code = 200 if ready else 503
        degraded = any(state != "ok" for state in states.values())
        return Health(live=True, ready=ready, degraded=degraded, caches=states)

    def metrics(self) -> Response:
        """The counters as Prometheus takes them."""
        try:
            prometheus = import_module("layercache.integrations.prometheus")  # an extra of its own
        except ImportError as error:
            refuse("not-found", f"there are no metrics: {error}")
        text, media_type = prometheus.exposition(self._world())
        return Response(text, media_type=media_type)

    # -- changing

    async def delete(self, request: Request, name: _Name, key: _Key) -> Deleted:
        """Drop one key."""
        was_there = await self._cache(name).adelete(key)
        request.state.outcome = "it was there" if was_there else "it was not there"
        return Deleted(key=key, was_there=was_there)

    async def invalidate(self, request: Request, name: _Name, wanted: Invalidation) -> Invalidated:
        """Drop every entry that carries one of the tags, whatever their number."""
        request.state.outcome = f"tags {wanted.tags!r}{', soft' if wanted.soft else ''}"
        await self._cache(name).ainvalidate(*wanted.tags, soft=wanted.soft)
        return Invalidated(tags=wanted.tags, soft=wanted.soft)

    async def clear(self, name: _Name) -> Cleared:
        """Drop every key of one cache; those of others stay."""
        cache = self._cache(name)
        await cache.aclear()
        return Cleared(cache=cache.name)

    async def warm(
        self, request: Request, name: _Name, wanted: Annotated[Warming | None, Body()] = None
    ) -> Warmed:
        """Load what the `@cached(warm=[...])` functions of this process list for the cache and is not there yet."""
        cache = self._cache(name)
        if cache.name in self._warming:
            refuse("warming-already", f"somebody else warms {cache.name!r} just now")
        self._warming.add(cache.name)
        concurrency = 8 if wanted is None else wanted.concurrency
        try:
            reports = {calls.name: await _warmed(calls, concurrency) for calls in _declared(cache)}
        finally:
            self._warming.discard(cache.name)
        request.state.outcome = f"{sum(report.loaded for report in reports.values())} loaded"
        return Warmed(functions={name: _warm_report(report) for name, report in reports.items()})


# -- parts


def _summary(world: Caches, name: str, cache: Cache[Any] | None) -> CacheSummary:
    settings = world.settings.caches[name]
    made = CacheSummary(
        name=name,
        backend=settings.backend,
        type=world.settings.backends[settings.backend].type,
        ttl=None if math.isinf(settings.ttl) else settings.ttl,
        is_open=cache is not None,
    )
    if cache is not None:
        stats = cache.stats()
        made.hits, made.misses = stats.hits, stats.misses
        made.hit_rate = stats.hit_rate if stats.hits + stats.misses else None
        made.degraded = _state(world, cache) != "ok"
    return made


def _state(world: Caches, cache: Cache[Any]) -> HealthState:
    layers = cache.layer_stats()
    failing = [layer.degraded or layer.gauges.get("circuits_open", 0) > 0 for layer in layers]
    if not any(failing):
        return "ok"
    backend = world.backend(world.settings.caches[cache.name].backend)
    # a chain serves from its other layers, and what forgives finds nothing
    return "degraded" if len(layers) > 1 or backend.on_error == "miss" else "down"


def _prefix(key: str) -> str:
    head, colon, _ = key.partition(":")
    return head[:80] + colon


async def _listed_prefixes(cache: Cache[Any]) -> Counter[str]:
    try:
        page = await cache.alist_keys(limit=1000)
    except CannotList:
        return Counter()
    return Counter(map(_prefix, page.keys))


def _near_prefixes(cache: Cache[Any]) -> tuple[Counter[str], Counter[str]] | None:
    """Return how many keys in this process's memory begin alike, and how often these were hit."""
    records = cache.near_records()
    if records is None:
        return None
    keys: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    for key, record in islice(list(records.items()), _LOOKED_AT):
        prefix = _prefix(key)
        keys[prefix] += 1
        hits[prefix] += record.hits
    return keys, hits


def _shown(value: Any) -> tuple[Any, str | None]:
    if value is MISSING:
        return None, "there is none"
    try:
        text = json.dumps(value, allow_nan=False, default=str)
    except (TypeError, ValueError) as error:
        return None, f"it cannot be shown as JSON: {error}"
    if len(text) > _LONGEST_VALUE:
        return None, f"it is too long to be shown: {len(text):,} characters of JSON"
    return json.loads(text), None


def _declared(cache: Cache[Any]) -> list[Calls]:
    found: list[Calls] = []
    for calls in declared():
        try:
            view = calls.view()
        except (CacheError, NameError):
            continue  # of a cache that this world has not, or cannot open
        if view.name == cache.name:
            found.append(calls)
    return found


async def _warmed(calls: Calls, concurrency: int) -> WarmReport:
    cache, items = calls.view(), list[Item](calls.items())
    if calls.is_async:
        return await awarm(cache, items, concurrency, None)
    return await asyncio.to_thread(warm, cache, items, concurrency, None)


def _warm_report(report: WarmReport) -> WarmedFunction:
    # what a loader says of itself may hold what is nobody's business; its class does not
    failed = {key: type(error).__name__ for key, error in report.failed.items()}
    return WarmedFunction(loaded=report.loaded, kept=report.kept, failed=failed, seconds=report.seconds)
