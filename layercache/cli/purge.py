"""`layercache purge`: gives back the space of what a clear has left behind."""

from __future__ import annotations

from typing import Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from layercache.caches import Caches
from layercache.cli.exits import Exit
from layercache.cli.options import CacheNames, Call
from layercache.cli.printing import print_json, progress
from layercache.cli.world import backend_of, wanted_names, world
from layercache.errors import CacheError

__all__ = ["purge"]


def purge(names: CacheNames = None, *, call: Call) -> None:
    """Give back the space of entries that a clear has made invalid; a backend that fails exits 1.

    Looks through the keys of each cache in small steps, so that the server goes on serving others.
    """
    counts = TextColumn("{task.fields[looked_at]:,} looked at, {task.fields[dropped]:,} dropped")
    # how far there is to go nobody knows
    columns = (TextColumn("{task.description}"), BarColumn(), counts, TimeElapsedColumn())
    with world(call) as caches, progress(*columns, as_json=call.as_json) as shown:
        done = {cache: _purged(caches, cache, shown) for cache in wanted_names(caches, names)}
    if call.as_json:
        read = caches.settings
        print_json({"origin": read.origin, "environment": read.environment, "caches": done})
    else:
        _print(done)
    if any("error" in result for result in done.values()):
        raise typer.Exit(Exit.WRONG)


def _purged(caches: Caches, cache: str, shown: Progress) -> dict[str, Any]:
    result: dict[str, Any] = {"looked_at": 0, "dropped": 0}
    task = shown.add_task(cache, total=None, **result)
    try:
        for looked_at, dropped in backend_of(caches, cache).purge(cache):
            result["looked_at"] += looked_at
            result["dropped"] += dropped
            shown.update(task, **result)
    except CacheError as error:
        result["error"] = str(error)
    shown.update(task, total=1, completed=1)
    return result


def _print(done: dict[str, dict[str, Any]]) -> None:
    for cache, result in done.items():
        if "error" in result:
            typer.echo(f"{cache}: {result['error']}", err=True)
        else:
            typer.echo(f"{cache}: {result['looked_at']:,} looked at, {result['dropped']:,} dropped")
