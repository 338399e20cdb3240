"""Pluggable caches for web services: chosen by name, composed in settings.toml.

from layercache import get_cache

stock = get_cache("stock")
stock.set("quote:AAPL", {"price": 189.5})
"""

from typing import TYPE_CHECKING, Any

from layercache._version import __version__
from layercache.caches import Caches
from layercache.decorator import cached
from layercache.default import aclose, aemit, cache, close, configure, emit, get_cache, on, on_alert
from layercache.durations import DEFAULT, Ttl
from layercache.entry import MISSING
from layercache.errors import (
    BackendError,
    BackendTimeout,
    CacheClosed,
    CacheError,
    CannotList,
    CircuitOpen,
    ConfigError,
    DecodeError,
    EncodeError,
    InvalidKey,
    InvalidOption,
    InvalidTtl,
    KeyNotFound,
    LoadTimeout,
    MissingExtra,
    NotACounter,
    RecursiveLoad,
    UnknownBackend,
    UnknownCache,
    UnknownEvent,
    UnknownEviction,
    UnknownName,
    UnknownStage,
    ValueTooLarge,
    WouldDeadlock,
    WrongFields,
)
from layercache.keys import make_key

if TYPE_CHECKING:
    from layercache.alerts import Alert
    from layercache.callables import AsyncCachedFunction, CachedFunction
    from layercache.core.context import LoadContext, NotModified, current_load
    from layercache.core.explaining import Explanation, LayerSight
    from layercache.core.policy import LoadOptions
    from layercache.core.stats import CacheStats, LayerStats
    from layercache.events import Invalidation
    from layercache.face import Cache
    from layercache.spi import Curve, KeyPage, Lapse
    from layercache.warming import Schedule, WarmReport

__all__ = [
    "DEFAULT",
    "MISSING",
    "Alert",
    "AsyncCachedFunction",
    "BackendError",
    "BackendTimeout",
    "Cache",
    "CacheClosed",
    "CacheError",
    "CacheStats",
    "CachedFunction",
    "Caches",
    "CannotList",
    "CircuitOpen",
    "ConfigError",
    "Curve",
    "DecodeError",
    "EncodeError",
    "Explanation",
    "InvalidKey",
    "InvalidOption",
    "InvalidTtl",
    "Invalidation",
    "KeyNotFound",
    "KeyPage",
    "Lapse",
    "LayerSight",
    "LayerStats",
    "LoadContext",
    "LoadOptions",
    "LoadTimeout",
    "MissingExtra",
    "NotACounter",
    "NotModified",
    "RecursiveLoad",
    "Schedule",
    "Ttl",
    "UnknownBackend",
    "UnknownCache",
    "UnknownEvent",
    "UnknownEviction",
    "UnknownName",
    "UnknownStage",
    "ValueTooLarge",
    "WarmReport",
    "WouldDeadlock",
    "WrongFields",
    "__version__",
    "aclose",
    "aemit",
    "cache",
    "cached",
    "close",
    "configure",
    "current_load",
    "emit",
    "get_cache",
    "make_key",
    "on",
    "on_alert",
]


_LATE = {
    "Alert": "alerts",
    "AsyncCachedFunction": "callables",
    "Cache": "face",
    "CacheStats": "core.stats",
    "CachedFunction": "callables",
    "Curve": "spi",
    "Explanation": "core.explaining",
    "KeyPage": "spi",
    "Lapse": "spi",
    "LayerSight": "core.explaining",
    "Invalidation": "events",
    "LayerStats": "core.stats",
    "LoadContext": "core.context",
    "LoadOptions": "core.policy",
    "NotModified": "core.context",
    "Schedule": "warming",
    "WarmReport": "warming",
    "current_load": "core.context",
}


def __getattr__(name: str) -> Any:
    # their modules import asyncio and inspect, which wait until somebody asks for one
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"layercache.{_LATE[name]}"), name)
