"""`layercache doctor`: how the backends of an environment are, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

import typer
from rich.console import RenderableType
from rich.text import Text

from layercache.caches import Caches
from layercache.cli.exits import Exit
from layercache.cli.options import Call
from layercache.cli.printing import counted, print_json, print_parts, table
from layercache.cli.world import backend_of, opened, world
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


def doctor(call: Call) -> None:
    """Connect each backend in use and print how it is, with a fix for what is wrong; an error exits 1."""
    with world(call) as caches:
        examined = list(_all_examined(caches))
    counts: Counter[str] = Counter(finding.level for one in examined for finding in one.findings)
    if call.as_json:
        _print_json(caches, examined, counts)
    else:
        print_parts(_parts(caches, examined, counts))
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


# -- for programs, and for people


def _print_json(caches: Caches, examined: list[_Examined], counts: Counter[str]) -> None:
    backends = {
        one.name: {
            "type": one.type,
            "caches": one.caches,
            "findings": [finding._asdict() for finding in one.findings],
        }
        for one in examined
    }
    about = {"origin": caches.settings.origin, "environment": caches.settings.environment}
    print_json({**about, "errors": counts["error"], "warnings": counts["warning"], "backends": backends})


def _parts(caches: Caches, examined: list[_Examined], counts: Counter[str]) -> Iterator[RenderableType]:
    yield Text(f"{caches.settings.origin}, environment {caches.settings.environment!r}")
    width = max((len(finding.subject) for one in examined for finding in one.findings), default=0)
    for one in examined:
        used_by = f" of {', '.join(one.caches)}" if one.caches else ""
        yield Text.assemble("\n", (one.name, "bold"), f" ({one.type}){used_by}")
        found = table("level", "subject", "message", is_headed=False)
        found.columns[0].width, found.columns[1].width = len("warning"), width
        for finding in one.findings:
            said = Text(finding.message)
            if finding.fix:
                said.append(f"\nfix: {finding.fix}", "cyan")
            found.add_row(Text(finding.level, _STYLES[finding.level]), Text(finding.subject), said)
        yield found
    yield Text(f"\n{counted(counts['error'], 'error')}, {counted(counts['warning'], 'warning')}")
