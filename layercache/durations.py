"""Times to live as people write them: seconds, a timedelta, or text such as "1h30m".

Inside the library a duration is a float of seconds, and `math.inf` means for ever.
"""

from __future__ import annotations

import math
import re
import reprlib
from datetime import timedelta
from enum import Enum
from typing import Final, Literal, TypeAlias

from layercache.errors import InvalidTtl

__all__ = ["DEFAULT", "Duration", "Ttl", "parse_duration", "spell_duration"]


class _Default(Enum):
    DEFAULT = "the cache's own ttl"

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT: Final = _Default.DEFAULT
"""The value of a `ttl` argument that was left out: the cache's own, or its pattern's."""

Duration: TypeAlias = int | float | timedelta | str
"""Seconds, a timedelta, or text such as "250ms"."""

Ttl: TypeAlias = int | float | timedelta | str | Literal[_Default.DEFAULT] | None
"""What every `ttl` argument takes: seconds, a timedelta, text, None for ever, or `DEFAULT`."""

_UNITS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}  # milliseconds
# With more digits than any time has, a float overflows.
_TERM: Final = re.compile(r"(\d{1,30}(?:\.\d{1,30})?)\s*(ms|[dhms])", re.ASCII)
_TEXT: Final = re.compile(rf"\s*-?(?:{_TERM.pattern}\s*)+", re.ASCII)
_FOR_EVER: Final = "forever"
_LONG: Final = 1e15  # seconds, 30 million years: a float has no milliseconds any more


def parse_duration(duration: float | timedelta | str | None) -> float:
    """Return the seconds that `duration` means; `math.inf` for None and for "forever".

    Text is one or more numbers with the units d, h, m, s, ms ("15s", "1h30m", "250ms"), or a
    plain number of seconds. Raises `InvalidTtl` for anything else, NaN and bools included.
    """
    if type(duration) is int and -_LONG < duration < _LONG:
        return float(duration)
    if duration is None:
        return math.inf
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    if isinstance(duration, str):
        return _parse_text(duration)
    # what users pass is checked, whatever the annotation says
    is_number = isinstance(duration, int | float) and not isinstance(duration, bool)  # pyright: ignore[reportUnnecessaryIsInstance]
    try:
        seconds = float(duration) if is_number else math.nan
    except OverflowError:
        seconds = math.nan
    if math.isnan(seconds) or seconds == -math.inf:
        raise InvalidTtl(f"{reprlib.repr(duration)} is no duration; {_RIGHT}")
    return seconds


_RIGHT: Final = (
    'right are seconds (15, 0.5), a timedelta, text such as "15s", "5m" or "1h30m", and None for ever'
)


def _parse_text(text: str) -> float:
    if text.strip().lower() == _FOR_EVER:
        return math.inf
    if _TEXT.fullmatch(text):
        # divided rather than multiplied by 0.001: 9 * 0.001 is not 0.009
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _TERM.findall(text)) / 1000
        return -seconds if text.lstrip().startswith("-") else seconds
    try:
        return parse_duration(float(text))
    except ValueError:
        raise InvalidTtl(f"{reprlib.repr(text)} is no duration; {_RIGHT}") from None


def spell_duration(seconds: float) -> str:
    """Return `seconds` as text that `parse_duration` reads back as the same: in units, as "1h30m", where
    they are whole milliseconds, else as a plain number."""
    if seconds == math.inf:
        return _FOR_EVER
    if abs(seconds) >= _LONG:
        return repr(float(seconds))
    rest, words = round(abs(seconds) * 1000), []
    for unit, size in _UNITS.items():
        count, rest = divmod(rest, size)
        if count:
            words.append(f"{count}{unit}")
    text = ("-" if seconds < 0 else "") + ("".join(words) or "0s")
    return text if parse_duration(text) == seconds else repr(float(seconds))
