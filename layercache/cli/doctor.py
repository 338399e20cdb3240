"""`layercache doctor`: how the backends of an environment are, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from layercache.caches import Caches
from layercache.cli.exits import Exit
from layercache.cli.printing import counted, print_json, print_parts
from layercache.cli.world import AsJson, Environment, SettingsFile, backend_of, opened, world
from layercache.errors import CacheError
from layercache.spi import Finding

__all__ = ["doctor"]

_STYLES: Final = {"ok": "green", "warning": "yellow", "error": "bold red"}


class _Examined(NamedTuple):
    """A backend, the caches that use it, and what was found."""

    name: str
    type: str
    caches: list[str]
    findings: list[Finding]


def doctor(settings: SettingsFile = None, environment: Environment = None, as_json: AsJson = False) -> None:
    """Connect each backend in use and print how it is, with a fix for what is wrong; an error exits 1."""
    with world(settings, environment, as_json) as caches:
        examined = list(_all_examined(caches))
    counts = {
        level: sum(finding.level == level for one in examined for finding in one.findings)
        for level in ("error", "warning")
    }
    if as_json:
        backends = {
            one.name: {
                "type": one.type,
                "caches": one.caches,
                "findings": [finding._asdict() for finding in one.findings],
            }
            for one in examined
        }
        read = caches.settings
        print_json(
            {
                "origin": read.origin,
                "environment": read.environment,
                "errors": counts["error"],
                "warnings": counts["warning"],
                "backends": backends,
            }
        )
    else:
        print_parts(_parts(caches, examined, counts["error"], counts["warning"]))
    if counts["error"]:
        raise typer.Exit(Exit.WRONG)


def _all_examined(caches: Caches) -> Iterator[_Examined]:
    users = _users(caches)
    for name, backend in caches.settings.backends.items():
        used_by = users.get(name, [])
        yield _Examined(name, backend.type, used_by, list(_findings(caches, name, used_by)))


def _users(caches: Caches) -> dict[str, list[str]]:
    """Return which caches use a backend, by themselves or as a layer of what they use."""
    users: dict[str, list[str]] = {}
    for cache, chosen in caches.settings.caches.items():
        users.setdefault(chosen.backend, []).append(cache)
        try:
            layers = backend_of(caches, cache).key_space(cache).layers()
        except CacheError:
            continue  # which is found again when the backend's turn comes
        for layer in layers:
            users.setdefault(layer.name, []).append(cache)
    return users


def _findings(caches: Caches, name: str, used_by: list[str]) -> Iterator[Finding]:
    if not used_by:
        yield Finding("ok", "use", "not looked at, as no cache of this environment uses it")
        return
    try:
        yield from opened(caches, name).examine(used_by)
    except CacheError as error:
        yield Finding("error", "backend", str(error))
    if caches.settings.backends[name].type == "null" and caches.settings.environment == "production":
        fix = 'name a backend that stores, such as one with type = "memory"'
        yield Finding("warning", "storage", f"nothing is cached in production for {', '.join(used_by)}", fix)


# -- for people


def _parts(caches: Caches, examined: list[_Examined], errors: int, warnings: int) -> Iterator[RenderableType]:
    yield Text(f"{caches.settings.origin}, environment {caches.settings.environment!r}")
    width = max((len(finding.subject) for one in examined for finding in one.findings), default=0)
    for one in examined:
        used_by = f" of {', '.join(one.caches)}" if one.caches else ""
        yield Text.assemble("\n", (one.name, "bold"), f" ({one.type}){used_by}")
        found = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        found.add_column(width=len("warning"))
        found.add_column(width=width)
        found.add_column()
        for finding in one.findings:
            said = Text(finding.message)
            if finding.fix:
                said.append(f"\nfix: {finding.fix}", "cyan")
            found.add_row(Text(finding.level, _STYLES[finding.level]), Text(finding.subject), said)
        yield found
    yield Text(f"\n{counted(errors, 'error')}, {counted(warnings, 'warning')}")
