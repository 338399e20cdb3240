"""What the API takes and gives, as OpenAPI shows it."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from layercache.core.explaining import Explanation
from layercache.core.stats import CacheStats, LayerStats
from layercache.core.times import Times
from layercache.entry import MISSING
from layercache.spi import Curve
from layercache.windows import Window

__all__ = [
    "AdviceList",
    "AdviceModel",
    "CacheList",
    "CacheSummary",
    "Cleared",
    "Deleted",
    "Explained",
    "Health",
    "Invalidated",
    "Invalidation",
    "KeyList",
    "Prefixes",
    "StatsAndWindows",
    "Warmed",
    "Warming",
]

Seconds: TypeAlias = float

_FORBID = ConfigDict(extra="forbid")


class TimesModel(BaseModel):
    """How long things took, in seconds; null where there were none. Quantiles are as exact as the buckets are wide."""

    count: int
    mean: Seconds | None
    p50: Seconds | None
    p95: Seconds | None
    p99: Seconds | None

    @classmethod
    def of(cls, times: Times) -> TimesModel:
        return cls(
            count=times.count,
            mean=times.mean,
            p50=times.quantile(0.5),
            p95=times.quantile(0.95),
            p99=times.quantile(0.99),
        )


class CurvePoint(BaseModel):
    """One point of a curve."""

    memory: float = Field(description="Times what there is now.", examples=[2.0])
    hit_rate: float = Field(ge=0, le=1)


class CurveModel(BaseModel):
    """What share of the reads would be hits with less and more memory, as an LRU cache would have it."""

    points: list[CurvePoint] = Field(description="Ascending.")
    entries: int = Field(description="That there is room for now.")
    sampled: int = Field(description="Reads that it was learnt from; of fewer than a thousand it is a guess.")

    @classmethod
    def of(cls, curve: Curve) -> CurveModel:
        points = [CurvePoint(memory=memory, hit_rate=hit_rate) for memory, hit_rate in curve.points]
        return cls(points=points, entries=curve.entries, sampled=curve.sampled)


class LayerModel(BaseModel):
    """One layer of a cache, as this process uses it."""

    name: str = Field(examples=["shared"])
    type: str = Field(examples=["redis"])
    hits: int
    misses: int
    hit_rate: float = Field(ge=0, le=1)
    errors: int
    degraded: bool = Field(description="Whether the last operation failed.")
    gauges: dict[str, float] = Field(
        description="What the backend says of itself, such as `entries`, `bytes`, `circuits_open` and `log_lag`.",
        examples=[{"circuits_open": 0, "log_lag": 0.21}],
    )
    curve: CurveModel | None = Field(
        description="What the hit rate would be with less and more memory; null where that is not kept book of."
    )
    reads: TimesModel | None = Field(description="How long reads took; null where they stay in this process.")
    writes: TimesModel | None

    @classmethod
    def of(cls, stats: LayerStats) -> LayerModel:
        return cls(
            name=stats.name,
            type=stats.type,
            hits=stats.hits,
            misses=stats.misses,
            hit_rate=stats.hit_rate,
            errors=stats.errors,
            degraded=stats.degraded,
            gauges=dict(stats.gauges),
            curve=None if stats.curve is None else CurveModel.of(stats.curve),
            reads=None if stats.read_times is None else TimesModel.of(stats.read_times),
            writes=None if stats.write_times is None else TimesModel.of(stats.write_times),
        )


class StatsModel(BaseModel):
    """What a cache did, in this process."""

    hits: int
    misses: int
    hit_rate: float = Field(ge=0, le=1, description="0 before the first read.")
    stale_hits: int
    loads: int
    load_failures: int
    load_times: TimesModel
    waits: int
    timeouts: int
    refreshes: int
    fills_refused: int
    undecodable: int
    layers: list[LayerModel] = Field(description="Nearest first.")

    @classmethod
    def of(cls, stats: CacheStats, **more: Any) -> Any:
        return cls(
            hits=stats.hits,
            misses=stats.misses,
            hit_rate=stats.hit_rate,
            stale_hits=stats.stale_hits,
            loads=stats.loads,
            load_failures=stats.load_failures,
            load_times=TimesModel.of(stats.load_times),
            waits=stats.waits,
            timeouts=stats.timeouts,
            refreshes=stats.refreshes,
            fills_refused=stats.fills_refused,
            undecodable=stats.undecodable,
            layers=[LayerModel.of(layer) for layer in stats.layers],
            **more,
        )


class WindowModel(StatsModel):
    """What a cache did in the last while."""

    seconds: Seconds = Field(description="That it covers: fewer than asked for as long as sampling is young.")
    reads_per_second: float
    loads_per_second: float

    @classmethod
    def of_window(cls, window: Window) -> WindowModel:
        made: WindowModel = cls.of(
            window.stats,
            seconds=window.seconds,
            reads_per_second=window.reads_per_second,
            loads_per_second=window.loads_per_second,
        )
        return made


class StatsAndWindows(BaseModel):
    """What a cache did since it was opened, and in the last minute, five minutes and hour."""

    name: str = Field(examples=["stock"])
    total: StatsModel
    windows: dict[Literal["1m", "5m", "1h"], WindowModel]


class AdviceModel(BaseModel):
    """One thing to look at."""

    kind: Literal["memory", "ttl", "never hit", "unused", "curve"]
    about: str = Field(description="A cache, a layer, or a pattern of keys.", examples=["stock quote:*"])
    message: str
    fix: str = Field(description="What to do about it; empty where that is clear.")


class AdviceList(BaseModel):
    """What the counters of this process say should be looked at."""

    advice: list[AdviceModel]


class CacheSummary(BaseModel):
    """One cache of the settings."""

    name: str = Field(examples=["stock"])
    backend: str = Field(examples=["layered"])
    type: str = Field(examples=["chain"])
    ttl: Seconds | None = Field(description="Null: for ever.", examples=[300.0])
    is_open: bool = Field(description="Whether this process uses it.")
    hits: int = 0
    misses: int = 0
    hit_rate: float | None = Field(
        default=None, description="Since it was opened; null before the first read."
    )
    degraded: bool = Field(default=False, description="Whether one of its layers fails.")


class CacheList(BaseModel):
    """The caches that the settings define."""

    environment: str = Field(examples=["production"])
    caches: list[CacheSummary]


# -- keys


class TagModel(BaseModel):
    """A stamp that an entry carries."""

    tag: str = Field(description="`*` is the whole cache.", examples=["news"])
    is_current: bool
    is_alive: bool = Field(description="False: gone. True and not current: invalidated softly, so stale.")


class LeaseModel(BaseModel):
    """Who has the right to load the key."""

    holder: str = Field(description="Empty: nobody loads it, and loads are held back after one that failed.")
    seconds_left: Seconds


class LayerSightModel(BaseModel):
    """What one layer has under a key."""

    name: str
    type: str
    state: Literal["fresh", "stale", "dead", "invalid", "unreadable", "absent", "failed"]
    fresh_left: Seconds | None = Field(description="Null: for ever.")
    ttl_left: Seconds | None = Field(description="Until it is dead; null: never.")
    age: Seconds | None
    size: int | None = Field(description="Bytes.")
    tags: list[TagModel]
    stages: list[str] = Field(examples=[["json", "zstd"]])
    dictionary: int | None
    lease: LeaseModel | None
    note: str
    is_asked: bool = Field(description="False for a layer that is passed over now.")


class Explained(BaseModel):
    """What a cache knows of one key, layer by layer, and what `get_or_set` would do now."""

    cache: str = Field(examples=["stock"])
    key: str = Field(examples=["quote:AAPL"])
    would: Literal["hit", "serve stale", "serve stale and refresh", "wait for the holder", "load"]
    why: str = Field(examples=["it is fresh in local"])
    loading: bool = Field(description="Whether a load of it is under way in this process.")
    layers: list[LayerSightModel] = Field(description="Nearest first.")
    text: str = Field(description="All of it, for people.")
    value: Any = Field(
        default=None, description="Where it was asked for, there is one, and it is not too long."
    )
    value_note: str | None = Field(default=None, description="Why there is no value where one was asked for.")

    @classmethod
    def of(cls, found: Explanation) -> Explained:
        return cls(
            cache=found.cache,
            key=found.key,
            would=found.would,
            why=found.why,
            loading=found.loading,
            layers=[
                LayerSightModel(
                    name=layer.name,
                    type=layer.type,
                    state=layer.state,
                    fresh_left=layer.fresh_left,
                    ttl_left=layer.ttl_left,
                    age=layer.age,
                    size=layer.size,
                    tags=[
                        TagModel(tag=tag.tag, is_current=tag.is_current, is_alive=tag.is_alive)
                        for tag in layer.tags
                    ],
                    stages=list(layer.stages),
                    dictionary=layer.dictionary,
                    lease=layer.lease
                    and LeaseModel(holder=layer.lease.holder, seconds_left=layer.lease.left),
                    note=layer.note,
                    is_asked=layer.is_asked,
                )
                for layer in found.layers
            ],
            text=str(replace(found, value=MISSING)),
        )


class KeyList(BaseModel):
    """A page of keys."""

    keys: list[str] = Field(examples=[["quote:AAPL", "quote:MSFT"]])
    cursor: str | None = Field(description="Brings the next page; null: there is none.", examples=["0.1184"])


class PrefixModel(BaseModel):
    """Keys that begin alike."""

    prefix: str = Field(description="Up to and with the first colon.", examples=["quote:"])
    keys: int
    hits: int | None = Field(description="In this process's memory; null where that has none of them.")


class Prefixes(BaseModel):
    """The most common beginnings of keys, of those that were looked at."""

    looked_at: int
    prefixes: list[PrefixModel]


class Deleted(BaseModel):
    """What came of a deletion."""

    key: str
    was_there: bool


# -- changes


class Invalidation(BaseModel):
    """What to invalidate."""

    model_config = _FORBID | {"json_schema_extra": {"examples": [{"tags": ["news"], "soft": False}]}}

    tags: list[Annotated[str, Field(min_length=1, max_length=255)]] = Field(min_length=1, max_length=100)
    soft: bool = Field(default=False, description="Entries become stale instead of gone.")


class Invalidated(BaseModel):
    """The tags that were invalidated."""

    tags: list[str]
    soft: bool


class Cleared(BaseModel):
    """The cache that was cleared."""

    cache: str


class Warming(BaseModel):
    """How to warm."""

    model_config = _FORBID | {"json_schema_extra": {"examples": [{"concurrency": 8}]}}

    concurrency: int = Field(default=8, ge=1, le=32, description="How many keys are loaded at a time.")


class WarmedFunction(BaseModel):
    """What came of warming the keys of one function."""

    loaded: int
    kept: int
    failed: dict[str, str] = Field(description="By key, the class of what was raised.")
    seconds: Seconds


class Warmed(BaseModel):
    """What came of warming, by function."""

    functions: dict[str, WarmedFunction]


# -- health


class Health(BaseModel):
    """How the caches of this process are."""

    live: bool = Field(description="That this is answered.")
    ready: bool = Field(description="Whether each cache can be used, with or without all of its layers.")
    degraded: bool = Field(description="Whether a layer fails, or its circuit is open.")
    caches: dict[str, Literal["ok", "degraded", "down"]] = Field(
        description="Of those that are open.", examples=[{"stock": "ok"}]
    )
