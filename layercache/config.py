"""settings.toml and the environment, to checked models: the one place that makes `Settings`.

What wins, from weakest to strongest: the built-in default (only where there is no file),
`[default]` of the file, the environment's table, both again of `settings.local.toml` and of
`.secrets.toml` beside it, the seed variables (`REDIS_HOST`…), `LAYERCACHE_…` variables.

Rules:
1. Tables merge deeply; lists, and everything else, replace.
2. Names of environments, sections, backends, caches, their keys, and events are compared without case. What else
   stands deeper (patterns of keys, say) keeps its case.
3. Every fault is found before any is raised; a fault never repeats a value, which may be a secret. It does repeat
   the names of backends, types and stages that it cannot find.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, Field

from layercache import seeds
from layercache.core.policy import Plan, Policy, Refresh, checked_tags
from layercache.errors import ConfigError, Fault, InvalidOption, UnknownBackend, suggestion
from layercache.events import tag_template
from layercache.options import (
    Count,
    Deadline,
    Duration,
    Patience,
    Ratio,
    Secret,
    Span,
    checked,
    options,
    plain,
)
from layercache.registry import backend_named, backend_names
from layercache.sources import Tables, Unreadable, cast, files_beside, found_file, parsed, variables
from layercache.spi import Backend, Opening

__all__ = [
    "SECTIONS",
    "AdminSettings",
    "AlertSettings",
    "BackendSettings",
    "CacheSettings",
    "EventSettings",
    "PatternSettings",
    "Settings",
    "effective",
    "read_settings",
]

SECTIONS: Final = ("backends", "caches", "admin", "alerts")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_LOGIN: Final = re.compile(
    r"(?<=://)[^\s'\"]*(?=@)|(?<=password=)[^\s'\"&]+"
)  # in a URL given where a name belongs
_SHORTEST_TOKEN: Final = 32
_DEEPEST: Final = 8  # what stands below is taken as it is; a table may hold itself

M = TypeVar("M")

_BackendClass: TypeAlias = type[Backend]

_BUILT_IN: Final[Tables] = {
    "backends": {"local": {"type": "memory"}},
    "caches": {"default": {"backend": "local"}},
}
"""What serves where there is no settings file: one cache in memory."""


def _tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return checked_tags(tags)
    except InvalidOption as error:
        raise ValueError(str(error)) from None


_Tags: TypeAlias = Annotated[tuple[str, ...], AfterValidator(_tags)]


@options
class PatternSettings:
    """What the settings say of the keys that a pattern matches; what is left out, the cache says.

    Attributes: those of `CacheSettings`.
    """

    ttl: Duration | None = None
    stale_ttl: Span | None = None
    none_ttl: Span | None = None
    jitter: Ratio | None = None
    refresh: Refresh | None = None
    early_beta: Annotated[float, Field(gt=0.0)] | None = None
    retry_after: Span | None = None
    wait: Patience | None = None
    lease_ttl: Deadline | None = None
    soft_timeout: Patience | None = None
    hard_timeout: Patience | None = None
    tags: _Tags | None = None

    def stated(self) -> dict[str, Any]:
        """Return what it says, by name."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in given.items() if value is not None}


def _templates(tags: tuple[str, ...]) -> tuple[str, ...]:
    try:
        for tag in tags:
            tag_template(tag)
    except InvalidOption as error:
        raise ValueError(str(error)) from None
    return tags


@options
class EventSettings:
    """What the settings have an event do to one cache.

    Attributes:
        tags: templates of the event's fields; what carries one of them is invalid when it is emitted. A list instead
            of the table is this.
        soft: whether it is stale then, and not gone.
    """

    tags: Annotated[_Tags, AfterValidator(_templates)]
    soft: bool = False


@options
class CacheSettings:
    """What the settings say of one cache.

    Attributes:
        backend: the name of its backend.
        ttl: how long an entry is fresh where nothing else says; `"forever"` is allowed.
        ttls: patterns of keys to their own ttl: the short form of `patterns` where a ttl is all there is to say.
        patterns: patterns of keys to tables of `ttl` and of what follows down to `tags`.
        stale_ttl, none_ttl, jitter, refresh, early_beta, retry_after, wait, lease_ttl, soft_timeout, hard_timeout: how
            values are loaded and kept, as `LoadOptions` describes.
        tags: what `invalidate` knows its values by.
        events: by name, what an event makes invalid.
        max_key_bytes: the longest key, in UTF-8.
        isolation: `"copy"`, or `"reference"` to let readers in this process share values that can be changed.
    """

    backend: Annotated[str, AfterValidator(str.lower)]
    ttl: Duration = 300.0
    ttls: dict[str, Duration] = field(default_factory=dict[str, float])
    patterns: dict[str, PatternSettings] = field(default_factory=dict[str, PatternSettings])
    stale_ttl: Span = 0.0
    none_ttl: Span | None = None
    jitter: Ratio = 0.0
    refresh: Refresh = "background"
    early_beta: Annotated[float, Field(gt=0.0)] = 1.0
    retry_after: Span = 5.0
    wait: Patience = 30.0
    lease_ttl: Deadline = 30.0
    soft_timeout: Patience = math.inf
    hard_timeout: Patience = math.inf
    tags: _Tags = ()
    events: dict[str, EventSettings] = field(default_factory=dict[str, EventSettings])
    max_key_bytes: Count = 1024
    isolation: Literal["copy", "reference"] = "copy"

    def policy(self) -> Policy:
        """Return how its entries live and are loaded."""
        names = [each.name for each in fields(PatternSettings)]
        base = Plan(**{name: getattr(self, name) for name in names})
        patterns = {pattern: settings.stated() for pattern, settings in self.patterns.items()}
        for pattern, ttl in self.ttls.items():
            patterns.setdefault(pattern, {})["ttl"] = ttl
        return Policy(base, patterns, self.max_key_bytes)


def _token(token: Secret) -> Secret:
    text = token.get_secret_value()
    if len(text) < _SHORTEST_TOKEN:
        raise ValueError(
            f"is too short for a token: {_SHORTEST_TOKEN} characters or more, such as `openssl rand -hex 32` prints"
        )
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("is no token: it has to be made of ASCII letters, digits and signs, without blanks")
    return token


_Token: TypeAlias = Annotated[Secret, AfterValidator(_token)]


@options
class AdminSettings:
    """What the settings say of the management API and the dashboard.

    Attributes:
        read_token: who sends it may look. Without any token only clients of this same machine are served.
        write_token: who sends it may look, delete, invalidate, clear and warm as well.
        show_values: whether cached values are shown, to who asks for them.
    """

    read_token: _Token | None = None
    write_token: _Token | None = None
    show_values: bool = False


@options
class AlertSettings:
    """When the settings have something be said to be wrong; what is left out is not looked at.

    Attributes:
        window: over which rates are taken: "1m", "5m" or "1h".
        hit_rate_under: of a cache, 0.0 to 1.0.
        memory_over: how full a layer in memory is, of its entries or its bytes, 0.0 to 1.0.
        circuit_open_longer_than: of a far layer.
        log_lag_over: since what is known of other processes was confirmed.
        load_errors_over: failures among all loads of a cache, 0.0 to 1.0.
        least_reads, least_loads: rates of fewer in the window say nothing.
        ignore: names of caches that are not looked at.
    """

    window: Literal["1m", "5m", "1h"] = "5m"
    hit_rate_under: Ratio | None = None
    memory_over: Ratio | None = None
    circuit_open_longer_than: Span | None = None
    log_lag_over: Span | None = None
    load_errors_over: Ratio | None = None
    least_reads: Count = 100
    least_loads: Count = 10
    ignore: tuple[Annotated[str, AfterValidator(str.lower)], ...] = ()

    @property
    def is_wanted(self) -> bool:
        """Whether there is a threshold."""
        thresholds = (
            self.hit_rate_under,
            self.memory_over,
            self.circuit_open_longer_than,
            self.log_lag_over,
            self.load_errors_over,
        )
        return any(threshold is not None for threshold in thresholds)


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """What the settings say of one backend: its type, the class behind that, and its checked options.

    Class and options are None where the package that offers the type cannot be imported, which is nobody's
    trouble until the backend is opened.
    """

    type: str
    cls: _BackendClass | None
    options: Any

    def open(self, opening: Opening) -> Backend:
        """Return the backend, opened. Raises `ImportError` where its package cannot be imported."""
        backend: Backend = (self.cls or backend_named(self.type))(opening)
        backend.type = self.type
        return backend


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force.

    Attributes:
        origin: the file they were read from, or what stood in for one.
        environment: the environment that was chosen.
        backends, caches: by name, in the order of the file.
        admin: of the management API.
        alerts: the thresholds.
    """

    origin: str
    environment: str
    backends: dict[str, BackendSettings]
    caches: dict[str, CacheSettings]
    admin: AdminSettings = field(default_factory=AdminSettings)
    alerts: AlertSettings = field(default_factory=AlertSettings)


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
    reading = _Reading(os.environ if environ is None else environ, environment)
    if isinstance(source, Mapping):
        reading.read_mapping(source)
    else:
        reading.read_file(source)
        reading.read_variables()
    return _Check(reading).settings()


def effective(settings: Settings) -> dict[str, Any]:
    """Return the settings in force as tables ready for JSON or TOML.

    Every default is filled in, what is not set is left out; durations and sizes are text, secrets are asterisks. There
    is no table of the management API, or of alerts, where nothing is said of it.
    """
    said: dict[str, Any] = {}
    if settings.admin != AdminSettings():
        said["admin"] = plain(settings.admin)
    if settings.alerts != AlertSettings():
        said["alerts"] = plain(settings.alerts)
    return {
        "backends": {
            name: {"type": backend.type, **plain(backend.options)}
            for name, backend in settings.backends.items()
        },
        "caches": {name: plain(cache) for name, cache in settings.caches.items()},
        **said,
    }


class _Reading:
    """The sources, merged: the tables, which variable gave what, and the faults so far."""

    def __init__(self, environ: Mapping[str, str], asked_for: str | None) -> None:
        self.environ = environ
        self.chosen_by_variable = not asked_for
        self.asked_for = asked_for or environ.get("LAYERCACHE_ENV") or None
        self.environment = (self.asked_for or "development").lower()
        self.origin = "the built-in default"
        self.tables: Tables = {}
        self.variables: dict[str, str] = {}  # path -> the variable that gave its value
        self.faults: list[Fault] = []

    def error(self) -> ConfigError:
        faults = [Fault(path, _LOGIN.sub("**********", message)) for path, message in self.faults]
        return ConfigError(faults, self.origin, self.environment)

    # -- a mapping

    def read_mapping(self, mapping: Mapping[str, Any]) -> None:
        self.origin = "a mapping"
        names = {str(name).lower() for name in mapping}
        if mapping and ("default" in names or names.isdisjoint(SECTIONS)):
            self._read_environments([mapping])
            return
        if not self.chosen_by_variable:
            self._check_asked_for(["default"])  # the variable chooses among environments; here are none
        self._merge_sections(mapping, "")

    # -- a file, those beside it, and their environments

    def read_file(self, source: str | Path | None) -> None:
        try:
            file = found_file(source, self.environ)
        except Unreadable as unreadable:
            self.origin = unreadable.place
            self._unreadable(unreadable)
            raise self.error() from None
        if file is None:
            self._check_asked_for(["default"])
            self._merge(_BUILT_IN)
            return
        self.origin = str(file)
        self._read_environments(self._parsed([file, *files_beside(file)]))

    def _parsed(self, files: Iterable[Path]) -> list[Tables]:
        contents: list[Tables] = []
        for file in files:
            try:
                contents.append(parsed(file))
            except Unreadable as unreadable:
                self._unreadable(unreadable)
        if self.faults:
            raise self.error()  # what one file lacks would be no fault of the others
        return contents

    def _read_environments(self, sources: Iterable[Mapping[str, Any]]) -> None:
        listed = [(str(name).lower(), table) for source in sources for name, table in source.items()]
        self._check_asked_for(dict.fromkeys(name for name, _ in listed if name not in SECTIONS))
        for source in sources:
            for name in dict.fromkeys(("default", self.environment)):
                for given, table in source.items():
                    if str(given).lower() == name and isinstance(table, Mapping):
                        self._merge_sections(table, name)
        for name, table in listed:
            self._check_environment(name, table)

    def _check_asked_for(self, known: Iterable[str]) -> None:
        names = list(known)
        if self.asked_for and self.environment not in {*names, "default"}:
            message = f"no such environment; {suggestion(self.environment, names)}"
            if self.chosen_by_variable:
                message += " (from LAYERCACHE_ENV)"
            self.faults.append(Fault(self.environment, message))
            raise self.error()

    def _check_environment(self, name: str, table: Any) -> None:
        """Look at an environment's outline, chosen or not: a wrong one is better found before it is deployed."""
        if name in SECTIONS:
            self.faults.append(Fault(name, f"stands outside an environment; write [default.{name}]"))
        elif not isinstance(table, Mapping):
            self.faults.append(Fault(name, "is a single value, where only environments stand"))
        elif name not in {"default", self.environment}:
            for section in table:
                self._is_section(str(section), name)

    def _merge_sections(self, table: Mapping[str, Any], environment: str) -> None:
        self._merge(
            {name: value for name, value in table.items() if self._is_section(str(name), environment)}
        )

    def _is_section(self, name: str, environment: str) -> bool:
        known = name.lower() in SECTIONS
        if not known:
            path = f"{environment}.{name}" if environment else name
            self.faults.append(Fault(path, f"unknown key; {suggestion(name.lower(), SECTIONS)}"))
        return known

    # -- variables

    def read_variables(self) -> None:
        """Merge the seed variables, then `LAYERCACHE_A__B__C=value`."""
        given = list(self._cast_variables())
        for path, value, variable in given:  # seeds look for the backends that these may define…
            self._merge_at(path, value, variable)
        try:
            self._plant(seeds.switch(self.tables, self.environ))
        except Unreadable as unreadable:
            self._unreadable(unreadable)
        self._plant(seeds.values(self.tables, self.environ))
        for path, value, variable in given:  # …and are weaker than they
            self._merge_at(path, value, variable)

    def _cast_variables(self) -> Iterator[tuple[list[str], Any, str]]:
        for variable, path in variables(self.environ):
            if "" in path:
                self.faults.append(Fault(variable, "names no setting, as LAYERCACHE_CACHES__STOCK__TTL does"))
            elif path[0].lower() not in SECTIONS:
                message = f"unknown key; {suggestion(path[0].lower(), SECTIONS)} (from {variable})"
                self.faults.append(Fault(path[0].lower(), message))
            else:
                try:
                    yield path, cast(variable, self.environ[variable]), variable
                except Unreadable as unreadable:
                    self._unreadable(unreadable)

    def _plant(self, planted: Iterable[seeds.Seed]) -> None:
        for seed in planted:
            self._merge_at(seed.path, seed.value, seed.variable)

    def _unreadable(self, unreadable: Unreadable) -> None:
        self.faults.append(Fault(unreadable.place, str(unreadable)))

    # -- merging

    def _merge_at(self, path: Iterable[str], value: Any, variable: str) -> None:
        for part in reversed([*path]):
            value = {part: value}
        self._merge(value, variable)

    def _merge(self, tables: Mapping[str, Any], variable: str | None = None) -> None:
        for path in _merged(self.tables, tables):
            if variable is not None:
                self.variables[path] = variable

    def origin_of(self, path: str) -> str:
        """Say which variable the value at `path` comes from, if from one."""
        for at, variable in self.variables.items():
            if f"{path}.".startswith(f"{at}.") or path.startswith(f"{at}[") or at.startswith(f"{path}."):
                return f" (from {variable})"
        return ""


def _merged(into: Tables, tables: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[str]:
    """Merge `tables` into others, yielding the path of each value."""
    for given, value in tables.items():
        # section, name and key are compared without case; patterns of keys are not
        is_name = len(path) < len(("section", "name", "key")) or (path[0], *path[2:]) == ("caches", "events")
        name = str(given).lower() if is_name else str(given)
        here = (*path, name)
        if isinstance(value, Mapping) and len(here) < _DEEPEST:
            kept = into.get(name)
            below: Tables = kept if isinstance(kept, dict) else {}
            into[name] = below
            yield from _merged(below, value, here)
        else:
            into[name] = [*value] if isinstance(value, list | tuple) else value
            yield ".".join(here)


class _Check:
    """One check of what was read: every table becomes its model, or faults."""

    def __init__(self, reading: _Reading) -> None:
        self.reading = reading
        self.faults = reading.faults
        self.backends = dict(self._named("backends"))
        self.caches = dict(self._named("caches"))

    def settings(self) -> Settings:
        """Return the settings, or raise `ConfigError` with all the faults."""
        backends = {name: self._backend(name, table) for name, table in self.backends.items()}
        self._check_together(backends)
        caches = {name: self._cache(name, table) for name, table in self.caches.items()}
        admin, alerts = self._admin(), self._alerts()
        if self.faults:
            raise self.reading.error()
        return Settings(
            self.reading.origin,
            self.reading.environment,
            {name: backend for name, backend in backends.items() if backend is not None},
            {name: cache for name, cache in caches.items() if cache is not None},
            admin or AdminSettings(),
            alerts or AlertSettings(),
        )

    def _named(self, section: str) -> Iterator[tuple[str, Tables]]:
        tables = self.reading.tables.get(section, {})
        if not isinstance(tables, dict):
            self._fault(section, f"has to be a table of {section} by name")
            return
        for name, table in tables.items():
            path = f"{section}.{name}"
            if not _NAME.fullmatch(name):
                self._fault(
                    path,
                    "a name is made of letters, digits, '_', '-' and '.', and begins with one of the first two",
                )
            elif not isinstance(table, dict):
                self._fault(path, "has to be a table of settings, not a single value")
            else:
                yield name, table

    # -- backends

    def _backend(self, name: str, table: Tables) -> BackendSettings | None:
        path = f"backends.{name}"
        given = dict(table)
        type_ = given.pop("type", None)
        if not isinstance(type_, str):
            message = f"has to be the name of a type; there are {', '.join(backend_names())}"
            by_variables = all(self.reading.origin_of(f"{path}.{key}") for key in table)
            self._fault(f"{path}.type", message, of=path if by_variables else None)
            return None
        try:
            cls = backend_named(type_)
        except UnknownBackend as error:
            self._fault(f"{path}.type", str(error))
            return None
        except ImportError:
            return BackendSettings(type_, None, None)
        except (AttributeError, TypeError) as error:
            self._fault(f"{path}.type", f"{type_!r} cannot be loaded: {error}")
            return None
        made = self._checked(cls.Options, given, path)
        return None if made is None else BackendSettings(type_, cls, made)

    def _check_together(self, backends: Mapping[str, BackendSettings | None]) -> None:
        """Let each backend look at the others. One with faults of its own is shown without its options."""
        shown = {
            name: backend or BackendSettings(str(self.backends[name].get("type")), None, None)
            for name, backend in backends.items()
        }
        for name, backend in backends.items():
            if backend is not None and backend.cls is not None:
                for key, message in backend.cls.faults(backend.options, shown):
                    self._fault(f"backends.{name}.{key}", message)

    # -- caches

    def _cache(self, name: str, table: Tables) -> CacheSettings | None:
        path = f"caches.{name}"
        inherited = {} if name == "default" else self.caches.get("default", {})
        merged = _inheriting(table, inherited)
        given = {key: value for key, value in merged.items() if key != "events"}
        made, faults = checked(CacheSettings, given, path, origin=self.reading.origin_of)
        events, more = self._events(f"{path}.events", merged.get("events", {}))
        faults += more
        if made is not None:
            made = replace(made, events=events)
        # what is inherited is at fault once, where it stands
        self.faults += [
            fault for fault in faults if not _stands(fault, path, inherited) or _stands(fault, path, table)
        ]
        if made is not None:
            self._check_patterns(path, made)
        backend, known = table.get("backend"), self._known_backends()
        if isinstance(backend, str) and backend.lower() not in known:
            self._fault(
                f"{path}.backend", f"no backend named {backend!r}; {suggestion(backend.lower(), known)}"
            )
        return made

    def _events(self, path: str, tables: Any) -> tuple[dict[str, EventSettings], list[Fault]]:
        if not isinstance(tables, Mapping):
            return {}, [Fault(path, f"has to be a table{self.reading.origin_of(path)}")]
        events: dict[str, EventSettings] = {}
        faults: list[Fault] = []
        for name, given in tables.items():
            where = f"{path}.{name}"
            is_short = not isinstance(given, Mapping)
            made, wrong = checked(
                EventSettings, {"tags": given} if is_short else given, where, origin=self.reading.origin_of
            )
            if made is not None:
                events[name] = made
            for fault in wrong:  # the list itself stands where the table would
                at = where + fault.path.removeprefix(f"{where}.tags") if is_short else fault.path
                faults.append(Fault(at, fault.message))
        return events, faults

    def _check_patterns(self, path: str, cache: CacheSettings) -> None:
        stated = {path: dict[str, Any]()}
        for pattern, settings in cache.patterns.items():
            where = f"{path}.patterns.{pattern}"
            stated[where] = settings.stated()
            if settings.ttl is not None and pattern in cache.ttls:
                self._fault(f"{where}.ttl", "stands under `ttls` as well; one is enough")
        for where, given in stated.items():
            hard = given.get("hard_timeout", cache.hard_timeout)
            if given.get("lease_ttl", cache.lease_ttl) < hard < math.inf:
                self._fault(
                    f"{where}.hard_timeout", "is more than `lease_ttl`: what takes longer is not stored"
                )

    def _known_backends(self) -> Mapping[str, Any]:
        tables = self.reading.tables.get("backends")
        return tables if isinstance(tables, dict) else {}

    # -- the management API, and alerts

    def _admin(self) -> AdminSettings | None:
        made = self._table(AdminSettings, "admin")
        if made is not None and made.read_token is not None and made.read_token == made.write_token:
            self._fault("admin.write_token", "is the same as `read_token`: who may look could write")
        return made

    def _alerts(self) -> AlertSettings | None:
        made = self._table(AlertSettings, "alerts")
        for at, name in enumerate(made.ignore if made is not None else ()):
            if name not in self.caches:
                self._fault(
                    f"alerts.ignore[{at}]", f"no cache named {name!r}; {suggestion(name, self.caches)}"
                )
        return made

    def _table(self, model: type[M], section: str) -> M | None:
        table = self.reading.tables.get(section, {})
        if not isinstance(table, dict):
            self._fault(section, "has to be a table of settings, not a single value")
            return None
        return self._checked(model, table, section)

    # -- all of them

    def _checked(self, model: type[M], values: Tables, path: str) -> M | None:
        made, faults = checked(model, values, path, origin=self.reading.origin_of)
        self.faults += faults
        return made

    def _fault(self, path: str, message: str, *, of: str | None = None) -> None:
        self.faults.append(Fault(path, message + self.reading.origin_of(of or path)))


def _inheriting(table: Tables, inherited: Tables) -> Tables:
    cache: Tables = {}
    for tables in (inherited, table):
        for _ in _merged(cache, tables, ("caches", "name")):
            pass
    return cache


def _stands(fault: Fault, path: str, table: Tables) -> bool:
    """Say whether what `fault` is about stands in the `table` at `path`."""
    keys = re.split(r"\[", fault.path.removeprefix(f"{path}."), maxsplit=1)[0]
    first, _, rest = keys.partition(".")
    value = table.get(first)
    if isinstance(value, dict) and rest:
        return any(f"{rest}.".startswith(f"{name}.") for name in value)
    return first in table
