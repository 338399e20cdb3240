"""Pluggable caches for web services: chosen by name, composed in settings.toml.

from layercache import get_cache

stock = get_cache("stock")
stock.set("quote:AAPL", {"price": 189.5})
"""

from typing import TYPE_CHECKING, Any

from layercache._version import __version__
from layercache.caches import Caches, aclose, cache, close, configure, get_cache
from layercache.decorator import cached
from layercache.durations import DEFAULT, Ttl
from layercache.entry import MISSING
from layercache.errors import (
    BackendError,
    BackendTimeout,
    CacheClosed,
    CacheError,
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
    UnknownEviction,
    UnknownName,
    UnknownStage,
    ValueTooLarge,
    WouldDeadlock,
)
from layercache.keys import make_key

if TYPE_CHECKING:
    from layercache.core.layer import LayerStats
    from layercache.face import Cache, CacheStats

__all__ = [
    "DEFAULT",
    "MISSING",
    "BackendError",
    "BackendTimeout",
    "Cache",
    "CacheClosed",
    "CacheError",
    "CacheStats",
    "Caches",
    "CircuitOpen",
    "ConfigError",
    "DecodeError",
    "EncodeError",
    "InvalidKey",
    "InvalidOption",
    "InvalidTtl",
    "KeyNotFound",
    "LayerStats",
    "LoadTimeout",
    "MissingExtra",
    "NotACounter",
    "RecursiveLoad",
    "Ttl",
    "UnknownBackend",
    "UnknownCache",
    "UnknownEviction",
    "UnknownName",
    "UnknownStage",
    "ValueTooLarge",
    "WouldDeadlock",
    "__version__",
    "aclose",
    "cache",
    "cached",
    "close",
    "configure",
    "get_cache",
    "make_key",
]


def __getattr__(name: str) -> Any:
    # types for annotations: their modules import asyncio, which waits until somebody asks for one
    if name in {"Cache", "CacheStats"}:
        from layercache import face

        return getattr(face, name)
    if name == "LayerStats":
        from layercache.core import layer

        return layer.LayerStats
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
