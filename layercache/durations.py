"""Times to live as people write them: seconds, a timedelta, or text such as "1h30m".

Inside the library a duration is a float of seconds, and `math.inf` means for ever.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from enum import Enum
from typing import Final, Literal, TypeAlias

from layercache.errors import InvalidTtl

__all__ = ["DEFAULT", "Ttl", "parse_duration", "spell_duration"]


class _Default(Enum):
    DEFAULT = "the cache's own ttl"

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = _Default.DEFAULT
"""The value of a `ttl` argument that was left out: the cache's own, or its pattern's."""

Ttl: TypeAlias = int | float | timedelta | str | Literal[_Default.DEFAULT] | None
"""What every `ttl` argument takes: seconds, a timedelta, text, None for ever, or `DEFAULT`."""

_UNITS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_TERM: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[dhms])", re.ASCII)
_TEXT: Final = re.compile(rf"\s*-?(?:{_TERM.pattern}\s*)+", re.ASCII)
_FOR_EVER: Final = "forever"


def parse_duration(duration: float | timedelta | str | None) -> float:
    """Return the seconds that `duration` means; `math.inf` for None and for "forever".

    Text is one or more numbers with the units d, h, m, s, ms ("15s", "1h30m", "250ms"), or a
    plain number of seconds. Raises `InvalidTtl` for anything else, NaN and bools included.
    """
    if duration is None:
        return math.inf
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    if isinstance(duration, str):
        return _parse_text(duration)
    # what users pass is checked, whatever the annotation says
    is_number = isinstance(duration, int | float) and not isinstance(duration, bool)  # pyright: ignore[reportUnnecessaryIsInstance]
    if not is_number or math.isnan(duration):
        raise InvalidTtl(f"{duration!r} is no duration; {_RIGHT}")
    return float(duration)


_RIGHT: Final = (
    'right are seconds (15, 0.5), a timedelta, text such as "15s", "5m" or "1h30m", and None for ever'
)


def _parse_text(text: str) -> float:
    if text.strip().lower() == _FOR_EVER:
        return math.inf
    if _TEXT.fullmatch(text):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _TERM.findall(text))
        return -seconds if text.lstrip().startswith("-") else seconds
    try:
        return parse_duration(float(text))
    except ValueError:
        raise InvalidTtl(f"{text!r} is no duration; {_RIGHT}") from None


def spell_duration(seconds: float) -> str:
    """Return `seconds` as the shortest text that `parse_duration` reads back as the same."""
    if math.isinf(seconds):
        return _FOR_EVER
    rest, words = round(seconds * 1000), []
    for unit, size in _UNITS.items():
        count, rest = divmod(rest, round(size * 1000))
        if count:
            words.append(f"{count}{unit}")
    return "".join(words) or "0s"
