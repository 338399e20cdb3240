"""How the commands show things: tables without lines, as wide as the terminal, plain where there is none."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any, Final

import typer
from rich.console import Console, RenderableType
from rich.progress import Progress, ProgressColumn
from rich.table import Table

__all__ = ["answer_to", "console", "counted", "print_json", "print_parts", "printable", "progress", "table"]

_PIPED: Final = 120  # columns, where there is no terminal to fill


def console() -> Console:
    """Return where to print: as wide as the terminal; into a pipe, wide enough for a table."""
    # what is printed may come from a key or a server: a bracket in it is a bracket
    made = Console(highlight=False, markup=False)
    return made if made.is_terminal else Console(highlight=False, markup=False, width=_PIPED)


def table(*columns: str, right: Iterable[str] = (), is_headed: bool = True) -> Table:
    """Return a table with these columns, those of `right` set to the right."""
    made = Table(box=None, show_header=is_headed, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def print_parts(parts: Iterable[RenderableType]) -> None:
    """Print each, without the blanks at the ends of their lines."""
    shown = console()
    with shown.capture() as printed:
        for part in parts:
            shown.print(part)
    for line in printed.get().splitlines():
        typer.echo(line.rstrip())


def progress(*columns: ProgressColumn, as_json: bool) -> Progress:
    """Return what shows how far something is, beside the output and only to who looks."""
    beside = Console(stderr=True)
    return Progress(*columns, console=beside, transient=True, disable=as_json or not beside.is_terminal)


def print_json(tables: dict[str, Any]) -> None:
    """Print one JSON document on a line."""
    typer.echo(json.dumps(tables, ensure_ascii=False, default=str))


def answer_to(question: str) -> str:
    """Ask on stderr, so that what is printed stays what was asked for; nobody there to answer ends the command."""
    typer.echo(f"{question} ", nl=False, err=True)
    answer = sys.stdin.readline()
    if not answer:
        typer.echo(err=True)
        raise typer.Abort
    return answer.strip()


def printable(text: str) -> str:
    """Return `text` without what a terminal would take for orders: a key or a tag may be anybody's."""
    return "".join(sign if sign.isprintable() or sign == "\n" else repr(sign)[1:-1] for sign in text)


def counted(count: int, what: str) -> str:
    """Return a count with its noun, in the plural where it is not one."""
    return f"{count:,} {what if count == 1 else f'{what}s'}"
