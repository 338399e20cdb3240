"""Caches in FastAPI, and in Starlette: as dependencies, and open for as long as the application runs.

    from layercache.integrations.fastapi import cache, lifespan

    app = FastAPI(lifespan=lifespan())
    Stock = Annotated[Cache[Any], Depends(cache("stock"))]

    @app.get("/quotes/{symbol}")
    async def quote(symbol: str, stock: Stock) -> float:
        return await stock.aget_or_set(f"quote:{symbol}", ...)

Nothing here imports FastAPI: whoever uses it has it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Hashable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar, overload

import layercache.default
from layercache.decorator import Calls, declared
from layercache.default import get_cache
from layercache.errors import InvalidOption

if TYPE_CHECKING:
    from layercache.face import Cache
    from layercache.warming import WarmReport

__all__ = ["Dependency", "Lifespan", "cache", "lifespan"]

T = TypeVar("T")

log = logging.getLogger("layercache.warming")

Lifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Any]]
"""What `FastAPI(lifespan=...)` takes: the application to a context manager that yields its state, or None."""

Dependency: TypeAlias = "Callable[[], Coroutine[Any, Any, Cache[T]]]"
"""What `Depends` takes."""


@overload
def cache(name: str = "default") -> Dependency[Any]: ...
@overload
def cache(name: str, type_: type[T]) -> Dependency[T]: ...
@overload
def cache(name: str, type_: Any) -> Dependency[Any]: ...
def cache(name: str = "default", type_: Any = Any) -> Dependency[Any]:
    """Return a dependency that gives the cache of that name.

        Stock = Annotated[Cache[Any], Depends(cache("stock"))]
        Quotes = Annotated[Cache[Quote], Depends(cache("stock", Quote))]

    Args:
        name: of the cache; it is looked up at each request, so `configure` and tests may replace it.
        type_: of its values, as for `Cache.typed`.

    The same name and type give the same dependency: `app.dependency_overrides[cache("stock")] = ...` replaces it.
    """
    key: tuple[str, Hashable] = (name, type_)
    try:
        hash(type_)
    except TypeError:  # Annotated[int, [1]] has no hash
        key = (name, repr(type_))
    if key not in _dependencies:
        # async, as FastAPI has others wait for a thread: 50 µs for a look into a dict
        async def dependency() -> Cache[Any]:
            found = get_cache(name)
            return found if type_ is Any else found.typed(type_)

        dependency.__name__ = dependency.__qualname__ = f"cache_{name}"
        _dependencies[key] = dependency
    return _dependencies[key]


_dependencies: Final[dict[tuple[str, Hashable], Dependency[Any]]] = {}


def lifespan(
    *names: str,
    warm: Literal["background", "first", "off"] = "background",
    around: Lifespan | None = None,
) -> Lifespan:
    """Return a lifespan that opens caches when an application starts, and closes all when it ends.

        app = FastAPI(lifespan=lifespan())
        app = FastAPI(lifespan=lifespan("stock", around=my_own))

    Args:
        names: of the caches to open; left out, all that the settings define. Wrong settings, and names that they do
            not define, end the start of the application and not its first request.
        warm: when to load what functions over these caches list in `@cached(warm=[...])`, and to begin their
            `refresh_every`: "background", while requests are served already; "first", before any is; "off", never.
            What cannot be loaded is logged, and keeps nothing from starting.
        around: a lifespan of your own. It begins when the caches are open, and ends before they are closed.
    """
    if warm not in {"background", "first", "off"}:
        raise InvalidOption(f'warm is "background", "first" or "off", not {warm!r}')

    @asynccontextmanager
    async def open_while_it_runs(app: Any) -> AsyncGenerator[Any]:
        # what runs last stands first: caches are closed when nobody uses them any more
        async with AsyncExitStack() as ending:
            ending.push_async_callback(layercache.default.aclose)
            opened = [get_cache(name) for name in names or layercache.default.names()]
            wanted = [] if warm == "off" else _declared_over(opened)
            if warm == "first":
                await _warm(wanted)
            elif wanted:
                task = asyncio.create_task(_warm(wanted), name="layercache-warm")
                ending.push_async_callback(_end, task)
            yield None if around is None else await ending.enter_async_context(around(app))

    return open_while_it_runs


def _declared_over(opened: Sequence[Cache[Any]]) -> list[Calls]:
    """Return the functions that say what of them is to be warm, and keep it in one of these caches."""
    by_name = {each.name: each for each in opened}
    found: list[Calls] = []
    for calls in declared():
        view = calls.view()
        own = by_name.get(view.name)
        if own is not None and view._views is own._views:  # noqa: SLF001  (one of another world is not ours)
            found.append(calls)
    return found


async def _warm(wanted: Sequence[Calls]) -> None:
    for calls in wanted:
        report: WarmReport
        if calls.is_async:
            report = await calls.warm()
        else:
            report = await asyncio.to_thread(calls.warm)
        for key, error in report.failed.items():
            log.warning("%s: %r could not be warmed", calls.name, key, exc_info=error)
        log.info("%s: %r", calls.name, report)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
