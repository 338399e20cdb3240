"""`layercache advise`: what a running service's caches should be given more or less of."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from layercache.cli.world import AsJson, Environment, SettingsFile, print_json, world
from layercache.errors import CacheError

__all__ = ["advise"]

_PIPED: Final = 120  # columns, where there is no terminal to fill
_SECONDS: Final = 10.0

Url = Annotated[
    str,
    typer.Option(
        "--url", "-u", envvar="LAYERCACHE_ADMIN_URL", help="Where the service has its management API."
    ),
]


def advise(
    url: Url = "http://127.0.0.1:8790",
    settings: SettingsFile = None,
    environment: Environment = None,
    as_json: AsJson = False,
) -> None:
    """Say what would help the caches of a running service: more or less memory, longer ttls, and which are of no use.

    It asks the service's management API, with the read token of these settings; a service that cannot be asked exits 1.
    """
    with world(settings, environment, as_json) as caches:
        token = caches.settings.admin.read_token or caches.settings.admin.write_token
    try:
        told = _asked(f"{url.rstrip('/')}/advice", None if token is None else token.get_secret_value())
    except CacheError as error:
        if as_json:
            print_json({"error": str(error)})
        else:
            typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    if as_json:
        print_json(told)
    else:
        _print(told["advice"])


def _asked(url: str, token: str | None) -> dict[str, Any]:
    """Return what the management API answers. Raises `CacheError`."""
    if not url.startswith(("http://", "https://")):
        raise typer.BadParameter("an address such as http://127.0.0.1:8790 is wanted", param_hint="--url")
    headers = {"Accept": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    try:
        with urlopen(Request(url, headers=headers), timeout=_SECONDS) as answer:  # noqa: S310
            told: dict[str, Any] = json.load(answer)
            return told
    except HTTPError as error:
        with error:
            raise CacheError(f"{url} refuses: {_detail(error)}") from None
    except (URLError, OSError, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise CacheError(
            f"{url} cannot be asked: {reason}; --url names the service's management API"
        ) from None


def _detail(error: HTTPError) -> str:
    try:
        return str(json.load(error)["detail"])
    except (ValueError, KeyError, TypeError):
        return f"{error.code} {error.reason}"


def _print(advice: list[dict[str, str]]) -> None:
    if not advice:
        typer.echo("Nothing to say: too little was read yet, or all is well.")
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPED)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for _ in range(3):
        table.add_column()
    for each in advice:
        said = Text(each["message"])
        if each["fix"]:
            said.append(f"\ndo: {each['fix']}", "cyan")
        table.add_row(Text(each["kind"], "yellow"), Text(each["about"], "bold"), said)
    with console.capture() as printed:
        console.print(table)
    for line in printed.get().splitlines():
        typer.echo(line.rstrip())
