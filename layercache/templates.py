"""Templates of keys and tags, such as "quote:{symbol}": text with names of fields in braces.

Rule: a field stands in it as it is. No format, no conversion, no attribute; `{{` and `}}` are braces.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from string import Formatter
from typing import Any, TypeAlias

__all__ = ["Field", "names_any", "parsed", "spelled"]

Field: TypeAlias = "tuple[str, str | None]"
"""A piece of text, and the field behind it, None at the end."""


def parsed(what: str, template: str, error: type[ValueError] = ValueError) -> list[Field]:
    """Return the pairs that `template` consists of; raise `error` where it holds more than fields.

    Args:
        what: it is, in messages.
    """
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as fault:
        raise error(
            f"{what} {template!r} is no template: {fault}; a field stands in it as {{name}}"
        ) from None
    if any(spec or conversion for _, _, spec, conversion in pieces):
        raise error(f"{what} {template!r} holds a format; what it names stands in it as it is: {{name}}")
    return [(text, field) for text, field, _, _ in pieces]


def names_any(fields: Iterable[Field]) -> bool:
    """Whether a template has a field to fill."""
    return any(field is not None for _, field in fields)


def spelled(fields: Sequence[Field], values: Mapping[str, Any]) -> str:
    """Return a tag with `values` in its fields: as an f-string has it, so that invalidate(f"quote:{symbol}") finds it;
    a tag needs no escapes."""
    return "".join(text if field is None else f"{text}{values[field]}" for text, field in fields)
