"""Warming: having entries there before anybody asks for them.

A *round* goes once through the items, each a key and what loads it, and loads those that are not there, or not fresh
for long enough. It takes leases as every load does, so of many hosts that warm the same keys one loads each.
"""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from layercache.core.loading import Loading
from layercache.core.policy import Overrides
from layercache.core.port import Port

__all__ = ["Item", "Round"]

_YOUNG: Final = 0.9
"""Of the time between two rounds: what is younger was loaded by another host since our last one."""


class Item(NamedTuple):
    """A key, its loader (of no arguments, `def` or `async def`), and what its load does otherwise."""

    key: str
    loader: Callable[[], Any]
    overrides: Overrides


class Round:
    """One go through `items`, by as many workers at once as there are calls of `work`.

    Args:
        every: seconds between rounds, where this is one of several; what another host has refreshed since the last
            is kept. None: what is fresh is kept.
        done: called after each item.

    Attributes:
        loaded, kept: the keys of which the loader ran, and of those where there was no need.
        failed: what was raised, by key.
    """

    # several threads work on one: whatever they share is changed by one atomic operation

    def __init__(
        self,
        loading: Loading,
        items: Iterable[Item],
        every: float | None = None,
        done: Callable[[], object] | None = None,
    ) -> None:
        self._loading, self._every, self._done = loading, every, done
        self._left = deque(items)
        self.loaded: list[str] = []
        self.kept: list[str] = []
        self.failed: dict[str, Exception] = {}

    async def work(self, port: Port) -> None:
        """See to items until none is left. What fails is noted, and the others go on."""
        while True:
            try:
                item = self._left.popleft()
            except IndexError:
                return
            await self._see_to(port, item)
            if self._done is not None:
                self._done()

    def stop(self) -> None:
        """Begin no further load."""
        self._left.clear()

    async def _see_to(self, port: Port, item: Item) -> None:
        began: list[None] = []
        loader = _noting(item.loader, lambda: began.append(None))
        try:
            after = self._good_enough(port, item)
            await self._loading.refresh(port, item.key, loader, item.overrides, after)
        except Exception as error:
            self.failed[item.key] = error
        else:
            (self.loaded if began else self.kept).append(item.key)

    def _good_enough(self, port: Port, item: Item) -> float:
        """Return until when an entry has to be fresh to be kept."""
        now, every = port.now(), self._every
        if every is None:
            return now
        plan = item.overrides.over(self._loading.verbs.policy.plan_for(item.key))
        if plan.ttl_of is not None or math.isinf(plan.ttl):
            return now + every / _YOUNG  # its age cannot be told: it has to last until the next round
        return now + plan.ttl * (1.0 - plan.jitter) - _YOUNG * every  # before now: what is fresh is


def _noting(loader: Callable[[], Any], note: Callable[[], object]) -> Callable[[], Any]:
    if inspect.iscoroutinefunction(loader):

        async def aload() -> Any:
            note()
            return await loader()

        return aload

    def load() -> Any:
        note()
        return loader()

    return load
