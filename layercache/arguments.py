"""What a decorated function makes of the arguments of a call: its key, its tags, and its ttl.

Rule: whatever can be wrong with a template or a callable is said when the function is decorated; a call only fills in.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from string import Formatter
from typing import Any, TypeAlias

from layercache.core.policy import Overrides, Plan, checked_tags
from layercache.durations import DEFAULT
from layercache.errors import InvalidOption
from layercache.keys import key_part, make_key

__all__ = ["KeyOf", "OverridesOf", "Parameters", "key_maker", "overrides_maker"]

KeyOf: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], str]
OverridesOf: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], Overrides]

_Field: TypeAlias = "tuple[str, str | None]"


class Parameters:
    """The parameters of a function.

    Attributes:
        name: of the function, in messages.
        names: of its parameters, in order.
        ignored: those that are left out of a key.
        owner: the object of a bound method: an argument like any other, so two objects share no keys.
        most: how many positional arguments name every parameter; -1 where that cannot be said.
    """

    def __init__(self, function: Callable[..., Any], ignored: Sequence[str]) -> None:
        self.name = function.__qualname__
        self.owner = (function.__self__,) if inspect.ismethod(function) else ()
        self.signature = inspect.signature(function.__func__ if inspect.ismethod(function) else function)
        parameters = self.signature.parameters.values()
        self.names = list(self.signature.parameters)
        plain = all(parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)
        self.most = len(self.names) - len(self.owner) if plain else -1
        self.ignored = frozenset(ignored)
        self._known("ignore", [name for name in ignored if name not in self.names], InvalidOption)

    def bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by name, the defaults too; `TypeError` where they do not fit."""
        if not kwargs and len(args) == self.most:
            return dict(zip(self.names, self.owner + args, strict=True))
        call = self.signature.bind(*self.owner, *args, **kwargs)
        call.apply_defaults()
        return dict(call.arguments)

    def call(self, item: Any, *, of_object: bool) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments that an item of `warm` means, without the object of a method; `TypeError` where the
        function cannot be called with them."""
        args = item if isinstance(item, tuple) else () if isinstance(item, dict) else (item,)
        kwargs = dict(item) if isinstance(item, dict) else {}
        try:
            self.signature.bind(*((None,) if of_object else self.owner), *args, **kwargs)
        except TypeError as error:
            raise TypeError(
                f"warm lists {item!r}, which {self.name} cannot be called with: {error}"
            ) from None
        return args, kwargs

    def fields(self, what: str, template: str, error: type[ValueError] = ValueError) -> list[_Field]:
        """Return the pairs of text and parameter that `template` consists of; raise `error` for another name."""
        parsed = list(Formatter().parse(template))
        named = [field for _, field, _, _ in parsed if field is not None]
        self._known(f"{what} {template!r}", [field for field in named if field not in self.names], error)
        if any(spec or conversion for _, _, spec, conversion in parsed):
            raise error(f"{what} {template!r} holds a format; a parameter stands in it as it is: {{name}}")
        return [(text, field) for text, field, _, _ in parsed]

    def wanted_by(self, what: str, function: Callable[..., Any]) -> tuple[str, ...]:
        """Return the parameters that `function`, which is given a value, wants to be given besides."""
        if inspect.iscoroutinefunction(function):
            raise InvalidOption(f"{what} is a plain function, as nobody would await it; got an async one")
        try:
            taken = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):  # built in, without a signature
            return ()
        if not taken or taken[0].kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD):
            raise InvalidOption(f"{what} is a function of the value that was returned; this one takes none")
        variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        further = [each for each in taken[1:] if each.kind not in variadic]
        given = [
            each for each in further if each.name in self.names and each.kind is not each.POSITIONAL_ONLY
        ]
        unknown = [each.name for each in further if each not in given and each.default is each.empty]
        self._known(what, unknown, InvalidOption)
        return tuple(each.name for each in given)

    def _known(self, what: str, unknown: Sequence[str], error: type[ValueError]) -> None:
        if unknown:
            raise error(
                f"{what} names {', '.join(map(repr, unknown))}; "
                f"{self.name} has the parameters {', '.join(self.names)}"
            )


def key_maker(function: Callable[..., Any], parameters: Parameters, template: str | None) -> KeyOf:
    """Return what makes the key of a call: from `template`, or from all arguments that are not ignored."""
    bound, ignored = parameters.bound, parameters.ignored
    if template is None:
        name = f"{function.__module__}.{function.__qualname__}"
        if not ignored:
            return lambda args, kwargs: make_key(name, **bound(args, kwargs))

        def key_of_some(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
            values = bound(args, kwargs)
            return make_key(name, **{each: values[each] for each in values if each not in ignored})

        return key_of_some

    fields = parameters.fields("the key", template)
    torn = [field for _, field in fields if field in ignored]
    if torn:
        raise InvalidOption(f"the key {template!r} names {torn[0]!r}, which is to be ignored")

    def key_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        values = bound(args, kwargs)
        return "".join(text if field is None else text + key_part(values[field]) for text, field in fields)

    named = [field for _, field in fields if field is not None]
    if len(named) != 1 or parameters.most < 0 or parameters.owner:
        return key_of
    # one parameter in the key is the common template, and its position is known
    at = [field is not None for _, field in fields].index(True)
    before = "".join(text for text, _ in fields[: at + 1])
    after = "".join(text for text, _ in fields[at + 1 :])
    position, most = parameters.names.index(named[0]), parameters.most

    def key_of_one(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        if kwargs or len(args) != most:
            return key_of(args, kwargs)
        return f"{before}{key_part(args[position])}{after}"

    return key_of_one


# -- what a call says of its load


def overrides_maker(parameters: Parameters, ttl: Any, options: Mapping[str, Any]) -> OverridesOf:
    """Return what gives the options of a call: always the same object, unless they depend on the arguments."""
    shared = dict(options)
    late: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {}  # of the value and of arguments
    templates: list[list[_Field]] = []
    for name, function in (("ttl", ttl), ("tags", shared.get("tags"))):
        if callable(function):
            wanted = parameters.wanted_by(name, function)
            if wanted:
                late[f"{name}_of"] = (function, wanted)
    if "tags_of" in late:
        del shared["tags"]
    elif "tags" in shared and not callable(shared["tags"]):
        parsed = [parameters.fields("the tag", tag, InvalidOption) for tag in checked_tags(shared["tags"])]
        shared["tags"] = ["".join(text for text, _ in each) for each in parsed if not _names_any(each)]
        templates = [each for each in parsed if _names_any(each)]
    overrides = Overrides(DEFAULT if "ttl_of" in late else ttl, shared)
    if not late and not templates:
        return lambda args, kwargs: overrides

    def overrides_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Overrides:
        values = parameters.bound(args, kwargs)
        given: dict[str, Any] = {
            name: partial(_called, function, {each: values[each] for each in wanted})
            for name, (function, wanted) in late.items()
        }
        tags = checked_tags(_spelled(template, values) for template in templates)
        return _CallOverrides(overrides, tags, given)

    return overrides_of


class _CallOverrides(Overrides):
    """What one call says, where it depends on its arguments: a little over what all calls of the function say."""

    __slots__ = ("_late", "_shared", "_tags")

    def __init__(self, shared: Overrides, tags: tuple[str, ...], late: Mapping[str, Any]) -> None:
        self._shared, self._tags, self._late = shared, tags, late

    def over(self, plan: Plan) -> Plan:
        plan = self._shared.over(plan)
        return replace(plan, tags=tuple(dict.fromkeys((*plan.tags, *self._tags))), **self._late)


def _called(function: Callable[..., Any], arguments: Mapping[str, Any], value: Any) -> Any:
    return function(value, **arguments)


def _names_any(fields: Iterable[_Field]) -> bool:
    return any(field is not None for _, field in fields)


def _spelled(fields: Iterable[_Field], values: Mapping[str, Any]) -> str:
    # as an f-string has it, so that invalidate(f"quote:{symbol}") finds it; a tag needs no escapes
    return "".join(text if field is None else f"{text}{values[field]}" for text, field in fields)
