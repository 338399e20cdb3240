"""The options that commands share.

Rule: the same option is called the same everywhere, and defined here. Those that always come together are a *bundle*, a
dataclass; a command takes it as one parameter, and `spread` makes options of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from inspect import Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from layercache.config import read_settings

__all__ = ["AsJson", "CacheName", "CacheNames", "Call", "OneCache", "Where", "spread"]


def _known_caches(incomplete: str) -> list[str]:
    """Complete the name of a cache, where the settings can be read."""
    try:
        return [name for name in read_settings().caches if name.startswith(incomplete.lower())]
    except Exception:  # a shell that completes is told nothing of faults
        return []


_SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", "-s", help="The file to read instead of the nearest settings.toml."),
]
_Environment = Annotated[
    str | None,
    typer.Option("--environment", "-e", help="The environment, instead of LAYERCACHE_ENV."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
CacheName = Annotated[str, typer.Option("--cache", "-c", help="The cache.", autocompletion=_known_caches)]
OneCache = Annotated[
    str, typer.Option("--cache", "-c", help="The cache; it has to be named.", autocompletion=_known_caches)
]
CacheNames = Annotated[
    list[str] | None,
    typer.Option(
        "--cache",
        "-c",
        help="A cache, and others by repetition; all if left out.",
        autocompletion=_known_caches,
    ),
]
_Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="LAYERCACHE_ADMIN_URL",
        help="Where a running service serves its management API, which is asked then.",
    ),
]
_Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar="LAYERCACHE_ADMIN_TOKEN",
        help="The token for it; others see what stands in a command line, so better in the variable.",
    ),
]


@dataclass(frozen=True, slots=True)
class Where:
    """Where a running service is asked, if one is meant."""

    url: _Url = None
    token: _Token = None


@dataclass(frozen=True, slots=True)
class Call:
    """Which settings a command is about, and how it answers."""

    settings: _SettingsFile = None
    environment: _Environment = None
    as_json: AsJson = False


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command` as typer takes it, with the options of a bundle in the place of each that it takes."""
    parameters = signature(command, eval_str=True).parameters
    bundles: dict[str, type[Any]] = {
        name: each.annotation
        for name, each in parameters.items()
        if isinstance(each.annotation, type) and is_dataclass(each.annotation)
    }

    @wraps(command)
    def taking_options(**given: Any) -> None:
        for name, bundle in bundles.items():
            given[name] = bundle(**{option.name: given.pop(option.name) for option in fields(bundle)})
        command(**given)

    options = [
        option
        for name, each in parameters.items()
        for option in (
            signature(bundles[name], eval_str=True).parameters.values() if name in bundles else [each]
        )
    ]
    taking_options.__annotations__ = {option.name: option.annotation for option in options}
    taking_options.__dict__["__signature__"] = Signature(options)
    return taking_options
