"""The sources of settings, merged into one table: files, environments, variables.

What wins, from weakest to strongest: the built-in default (only where there is no file),
`[default]` of the file, the environment's table, both again of `settings.local.toml` and of
`.secrets.toml` beside it, the seed variables (`REDIS_HOST`…), `LAYERCACHE_…` variables.

Rules:
1. Tables merge deeply; lists, and everything else, replace.
2. Names of environments, sections, backends, caches, their keys, and events are compared without case. What else
   stands deeper (patterns of keys, say) keeps its case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from layercache import seeds
from layercache.errors import ConfigError, Fault, suggestion
from layercache.settings import SECTIONS
from layercache.sources import Tables, Unreadable, cast, files_beside, found_file, parsed, variables

__all__ = ["Reading", "merged"]

_DEEPEST: Final = 8  # what stands below is taken as it is; a table may hold itself

_LOGIN: Final = re.compile(
    r"(?<=://)[^\s'\"]*(?=@)|(?<=password=)[^\s'\"&]+"
)  # in a URL given where a name belongs

_BUILT_IN: Final[Tables] = {
    "backends": {"local": {"type": "memory"}},
    "caches": {"default": {"backend": "local"}},
}
"""What serves where there is no settings file: one cache in memory."""


class Reading:
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
        """Return the error that tells all faults found so far."""
        faults = [Fault(path, _LOGIN.sub("**********", message)) for path, message in self.faults]
        return ConfigError(faults, self.origin, self.environment)

    # -- a mapping

    def read_mapping(self, mapping: Mapping[str, Any]) -> None:
        """Take a mapping of the shape of a file, or of its `[default]` table alone; variables do not change it."""
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
        """Take the file that is named, or found, with those beside it; without any, the built-in default."""
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
        for path in merged(self.tables, tables):
            if variable is not None:
                self.variables[path] = variable

    def origin_of(self, path: str) -> str:
        """Say which variable the value at `path` comes from, if from one."""
        for at, variable in self.variables.items():
            if f"{path}.".startswith(f"{at}.") or path.startswith(f"{at}[") or at.startswith(f"{path}."):
                return f" (from {variable})"
        return ""


def merged(into: Tables, tables: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[str]:
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
            yield from merged(below, value, here)
        else:
            into[name] = [*value] if isinstance(value, list | tuple) else value
            yield ".".join(here)
