"""One suite for both faces: a cache whose verbs are called either plainly or through their async twins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from layercache import Cache


class Face:
    """Calls a verb of a cache on one of its faces."""

    def __init__(self, cache: Cache[Any], runner: asyncio.Runner | None) -> None:
        self.cache, self.runner = cache, runner

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.runner is None:
                return getattr(self.cache, verb)(*args, **kwargs)

            async def acall() -> Any:
                return await getattr(self.cache, f"a{verb}")(*args, **kwargs)

            return self.runner.run(acall())

        return call

    def typed(self, type_: Any) -> Face:
        return Face(self.cache.typed(type_), self.runner)
