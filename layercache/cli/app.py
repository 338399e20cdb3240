"""The commands. What they exit with, `exits` says; what options they share, `options`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

import typer

from layercache import __version__
from layercache.cli.admin import admin
from layercache.cli.advise import advise
from layercache.cli.changes import clear, invalidate
from layercache.cli.check import check
from layercache.cli.doctor import doctor
from layercache.cli.init import init
from layercache.cli.keys import delete, explain, get
from layercache.cli.options import spread
from layercache.cli.purge import purge
from layercache.cli.schema import schema
from layercache.cli.stats import stats
from layercache.cli.top import top
from layercache.cli.training import train_dictionary
from layercache.cli.warm import warm_functions

__all__ = ["app", "check", "layercache"]

_COMMANDS: Final[dict[str, Callable[..., None]]] = {
    "init": init,
    "check": check,
    "advise": advise,
    "doctor": doctor,
    "stats": stats,
    "top": top,
    "get": get,
    "explain": explain,
    "delete": delete,
    "invalidate": invalidate,
    "clear": clear,
    "purge": purge,
    "warm": warm_functions,
    "train-dictionary": train_dictionary,
    "schema": schema,
    "admin": admin,
}

app: Final = typer.Typer(
    name="layercache", no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False
)
for _name, _command in _COMMANDS.items():
    app.command(_name)(spread(_command))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"layercache {__version__}")
        raise typer.Exit


@app.callback()
def layercache(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Look at the caches that settings.toml defines, and look after them."""
