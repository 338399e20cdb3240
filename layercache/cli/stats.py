"""`layercache stats`: what caches did, as a service counts it, or what their stores know of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from layercache.caches import Caches
from layercache.cli.exits import Exit
from layercache.cli.options import CacheNames, Call, Where
from layercache.cli.printing import print_json, print_parts, table
from layercache.cli.service import Service
from layercache.cli.world import far_layers, names_in_stores, opened, telling, world
from layercache.durations import spell_duration
from layercache.errors import BackendError
from layercache.sizes import rough_size

__all__ = [
    "NOT_COUNTED",
    "failures",
    "milliseconds",
    "of_service",
    "of_stores",
    "percent",
    "stats",
    "store_parts",
]

NOT_COUNTED: Final = (
    "Hits, misses and loads are counted by each process, for itself: --url asks a service that serves the management "
    "API for its own. What the stores know of all:"
)

_Facts: TypeAlias = dict[str, dict[str, dict[str, Any]]]
"""By cache, and by the name of each store outside of this process: what that knows of it, or its `error`."""

_COUNTED: Final = ("hits", "misses", "stale_hits", "loads", "load_failures", "waits", "timeouts", "refreshes")


def stats(caches: CacheNames = None, *, where: Where, call: Call) -> None:
    """Print what caches did in a service, in all and in the last minute, five minutes and hour.

    Without --url: how much of them the stores have, whichever process put it there.
    """
    if where.url is not None:
        with telling(call.as_json), Service(where.url, where.token) as service:
            counts = of_service(service, caches)
        if call.as_json:
            print_json({"url": service.url, "caches": counts})
        else:
            print_parts(_counts(counts))
        return
    with world(call) as here:
        facts = of_stores(here, names_in_stores(here, caches, call.as_json))
        if call.as_json:
            print_json({"environment": here.settings.environment, "note": NOT_COUNTED, "stores": facts})
        else:
            print_parts(store_parts(facts))
        if failures(facts):
            raise typer.Exit(Exit.WRONG)


# -- a service


def of_service(service: Service, names: Iterable[str] | None) -> dict[str, dict[str, Any]]:
    """Return what a service counts of these caches; of all that it uses where none is named."""
    if not names:
        names = [cache["name"] for cache in service.caches()["caches"] if cache["is_open"]]
    return {name: service.stats(name) for name in names}


def _counts(counts: Mapping[str, Mapping[str, Any]]) -> Iterator[RenderableType]:
    if not counts:
        yield Text("The service has not used any of its caches yet.")
    for number, (name, said) in enumerate(counts.items()):
        yield Text(f"\n{name}" if number else name, "bold")
        yield _spans(said)
        yield _layers(said["total"]["layers"])


def _spans(said: Mapping[str, Any]) -> Table:
    spans = {"all": said["total"], **said["windows"]}
    shown = table("", *spans, right=spans)
    shown.add_row("hit rate", *(percent(each) for each in spans.values()))
    for what in _COUNTED:
        shown.add_row(what.replace("_", " "), *(f"{each[what]:,}" for each in spans.values()))
    rates = (f"{each['reads_per_second']:,.1f}" for each in said["windows"].values())
    shown.add_row("reads/s", "", *rates)
    for part in ("p50", "p95", "p99"):
        shown.add_row(f"load {part}", *(milliseconds(each["load_times"][part]) for each in spans.values()))
    return shown


def _layers(layers: Iterable[Mapping[str, Any]]) -> Table:
    right = ("hit rate", "hits", "misses", "errors", "read p95", "write p95")
    shown = table("layer", *right, "says", right=right)
    for layer in layers:
        shown.add_row(
            f"{layer['name']} ({layer['type']})",
            percent(layer),
            *(f"{layer[what]:,}" for what in ("hits", "misses", "errors")),
            *(milliseconds((layer[what] or {}).get("p95")) for what in ("reads", "writes")),
            ", ".join(f"{what} {value:,.6g}" for what, value in layer["gauges"].items()),
        )
    return shown


def percent(counts: Mapping[str, Any]) -> str:
    """Return the share of reads that were hits; a dash where nothing was read."""
    return f"{counts['hit_rate']:.1%}" if counts["hits"] + counts["misses"] else "-"


def milliseconds(seconds: float | None) -> str:
    """Return `seconds` in milliseconds, as a table shows them."""
    return "-" if seconds is None else f"{seconds * 1000:,.1f} ms"


# -- stores


def of_stores(caches: Caches, names: Iterable[str]) -> _Facts:
    """Return what the stores outside of this process know of these caches."""
    far = {name: far_layers(caches, name) for name in names}
    stores = dict.fromkeys(store for each in far.values() for store in each)
    found: _Facts = {name: {} for name in far}
    for store in stores:
        users = [name for name, each in far.items() if store in each]
        backend = opened(caches, store)
        known: Mapping[str, Mapping[str, Any]]
        try:
            known = backend.survey(users)
        except BackendError as error:
            known = {name: {"error": str(error)} for name in users}
        for name in users:
            found[name][store] = {"type": backend.type, **known.get(name, {})}
    return found


def failures(facts: _Facts) -> list[str]:
    """Return why stores did not answer, each reason once."""
    known = [known for stores in facts.values() for known in stores.values()]
    return list(dict.fromkeys(each["error"] for each in known if "error" in each))


def store_parts(facts: _Facts) -> Iterator[RenderableType]:
    """Yield what to print of what the stores of each cache say of themselves."""
    yield Text(f"{NOT_COUNTED}\n")
    right = ("entries", "bytes", "leases", "log", "last news")
    shown = table("cache", "store", *right, right=right)
    is_exact = True
    for cache, stores in facts.items():
        if not stores:
            shown.add_row(cache, "none: in the memory of each process", *("-" for _ in right))
        for store, known in stores.items():
            where = f"{store} ({known['type']})"
            if "error" in known:
                shown.add_row(cache, where, "failed")
                continue
            about = "" if known.get("looked_at", 1.0) == 1.0 else "~"
            is_exact = is_exact and not about
            shown.add_row(
                cache,
                where,
                *(
                    _fact(known, what, about)
                    for what in ("entries", "bytes", "leases", "log_length", "log_age")
                ),
            )
    yield shown
    if not is_exact:
        yield Text("~ judged by some of the keys, as there are many")
    for error in failures(facts):
        yield Text(error, "red")


def _fact(known: Mapping[str, Any], what: str, about: str) -> str:
    value = known.get(what)
    match what:
        case _ if value is None:
            return "-"
        case "bytes":
            return ("" if not value else "~") + rough_size(value)
        case "log_age":
            return f"{spell_duration(round(value, 1) if value < 60 else round(value))} ago"
        case _:
            return f"{about}{value:,}"
