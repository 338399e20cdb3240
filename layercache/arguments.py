"""What a decorated function makes of the arguments of a call: its key, its tags, and its ttl.

Rule: whatever can be wrong with a template or a callable is said when the function is decorated; a call only fills in.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeAlias, cast

from layercache.core.policy import Overrides, Plan, checked_tags
from layercache.durations import DEFAULT
from layercache.errors import InvalidOption
from layercache.keys import key_part, make_key
from layercache.templates import Field, names_any, parsed, spelled

__all__ = ["KeyOf", "OverridesOf", "Parameters", "key_maker", "overrides_maker"]

KeyOf: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], str]
OverridesOf: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], Overrides]

_NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


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

    def fields(self, what: str, template: str, error: type[ValueError] = ValueError) -> list[Field]:
        """Return the pairs of text and parameter that `template` consists of; raise `error` for another name."""
        fields = parsed(what, template, error)
        named = [field for _, field in fields if field is not None]
        self._known(f"{what} {template!r}", [field for field in named if field not in self.names], error)
        return fields

    def all_wanted_by(self, what: str, function: Callable[..., Any]) -> tuple[str, ...] | None:
        """Return the parameters that `function` wants to be given, and nothing else; None where it wants a value first:
        its first parameter is none of ours."""
        taken = _taken_by(function)
        if not taken or taken[0].kind not in _NAMED or taken[0].name not in self.names:
            return None
        _refuse_async(what, function)
        return self._given_to(what, taken)

    def wanted_by(self, what: str, function: Callable[..., Any]) -> tuple[str, ...]:
        """Return the parameters that `function`, which is given a value, wants to be given besides."""
        _refuse_async(what, function)
        taken = _taken_by(function)
        if taken is None:
            return ()
        if not taken or taken[0].kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD):
            raise InvalidOption(f"{what} is a function of the value that was returned; this one takes none")
        return self._given_to(what, taken[1:])

    def _given_to(self, what: str, taken: Sequence[inspect.Parameter]) -> tuple[str, ...]:
        variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        further = [each for each in taken if each.kind not in variadic]
        given = [each for each in further if each.name in self.names and each.kind in _NAMED]
        unknown = [each.name for each in further if each not in given and each.default is each.empty]
        self._known(what, unknown, InvalidOption)
        return tuple(each.name for each in given)

    def _known(self, what: str, unknown: Sequence[str], error: type[ValueError]) -> None:
        if unknown:
            raise error(
                f"{what} names {', '.join(map(repr, unknown))}; "
                f"{self.name} has the parameters {', '.join(self.names)}"
            )


def _taken_by(function: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """Return the parameters of `function`, None where it is built in and does not say."""
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None


def _refuse_async(what: str, function: Callable[..., Any]) -> None:
    if inspect.iscoroutinefunction(function):
        raise InvalidOption(f"{what} is a plain function, as nobody would await it; got an async one")


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
    templates: list[list[Field]] = []
    tags = cast("Any", shared.get("tags"))
    by_arguments = parameters.all_wanted_by("tags", tags) if callable(tags) else None
    for name, function in (("ttl", ttl), ("tags", tags if by_arguments is None else None)):
        if callable(function):
            wanted = parameters.wanted_by(name, function)
            if wanted:
                late[f"{name}_of"] = (function, wanted)
    if "tags_of" in late or by_arguments is not None:
        del shared["tags"]
    elif "tags" in shared and not callable(tags):
        fields = [parameters.fields("the tag", tag, InvalidOption) for tag in checked_tags(tags)]
        shared["tags"] = ["".join(text for text, _ in each) for each in fields if not names_any(each)]
        templates = [each for each in fields if names_any(each)]
    overrides = Overrides(DEFAULT if "ttl_of" in late else ttl, shared)
    if not late and not templates and by_arguments is None:
        return lambda args, kwargs: overrides

    def overrides_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Overrides:
        values = parameters.bound(args, kwargs)
        given: dict[str, Any] = {
            name: partial(_called, function, {each: values[each] for each in wanted})
            for name, (function, wanted) in late.items()
        }
        if by_arguments is None:
            named = checked_tags(spelled(template, values) for template in templates)
        else:
            named = checked_tags(tags(**{each: values[each] for each in by_arguments}))
        return _CallOverrides(overrides, named, given)

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
