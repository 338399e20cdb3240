"""Who wants to see each load and each far operation while it happens: nobody, unless asked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

__all__ = ["Watcher"]


class Watcher(Protocol):
    """What is told of loads and of operations that wait for a network or a disk; of hits near, never."""

    def loading(self, cache: str, keys: Sequence[str], *, background: bool) -> AbstractContextManager[object]:
        """Return what is entered while the loader of `keys` runs, and left with what it raised."""
        ...

    def operated(
        self, cache: str, layer: str, type_: str, op: str, began: float, seconds: float, *, failed: bool
    ) -> None:
        """An operation is over: `op` is "read" or "write", `began` the wall clock."""
        ...
