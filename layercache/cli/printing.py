"""How the commands show things: tables without lines, as wide as the terminal, plain where there is none."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any, Final

import typer
from rich.console import Console, RenderableType
from rich.table import Table

__all__ = ["answer_to", "console", "counted", "print_json", "print_parts", "size", "table"]

_PIPED: Final = 120  # columns, where there is no terminal to fill


def console() -> Console:
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=_PIPED)


def table(*columns: str, right: Iterable[str] = (), is_headed: bool = True) -> Table:
    """Return a table with these columns, those of `right` set to the right."""
    made = Table(box=None, show_header=is_headed, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def print_parts(parts: Iterable[RenderableType]) -> None:
    shown = console()
    with shown.capture() as printed:
        for part in parts:
            shown.print(part)
    for line in printed.get().splitlines():
        typer.echo(line.rstrip())


def print_json(tables: dict[str, Any]) -> None:
    typer.echo(json.dumps(tables, ensure_ascii=False, default=str))


def answer_to(question: str) -> str:
    """Ask on stderr, so that what is printed stays what was asked for; nobody there to answer ends the command."""
    typer.echo(f"{question} ", nl=False, err=True)
    answer = sys.stdin.readline()
    if not answer:
        typer.echo(err=True)
        raise typer.Abort
    return answer.strip()


def counted(count: int, what: str, several: str = "") -> str:
    return f"{count:,} {what if count == 1 else several or f'{what}s'}"


def size(count: float) -> str:
    """Return so many bytes as people say them."""
    for unit in ("bytes", "KB", "MB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} GB"
