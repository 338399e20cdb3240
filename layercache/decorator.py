"""@cached for def and async def: the function's result, kept under a key made of its arguments.

A plain function stays one, with the attributes `key`, `invalidate`, `refresh`, `peek`, `uncached` and `warm`. One in a
class body becomes a descriptor, so that what it is bound to an object has the same attributes without the object.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import lru_cache, partial, update_wrapper, wraps
from types import MethodType
from typing import TYPE_CHECKING, Any, Final, Unpack, get_type_hints, overload
from weakref import WeakValueDictionary

from layercache.caches import closings
from layercache.default import get_cache
from layercache.durations import DEFAULT, Duration, Ttl
from layercache.entry import MISSING
from layercache.errors import InvalidOption

if TYPE_CHECKING:
    from typing import ParamSpec, TypeVar

    from layercache.arguments import KeyOf, OverridesOf, Parameters
    from layercache.callables import AsyncCachedFunction, CachedFunction
    from layercache.core.policy import CallOptions
    from layercache.core.warming import Item
    from layercache.face import Cache

    P = ParamSpec("P")
    R = TypeVar("R")

__all__ = ["Calls", "Decorator", "cached", "declared"]


def cached(
    key: str | None = None,
    *,
    cache: str = "default",
    ttl: Ttl | Callable[..., Ttl] = DEFAULT,
    ignore: Iterable[str] = (),
    warm: Iterable[Any] | None = None,
    refresh_every: Duration | None = None,
    **options: Unpack[CallOptions],
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
        warm: the calls of which `warm()` of the function, and `layercache warm`, load the results: each a tuple of
            positional arguments, a dict of keyword arguments, or a single argument.
        refresh_every: has `warm()` keep them warm from then on, in this process.
        options: what the loads do otherwise than the settings say; see `LoadOptions`. Each of `tags` may be a template
            as well; or `tags` is a function that gives them: of arguments of the call, `lambda symbol, period: ...`,
            or, where its first parameter is none of the function's, of the result, as that for `ttl`. Either may ask
            for parameters that are ignored.

    The return annotation says which type a cached result is restored to; without one it comes back in JSON's kinds.
    Calls with the same key share one run of the function, in every process as far as the backend is shared. It finds
    its load with `current_load()`.
    """
    return Decorator(partial(get_cache, cache), key, ttl, options, ignore, warm, refresh_every)


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
        warm: Iterable[Any] | None = None,
        refresh_every: Any = None,
    ) -> None:
        from layercache.core.policy import Overrides

        if callable(key):
            raise TypeError("write @cached() with parentheses, or @cached('quote:{symbol}')")
        if isinstance(ignore, str):
            raise TypeError(f"ignore takes several names, such as [{ignore!r}]; got one str")
        Overrides(ttl, options)
        self._cache, self._key, self._ttl, self._options = cache, key, ttl, options
        self._ignore = tuple(ignore)
        self._warm, self._every = _checked_warm(warm, refresh_every)

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
        calls = (_AsyncCalls if inspect.iscoroutinefunction(function) else Calls)(
            function,
            parameters,
            key_maker(function, parameters, self._key),
            overrides_maker(parameters, self._ttl, self._options),
            self._cache,
        )
        in_class = _is_in_a_class_body(function)
        if self._warm is not None:
            calls.declare(self._warm, self._every, of_object=in_class and parameters.names[:1] in _OBJECTS)
        return calls.method() if in_class else calls.function()


_ATTRIBUTES: Final = frozenset({"key", "invalidate", "refresh", "peek", "warm"})
_OBJECTS: Final = (["self"], ["cls"])  # what a method calls its object


class Calls:
    """A decorated `def`: what its calls do, and those of its attributes.

    Attributes:
        name: of the function, with its module.
        is_async: whether its attributes are awaited.
    """

    is_async = False

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
        self.view = _view_maker(function, cache)
        self.name = f"{function.__module__}.{function.__qualname__}"
        self._warm: list[tuple[tuple[Any, ...], dict[str, Any]]] | None = None
        self._every: float | None = None
        self._of_object = False

    def function(self) -> Any:
        """Return what a plain function is replaced with."""
        call: Any = self._call()
        for name in _ATTRIBUTES:
            setattr(call, name, getattr(self, name))
        call.uncached, call.calls = self._function, self
        return call

    def method(self) -> Any:
        """Return what a method is replaced with: a descriptor that binds its object."""
        return _Method(self.function())

    def _call(self) -> Callable[..., Any]:
        view, key_of, function, overrides_of = self.view, self._key_of, self._function, self._overrides_of

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
        return self.view().delete(self._key_of(args, kwargs))

    def refresh(self, /, *args: Any, **kwargs: Any) -> Any:
        key, loader = self._key_of(args, kwargs), partial(self._function, *args, **kwargs)
        return self.view()._reload(key, loader, self._overrides_of(args, kwargs))  # noqa: SLF001

    def peek(self, /, *args: Any, **kwargs: Any) -> Any:
        return self.view().peek(self._key_of(args, kwargs))

    # -- warming

    def declare(self, warm: Sequence[Any], every: float | None, *, of_object: bool) -> None:
        """Have `warm` load what is listed; `TypeError` where it does not fit the function."""
        self._every, self._of_object = every, of_object
        self._warm = [self._parameters.call(item, of_object=of_object) for item in warm]
        if not of_object:
            for args, kwargs in self._warm:
                self._key_of(args, kwargs)  # what cannot stand in a key is said now
            _declared[id(self)] = self

    def items(self, *owner: Any) -> list[Item]:
        """Return what there is to warm, for the object that a method is bound to."""
        from layercache.core.warming import Item

        if self._warm is None:
            raise InvalidOption(f"there is nothing to warm; name calls of {self.name} in @cached(warm=[...])")
        if self._of_object and not owner:
            raise TypeError(f"{self.name} is a method: it is warmed where it is bound to an object")
        found: dict[str, Item] = {}
        for args, kwargs in self._warm:
            args = owner + args  # noqa: PLW2901
            key = self._key_of(args, kwargs)
            found[key] = Item(key, partial(self._function, *args, **kwargs), self._overrides_of(args, kwargs))
        return list(found.values())

    def warm(self, /, *owner: Any, concurrency: int = 8) -> Any:
        from layercache.warming import warm

        return warm(self.view(), self.items(*owner), concurrency, self._every)


class _AsyncCalls(Calls):
    """A decorated `async def`."""

    is_async = True

    def method(self) -> Any:
        return _AsyncMethod(self.function())

    def _call(self) -> Callable[..., Any]:
        view, key_of, function, overrides_of = self.view, self._key_of, self._function, self._overrides_of

        @wraps(function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            cache, key = view(), key_of(args, kwargs)
            value = cache.hit(key)
            if value is not MISSING:
                return value
            return await cache._aload(key, partial(function, *args, **kwargs), overrides_of(args, kwargs))  # noqa: SLF001

        return call

    async def invalidate(self, /, *args: Any, **kwargs: Any) -> Any:
        return await self.view().adelete(self._key_of(args, kwargs))

    async def refresh(self, /, *args: Any, **kwargs: Any) -> Any:
        key, loader = self._key_of(args, kwargs), partial(self._function, *args, **kwargs)
        return await self.view()._areload(key, loader, self._overrides_of(args, kwargs))  # noqa: SLF001

    async def warm(self, /, *owner: Any, concurrency: int = 8) -> Any:
        from layercache.warming import awarm

        return await awarm(self.view(), self.items(*owner), concurrency, self._every)

    async def peek(self, /, *args: Any, **kwargs: Any) -> Any:
        return await self.view().apeek(self._key_of(args, kwargs))


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


# -- warming


_declared: Final[WeakValueDictionary[int, Calls]] = WeakValueDictionary()


def declared() -> list[Calls]:
    """Return the functions that say what of them is to be warm, in the order of their decoration; no methods, as they
    have no object."""
    return list(_declared.values())


def _checked_warm(warm: Any, every: Any) -> tuple[tuple[Any, ...] | None, float | None]:
    if warm is None:
        if every is not None:
            raise InvalidOption("refresh_every keeps warm what `warm` lists; write @cached(warm=[...]) too")
        return None, None
    if isinstance(warm, str):
        raise TypeError(f"warm takes several calls, such as [{warm!r}]; got one str")
    from layercache.warming import checked_every

    return tuple(warm), checked_every(every)


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
