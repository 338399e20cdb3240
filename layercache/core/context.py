"""What a loader may know of its load, and say of what it loads."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from enum import Enum
from functools import partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from layercache.core.policy import checked_tags
from layercache.durations import DEFAULT, Ttl, parse_duration
from layercache.entry import MISSING, Entry
from layercache.errors import InvalidTtl

if TYPE_CHECKING:
    from layercache.core.flights import Flight

__all__ = ["LoadContext", "NotModified", "current_load", "loads_under_way", "with_context"]

T = TypeVar("T")


class _NotModified(Enum):
    NOT_MODIFIED = "the stale value is still right"

    def __repr__(self) -> str:
        return "NotModified"


NotModified: Final = _NotModified.NOT_MODIFIED
"""What a loader returns, instead of a value, to keep the stale one for another ttl. Only where there is one."""


class LoadContext(Generic[T]):
    """One load, as its loader sees it.

    A loader of one parameter is given it; any other, and a function under `@cached`, finds it with `current_load()`.

        def load(load: LoadContext[Quote]) -> Quote:
            answer = fetch(etag=load.stale.etag if load.stale else None)
            if answer.status == 304:
                return NotModified
            load.ttl = answer.max_age
            load.add_tags(f"exchange:{answer.exchange}")
            return answer.quote

    Attributes:
        key: what is loaded.
        ttl: how long the value will live, if set: seconds, a timedelta, text, None for ever. It wins over all else.
        stale_ttl: how long after that it is kept to be served stale, if set; it wins as well.
        tags: those that were added.
        flights: of all keys that are loaded together.
        seconds: what the load took, once it is over.
    """

    __slots__ = ("_read", "_stale", "_stale_ttl", "_ttl", "flights", "key", "seconds", "tags")

    def __init__(
        self, key: str, stale: Entry | None, read: Callable[[Entry], Any], flights: Sequence[Flight]
    ) -> None:
        self.key, self.flights = key, flights
        self.tags: tuple[str, ...] = ()
        self.seconds = 0.0
        self._stale, self._read = stale, read
        self._ttl: Ttl = DEFAULT
        self._stale_ttl: Ttl = DEFAULT

    @property
    def stale(self) -> T | None:
        """The value that is there and stale, or about to be; None where there is none."""
        value = MISSING if self._stale is None else self._read(self._stale)
        return None if value is MISSING else value

    @property
    def ttl(self) -> Ttl:
        """How long the value is fresh, as `set` takes it; raises `InvalidTtl` for what is none."""
        return self._ttl

    @ttl.setter
    def ttl(self, ttl: Ttl) -> None:
        if ttl is not DEFAULT:
            parse_duration(ttl)
        self._ttl = ttl

    @property
    def stale_ttl(self) -> Ttl:
        """How long it may be served stale after that; raises `InvalidTtl` below 0."""
        return self._stale_ttl

    @stale_ttl.setter
    def stale_ttl(self, stale_ttl: Ttl) -> None:
        if stale_ttl is not DEFAULT and parse_duration(stale_ttl) < 0:
            raise InvalidTtl(f"stale_ttl is 0 seconds or more, not {stale_ttl!r}")
        self._stale_ttl = stale_ttl

    def add_tags(self, *tags: str) -> None:
        """Have `invalidate` of any of `tags` drop the value; raises `InvalidOption` for what is no tag."""
        self.tags += checked_tags(tags)

    def __repr__(self) -> str:
        return f"<LoadContext of {self.key!r}>"


loads_under_way: Final[ContextVar[tuple[LoadContext[Any], ...]]] = ContextVar("loads_under_way", default=())
"""The loads that the running code is part of, the outermost first. Tasks and `asyncio.to_thread` hand it on; a thread
that a loader starts by itself knows nothing of it."""


def current_load() -> LoadContext[Any] | None:
    """Return the load that the running code is part of, None outside of any."""
    under_way = loads_under_way.get()
    return under_way[-1] if under_way else None


def with_context(loader: Callable[..., Any], context: LoadContext[Any]) -> Callable[[], Any]:
    """Return `loader` as a function without arguments: one of one parameter without default is given the context."""
    return partial(loader, context) if _wants_one(loader) else loader


def _wants_one(loader: Callable[..., Any]) -> bool:
    bound = 0
    function: Any = loader
    if type(function) is MethodType:
        function, bound = function.__func__, 1
    if type(function) is FunctionType:  # nearly all are; asking `inspect` takes ten times as long
        code = function.__code__
        return code.co_argcount - len(function.__defaults__ or ()) - bound == 1
    if type(function) is partial:
        return False  # as it was made to be called without arguments, by us or by the user
    try:
        parameters = inspect.signature(loader).parameters.values()
    except (TypeError, ValueError):  # built in, without a signature
        return False
    wanted = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(each.kind in wanted and each.default is each.empty for each in parameters) == 1
