"""What the API takes and gives, as OpenAPI shows it.

Rule: what the library has a class for is read off its attributes, by the names of the fields, and not copied by hand.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from layercache.advising import Kind
from layercache.core.explaining import Explanation, State, Would
from layercache.core.times import Times
from layercache.entry import MISSING
from layercache.windows import Window

__all__ = [
    "OWN_HEADER",
    "AdviceList",
    "AdviceModel",
    "CacheList",
    "CacheSummary",
    "Cleared",
    "CurveModel",
    "CurvePoint",
    "Deleted",
    "Explained",
    "Health",
    "HealthState",
    "Invalidated",
    "Invalidation",
    "KeyList",
    "LayerModel",
    "LayerSightModel",
    "LeaseModel",
    "PrefixModel",
    "Prefixes",
    "StatsAndWindows",
    "StatsModel",
    "TagModel",
    "TimesModel",
    "Warmed",
    "WarmedFunction",
    "Warming",
    "WindowModel",
]

_Seconds: TypeAlias = float

OWN_HEADER: Final = "X-Layercache-Admin"
"""What changes something without a token comes with it, whatever it holds: a page of another origin cannot send it
unless we said so, and we never do."""

_FORBID = ConfigDict(extra="forbid")


class _Seen(BaseModel):
    """What is read off an object of the library."""

    model_config = ConfigDict(from_attributes=True)


class TimesModel(BaseModel):
    """How long things took, in seconds; null where there were none. Quantiles are as exact as the buckets are wide."""

    count: int
    mean: _Seconds | None
    p50: _Seconds | None
    p95: _Seconds | None
    p99: _Seconds | None

    @model_validator(mode="before")
    @classmethod
    def _of(cls, times: Any) -> Any:
        if not isinstance(times, Times):
            return times
        quantiles = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
        return {
            "count": times.count,
            "mean": times.mean,
            **{name: times.quantile(part) for name, part in quantiles.items()},
        }


class CurvePoint(BaseModel):
    """One point of a curve."""

    memory: float = Field(description="Times what there is now.", examples=[2.0])
    hit_rate: float = Field(ge=0, le=1)


def _point(pair: Any) -> Any:
    return {"memory": pair[0], "hit_rate": pair[1]} if isinstance(pair, tuple) else pair


class CurveModel(_Seen):
    """What share of the reads would be hits with less and more memory, as an LRU cache would have it."""

    points: list[Annotated[CurvePoint, BeforeValidator(_point)]] = Field(description="Ascending.")
    entries: int = Field(description="That there is room for now.")
    sampled: int = Field(description="Reads that it was learnt from; of fewer than a thousand it is a guess.")


class LayerModel(_Seen):
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
    reads: TimesModel | None = Field(
        validation_alias="read_times",
        description="How long reads took; null where they stay in this process.",
    )
    writes: TimesModel | None = Field(validation_alias="write_times")


class StatsModel(_Seen):
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


class WindowModel(StatsModel):
    """What a cache did in the last while."""

    seconds: _Seconds = Field(
        description="That it covers: fewer than asked for as long as sampling is young."
    )
    reads_per_second: float
    loads_per_second: float

    @model_validator(mode="before")
    @classmethod
    def _of(cls, window: Any) -> Any:
        if not isinstance(window, Window):
            return window
        own = cls.model_fields.keys() - StatsModel.model_fields.keys()
        counted = dict(StatsModel.model_validate(window.stats))
        return counted | {name: getattr(window, name) for name in own}


class StatsAndWindows(BaseModel):
    """What a cache did since it was opened, and in the last minute, five minutes and hour."""

    name: str = Field(examples=["stock"])
    total: StatsModel
    windows: dict[Literal["1m", "5m", "1h"], WindowModel]


class AdviceModel(_Seen):
    """One thing to look at."""

    kind: Kind
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
    ttl: _Seconds | None = Field(description="Null: for ever.", examples=[300.0])
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


class TagModel(_Seen):
    """A stamp that an entry carries."""

    tag: str = Field(description="`*` is the whole cache.", examples=["news"])
    is_current: bool
    is_alive: bool = Field(description="False: gone. True and not current: invalidated softly, so stale.")


class LeaseModel(_Seen):
    """Who has the right to load the key."""

    holder: str = Field(description="Empty: nobody loads it, and loads are held back after one that failed.")
    seconds_left: _Seconds = Field(validation_alias="left")


class LayerSightModel(_Seen):
    """What one layer has under a key."""

    name: str
    type: str
    state: State
    fresh_left: _Seconds | None = Field(description="Null: for ever.")
    ttl_left: _Seconds | None = Field(description="Until it is dead; null: never.")
    age: _Seconds | None
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
    would: Would
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
        """Return what was found, but for the value."""
        hidden = replace(found, value=MISSING)
        return cls.model_validate(asdict(hidden) | {"value": None, "text": str(hidden)})


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
    seconds: _Seconds


class Warmed(BaseModel):
    """What came of warming, by function."""

    functions: dict[str, WarmedFunction]


# -- health

HealthState: TypeAlias = Literal["ok", "degraded", "down"]


class Health(BaseModel):
    """How the caches of this process are."""

    live: bool = Field(description="That this is answered.")
    ready: bool = Field(description="Whether each cache can be used, with or without all of its layers.")
    degraded: bool = Field(description="Whether a layer fails, or its circuit is open.")
    caches: dict[str, HealthState] = Field(description="Of those that are open.", examples=[{"stock": "ok"}])
