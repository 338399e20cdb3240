"""Amounts of memory as people write them: bytes, or text such as "64MB"."""

from __future__ import annotations

import re
import reprlib
from typing import Final

__all__ = ["parse_size", "rough_size", "spell_size"]

# Binary multiples for both spellings, as Redis' maxmemory has it for kb, mb and gb.
_UNITS: Final = {
    "": 1,
    "B": 1,
    "KB": 1 << 10,
    "MB": 1 << 20,
    "GB": 1 << 30,
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
}
# With more digits than anybody has bytes for, ints and floats overflow.
_TEXT: Final = re.compile(r"\s*(\d{1,30})(\.\d{1,30})?\s*([A-Za-z]*)\s*", re.ASCII)


def parse_size(size: int | str) -> int:
    """Return the bytes that `size` means, rounded down. Raises `ValueError` with what would be right."""
    if isinstance(size, int) and not isinstance(size, bool) and size >= 0:
        return size
    match = _TEXT.fullmatch(size) if isinstance(size, str) else None
    if match is None or match[3].upper() not in _UNITS:
        raise ValueError(
            f'{reprlib.repr(size)} is no size; right are bytes (65536) or text such as "512KB", "64MB", "1GB"'
        )
    unit = _UNITS[match[3].upper()]
    # the whole part apart, as a float has only 53 bits
    return int(match[1]) * unit + int(float(match[2] or 0) * unit)


def spell_size(size: int) -> str:
    """Return `size` in the largest unit that keeps it exact: 67108864 is "64MB"."""
    for unit in ("GB", "MB", "KB"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return f"{size}B"


def rough_size(size: float) -> str:
    """Return `size` rounded, as people say it: 67000000 is "63.9 MB"."""
    for unit in ("bytes", "KB", "MB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} GB"
