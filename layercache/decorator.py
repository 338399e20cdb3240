"""@cached for def and async def: the function's result, kept under a key made of its arguments."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial, wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_type_hints

from layercache.caches import closings, get_cache
from layercache.durations import DEFAULT, Ttl, parse_duration
from layercache.entry import MISSING
from layercache.keys import key_part, make_key

if TYPE_CHECKING:
    from layercache.face import Cache

__all__ = ["Decorator", "cached"]

F = TypeVar("F", bound=Callable[..., Any])


def cached(key: str | None = None, *, cache: str = "default", ttl: Ttl = DEFAULT) -> Decorator:
    """Return a decorator that caches what a function, `def` or `async def`, returns.

        @cached("quote:{symbol}", cache="stock")
        async def quote(symbol: str) -> Quote: ...

    Args:
        key: a template over the function's parameters. Text and ints stand in it as they are, with the characters
            that mean something in keys escaped; other values as `make_key` spells them. Left out,
            the key is made of the function's module and name and all of its arguments.
        cache: the name of the cache, opened at the first call.
        ttl: how long a result lives; left out, the cache's own or the key's pattern's.

    The return annotation says which type a cached result is restored to; without one it comes back in JSON's kinds.
    Calls with the same key in this process share one run of the function.
    """
    return Decorator(partial(get_cache, cache), key, ttl)


class Decorator:
    """What `cached(...)` returns. Raises `TypeError` at decoration for what it cannot cache, and
    `ValueError` for a template that names no parameter and for a ttl that is none."""

    def __init__(
        self, cache: Callable[[], Cache[Any]], key: str | None, ttl: Any, options: Any = None
    ) -> None:
        if callable(key):
            raise TypeError("write @cached() with parentheses, or @cached('quote:{symbol}')")
        if ttl is not DEFAULT:
            parse_duration(ttl)
        self._cache, self._key, self._ttl = cache, key, ttl

    def __call__(self, function: F) -> F:
        import inspect  # here, as it is a fifth of what `import layercache` may cost

        _check(function, self._key)
        key_of, view, ttl = _key_maker(function, self._key), self._view_maker(function), self._ttl

        # a hit near asks for no `partial` and enters no verb: 0.4 µs where going through get_or_set took 3.4
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            cache, key = view(), key_of(args, kwargs)
            value = cache.hit(key)
            if value is not MISSING:
                return value
            return cache.get_or_set(key, partial(function, *args, **kwargs), ttl)

        @wraps(function)
        async def acall(*args: Any, **kwargs: Any) -> Any:
            cache, key = view(), key_of(args, kwargs)
            value = cache.hit(key)
            if value is not MISSING:
                return value
            return await cache.aget_or_set(key, partial(function, *args, **kwargs), ttl)

        return cast("F", acall if inspect.iscoroutinefunction(function) else call)

    def _view_maker(self, function: Callable[..., Any]) -> Callable[[], Cache[Any]]:
        """Return what gives the view of the cache that results are kept in, looked up anew after any was closed."""
        type_of = lru_cache(maxsize=1)(partial(_returned_type, function))
        # in one name: between two, another thread could take a closed cache for one looked up since
        known: tuple[int, Cache[Any] | None] = (-1, None)

        def view() -> Cache[Any]:
            nonlocal known
            seen, cache = known
            now = closings.count
            if cache is None or seen != now:
                cache, returned = self._cache(), type_of()
                cache = cache if returned is Any else cache.typed(returned)
                known = now, cache
            return cache

        return view


def _check(function: Any, template: str | None) -> None:
    import inspect

    if isinstance(function, classmethod | staticmethod):
        kind = type(function).__name__
        raise TypeError(f"write @{kind} above @cached(...), so that the function itself is cached")
    if not callable(function) or not hasattr(function, "__qualname__"):
        raise TypeError(f"a function can be cached, not {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{function.__qualname__} is a generator: what it yields cannot be cached; return a list"
        )
    if template is None and function.__name__ == "<lambda>":
        raise TypeError("all lambdas of a module have one name; give a key such as @cached('quote:{symbol}')")


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


def _key_maker(
    function: Callable[..., Any], template: str | None
) -> Callable[[tuple[Any, ...], dict[str, Any]], str]:
    import inspect
    from string import Formatter

    # the object of a bound method is an argument like any other: two objects share no keys
    owner = (function.__self__,) if inspect.ismethod(function) else ()
    signature = inspect.signature(function.__func__ if inspect.ismethod(function) else function)

    parameters = signature.parameters.values()
    plain = all(parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)
    most = len(parameters) - len(owner) if plain else -1
    names = list(signature.parameters)

    def bound(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        if not kwargs and len(args) == most:
            return dict(zip(names, owner + args, strict=True))
        call = signature.bind(*owner, *args, **kwargs)
        call.apply_defaults()
        return dict(call.arguments)

    if template is None:
        name = f"{function.__module__}.{function.__qualname__}"
        return lambda args, kwargs: make_key(name, **bound(args, kwargs))

    fields = list(Formatter().parse(template))
    unknown = [field for _, field, _, _ in fields if field is not None and field not in signature.parameters]
    if unknown:
        raise ValueError(
            f"the key {template!r} names {', '.join(map(repr, unknown))}; "
            f"{function.__qualname__} has the parameters {', '.join(signature.parameters)}",
        )
    if any(spec or conversion for _, _, spec, conversion in fields):
        raise ValueError(
            f"the key {template!r} holds a format; a parameter stands in a key as it is: {{name}}"
        )

    def key_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        values = bound(args, kwargs)
        return "".join(
            text if field is None else text + key_part(values[field]) for text, field, _, _ in fields
        )

    named = [(text, field) for text, field, _, _ in fields if field is not None]
    if len(named) != 1 or most < 0 or owner:
        return key_of
    # one parameter in the key is the common template, and its position is known
    _, field = named[0]
    at = [name for _, name, _, _ in fields].index(field)
    before = "".join(text for text, _, _, _ in fields[: at + 1])
    after = "".join(text for text, _, _, _ in fields[at + 1 :])
    position = names.index(field)

    def key_of_one(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        if kwargs or len(args) != most:
            return key_of(args, kwargs)
        return f"{before}{key_part(args[position])}{after}"

    return key_of_one
