"""settings.toml and the environment, to checked models: the one place that reads settings.

What wins, from weakest to strongest: the built-in default (only where there is no file),
`[default]` of the file, the environment's table, both again of `settings.local.toml` and of
`.secrets.toml` beside it, the seed variables (`REDIS_HOST`…), `LAYERCACHE_…` variables.

Rules:
1. Tables merge deeply; lists, and everything else, replace. (dynaconf merges either nothing or lists as well, so it
   reads each source here, with its own parsing of variables, and the merging is ours.)
2. Names of sections, backends, caches and their keys are compared without case. What stands deeper
   (patterns of keys, say) keeps its case.
3. Every fault is found before any is raised; a fault never repeats a value, which may be a secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from dynaconf import Dynaconf
from dynaconf.loaders import toml_loader

from layercache.errors import ConfigError, Fault, UnknownBackend, suggestion
from layercache.options import Count, Duration, checked, options
from layercache.registry import backend_named
from layercache.spi import Backend, Opening

__all__ = ["BackendSettings", "CacheSettings", "Settings", "read_settings"]

SETTINGS_FILE: Final = "settings.toml"
BESIDE: Final = ("settings.local.toml", ".secrets.toml")  # read after it, as dynaconf has it
SECTIONS: Final = ("backends", "caches")
_NOT_SETTINGS: Final = ("LAYERCACHE_ENV", "LAYERCACHE_SETTINGS")
_TEST_PREFIX: Final = "LAYERCACHE_TEST_"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]*")

M = TypeVar("M")

Tables: TypeAlias = dict[str, Any]
BackendClass: TypeAlias = type[Backend]

BUILT_IN: Final[Tables] = {
    "backends": {"local": {"type": "memory"}},
    "caches": {"default": {"backend": "local"}},
}
"""What serves where there is no settings file: one cache in memory."""


@options
class CacheSettings:
    """What the settings say of one cache.

    Attributes:
        backend: the name of its backend.
        ttl: seconds that an entry lives where nothing else says; "forever" is `math.inf`.
        ttls: glob patterns of keys to their own ttl; the most literal pattern that matches wins.
        max_key_bytes: the longest key, in UTF-8.
    """

    backend: str
    ttl: Duration = 300.0
    ttls: dict[str, Duration] = field(default_factory=dict[str, float])
    max_key_bytes: Count = 1024


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """What the settings say of one backend: its type, the class behind that, and its checked options."""

    type: str
    cls: BackendClass
    options: Any

    def open(self, opening: Opening) -> Backend:
        backend: Backend = self.cls(opening)
        backend.type = self.type
        return backend


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force.

    Attributes:
        origin: the file they were read from, or what stood in for one.
        environment: the environment that was chosen.
        backends, caches: by name, in the order of the file.
    """

    origin: str
    environment: str
    backends: dict[str, BackendSettings]
    caches: dict[str, CacheSettings]


def read_settings(
    source: str | Path | Mapping[str, Any] | None = None,
    environment: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read and check the settings.

    Args:
        source, environment: as for `Caches`.
        environ: the variables; None: those of the process.

    Raises `ConfigError` with every fault.
    """
    environ = os.environ if environ is None else environ
    reading = _Reading(environ, environment)
    if isinstance(source, Mapping):
        reading.read_mapping(source)
    else:
        reading.read_files(_found_file(source, environ))
        reading.read_seeds()
        reading.read_variables()
    return reading.checked()


def _found_file(source: str | Path | None, environ: Mapping[str, str]) -> Path | None:
    named = source or environ.get("LAYERCACHE_SETTINGS")
    if named:
        file = Path(named)
        if not file.is_file():
            asked = "the file asked for" if source else "the file that LAYERCACHE_SETTINGS names"
            raise ConfigError([Fault(str(file), f"{asked} does not exist")], str(file), "?")
        return file
    folder = Path.cwd()
    return next((file for at in (folder, *folder.parents) if (file := at / SETTINGS_FILE).is_file()), None)


class _Reading:
    """One reading of all sources: the merged tables, where values came from, and the faults so far."""

    def __init__(self, environ: Mapping[str, str], asked_for: str | None) -> None:
        self.environ = environ
        self.asked_for = asked_for or environ.get("LAYERCACHE_ENV") or None
        self.environment = (self.asked_for or "development").lower()
        self.origin = "the built-in default"
        self.tables: Tables = {}
        self.variables: dict[str, str] = {}  # path -> the variable that gave its value
        self.faults: list[Fault] = []

    # -- sources

    def read_mapping(self, mapping: Mapping[str, Any]) -> None:
        self.origin = "a mapping"
        if {str(name).lower() for name in mapping} <= set(SECTIONS):
            mapping = {"default": mapping}
            if self.asked_for == self.environ.get("LAYERCACHE_ENV"):
                self.asked_for = None  # the variable chooses among environments; here are none
        self._read_environments([mapping])

    def read_files(self, file: Path | None) -> None:
        if file is None:
            self._merge(BUILT_IN)
            return
        self.origin = str(file)
        beside = [at for name in BESIDE if (at := file.with_name(name)).is_file()]
        self._read_environments([self._parsed(path) for path in (file, *beside)])

    def _parsed(self, file: Path) -> dict[str, Any]:
        # the loader itself, as Dynaconf(settings_files=…) also loads a *.local.* file by its own rule of merging
        reader = _blank()
        try:
            toml_loader.load(reader, filename=str(file), silent=False)
        except (ValueError, OSError) as error:  # TOMLDecodeError is a ValueError; so is a bad @token
            raise ConfigError(
                [Fault(str(file), f"cannot be read: {error}")], str(file), self.environment
            ) from error
        return _tables(reader)

    def _read_environments(self, sources: list[Mapping[str, Any]]) -> None:
        tables = [{str(name).lower(): table for name, table in source.items()} for source in sources]
        known = dict.fromkeys(name for table in tables for name in table)
        if self.asked_for and self.environment != "default" and self.environment not in known:
            message = f"no such environment; {suggestion(self.environment, known)}"
            raise ConfigError([Fault(self.environment, message)], self.origin, self.environment)
        for table in tables:
            for name in dict.fromkeys(("default", self.environment)):
                self._merge(table.get(name, {}), name)
        for name in known:
            if name in SECTIONS:
                self.faults.append(Fault(name, f"stands outside an environment; write [default.{name}…]"))

    def read_variables(self) -> None:
        """Merge `LAYERCACHE_A__B__C=value`, with dynaconf's casting of values."""
        wanted = {
            name: value
            for name, value in self.environ.items()
            if name.upper().startswith("LAYERCACHE_")
            and name.upper() not in _NOT_SETTINGS
            and not name.upper().startswith(_TEST_PREFIX)
        }
        for name in sorted(wanted):
            self._merge_at(name[len("LAYERCACHE_") :].split("__"), self._cast(name), name)

    # -- the seed variables

    def read_seeds(self) -> None:
        """Merge REDIS_… and MEMORY_CACHE_… as they stand."""
        memory, redis = self._seed_backend("memory"), self._seed_backend("redis")
        enabled = self._seed("REDIS_ENABLED")
        if enabled is not None and not isinstance(enabled, bool):
            self.faults.append(Fault("REDIS_ENABLED", "is true or false"))
        if enabled is True and redis is None:
            redis = "shared"
            self._merge({"backends": {redis: {"type": "redis"}}}, variable="REDIS_ENABLED")
        if redis is not None:
            for variable, option in _REDIS_SEEDS.items():
                self._merge_seed(variable, f"backends.{redis}.{option}")
        if memory is not None:
            self._merge_seed("MEMORY_CACHE_MAX_SIZE", f"backends.{memory}.max_entries")
        self._merge_seed("MEMORY_CACHE_TTL_DEFAULT", "caches.default.ttl")
        if isinstance(enabled, bool):
            self._switch(enabled, memory, redis)

    def _switch(self, enabled: bool, memory: str | None, redis: str | None) -> None:
        """Turn the default cache to the chain, or to memory."""
        backend = self._default_backend()
        type_ = self._type(backend)
        if enabled and type_ in {"memory", "null", None}:
            near = backend if type_ == "memory" else memory
            self._use(self._chain(near, redis), "REDIS_ENABLED")
        elif not enabled and type_ in {"chain", "redis"}:
            if memory is None:
                memory = "local"
                self._merge({"backends": {memory: {"type": "memory"}}}, variable="REDIS_ENABLED")
            self._use(memory, "REDIS_ENABLED")

    def _use(self, backend: str, variable: str) -> None:
        self._merge({"caches": {"default": {"backend": backend}}}, variable=variable)

    def _chain(self, near: str | None, far: str | None) -> str:
        """Return the name of the chain over these two, made where there is none."""
        layers = [layer for layer in (near, far) if layer]
        for name, table in self._backends():
            if str(table.get("type")).lower() == "chain" and list(table.get("layers", [])) == layers:
                return name
        name = "layered"
        while name in dict(self._backends()):
            name += "_"
        self._merge({"backends": {name: {"type": "chain", "layers": layers}}}, variable="REDIS_ENABLED")
        return name

    def _seed_backend(self, type_: str) -> str | None:
        """Return the backend of `type_` that the seed variables speak of: the default cache's, else the first."""
        default = self._default_backend()
        layers = self.tables.get("backends", {}).get(default, {}).get("layers", ())
        near_the_default = [default, *(layers if isinstance(layers, list) else ())]
        names = [*near_the_default, *(name for name, _ in self._backends())]
        return next((name for name in names if self._type(name) == type_), None)

    def _default_backend(self) -> str:
        return str(self.tables.get("caches", {}).get("default", {}).get("backend", ""))

    def _backends(self) -> Iterator[tuple[str, Tables]]:
        for name, table in self.tables.get("backends", {}).items():
            if isinstance(table, dict):
                yield name, table

    def _type(self, backend: str) -> str | None:
        type_ = dict(self._backends()).get(backend, {}).get("type")
        return type_ if isinstance(type_, str) else None

    def _seed(self, variable: str) -> Any:
        return self._cast(variable) if self.environ.get(variable) else None

    def _merge_seed(self, variable: str, path: str) -> None:
        value = self._seed(variable)
        if value is None:
            return
        if variable in {"REDIS_PASSWORD", "REDIS_HOST"}:
            value = self.environ[variable]  # a password of digits is text all the same
        self._merge_at(path.split("."), value, variable)

    def _cast(self, variable: str) -> Any:
        """Return the value of a variable as dynaconf reads it: as TOML where it is TOML, `@tokens` resolved."""
        text = self.environ[variable]
        reader = _blank()
        try:
            reader.set("VALUE", text.lower() if text.strip() in {"True", "False"} else text, tomlfy=True)
            return _tables(reader)["VALUE"]
        except ValueError as error:
            self.faults.append(Fault(variable, f"cannot be read: {error}"))
            return None

    # -- merging

    def _merge_at(self, path: list[str], value: Any, variable: str) -> None:
        for part in reversed(path):
            value = {part: value}
        self._merge(value, variable=variable)

    def _merge(self, table: Any, path: str = "", *, variable: str | None = None) -> None:
        if not isinstance(table, Mapping):
            self.faults.append(Fault(path, "is a table of settings, not a single value"))
            return
        self._merge_into(self.tables, table, [], variable)

    def _merge_into(
        self, into: Tables, table: Mapping[str, Any], path: list[str], variable: str | None
    ) -> None:
        for given, value in table.items():
            # section, name and key are compared without case; patterns of keys are not
            name = str(given).lower() if len(path) < len(("section", "name", "key")) else str(given)
            here = [*path, name]
            if isinstance(value, Mapping):
                kept = into.get(name)
                below: Tables = kept if isinstance(kept, dict) else {}
                into[name] = below
                self._merge_into(below, value, here, variable)
            else:
                into[name] = list(value) if isinstance(value, list | tuple) else value
                if variable is not None:
                    self.variables[".".join(here)] = variable

    # -- checking

    def checked(self) -> Settings:
        """Return the settings, or raise `ConfigError` with all the faults."""
        for section in self.tables:
            if section not in SECTIONS:
                self._fault(section, f"unknown key; {suggestion(section, SECTIONS)}")
        backends = {name: self._backend(name, table) for name, table in self._named("backends")}
        fitting = {name: backend for name, backend in backends.items() if backend is not None}
        self._check_together(fitting)
        inherited = self.tables.get("caches", {})
        inherited = inherited.get("default", {}) if isinstance(inherited, dict) else {}
        caches = {name: self._cache(name, table, inherited) for name, table in self._named("caches")}
        if self.faults:
            raise ConfigError(self.faults, self.origin, self.environment)
        known = {name: cache for name, cache in caches.items() if cache is not None}
        return Settings(self.origin, self.environment, fitting, known)

    def _named(self, section: str) -> Iterator[tuple[str, Tables]]:
        tables = self.tables.get(section, {})
        if not isinstance(tables, dict):
            self._fault(section, "is a table of tables, by name")
            return
        for name, table in tables.items():
            path = f"{section}.{name}"
            if not _NAME.fullmatch(name):
                self._fault(path, "a name is made of letters, digits, '_', '-' and '.'")
            elif not isinstance(table, dict):
                self._fault(path, "is a table of settings, not a single value")
            else:
                yield name, table

    def _backend(self, name: str, table: Tables) -> BackendSettings | None:
        path = f"backends.{name}"
        given = dict(table)
        type_ = given.pop("type", None)
        if not isinstance(type_, str):
            self._fault(f"{path}.type", "is required, as text")
            return None
        try:
            cls = backend_named(type_)
        except UnknownBackend as error:
            self._fault(f"{path}.type", str(error))
            return None
        made = self._checked(cls.Options, given, path)
        return None if made is None else BackendSettings(type_, cls, made)

    def _cache(self, name: str, table: Tables, inherited: Tables) -> CacheSettings | None:
        path = f"caches.{name}"
        merged = _Reading({}, None)
        merged._merge_into(merged.tables, {"caches": {name: inherited}}, [], None)
        merged._merge_into(merged.tables, {"caches": {name: table}}, [], None)
        made = self._checked(CacheSettings, merged.tables["caches"][name], path)
        if made is not None and made.backend.lower() not in self.tables.get("backends", {}):
            known = self.tables.get("backends", {})
            self._fault(
                f"{path}.backend", f"no backend named {made.backend!r}; {suggestion(made.backend, known)}"
            )
        return made

    def _check_together(self, backends: dict[str, BackendSettings]) -> None:
        for name, backend in backends.items():
            for key, message in backend.cls.faults(backend.options, backends):
                self._fault(f"backends.{name}.{key}", message)

    def _checked(self, model: type[M], values: Tables, path: str) -> M | None:
        made, faults = checked(model, values, path, origin=self._origin)
        self.faults += faults
        return made

    def _fault(self, path: str, message: str) -> None:
        self.faults.append(Fault(path, message + self._origin(path)))

    def _origin(self, path: str) -> str:
        variable = self.variables.get(path) or next(
            (name for at, name in self.variables.items() if at.startswith(path + ".")), None
        )
        return f" (from {variable})" if variable else ""


def _blank() -> Dynaconf:
    """A Dynaconf that has read nothing: no file, no variable."""
    return Dynaconf(environments=False, settings_files=[], loaders=[], core_loaders=[], load_dotenv=False)


def _tables(reader: Dynaconf) -> dict[str, Any]:
    tables: dict[str, Any] = reader.as_dict()
    tables.pop("LOAD_DOTENV", None)
    return tables


_REDIS_SEEDS: Final = {
    "REDIS_HOST": "host",
    "REDIS_PORT": "port",
    "REDIS_PASSWORD": "password",
    "REDIS_DB": "db",
    "REDIS_MAX_CONNECTIONS": "max_connections",
}
