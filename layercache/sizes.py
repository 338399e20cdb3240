"""Amounts of memory as people write them: bytes, or text such as "64MB"."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["parse_size", "spell_size"]

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
_TEXT: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", re.ASCII)


def parse_size(size: int | str) -> int:
    """Return the bytes that `size` means. Raises `ValueError` with what would be right."""
    if isinstance(size, int) and not isinstance(size, bool):
        return size
    match = _TEXT.fullmatch(size) if isinstance(size, str) else None
    if match is None or match[2].upper() not in _UNITS:
        raise ValueError(
            f'{size!r} is no size; right are bytes (65536) or text such as "512KB", "64MB", "1GB"'
        )
    return int(float(match[1]) * _UNITS[match[2].upper()])


def spell_size(size: int) -> str:
    """Return `size` in the largest unit that keeps it exact: 67108864 is "64MB"."""
    for unit in ("GB", "MB", "KB"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return f"{size}B"
