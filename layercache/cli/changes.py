"""`layercache invalidate` and `clear`: many keys forgotten at once."""

from __future__ import annotations

from typing import Annotated

import typer

from layercache.cli.options import CacheName, Call, OneCache, Where
from layercache.cli.printing import answer_to, print_json
from layercache.cli.reach import reach

__all__ = ["clear", "invalidate"]

_Tags = Annotated[list[str], typer.Argument(metavar="TAGS", help="What carries one of them is invalid.")]
_Soft = Annotated[bool, typer.Option("--soft", help="It is stale then, and not gone.")]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def invalidate(
    tags: _Tags,
    cache: CacheName = "default",
    soft: _Soft = False,
    *,
    where: Where,
    call: Call,
) -> None:
    """Drop every entry that carries one of the tags, whatever their number."""
    wanted = list(dict.fromkeys(tags))
    with reach(cache, where, call) as reached:
        reached.invalidate(wanted, soft=soft)
    if call.as_json:
        print_json({"cache": reached.name, "tags": wanted, "soft": soft})
    else:
        what = "is stale" if soft else "is gone"
        typer.echo(f"{reached.name}: what carries {' or '.join(map(repr, wanted))} {what}")


def clear(cache: OneCache, yes: _Yes = False, *, where: Where, call: Call) -> None:
    """Drop every key of one cache, having asked; those of others stay. What is left behind goes with purge."""
    with reach(cache, where, call) as reached:
        if not yes:
            of = f" of {where.url}" if where.url is not None else ""
            if answer_to(f"Drop every key of {reached.name}{of}? [y/N]").lower() not in {"y", "yes"}:
                raise typer.Abort
        reached.clear()
    if call.as_json:
        print_json({"cache": reached.name, "cleared": True})
    else:
        typer.echo(f"{reached.name}: cleared")
