"""`layercache warm`: what `@cached(warm=...)` lists is loaded before anybody asks for it."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Sequence
from functools import partial, reduce
from typing import Annotated, Any, NamedTuple

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

from layercache.cli.exits import Exit
from layercache.cli.options import Call
from layercache.cli.printing import print_json, progress
from layercache.cli.world import telling
from layercache.core.warming import Item
from layercache.decorator import Calls, declared
from layercache.default import aclose, configure
from layercache.errors import CacheError, ConfigError
from layercache.warming import WarmReport, awarm, warm

__all__ = ["warm_functions"]

_App = Annotated[
    str,
    typer.Argument(
        metavar="MODULE[:NAME]",
        help="The module to import, and maybe the one function or bound method that is meant.",
    ),
]
_Concurrency = Annotated[int, typer.Option("--concurrency", "-n", min=1, help="How many loads at a time.")]


class _Wanted(NamedTuple):
    """A function, and what of it is to be warm."""

    calls: Calls
    items: list[Item]


def warm_functions(app: _App, concurrency: _Concurrency = 8, *, call: Call) -> None:
    """Load what the @cached(warm=[...]) of a module list and is not there yet; exits 1 where a load fails.

    Several hosts may do this at once: each key is loaded by one of them.
    """
    with telling(call.as_json):
        if call.settings is not None or call.environment is not None:
            configure(call.settings, call.environment)
        reports = asyncio.run(_warmed(_wanted(app), concurrency, call.as_json))
    if call.as_json:
        print_json({"functions": {name: _as_dict(report) for name, report in reports.items()}})
    else:
        _print(reports)
    if any(report.failed for report in reports.values()):
        raise typer.Exit(Exit.WRONG)


# -- what is meant


def _wanted(app: str) -> list[_Wanted]:
    """Return the function that `app` names, or all that its module and what this imports declare."""
    module, _, path = app.partition(":")
    if not module or module.startswith("."):
        raise typer.BadParameter(f"{app!r} is not of the form module:name")
    found = _imported(module)
    if path:
        try:
            found = reduce(getattr, path.split("."), found)
        except AttributeError as error:
            raise typer.BadParameter(f"{module}:{path}: {error}") from None
        calls = getattr(found, "calls", None)
        if isinstance(calls, Calls):
            try:
                return [_Wanted(calls, calls.items(*getattr(found, "args", ())))]
            except (TypeError, CacheError) as error:
                raise typer.BadParameter(str(error)) from None
    if not declared():
        raise typer.BadParameter(f"nothing in {module} has @cached(..., warm=[...])")
    return [_Wanted(calls, calls.items()) for calls in declared()]


def _imported(module: str) -> Any:
    """Return a module that is installed, or stands in the working folder; what it fails with itself is raised."""
    folder = os.getcwd()  # noqa: PTH109
    sys.path.insert(0, folder)  # as `python -m` does
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and not f"{module}.".startswith(f"{error.name}."):
            raise
        raise typer.BadParameter(f"no module named {error.name!r} in {folder} or installed") from None


# -- warming


async def _warmed(wanted: Sequence[_Wanted], concurrency: int, as_json: bool) -> dict[str, WarmReport]:
    """Warm one function after the other, those that are async on the loop and the others beside it."""
    reports: dict[str, WarmReport] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with progress(*columns, as_json=as_json) as shown:
        for calls, items in wanted:
            done = partial(shown.advance, shown.add_task(calls.name, total=len(items)))
            reports[calls.name] = await _report(calls, items, concurrency, done)
    await aclose()
    return reports


async def _report(calls: Calls, items: Sequence[Item], concurrency: int, done: Any) -> WarmReport:
    try:
        cache = calls.view()
    except ConfigError:
        raise
    except (CacheError, NameError) as error:  # it cannot be opened, or its type is not to be found
        return WarmReport(0, 0, {item.key: error for item in items}, 0.0)
    if calls.is_async:
        return await awarm(cache, items, concurrency, None, done)
    return await asyncio.to_thread(warm, cache, items, concurrency, None, done)


# -- what came of it


def _as_dict(report: WarmReport) -> dict[str, Any]:
    failed = {key: _spelled(error) for key, error in report.failed.items()}
    return {
        "loaded": report.loaded,
        "kept": report.kept,
        "failed": failed,
        "seconds": round(report.seconds, 3),
    }


def _print(reports: dict[str, WarmReport]) -> None:
    for name, report in reports.items():
        typer.echo(
            f"{name}: {report.loaded:,} loaded, {report.kept:,} already there, {len(report.failed):,} failed, "
            f"{report.seconds:.2f} s"
        )
    for name, report in reports.items():
        for key, error in report.failed.items():
            typer.echo(f"{name}: {key}: {_spelled(error)}", err=True)


def _spelled(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
