"""The tables of the settings' pages, from the models that the settings are checked with.

    python docs/tables.py

rewrites what stands between `<!-- table NAME -->` and `<!-- end -->` in the pages. Keys, types and defaults are the
models' own, and what a key means is in their docstrings, under "Attributes"; where to read on stands here.
`tests/test_docs.py` holds the pages to it.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
import typing
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from annotated_types import Ge, Gt, Le, MaxLen
from pydantic import TypeAdapter

from layercache import options, seeds, settings
from layercache.registry import backend_named, backend_names, stage_named, stage_names
from layercache.schema import meanings
from layercache.spi import Seal

PAGES: Final = (Path(__file__).parent / "settings.md", Path(__file__).parent / "variables.md")

_READ_ON: Final = {
    "caches.stale_ttl": "[stale values](stale.md)",
    "caches.patterns": "[below](#patterns-of-keys)",
    "caches.wait": "[time-outs](timeouts.md)",
    "caches.tags": "[tags](tags.md)",
    "caches.events": "[below](#events)",
    "caches.isolation": "[memory](memory.md#what-comes-back-is-yours)",
    "memory.eviction": "[memory](memory.md#who-makes-room)",
    "redis.tls_ca_file": "[TLS](redis-server.md#tls)",
    "redis.codecs": "[stages](stages.md)",
    "redis.seal_keys": "[stages](stages.md#signed-and-encrypted-values)",
    "redis.max_staleness": "[coherence](coherence.md)",
    "redis.log_gathering": "[many processes](scaling.md)",
    "redis.log_shards": "[a cluster](scaling.md#a-cluster-and-log_shards)",
    "chain.on_outage": "[outages](outages.md)",
    "admin.show_values": "[security](security.md)",
}
"""Model and key to the page that has more. One that is not there any more is an error."""

_TYPES: Final[list[tuple[Any, str]]] = [
    (options.Duration, "duration"),
    (options.Span, "duration, or 0"),
    (options.Patience, "time to wait"),
    (options.Deadline, "time to wait"),
    (options.Bytes, "size"),
    (options.Count, "whole number, 1 or more"),
    (options.Ratio, "0.0 to 1.0"),
    (options.Secret, "secret"),
    (options.Codecs, "list of stages"),
    (options.NormalCodec, "list of one stage"),
    (options.SealKeys, "list of secrets"),
]


# -- what the models say


def _kind(hint: Any) -> str:
    """Return the type of a key in the words of somebody who writes settings."""
    for type_, words in _TYPES:
        if hint == type_:
            return words
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " or ".join(f"`{json.dumps(choice)}`" for choice in inner)
    if origin is tuple:
        return "list of texts"
    if origin is dict:
        return f"table of {_plural(_kind(inner[1]))}"
    if origin is typing.Annotated:
        return _bounded(_kind(inner[0]), inner[1:])
    if len(inner) == 2 and inner[1] is type(None):
        return _kind(inner[0])
    plain = {str: "text", bool: "`true` or `false`", int: "whole number", float: "number"}
    if hint in plain:
        return plain[hint]
    return "address" if hint.__name__ == "RedisUrl" else "table"


def _bounded(words: str, limits: tuple[Any, ...]) -> str:
    found: dict[type[Any], Any] = {}
    for limit in limits:
        for each in (limit, *getattr(limit, "metadata", ())):  # pydantic's Field has them inside
            found[type(each)] = each
    if Ge in found and Le in found:
        return f"{words}, {found[Ge].ge:,} to {found[Le].le:,}"
    if Ge in found:
        return f"{words}, {found[Ge].ge:,} or more"
    if Gt in found:
        return f"{words}, more than {found[Gt].gt:g}"
    return f"{words}, at most {found[MaxLen].max_length:,} characters" if MaxLen in found else words


def _plural(words: str) -> str:
    return "tables" if words == "table" else "durations"


def _default(field: dataclasses.Field[Any], hint: Any) -> str:
    """Return what a key is when it is left out, as one would write it."""
    if field.default is dataclasses.MISSING:
        return "required" if field.default_factory is dataclasses.MISSING else "none"
    if field.default is None or field.default == ():
        return "none"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what says how a default is checked means nothing outside of a model
        adapter: TypeAdapter[Any] = TypeAdapter(hint)
    # looks up the names of stages, and spells durations and sizes
    value = adapter.dump_python(adapter.validate_python(field.default), mode="json", fallback=str)
    return f"`{json.dumps(value)}`"


# -- tables


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        "|"
        + "|".join(cell if cell == "---" else f" {cell.replace('|', chr(92) + '|')} " for cell in line)
        + "|"
        for line in lines
    )


def _keys(name: str, model: type[Any], used: set[str]) -> Iterator[tuple[str, str, str, str]]:
    hints = typing.get_type_hints(model, include_extras=True)
    said = meanings(model)
    for field in dataclasses.fields(model):
        path, hint = f"{name}.{field.name}", hints[field.name]
        used.add(path)
        meaning = said[field.name].rstrip(".")
        if path in _READ_ON:
            meaning += f"; see {_READ_ON[path]}"
        yield f"`{field.name}`", _kind(hint), _default(field, hint), meaning


def _stages() -> Iterator[tuple[str, str, str, str]]:
    for name in stage_names():
        stage = stage_named(name)
        if not stage.__module__.startswith("layercache."):
            continue
        hints = typing.get_type_hints(stage.Options, include_extras=True)
        meant = meanings(stage.Options)
        said = [
            f"`{each.name}`: {_kind(hints[each.name])}, {_default(each, hints[each.name])} if left out; "
            f"{meant[each.name].rstrip('.')}"
            for each in dataclasses.fields(stage.Options)
        ]
        kind = "seal" if issubclass(stage, Seal) else stage.__base__.__name__.lower()  # type: ignore[union-attr]
        about = (inspect.getdoc(sys.modules[stage.__module__]) or "").partition("`: ")[2]
        meaning = re.split(r"\.(?:\s|$)", " ".join(about.split()))[0]
        yield f"`{name}`", kind, "<br>".join(said) or "none", meaning


def _seed_variables() -> Iterator[tuple[str, str]]:
    for variable, option in seeds.OF_REDIS.items():
        yield f"`{variable}`", f"`{option}` of the Redis backend"
    for variable, option in seeds.OF_MEMORY.items():
        yield f"`{variable}`", f"`{option}` of the memory backend"
    for variable, option in seeds.OF_DEFAULT_CACHE.items():
        yield f"`{variable}`", f"`{option}` of the cache `default`"


def tables() -> dict[str, str]:
    """Return every table by its name."""
    models: dict[str, type[Any]] = {
        "caches": settings.CacheSettings,
        "event": settings.EventSettings,
        **{
            name: backend_named(name).Options
            for name in backend_names()
            if backend_named(name).__module__.startswith("layercache")
        },
        **{
            section: typing.get_type_hints(settings.Settings)[section]
            for section in settings.SECTIONS
            if section not in {"backends", "caches"}
        },
    }
    used: set[str] = set()
    head = ("key", "type", "default", "meaning")
    made = {name: _table(head, _keys(name, model, used)) for name, model in models.items()}
    made["stages"] = _table(("stage", "what it is", "options", "meaning"), _stages())
    made["seeds"] = _table(("variable", "sets"), _seed_variables())
    gone = _READ_ON.keys() - used
    if gone:
        raise SystemExit(f"no such keys any more, in docs/tables.py: {', '.join(sorted(gone))}")
    return made


def filled(text: str, made: Mapping[str, str]) -> str:
    """Return a page with its tables made anew."""

    def table(found: re.Match[str]) -> str:
        return f"<!-- table {found[1]} -->\n\n{made[found[1]]}\n\n<!-- end -->"

    return re.sub(r"<!-- table ([\w-]+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


if __name__ == "__main__":
    made = tables()
    for page in PAGES:
        old = page.read_text(encoding="utf-8")
        new = filled(old, made)
        if new != old:
            page.write_text(new, encoding="utf-8")
            sys.stdout.write(f"{page.name} has new tables\n")
