"""What a decorated function is to its callers and to type checkers. For annotations: no function is an instance."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

if TYPE_CHECKING:
    from layercache.warming import WarmReport

__all__ = ["AsyncCachedFunction", "CachedFunction"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class CachedFunction(Protocol[P, R_co]):
    """What `@cached` makes of a `def`."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key of the result for these arguments."""
        ...

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result for these arguments, one that is being loaded as well; return whether there was one."""
        ...

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run the function whatever is there, and keep and return its result. What it raises is raised, and what was
        there stays."""
        ...

    def peek(self, *args: P.args, **kwargs: P.kwargs) -> R_co | None:
        """Return the result that is kept, fresh or stale, or None; runs nothing and counts nothing."""
        ...

    def uncached(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run the function itself; nothing is read or kept."""
        ...

    def warm(self, *, concurrency: int = 8) -> WarmReport:
        """Load those results of the calls that `@cached(warm=...)` lists that are not there, or not fresh; with its
        `refresh_every`, go on so until the report's `cancel()`. `InvalidOption` where there is no list."""
        ...

    @overload
    def __get__(self, instance: None, owner: Any = None, /) -> CachedFunction[P, R_co]: ...
    @overload
    def __get__(
        self: CachedFunction[Concatenate[Any, Q], R], instance: object, owner: Any = None, /
    ) -> CachedFunction[Q, R]: ...


class AsyncCachedFunction(Protocol[P, R_co]):
    """What `@cached` makes of an `async def`: as `CachedFunction`, to be awaited."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]: ...

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key of the result for these arguments; not awaited."""
        ...

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """As for a `def`."""
        ...

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """As for a `def`."""
        ...

    async def peek(self, *args: P.args, **kwargs: P.kwargs) -> R_co | None:
        """As for a `def`."""
        ...

    def uncached(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]:
        """As for a `def`: the function itself."""
        ...

    async def warm(self, *, concurrency: int = 8) -> WarmReport:
        """As for a `def`."""
        ...

    @overload
    def __get__(self, instance: None, owner: Any = None, /) -> AsyncCachedFunction[P, R_co]: ...
    @overload
    def __get__(
        self: AsyncCachedFunction[Concatenate[Any, Q], R], instance: object, owner: Any = None, /
    ) -> AsyncCachedFunction[Q, R]: ...
