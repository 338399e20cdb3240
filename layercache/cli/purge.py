"""`layercache purge`: gives back the space of what a clear has left behind."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from layercache.caches import Caches
from layercache.cli.exits import Exit
from layercache.cli.printing import print_json
from layercache.cli.world import (
    AsJson,
    CacheNames,
    Environment,
    SettingsFile,
    backend_of,
    wanted_names,
    world,
)
from layercache.errors import CacheError

__all__ = ["purge"]


def purge(
    names: CacheNames = None,
    settings: SettingsFile = None,
    environment: Environment = None,
    as_json: AsJson = False,
) -> None:
    """Give back the space of entries that a clear has made invalid; a backend that fails exits 1.

    Looks through the keys of each cache in small steps, so that the server goes on serving others.
    """
    with world(settings, environment, as_json) as caches:
        done: dict[str, dict[str, Any]] = {}
        with _progress(as_json) as progress:
            for cache in wanted_names(caches, names):
                done[cache] = _purged(caches, cache, progress)
    if as_json:
        read = caches.settings
        print_json({"origin": read.origin, "environment": read.environment, "caches": done})
    else:
        for cache, result in done.items():
            if "error" not in result:
                typer.echo(f"{cache}: {result['looked_at']:,} looked at, {result['dropped']:,} dropped")
    failed = {cache: result["error"] for cache, result in done.items() if "error" in result}
    if failed and not as_json:
        for cache, error in failed.items():
            typer.echo(f"{cache}: {error}", err=True)
    if failed:
        raise typer.Exit(Exit.WRONG)


def _purged(caches: Caches, cache: str, progress: Progress) -> dict[str, Any]:
    result: dict[str, Any] = {"looked_at": 0, "dropped": 0}
    task: TaskID = progress.add_task(cache, total=None, **result)
    try:
        for looked_at, dropped in backend_of(caches, cache).purge(cache):
            result["looked_at"] += looked_at
            result["dropped"] += dropped
            progress.update(task, **result)
    except CacheError as error:
        result["error"] = str(error)
    progress.update(task, total=1, completed=1)
    return result


@contextmanager
def _progress(as_json: bool) -> Generator[Progress, None, None]:
    """Show how far it is, beside the output and only to who looks; how far there is to go nobody knows."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[looked_at]:,} looked at, {task.fields[dropped]:,} dropped"),
        TimeElapsedColumn(),
    )
    hidden = as_json or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        yield progress
