"""Keys: what a key may be, and the one canonical way to build one from parts.

A key reads `{resource}:{identifier}:{params}`; the cache that it is used in is the service
in front of it. `make_key` is injective: different parts never give the same key, and
`f(1)`, `f("1")` and `f(True)` differ. Text stays as it is, so that the people who look at keys can read
them; everything else begins with `~` and says its type.
"""

from __future__ import annotations

import re
from typing import Any, Final

from layercache.errors import InvalidKey

__all__ = ["check_key", "key_part", "key_space_prefix", "make_key", "physical_key"]

# What has a meaning in keys, in the patterns of settings, or on a terminal.
_RESERVED: Final = re.compile(r"[\x00-\x20\x7f-\xa0%:=,~*?\[\](){}\\'\"\u2028\u2029]")
# What a physical key must not hold, so that it stays in its cluster slot and on one line.
_UNPHYSICAL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\s%{}]")
# What a prefix must not hold besides, so that no prefix reaches into another's key space.
_UNPREFIXED: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\s%{}:*?\[\]\\]")
_LONG_PART: Final = 120  # characters; longer parts become a digest
_LONG_KEY: Final = 480  # characters; in a longer key all but the resource becomes a digest


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
        raise InvalidKey(f"{key!r} has no UTF-8 form: {error.reason}") from error
    if size > max_key_bytes:
        raise InvalidKey(
            f"the key beginning {key[:40]!r} takes {size} bytes, more than max_key_bytes = {max_key_bytes}; "
            "make_key(...) shortens long parts to a digest",
        )


def make_key(resource: str, *parts: Any, **params: Any) -> str:
    """Build a key from a resource, identifying parts and named parameters.

        make_key("quote", "AAPL", period="1d")  # 'quote:AAPL:period=1d'

    Parts may be str, bool, int, float, None, bytes, Decimal, date and datetime, UUID, Enum,
    and tuples, lists, sets and dicts of them. Parameters are sorted by name. Parts of more than
    120 characters become a digest (BLAKE2b, 128 bits). Raises `InvalidKey` for other types.
    """
    words = [_spell(part) for part in parts]
    words += [f"{name}={_spell(params[name])}" for name in sorted(params)]
    head, tail = _escape(_RESERVED, resource), ":".join(words)
    if len(tail) > _LONG_KEY:
        tail = _digest(tail)
    return f"{head}:{tail}" if words else head


def key_space_prefix(prefix: str, cache: str) -> str:
    """Return what every physical key of a cache begins with: `{prefix}:{cache}:`.

    Neither part can hold a colon or a glob character, so no two key spaces overlap and a
    pattern made of this and `*` matches this cache only.
    """
    return f"{_escape(_UNPREFIXED, prefix)}:{_escape(_UNPREFIXED, cache)}:"


def physical_key(key: str) -> str:
    """Return `key` without braces, blanks and control characters; different keys stay different."""
    return _escape(_UNPHYSICAL, key)


def _escape(characters: re.Pattern[str], text: str) -> str:
    return characters.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), text)


def key_part(value: Any) -> str:
    """Return `value` as it stands in a template: text and ints as they are, the rest as in `make_key`."""
    return str(value) if type(value) is int else _spell(value)


def _spell(part: Any) -> str:
    word = _escape(_RESERVED, part) if type(part) is str else "~" + _spell_typed(part)
    return word if len(word) <= _LONG_PART else _digest(word)


def _digest(word: str) -> str:
    from hashlib import blake2b

    return f"~h{blake2b(word.encode('utf-8', 'surrogatepass'), digest_size=16).hexdigest()}"


def _spell_typed(part: Any) -> str:
    from datetime import date, datetime, time, timedelta
    from decimal import Decimal
    from enum import Enum
    from uuid import UUID

    match part:
        case None:
            return "none"
        case bool():
            return "true" if part else "false"
        case Enum():
            return f"e{_escape(_RESERVED, type(part).__qualname__)}.{_escape(_RESERVED, part.name)}"
        case str():
            return f"s{_escape(_RESERVED, type(part).__qualname__)}.{_escape(_RESERVED, part)}"
        case int():
            return int.__repr__(part)
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
            return f"({','.join(map(_spell, part))})"
        case list():
            return f"[{','.join(map(_spell, part))}]"
        case set() | frozenset():
            return f"{{{','.join(sorted(map(_spell, part)))}}}"
        case dict():
            pairs = sorted(f"{_spell(name)}={_spell(value)}" for name, value in part.items())
            return f"{{={','.join(pairs)}}}"
        case _:
            raise InvalidKey(
                f"a {type(part).__qualname__} cannot be part of a key; pass what identifies it, such as its id"
            )
