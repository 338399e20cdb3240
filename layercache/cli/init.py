"""`layercache init`: the first settings.toml, with comments that say what to change."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import typer

from layercache.cli.exits import Exit
from layercache.cli.options import AsJson
from layercache.cli.printing import answer_to, print_json
from layercache.cli.world import stop, telling
from layercache.config import read_settings
from layercache.sources import SETTINGS_FILE

__all__ = ["init"]

_Store = Literal["memory", "redis", "layered"]

_File = Annotated[Path | None, typer.Option("--settings", "-s", help="The file to write: ./settings.toml.")]
_StoreOption = Annotated[
    _Store | None,
    typer.Option(
        "--store",
        help="Where production keeps values: memory (of each process), redis (a server), or layered (both).",
    ),
]
_RedisUrl = Annotated[str | None, typer.Option("--redis", metavar="URL", help="Where the server is.")]
_Prefix = Annotated[str | None, typer.Option("--prefix", help="What all names on the server begin with.")]
_Ttl = Annotated[str | None, typer.Option("--ttl", help='How long a value is fresh, such as "5m".')]
_Force = Annotated[bool, typer.Option("--force", "-f", help="Replace a file that is there.")]

_URL: Final = "redis://localhost:6379/0"
_TTL: Final = "5m"

_HEAD: Final = """\
# The settings of layercache. `layercache check` prints what is in force, or every fault.
# LAYERCACHE_ENV picks the environment: development (when unset), testing or production. Tables of an environment are
# merged with those of [default], lists replace them. Variables win over all: LAYERCACHE_CACHES__DEFAULT__TTL="10s".
# For an editor that completes and checks: `layercache schema -o layercache.schema.json`, and as the first line here
#   #:schema ./layercache.schema.json

[default.backends.local]            # in the memory of each process
type = "memory"
max_entries = 10_000
max_bytes = "64MB"
"""
_REDIS: Final = """
[default.backends.shared]           # on a Redis or Valkey server, for all processes and hosts
type = "redis"
url = {url}    # its password belongs into .secrets.toml, or REDIS_PASSWORD
prefix = {prefix}                   # of every key this application writes
codecs = ["json", "zstd"]
timeout = "250ms"                   # of one operation, connecting included
"""
_CHAIN: Final = """
[default.backends.layered]          # in memory before the server; the log on the server keeps the two together
type = "chain"
layers = ["local", "shared"]        # nearest first
"""
_CACHES: Final = """
[default.caches.default]            # every cache inherits from this one
backend = "local"
ttl = {ttl}
# stale_ttl = "1h"                  # past its ttl a value is served while one caller loads a new one

# [default.caches.stock]            # a cache of its own, as in get_cache("stock")
# ttls = {{ "quote:*" = "15s", "news:*" = "15m" }}

# [default.admin]                   # the management API; `openssl rand -hex 32` prints a token for .secrets.toml
# show_values = false

[development]

[testing]
"""
_PRODUCTION: Final = """
[production.caches.default]
backend = {backend}                 # the only change between environments
"""
_NO_CHANGE: Final = """
[production]
"""


def init(
    store: _StoreOption = None,
    redis: _RedisUrl = None,
    prefix: _Prefix = None,
    ttl: _Ttl = None,
    force: _Force = False,
    settings: _File = None,
    as_json: AsJson = False,
) -> None:
    """Write a settings.toml with comments; asks for what no option says, where there is a terminal to ask at."""
    file = settings or Path(SETTINGS_FILE)
    if file.exists() and not force:
        stop(f"{file} is there already; --force replaces it", as_json, Exit.WRONG, file=str(file))
    asks = sys.stdin.isatty() and not as_json
    store = store or _asked_for_store(asks=asks, has_url=redis is not None)
    redis = redis or _asked("The server's URL", _URL, asks=asks and store != "memory")
    prefix = prefix or _asked(
        "What names on the server begin with", _own_prefix(file), asks=asks and store != "memory"
    )
    ttl = ttl or _asked("How long is a value fresh", _TTL, asks=asks)
    if store != "memory" and _has_password(redis):
        said = "leave the password out of --redis: it belongs into .secrets.toml, or REDIS_PASSWORD"
        stop(said, as_json, Exit.USAGE)
    text = _text(store, redis, prefix, ttl)
    with telling(as_json):
        for environment in ("development", "testing", "production"):
            read_settings(tomllib.loads(text), environment)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        stop(f"{file} cannot be written: {error.strerror}", as_json, Exit.WRONG, file=str(file))
    if as_json:
        print_json({"file": str(file), "store": store})
        return
    where = "" if settings is None else f" -s {file}"
    typer.echo(f"{file} written; `layercache check -e production{where}` prints what is in force there")


def _text(store: _Store, url: str, prefix: str, ttl: str) -> str:
    parts = [_HEAD]
    if store != "memory":
        parts.append(_REDIS.format(url=_spelt(url), prefix=_spelt(prefix)))
    if store == "layered":
        parts.append(_CHAIN)
    parts.append(_CACHES.format(ttl=_spelt(ttl)))
    backend = {"memory": None, "redis": "shared", "layered": "layered"}[store]
    parts.append(_NO_CHANGE if backend is None else _PRODUCTION.format(backend=_spelt(backend)))
    return "".join(parts)


def _spelt(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _asked(question: str, default: str, *, asks: bool) -> str:
    return (answer_to(f"{question} [{default}]:") if asks else "") or default


def _asked_for_store(*, asks: bool, has_url: bool) -> _Store:
    default: _Store = "layered" if has_url else "memory"
    if not asks:
        return default
    while True:
        said = _asked("Where does production keep values (memory, redis, layered)", default, asks=True)
        match said.strip().lower():
            case "memory" | "redis" | "layered" as store:
                return store
            case _:
                typer.echo(f"{said!r} is none of the three", err=True)


def _own_prefix(file: Path) -> str:
    """Return what the folder is called, as far as a prefix may hold it."""
    name = os.path.basename(file.absolute().parent)  # noqa: PTH119  (of a root it is empty)
    return (
        "".join(sign for sign in name.lower() if sign.isascii() and (sign.isalnum() or sign in "-_")) or "app"
    )


def _has_password(url: str) -> bool:
    try:
        return urlsplit(url).password is not None or "password=" in url
    except ValueError:  # which the check tells of
        return False
