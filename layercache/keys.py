"""Keys: what a key may be, and the one canonical way to build one from parts.

A key reads `{resource}:{identifier}:{params}`; the cache that it is used in is the service
in front of it. `make_key` is injective: different parts never give the same key, and
`f(1)`, `f("1")` and `f(True)` differ. Text stays as it is, so that the people who look at keys can read
them; everything else begins with `~` and says its type.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

from layercache.errors import InvalidKey

__all__ = ["check_key", "key_part", "key_space_prefix", "logical_key", "make_key", "physical_key"]

# What has a meaning in keys, in the patterns of settings, or on a terminal, and what has no UTF-8.
_RESERVED: Final = re.compile(r"[\x00-\x20\x7f-\xa0%:=,~*?\[\](){}\\'\"\u2028\u2029\ud800-\udfff]")
# What a physical key must not hold, so that it stays in its cluster slot and on one line.
_UNPHYSICAL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\s%{}\ud800-\udfff]")
# What a prefix must not hold besides, so that no prefix reaches into another's key space.
_UNPREFIXED: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\s%{}:*?\[\]\\\ud800-\udfff]")
_ESCAPED: Final = re.compile(r"(?:%[0-9A-F]{2})+")
_LONG_PART: Final = 120  # bytes; longer parts become a digest
_LONG_HALF: Final = 480  # bytes; a longer resource, or all that follows it, becomes a digest
_LONG_INT: Final = 4096  # bits; longer ints are spelled in hex, as CPython refuses 4300 decimal digits


def check_key(key: str, max_key_bytes: int) -> None:
    """Raise `InvalidKey` unless `key` is a non-empty `str` of at most `max_key_bytes` in UTF-8."""
    if not isinstance(key, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidKey(f"a key is a str, not {type(key).__name__}; make_key(...) builds one from parts")
    if not key:
        raise InvalidKey("a key has at least one character; this one is empty")
    if len(key) * 4 <= max_key_bytes and key.isascii():
        return
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise InvalidKey(f"the key beginning {key[:40]!r} has no UTF-8 form: {error.reason}") from error
    if size > max_key_bytes:
        raise InvalidKey(
            f"the key beginning {key[:40]!r} takes {size} bytes, more than max_key_bytes = {max_key_bytes}; "
            "make_key(...) shortens long parts to a digest",
        )


def make_key(resource: str, /, *parts: Any, **params: Any) -> str:
    """Build a key from a resource, identifying parts and named parameters.

        make_key("quote", "AAPL", period="1d")  # 'quote:AAPL:period=1d'

    Parts may be str, bool, int, float, None, bytes, Decimal, date and datetime, UUID, Enum,
    and tuples, lists, sets and dicts of them. Parameters are sorted by name. Parts of more than
    120 bytes become a digest (BLAKE2b, 128 bits), and so does what exceeds 480 bytes together: no
    key is longer than 961 bytes. Raises `InvalidKey` for other types and for an empty resource.
    """
    if not isinstance(resource, str) or not resource:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidKey(f"a key begins with the name of a resource, such as 'quote'; not with {resource!r}")
    words = [_word(part) for part in parts]
    words += [f"{_escape(_RESERVED, name)}={_word(params[name])}" for name in sorted(params)]
    head, tail = _escape(_RESERVED, resource), ":".join(words)
    head, tail = _bounded(head, _LONG_HALF), _bounded(tail, _LONG_HALF)
    return f"{head}:{tail}" if words else head


def key_space_prefix(prefix: str, cache: str) -> str:
    """Return what every physical key of a cache begins with: `{prefix}:{cache}:`.

    Neither part can hold a colon or a glob character, so no two key spaces overlap and a
    pattern made of this and `*` matches this cache only.
    """
    return f"{_escape(_UNPREFIXED, prefix)}:{_escape(_UNPREFIXED, cache)}:"


def physical_key(key: str) -> str:
    """Return `key` without braces, blanks and control characters; different keys stay different."""
    # most have none, which takes half as long to see
    return key if _UNPHYSICAL.search(key) is None else _escape(_UNPHYSICAL, key)


def logical_key(physical: str) -> str:
    """Return the key that `physical_key` made this of; for what it never made, something that it made another of."""
    return _ESCAPED.sub(
        lambda match: bytes.fromhex(match[0].replace("%", "")).decode("utf-8", "replace"), physical
    )


def _escape(characters: re.Pattern[str], text: str) -> str:
    return characters.sub(
        lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass")), text
    )


def key_part(value: Any) -> str:
    """Return `value` as it stands in a template: text and ints as they are, the rest as in `make_key`."""
    if type(value) is str and len(value) <= _LONG_PART:
        return _text_part(value)
    return _bounded(_digits(value), _LONG_PART) if type(value) is int else _word(value)


# A service asks for the same few thousand symbols; looking one up is a fifth of spelling it anew.
@lru_cache(maxsize=4096)
def _text_part(text: str) -> str:
    return _word(text)


def _word(part: Any) -> str:
    try:
        return _spell(part)
    except RecursionError as error:
        raise InvalidKey("a part of a key is nested too deeply; pass what identifies it") from error


def _spell(part: Any) -> str:
    word = _escape(_RESERVED, part) if type(part) is str else "~" + _spell_typed(part)
    return _bounded(word, _LONG_PART)


def _bounded(word: str, most: int) -> str:
    # no word of text begins with ~, and no other with ~h: a digest is nobody's own spelling
    if len(word) <= most and (word.isascii() or len(word.encode()) <= most):
        return word
    from hashlib import blake2b

    return f"~h{blake2b(word.encode(), digest_size=16).hexdigest()}"


def _listed(parts: Iterable[Any]) -> list[str]:
    # empty text is spelled ~ among others, or [""] would look like []
    return [_spell(part) or "~" for part in parts]


def _class_of(part: Any) -> str:
    return _escape(_RESERVED, f"{type(part).__module__}.{type(part).__qualname__}")


def _digits(number: int) -> str:
    return int.__repr__(number) if number.bit_length() <= _LONG_INT else hex(number)


def _spell_typed(part: Any) -> str:
    kind = type(part)
    if kind is int:  # first, as most parts are text or this, and the imports below take longer
        return _digits(part)
    if part is None or kind is bool:
        return str(part).lower()
    return _spell_rare(part)


def _spell_rare(part: Any) -> str:
    from datetime import date, datetime, time, timedelta
    from decimal import Decimal
    from enum import Enum, Flag
    from uuid import UUID

    match part:
        case Flag():  # a combination may have no name
            return f"e({_class_of(part)},{_spell(part.value)})"
        case Enum():
            return f"e({_class_of(part)},{_escape(_RESERVED, part.name)})"
        case str():
            return f"s({_class_of(part)},{_escape(_RESERVED, part)})"
        case int():
            return _digits(part)
        case float():
            return float.__repr__(part)  # 1.0, where the int is 1
        case bytes():
            return f"x{part.hex()}"
        case Decimal():
            return f"d{part}"
        case datetime() | date() | time():
            return f"t{_escape(_RESERVED, part.isoformat())}"
        case timedelta():
            return f"p{part.days}.{part.seconds}.{part.microseconds}"
        case UUID():
            return f"u{part.hex}"
        case tuple():
            return f"({','.join(_listed(part))})"
        case list():
            return f"[{','.join(_listed(part))}]"
        case set() | frozenset():
            return f"{{{','.join(sorted(_listed(part)))}}}"
        case dict():
            pairs = sorted(f"{_spell(name)}={_spell(value)}" for name, value in part.items())
            return f"{{={','.join(pairs)}}}"
        case _:
            raise InvalidKey(
                f"a {type(part).__qualname__} cannot be part of a key; pass what identifies it, such as its id"
            )
