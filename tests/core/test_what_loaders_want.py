"""Which loaders are given the load that they are part of: those of one parameter that has no default."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from layercache.core.context import LoadContext, with_context

CONTEXT: LoadContext[Any] = LoadContext("k", None, lambda entry: entry, ())


class Loads:
    def __call__(self) -> str:
        return "nothing"

    def one(self, load: Any) -> Any:
        return load

    def none(self) -> str:
        return "nothing"

    def two(self, one: Any, two: Any) -> Any:
        return one, two


class LoadsWithOne:
    def __call__(self, load: Any) -> Any:
        return load


class LoadsWithTwo:
    def __call__(self, one: Any, two: Any) -> Any:
        return one, two


class LoadsWithADefault:
    def __call__(self, one: Any, two: Any = "two") -> Any:
        return one


WITH = {
    "a function of one": lambda load: load,
    "of one, and one with a default": lambda load, other=None: load,
    "a method of one": Loads().one,
    "an object that is called with one": LoadsWithOne(),
    "such an object, with a default besides": LoadsWithADefault(),
}
WITHOUT: dict[str, Callable[[], Any]] = {
    "a function of none": lambda: "nothing",
    "of one with a default": lambda load="nothing": load,
    "a method of none": Loads().none,
    "an object that is called with none": Loads(),
    "one that was completed": partial(lambda load: load, "nothing"),
    "a class": dict,
}


@pytest.mark.parametrize("loader", WITH.values(), ids=WITH.keys())
def test_it_is_given(loader: Callable[..., Any]) -> None:
    assert with_context(loader, CONTEXT)() is CONTEXT


@pytest.mark.parametrize("loader", WITHOUT.values(), ids=WITHOUT.keys())
def test_it_is_not_given(loader: Callable[..., Any]) -> None:
    assert with_context(loader, CONTEXT)() in ("nothing", {})


@pytest.mark.parametrize(
    "loader", [lambda one, two: None, Loads().two, LoadsWithTwo()], ids=["function", "method", "object"]
)
def test_who_wants_two_is_told_by_python(loader: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="missing 2 required positional arguments"):
        with_context(loader, CONTEXT)()
