"""settings.toml and the environment, to checked models: the one place that makes `Settings`.

`reading` has what wins over what, `settings` what each key may be. Rule: every fault is found before any is raised; a
fault never repeats a value, which may be a secret. It does repeat the names of backends, types and stages that it
cannot find.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from layercache.errors import Fault, UnknownBackend, suggestion
from layercache.options import (
    checked,
    plain,
)
from layercache.reading import Reading, merged
from layercache.registry import backend_named, backend_names
from layercache.settings import (
    AdminSettings,
    AlertSettings,
    BackendSettings,
    CacheSettings,
    EventSettings,
    Settings,
)
from layercache.sources import Tables

__all__ = ["effective", "read_settings"]

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]*")

M = TypeVar("M")


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
    reading = Reading(os.environ if environ is None else environ, environment)
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


class _Check:
    """One check of what was read: every table becomes its model, or faults."""

    def __init__(self, reading: Reading) -> None:
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
        for _ in merged(cache, tables, ("caches", "name")):
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
