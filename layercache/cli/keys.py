"""`layercache get`, `explain` and `delete`: about single keys."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from layercache.cli.exits import Exit
from layercache.cli.options import CacheName, Call, Where
from layercache.cli.printing import print_json, printable
from layercache.cli.reach import reach
from layercache.cli.world import stop

__all__ = ["delete", "explain", "get"]

_Key = Annotated[str, typer.Argument(metavar="KEY", help="As the application uses it.")]
_Keys = Annotated[list[str], typer.Argument(metavar="KEYS", help="As the application uses them.")]
_Stale = Annotated[bool, typer.Option("--stale", help="A stale value will do.")]


def get(key: _Key, cache: CacheName = "default", stale: _Stale = False, *, where: Where, call: Call) -> None:
    """Print the value of a key as JSON; where there is none, exit 3.

    A service shows values only where its settings have show_values = true.
    """
    with reach(cache, where, call) as reached:
        said = reached.explain(key, value=True)
        about = {"cache": said["cache"], "key": key, "state": _state(said)}
        if about["state"] == "failed":
            stop(_failures(said), call.as_json, Exit.WRONG, **about)
        if about["state"] == "stale" and not stale:
            stop(f"{said['cache']}: {key!r} is stale; --stale prints it", call.as_json, Exit.NOTHING, **about)
        if "value" not in said:
            stop(f"{said['cache']}: there is nothing under {key!r}", call.as_json, Exit.NOTHING, **about)
    if call.as_json:
        print_json({**about, "value": said["value"]})
    else:
        typer.echo(json.dumps(said["value"], ensure_ascii=False, default=str))


def explain(key: _Key, cache: CacheName = "default", *, where: Where, call: Call) -> None:
    """Print what each layer has under a key, how fresh, who loads it, and what get_or_set would do now."""
    with reach(cache, where, call) as reached:
        said = reached.explain(key)
    if call.as_json:
        print_json({name: part for name, part in said.items() if name != "text"})
    else:
        typer.echo(printable(said["text"]))
        if where.url is None and len(said["layers"]) > 1:
            typer.echo("(what is near is that of this command, and empty: --url asks a service for its own)")
    if _failures(said):
        raise typer.Exit(Exit.WRONG)


def delete(keys: _Keys, cache: CacheName = "default", *, where: Where, call: Call) -> None:
    """Drop keys; that one was not there is no fault. Every process drops it from its memory."""
    with reach(cache, where, call) as reached:
        done = {key: reached.delete(key) for key in dict.fromkeys(keys)}
    if call.as_json:
        print_json({"cache": reached.name, "deleted": done})
        return
    for key, was_there in done.items():
        typer.echo(f"{reached.name}: {key!r} {'deleted' if was_there else 'was not there'}")


def _state(said: dict[str, Any]) -> str:
    """Return the best state that a layer has it in; "failed" where there may be a better one that we do not see."""
    states = [layer["state"] for layer in said["layers"] if layer["is_asked"]] or ["absent"]
    for state in ("fresh", "stale", "failed"):
        if state in states:
            return state
    return str(states[-1])


def _failures(said: dict[str, Any]) -> str:
    return "; ".join(layer["note"] for layer in said["layers"] if layer["state"] == "failed")
