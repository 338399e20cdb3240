"""@cached for def and async def: the function's result, kept under a key made of its arguments.

A plain function stays one, with the attributes `key`, `invalidate`, `refresh`, `peek`, `uncached` and `warm`. One in a
class body becomes a descriptor, so that what it is bound to an object has the same attributes without the object.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import lru_cache, partial, update_wrapper, wraps
from types import MethodType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    ParamSpec,
    Protocol,
    TypeVar,
    Unpack,
    get_type_hints,
    overload,
)

from layercache.caches import closings, get_cache
from layercache.durations import DEFAULT, Ttl
from layercache.entry import MISSING

if TYPE_CHECKING:
    from layercache.arguments import KeyOf, OverridesOf, Parameters
    from layercache.core.policy import LoadOptions
    from layercache.face import Cache

__all__ = ["AsyncCachedFunction", "CachedFunction", "Decorator", "cached"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


def cached(
    key: str | None = None,
    *,
    cache: str = "default",
    ttl: Ttl | Callable[..., Ttl] = DEFAULT,
    ignore: Iterable[str] = (),
    **options: Unpack[LoadOptions],
) -> Decorator:
    """Return a decorator that caches what a function, `def` or `async def`, returns.

        @cached("quote:{symbol}", cache="stock", ttl="15s", tags=["quote:{symbol}", "quotes"])
        async def quote(symbol: str) -> Quote: ...

    Args:
        key: a template over the function's parameters. Text and ints stand in it as they are, with the characters
            that mean something in keys escaped; other values as `make_key` spells them. Left out,
            the key is made of the function's module and name and all of its arguments.
        cache: the name of the cache, opened at the first call.
        ttl: how long a result lives; left out, the cache's own or the key's pattern's. Or a function of the result,
            which is given the arguments that it has parameters for: `lambda quote, period: ...`.
        ignore: the names of parameters that are left out of the key, such as "self".
        options: what the loads do otherwise than the settings say; see `LoadOptions`. Each of `tags` may be a template
            as well; a function that gives them is called as that for `ttl` is.

    The return annotation says which type a cached result is restored to; without one it comes back in JSON's kinds.
    Calls with the same key share one run of the function, in every process as far as the backend is shared. It finds
    its load with `current_load()`.
    """
    return Decorator(partial(get_cache, cache), key, ttl, options, ignore)


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

    @overload
    def __get__(self, instance: None, owner: Any = None, /) -> AsyncCachedFunction[P, R_co]: ...
    @overload
    def __get__(
        self: AsyncCachedFunction[Concatenate[Any, Q], R], instance: object, owner: Any = None, /
    ) -> AsyncCachedFunction[Q, R]: ...


class Decorator:
    """What `cached(...)` returns.

    Raises `InvalidTtl` and `InvalidOption` for options that cannot be right when it is made, and at decoration
    `TypeError` for what it cannot cache and `ValueError` for a template that names no parameter.
    """

    def __init__(
        self,
        cache: Callable[[], Cache[Any]],
        key: str | None,
        ttl: Any,
        options: Mapping[str, Any],
        ignore: Iterable[str] = (),
    ) -> None:
        from layercache.core.policy import Overrides

        if callable(key):
            raise TypeError("write @cached() with parentheses, or @cached('quote:{symbol}')")
        if isinstance(ignore, str):
            raise TypeError(f"ignore takes several names, such as [{ignore!r}]; got one str")
        Overrides(ttl, options)
        self._cache, self._key, self._ttl, self._options = cache, key, ttl, options
        self._ignore = tuple(ignore)

    # an `async def` is a function that returns a coroutine, too: the first that fits is meant
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self,
        function: Callable[P, Coroutine[Any, Any, R]],  # pyright: ignore[reportOverlappingOverload]
        /,
    ) -> AsyncCachedFunction[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> CachedFunction[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any:
        import inspect  # here, as it is a fifth of what `import layercache` may cost

        from layercache.arguments import Parameters, key_maker, overrides_maker

        _check(function, self._key)
        parameters = Parameters(function, self._ignore)
        calls = (_AsyncCalls if inspect.iscoroutinefunction(function) else _Calls)(
            function,
            parameters,
            key_maker(function, parameters, self._key),
            overrides_maker(parameters, self._ttl, self._options),
            self._cache,
        )
        return calls.method() if _is_in_a_class_body(function) else calls.function()


_ATTRIBUTES: Final = frozenset({"key", "invalidate", "refresh", "peek"})


class _Calls:
    """A decorated `def`: what its calls do, and those of its attributes."""

    def __init__(
        self,
        function: Callable[..., Any],
        parameters: Parameters,
        key_of: KeyOf,
        overrides_of: OverridesOf,
        cache: Callable[[], Cache[Any]],
    ) -> None:
        self._function, self._parameters = function, parameters
        self._key_of, self._overrides_of = key_of, overrides_of
        self._view = _view_maker(function, cache)

    def function(self) -> Any:
        call: Any = self._call()
        for name in _ATTRIBUTES:
            setattr(call, name, getattr(self, name))
        call.uncached = self._function
        return call

    def method(self) -> Any:
        return _Method(self.function())

    def _call(self) -> Callable[..., Any]:
        view, key_of, function, overrides_of = self._view, self._key_of, self._function, self._overrides_of

        # a hit near asks for no `partial` and enters no verb: 0.4 µs where going through get_or_set took 3.4
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            cache, key = view(), key_of(args, kwargs)
            value = cache.hit(key)
            if value is not MISSING:
                return value
            return cache._load(key, partial(function, *args, **kwargs), overrides_of(args, kwargs))  # noqa: SLF001

        return call

    def key(self, /, *args: Any, **kwargs: Any) -> str:
        return self._key_of(args, kwargs)

    def invalidate(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._view().delete(self._key_of(args, kwargs))

    def refresh(self, /, *args: Any, **kwargs: Any) -> Any:
        key, loader = self._key_of(args, kwargs), partial(self._function, *args, **kwargs)
        return self._view()._reload(key, loader, self._overrides_of(args, kwargs))  # noqa: SLF001

    def peek(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._view().peek(self._key_of(args, kwargs))


class _AsyncCalls(_Calls):
    """A decorated `async def`."""

    def method(self) -> Any:
        return _AsyncMethod(self.function())

    def _call(self) -> Callable[..., Any]:
        view, key_of, function, overrides_of = self._view, self._key_of, self._function, self._overrides_of

        @wraps(function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            cache, key = view(), key_of(args, kwargs)
            value = cache.hit(key)
            if value is not MISSING:
                return value
            return await cache._aload(key, partial(function, *args, **kwargs), overrides_of(args, kwargs))  # noqa: SLF001

        return call

    async def invalidate(self, /, *args: Any, **kwargs: Any) -> Any:
        return await self._view().adelete(self._key_of(args, kwargs))

    async def refresh(self, /, *args: Any, **kwargs: Any) -> Any:
        key, loader = self._key_of(args, kwargs), partial(self._function, *args, **kwargs)
        return await self._view()._areload(key, loader, self._overrides_of(args, kwargs))  # noqa: SLF001

    async def peek(self, /, *args: Any, **kwargs: Any) -> Any:
        return await self._view().apeek(self._key_of(args, kwargs))


# -- methods


class _Method:
    """A decorated function as it stands in a class body."""

    def __init__(self, call: Any) -> None:
        update_wrapper(self, call)  # which brings its attributes along
        self.__wrapped__ = call.uncached
        self._call = call

    def __get__(self, instance: object, owner: Any = None) -> Any:
        return self._call if instance is None else _Bound(self._call, instance)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:  # under @staticmethod
        return self._call(*args, **kwargs)


class _AsyncMethod(_Method):
    def __init__(self, call: Any) -> None:
        import inspect

        super().__init__(call)
        mark = getattr(inspect, "markcoroutinefunction", None)  # Python 3.12
        if mark is not None:
            mark(self)

    async def __call__(self, /, *args: Any, **kwargs: Any) -> Any:  # frameworks look whether this is async
        return await self._call(*args, **kwargs)


class _Bound(partial[Any]):
    """A decorated method of one object. A `partial`, as making and calling one takes no frame of Python, and `inspect`
    and frameworks look through it."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.func, name)  # __name__ and its like too
        if name in {"uncached", "__wrapped__"}:
            return MethodType(found, self.args[0])
        return partial(found, *self.args) if name in _ATTRIBUTES else found

    @property
    def __self__(self) -> Any:
        return self.args[0]

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.func.__doc__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Bound) and self.func is other.func and self.args[0] is other.args[0]

    def __hash__(self) -> int:
        return hash((self.func, id(self.args[0])))

    def __repr__(self) -> str:
        return f"<cached method {self.func.__qualname__} of {self.args[0]!r}>"


def _is_in_a_class_body(function: Callable[..., Any]) -> bool:
    around, _, _ = function.__qualname__.rpartition(".")
    # a method that is bound already has found its object
    return bool(around) and not around.endswith("<locals>") and not hasattr(function, "__self__")


# -- checks and types


def _check(function: Any, template: str | None) -> None:
    import inspect

    if isinstance(function, classmethod | staticmethod):
        kind = type(function).__name__
        raise TypeError(f"write @{kind} above @cached(...), so that the function itself is cached")
    if not callable(function) or not hasattr(function, "__qualname__") or inspect.isclass(function):
        raise TypeError(f"a function can be cached, not {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{function.__qualname__} is a generator: what it yields cannot be cached; return a list"
        )
    if template is None and function.__name__ == "<lambda>":
        raise TypeError("all lambdas of a module have one name; give a key such as @cached('quote:{symbol}')")


def _view_maker(
    function: Callable[..., Any], open_cache: Callable[[], Cache[Any]]
) -> Callable[[], Cache[Any]]:
    """Return what gives the view of the cache that results are kept in, looked up anew after any was closed."""
    type_of = lru_cache(maxsize=1)(partial(_returned_type, function))
    # in one name: between two, another thread could take a closed cache for one looked up since
    known: tuple[int, Cache[Any] | None] = (-1, None)

    def view() -> Cache[Any]:
        nonlocal known
        seen, cache = known
        now = closings.count
        if cache is None or seen != now:
            cache, returned = open_cache(), type_of()
            cache = cache if returned is Any else cache.typed(returned)
            known = now, cache
        return cache

    return view


def _returned_type(function: Callable[..., Any]) -> Any:
    """Return what the return annotation of `function` says, `Any` where there is none.

    Resolved at the first call: it may name a class that is defined further down. The annotations of
    the parameters stay as they are: they may name what only a type checker imports.
    """
    import inspect

    function = inspect.unwrap(function)
    annotations = getattr(function, "__annotations__", {})
    if "return" not in annotations:
        return Any

    def returning() -> None: ...

    returning.__annotations__ = {"return": annotations["return"]}
    has_code = inspect.isfunction(function) or inspect.ismethod(function)
    closed = inspect.getclosurevars(function).nonlocals if has_code else {}
    try:
        hints = get_type_hints(
            returning, getattr(function, "__globals__", {}), dict(closed), include_extras=True
        )
    except NameError as error:
        error.add_note(
            f"@cached restores what {function.__qualname__} returns to its annotation, "
            "so the annotation has to name what can be found when it is called"
        )
        raise
    return hints["return"]
