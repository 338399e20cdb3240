"""`layercache advise`: what a running service's caches should be given more or less of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from layercache.cli.options import Call, Where
from layercache.cli.printing import print_json, print_parts, table
from layercache.cli.service import Service
from layercache.cli.world import world

__all__ = ["advise"]


def advise(where: Where, call: Call) -> None:
    """Say what would help the caches of a running service: more or less memory, longer ttls, and which are of no use.

    Without --url it asks http://127.0.0.1:8790, and without --token with that of these settings; a service that cannot
    be asked exits 1.
    """
    with world(call) as caches:
        own = caches.settings.admin.read_token or caches.settings.admin.write_token
        token = where.token or (None if own is None else own.get_secret_value())
        with Service(where.url or "http://127.0.0.1:8790", token) as service:
            said = service.advice()
    if call.as_json:
        print_json(said)
    else:
        print_parts(_parts(said["advice"]))


def _parts(advice: Sequence[dict[str, Any]]) -> Iterator[RenderableType]:
    if not advice:
        yield Text("Nothing to say: too little was read yet, or all is well.")
        return
    shown = table("kind", "about", "message", is_headed=False)
    for each in advice:
        said = Text(each["message"])
        if each["fix"]:
            said.append(f"\ndo: {each['fix']}", "cyan")
        shown.add_row(Text(each["kind"], "yellow"), Text(each["about"], "bold"), said)
    yield shown
