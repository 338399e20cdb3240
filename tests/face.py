"""One suite for both faces: a cache whose verbs are called either plainly or through their async twins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from layercache import Cache


class Twins:
    """Calls an operation of `target` either plainly or, given a runner, through its async twin."""

    def __init__(self, target: Any, runner: asyncio.Runner | None) -> None:
        self._target, self.runner = target, runner

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.runner is None:
                return getattr(self._target, operation)(*args, **kwargs)

            async def acall() -> Any:
                return await getattr(self._target, f"a{operation}")(*args, **kwargs)

            return self.runner.run(acall())

        return call


class Face(Twins):
    """Calls a verb of a cache on one of its faces."""

    def __init__(self, cache: Cache[Any], runner: asyncio.Runner | None) -> None:
        super().__init__(cache, runner)
        self.cache = cache

    def typed(self, type_: Any) -> Face:
        return Face(self.cache.typed(type_), self.runner)
