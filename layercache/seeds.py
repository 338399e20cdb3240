"""The seed variables: REDIS_… and MEMORY_CACHE_…, which many services are given already.

They speak of the backends behind the default cache, else of the first of their type. Where there is none
they say nothing, as a REDIS_HOST may well be meant for something else; only REDIS_ENABLED makes what it
needs. An empty variable is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from layercache.sources import Tables, Unreadable

__all__ = ["OF_DEFAULT_CACHE", "OF_MEMORY", "OF_REDIS", "Seed", "switch", "values"]


class Seed(NamedTuple):
    """One setting that a seed variable gives."""

    variable: str
    path: tuple[str, ...]
    value: Any


OF_REDIS: Final = {
    "REDIS_HOST": "host",
    "REDIS_PORT": "port",
    "REDIS_PASSWORD": "password",
    "REDIS_DB": "db",
    "REDIS_MAX_CONNECTIONS": "max_connections",
}
OF_MEMORY: Final = {"MEMORY_CACHE_MAX_SIZE": "max_entries"}
OF_DEFAULT_CACHE: Final = {"MEMORY_CACHE_TTL_DEFAULT": "ttl"}
_TEXTS: Final = ("REDIS_HOST", "REDIS_PASSWORD")  # a password of digits is text all the same
_SPELT: Final = {"true": True, "1": True, "yes": True, "on": True} | {
    "false": False, "0": False, "no": False, "off": False,
}  # fmt: skip


def switch(tables: Tables, environ: Mapping[str, str]) -> list[Seed]:
    """Return what REDIS_ENABLED changes: the default cache from memory to the chain, or back.

    Raises `Unreadable` when it is neither true nor false.
    """
    variable = "REDIS_ENABLED"
    text = environ.get(variable)
    if not text:
        return []
    if text.strip().lower() not in _SPELT:
        raise Unreadable(variable, "has to be true or false")
    layout = _Layout(tables)
    target = layout.with_redis() if _SPELT[text.strip().lower()] else layout.without_redis()
    return [Seed(variable, path, value) for path, value in target]


def values(tables: Tables, environ: Mapping[str, str]) -> Iterator[Seed]:
    """Yield what the other seed variables give."""
    layout = _Layout(tables)
    given = {name: text for name, text in environ.items() if text}
    redis, memory = layout.near_default("redis"), layout.near_default("memory")
    for backend, variables in ((redis, OF_REDIS), (memory, OF_MEMORY)):
        for name, option in variables.items():
            if backend is not None and name in given:
                value = given[name] if name in _TEXTS else _number(given[name])
                yield Seed(name, ("backends", backend, option), value)
    for name, option in OF_DEFAULT_CACHE.items():
        if layout.default_cache and name in given:
            yield Seed(name, ("caches", "default", option), given[name])


def _number(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text  # the check of the option says what is wrong with it


class _Layout:
    """How the backends of unchecked tables hang together, as far as it can be seen."""

    def __init__(self, tables: Tables) -> None:
        self.default_cache = _table(_table(tables.get("caches")).get("default"))
        self.default = str(self.default_cache.get("backend", "")).lower()
        self.backends = {name: _table(table) for name, table in _table(tables.get("backends")).items()}

    def type(self, backend: str) -> Any:
        return self.backends.get(backend, {}).get("type")

    def layers(self, backend: str) -> list[str]:
        layers = self.backends.get(backend, {}).get("layers")
        return [str(layer).lower() for layer in layers] if isinstance(layers, list) else []

    def reaches_redis(self, backend: str) -> bool:
        return any(self.type(name) == "redis" for name in (backend, *self.layers(backend)))

    def near_default(self, type_: str) -> str | None:
        """Return the backend of `type_` behind the default cache, else the first there is."""
        names = (self.default, *self.layers(self.default), *self.backends)
        return next((name for name in names if self.type(name) == type_), None)

    def with_redis(self) -> Iterator[tuple[tuple[str, ...], Any]]:
        if self.default and self.type(self.default) != "memory":
            return  # there already, or turned to something else on purpose
        chains = [name for name in self.backends if self.type(name) == "chain" and self.reaches_redis(name)]
        over_this = [name for name in chains if self.default in self.layers(name)]
        chain = next(iter([*over_this, *chains]), None)
        if chain is None:
            near, far = self.near_default("memory"), self.near_default("redis")
            if near is None:
                near = self._free("local")
                yield ("backends", near, "type"), "memory"
            if far is None:
                far = self._free("shared")
                yield ("backends", far, "type"), "redis"
            chain = self._free("layered")
            yield ("backends", chain, "type"), "chain"
            yield ("backends", chain, "layers"), [near, far]
        yield ("caches", "default", "backend"), chain

    def without_redis(self) -> Iterator[tuple[tuple[str, ...], Any]]:
        if not self.reaches_redis(self.default):
            return
        memory = self.near_default("memory")
        if memory is None:
            memory = self._free("local")
            yield ("backends", memory, "type"), "memory"
        yield ("caches", "default", "backend"), memory

    def _free(self, name: str) -> str:
        while name in self.backends:
            name += "_"
        return name


def _table(value: Any) -> Tables:
    return value if isinstance(value, dict) else {}
