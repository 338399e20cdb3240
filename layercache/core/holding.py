"""Holding back: keys that nobody in this process is to refresh now, although what is there is stale.

Rule: a load that failed is not tried again before `retry_after`, and one that another process is at is not asked for
with every hit. That a key's load fails is logged once, and once that it works again.
"""

from __future__ import annotations

import logging
from typing import Final

from layercache.core.port import Port

__all__ = ["Holding"]

log = logging.getLogger("layercache.loading")

_BUSY: Final = 0.05
"""Seconds for which a key that another process loads is not asked for again by those who have a stale value."""

_MOST: Final = 10_000
"""Keys; with more they are all forgotten, which costs no more than tries that come too early."""


class Holding:
    """The keys of one cache that are held back, and those whose loads fail."""

    def __init__(self) -> None:
        self._held: dict[str, float] = {}  # by key: until when
        self._failing: set[str] = set()  # of which a failure was logged, and no load has worked since

    def is_held(self, port: Port, key: str) -> bool:
        """Whether nobody here is to refresh `key` now."""
        if not self._held:
            return False
        until = self._held.get(key)
        if until is None:
            return False
        if until > port.now():
            return True
        self._held.pop(key, None)
        return False

    def busy(self, port: Port, key: str) -> None:
        """Another process loads `key`."""
        self._hold(port, key, _BUSY)

    def fails(self, port: Port, key: str, seconds: float, error: Exception) -> None:
        """The load of `key` failed, and its stale value is served; it is not tried again for `seconds`."""
        self._hold(port, key, seconds)
        if key in self._failing:
            return
        if len(self._failing) >= _MOST:
            self._failing.clear()
        self._failing.add(key)
        log.warning("loading %r fails; its stale value is served meanwhile", key, exc_info=error)

    def works(self, key: str) -> None:
        """A load of `key` gave a value."""
        if not self._held and not self._failing:  # as a rule
            return
        self._held.pop(key, None)
        if key in self._failing:
            self._failing.discard(key)
            log.warning("loading %r works again", key)

    def _hold(self, port: Port, key: str, seconds: float) -> None:
        if len(self._held) >= _MOST:
            self._held.clear()
        self._held[key] = port.now() + seconds
