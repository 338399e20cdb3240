"""How long entries live: the ttl of the call, else of the key's pattern, else of the cache.

Rule for patterns: of those that match, the one with the most literal characters wins; equal ones
in alphabetical order. So the order of tables in a settings file never matters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import translate
from typing import Any

from layercache.durations import DEFAULT, Ttl, parse_duration

__all__ = ["Policy"]


class Policy:
    """The times of one cache.

    Args:
        ttl: seconds, `math.inf` for ever.
        ttls: glob patterns of keys (`*`, `?`, `[…]`, case-sensitive) to seconds.
        max_key_bytes: the longest key, in UTF-8.
    """

    def __init__(self, ttl: float, ttls: Mapping[str, float], max_key_bytes: int) -> None:
        self.ttl, self.max_key_bytes = ttl, max_key_bytes
        ranked = sorted(ttls, key=lambda pattern: (-len(re.sub(r"[*?]|\[.*?\]", "", pattern)), pattern))
        self.has_patterns = bool(ttls)
        self._patterns = [(_matcher(pattern), ttls[pattern]) for pattern in ranked]

    def ttl_for(self, key: str, ttl: Ttl = DEFAULT) -> float:
        """Return the seconds that an entry of `key` lives, `math.inf` for ever; 0 or less means not at all."""
        if ttl is not DEFAULT:
            return parse_duration(ttl)
        for matches, seconds in self._patterns:
            if matches(key):
                return seconds
        return self.ttl


def _matcher(pattern: str) -> Any:
    if pattern.endswith("*") and not re.search(r"[*?\[]", pattern[:-1]):
        prefix = pattern[:-1]
        return lambda key: key.startswith(prefix)
    return re.compile(translate(pattern)).match
