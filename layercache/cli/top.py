"""`layercache top`: the caches of a service, or what their stores know of them, looked at again and again."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Final, Literal, NamedTuple

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from layercache.caches import Caches
from layercache.cli.exits import Exit
from layercache.cli.options import CacheNames, Call, Where
from layercache.cli.printing import console, print_json, print_parts, table
from layercache.cli.service import Service, ServiceFailed
from layercache.cli.stats import (
    NOT_COUNTED,
    failures,
    milliseconds,
    of_service,
    of_stores,
    percent,
    store_parts,
)
from layercache.cli.world import names_in_stores, telling, world
from layercache.sizes import rough_size

__all__ = ["top"]

_Interval = Annotated[float, typer.Option("--interval", "-i", min=0.2, help="Seconds between two looks.")]
_Span = Annotated[
    Literal["1m", "5m", "1h"], typer.Option("--window", "-w", help="What rates are taken over: 1m, 5m or 1h.")
]
_Once = Annotated[bool, typer.Option("--once", help="Look once, print it and end.")]

_FAILED: Final = "bold red"
_WIDE: Final = 110  # columns, where there is room for all that is known
_RIGHT: Final = ("hit rate", "reads/s", "loads/s", "p50", "p95", "stale", "errors", "lag", "bytes")


class _Look(NamedTuple):
    """What was seen: for programs, and for people."""

    plain: dict[str, Any]
    shown: list[RenderableType]
    failed: bool = False


def top(
    caches: CacheNames = None,
    interval: _Interval = 2.0,
    window: _Span = "1m",
    once: _Once = False,
    *,
    where: Where,
    call: Call,
) -> None:
    """Show a service's caches and their layers as they are now, until q or Ctrl-C; with --json a line for each look.

    Times are those of loads, and of reads of a layer; errors those of loads, and of all that a layer does.
    Without --url: what the stores know, which takes them a look at all their keys each time.
    """
    if where.url is not None:
        with telling(call.as_json), Service(where.url, where.token) as service:
            _go_on(lambda: _at_service(service, caches, window), interval, once=once, as_json=call.as_json)
        return
    with world(call) as here:
        names = names_in_stores(here, caches, call.as_json)
        _go_on(lambda: _in_stores(here, names), interval, once=once, as_json=call.as_json)


# -- looking again and again


def _go_on(look: Callable[[], _Look], interval: float, *, once: bool, as_json: bool) -> None:
    seen = look()  # what is wrong from the start is told as everywhere
    if once:
        _print(seen, as_json=as_json)
        if seen.failed:
            raise typer.Exit(Exit.WRONG)
        return
    try:
        if as_json:
            while True:
                _print(seen, as_json=True)
                time.sleep(interval)
                seen = look()
        _show(look, seen, interval)
    except KeyboardInterrupt:
        return


def _print(seen: _Look, *, as_json: bool) -> None:
    if as_json:
        print_json(seen.plain)
    else:
        print_parts(seen.shown)


def _show(look: Callable[[], _Look], seen: _Look, interval: float) -> None:
    help_ = Text("q or Ctrl-C ends\n", "dim")
    with (
        _quit_key() as quits,
        Live(console=console(), screen=sys.stdout.isatty(), auto_refresh=False) as live,
    ):
        while True:
            live.update(Group(help_, *seen.shown), refresh=True)
            if quits(interval):
                return
            try:
                seen = look()
            except ServiceFailed as error:  # it may be back at the next look
                seen = seen._replace(shown=[Text(str(error), _FAILED), *_without_errors(seen.shown)])


def _without_errors(shown: Iterable[RenderableType]) -> list[RenderableType]:
    return [part for part in shown if not (isinstance(part, Text) and part.style == _FAILED)]


def _waited(seconds: float) -> bool:
    time.sleep(seconds)
    return False


@contextmanager
def _quit_key() -> Generator[Callable[[float], bool], None, None]:
    """Give what waits so many seconds, and says whether q was pressed meanwhile."""
    if not sys.stdin.isatty():
        yield _waited
        return
    import termios
    import tty

    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)

    def pressed(seconds: float) -> bool:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([keyboard], [], [], left)[0]:
                typed = os.read(keyboard, 64)
                if not typed or b"q" in typed.lower():
                    return True
        return False

    try:
        yield pressed
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


# -- what is looked at


def _in_stores(caches: Caches, names: Iterable[str]) -> _Look:
    facts = of_stores(caches, names)
    plain = {"note": NOT_COUNTED, "stores": facts}
    return _Look(plain, list(store_parts(facts)), failed=bool(failures(facts)))


def _at_service(service: Service, names: Iterable[str] | None, window: str) -> _Look:
    seen = {name: said["windows"][window] for name, said in of_service(service, names).items()}
    plain = {"url": service.url, "window": window, "caches": seen}
    return _Look(plain, list(_parts(service.url, window, seen)))


def _parts(url: str, window: str, seen: Mapping[str, Mapping[str, Any]]) -> Iterator[RenderableType]:
    yield Text(f"{url}, rates of the last {window}, {time.strftime('%H:%M:%S')}\n")
    is_wide = console().width >= _WIDE
    columns = ["cache", *_RIGHT[:-2], "circuit", *_RIGHT[-2:]]
    if not is_wide:
        columns.remove("p50")
    shown = table(*columns, right=_RIGHT)
    shown.padding = (0, 2 if is_wide else 1, 0, 0)
    for name, counts in seen.items():
        cells = {"cache": Text(name, "bold"), **_cells(counts), "stale": f"{counts['stale_hits']:,}"}
        shown.add_row(*(cells.get(column, "") for column in columns))
        for layer in counts["layers"]:
            cells = _layer_cells(layer, counts["seconds"], is_wide=is_wide)
            shown.add_row(*(cells.get(column, "") for column in columns))
    yield shown
    if not seen:
        yield Text("The service has not used any of its caches yet.")


def _cells(counts: Mapping[str, Any]) -> dict[str, RenderableType]:
    loads = counts["load_times"]
    return {
        "hit rate": percent(counts),
        "reads/s": f"{counts['reads_per_second']:,.1f}",
        "loads/s": f"{counts['loads_per_second']:,.2f}",
        "p50": milliseconds(loads["p50"]),
        "p95": milliseconds(loads["p95"]),
        "errors": f"{counts['load_failures']:,}",
    }


def _layer_cells(layer: Mapping[str, Any], seconds: float, *, is_wide: bool) -> dict[str, RenderableType]:
    gauges, reads = layer["gauges"], layer["reads"]
    cells: dict[str, RenderableType] = {
        "cache": Text(f"  {layer['name']} ({layer['type']})" if is_wide else f"  {layer['name']}"),
        "hit rate": percent(layer),
        "reads/s": f"{(layer['hits'] + layer['misses']) / seconds:,.1f}" if seconds > 0 else "0.0",
        "errors": Text(f"{layer['errors']:,}", "red" if layer["errors"] else ""),
        "circuit": _circuit(layer),
    }
    if reads is not None:
        cells |= {"p50": milliseconds(reads["p50"]), "p95": milliseconds(reads["p95"])}
    if gauges.get("log_lag") is not None:
        cells["lag"] = f"{gauges['log_lag']:.1f} s"
    if "bytes" in gauges:
        cells["bytes"] = rough_size(gauges["bytes"])
    return cells


def _circuit(layer: Mapping[str, Any]) -> Text:
    if layer["gauges"].get("circuits_open", 0):
        return Text("open", _FAILED)
    if layer["degraded"]:
        return Text("failing", "yellow")
    return Text("closed" if "circuits_open" in layer["gauges"] else "", "green")
