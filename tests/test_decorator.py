"""@cached: which calls share a key, what comes back, and what cannot be decorated."""

from __future__ import annotations

import asyncio
import inspect
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from waiting import PATIENCE

import layercache
from layercache import (
    CacheClosed,
    EncodeError,
    InvalidKey,
    InvalidOption,
    InvalidTtl,
    LoadContext,
    LoadTimeout,
    NotModified,
    RecursiveLoad,
    UnknownCache,
    cached,
    current_load,
    get_cache,
)
from layercache.testing import Clock

if TYPE_CHECKING:
    from nowhere import Session  # type: ignore[import-not-found]

SETTINGS = {
    "backends": {"local": {"type": "memory"}, "none": {"type": "null"}},
    "caches": {"default": {"backend": "local", "ttl": 300}, "stock": {}, "off": {"backend": "none"}},
}


@pytest.fixture(autouse=True)
def _world() -> None:
    layercache.configure(SETTINGS)


class Log(list[Any]):
    """What a function was called with, in order."""

    def __call__(self, *call: Any) -> int:
        self.append(call)
        return len(self)


@pytest.fixture
def log() -> Log:
    return Log()


@dataclass
class Point:
    x: int
    y: int


def made(source: str, module: str = __name__, **names: Any) -> Any:
    """`f` as a module of that name defines it."""
    space = {"cached": cached, "__name__": module, **names}
    exec(source, space)
    return space["f"]


class TestSharing:
    def test_a_second_call_does_not_run_the_function(self, log: Log) -> None:
        @cached()
        def f(symbol: str) -> int:
            return log(symbol)

        assert (f("A"), f("A"), f("B"), f("A")) == (1, 1, 2, 1)
        assert log == [("A",), ("B",)]

    def test_nor_does_one_of_an_async_function(self, log: Log) -> None:
        @cached()
        async def f(symbol: str) -> int:
            await asyncio.sleep(0)
            return log(symbol)

        async def main() -> tuple[int, ...]:
            return (await f("A"), await f("A"), await f("B"))

        assert asyncio.run(main()) == (1, 1, 2)
        assert inspect.iscoroutinefunction(f)

    def test_arguments_defaults_and_keywords_give_one_key(self, log: Log) -> None:
        @cached()
        def f(a: int, b: int = 2, *, c: int = 3) -> int:
            return log(a, b, c)

        calls = [f(1), f(1, 2), f(a=1), f(b=2, a=1), f(1, c=3), f(1, 2, c=3), f(c=3, b=2, a=1)]

        assert calls == [1] * 7
        assert log == [(1, 2, 3)]

    def test_arguments_of_different_types_do_not(self, log: Log) -> None:
        @cached()
        def f(*args: Any, **kwargs: Any) -> int:
            return log(args, kwargs)

        calls: list[Callable[[], int]] = [
            lambda: f(1),
            lambda: f("1"),
            lambda: f(True),
            lambda: f(1.0),
            lambda: f(Decimal(1)),
            lambda: f((1,)),
            lambda: f([1]),
            lambda: f(None),
            lambda: f(),
            lambda: f(1, 1),
            lambda: f(a=1),
            lambda: f(args=1),
            lambda: f(kwargs=1),
            lambda: f({"a": 1}),
            lambda: f("a:b", "c"),
            lambda: f("a", "b:c"),
            lambda: f("a", "b", "c"),
        ]

        assert [call() for call in calls] == list(range(1, len(calls) + 1))
        assert [call() for call in calls] == list(range(1, len(calls) + 1))

    @given(
        st.lists(st.integers(-9, 9) | st.text(max_size=3), max_size=3),
        st.dictionaries(st.text(max_size=3), st.integers(-9, 9)),
    )
    @settings(max_examples=50)
    def test_any_arguments_give_the_key_of_their_own(self, args: list[Any], kwargs: dict[str, int]) -> None:
        @cached()
        def echo(*args: Any, **kwargs: Any) -> list[Any]:
            return [list(args), kwargs]

        assert echo(*args, **kwargs) == [args, kwargs]
        assert echo(*args, **dict(reversed(kwargs.items()))) == [args, kwargs]

    @pytest.mark.parametrize(
        "name", ["resource", "parts", "params", "self", "key", "ttl", "cache", "args", "function"]
    )
    def test_a_parameter_may_have_any_name(self, name: str, log: Log) -> None:
        f = made(f"@cached()\ndef f({name}): return log({name})", log=log)

        assert (f(1), f(**{name: 1}), f(2)) == (1, 1, 2)

    def test_positional_only_and_keyword_parameters_of_one_name_are_two(self, log: Log) -> None:
        @cached()
        def f(a: int, /, **rest: int) -> int:
            return log(a, rest)

        assert (f(1), f(1, a=2), f(2, a=1), f(1, a=2)) == (1, 2, 3, 2)

    def test_functions_of_one_name_in_two_modules_share_nothing(self, log: Log) -> None:
        source = "@cached()\ndef f(x): return log(__name__)"
        one, other = made(source, "one", log=log), made(source, "other", log=log)

        assert (one(1), other(1), one(1), other(1)) == (1, 2, 1, 2)

    def test_functions_of_one_name_in_two_classes_share_nothing(self, log: Log) -> None:
        class One:
            @staticmethod
            @cached()
            def f(x: int) -> int:
                return log("one", x)

        class Other:
            @staticmethod
            @cached()
            def f(x: int) -> int:
                return log("other", x)

        assert (One.f(1), Other.f(1), One().f(1)) == (1, 2, 1)

    def test_it_shares_the_caches_own_keys(self, log: Log) -> None:
        @cached("quote:{symbol}", cache="stock")
        def f(symbol: str) -> int:
            return log(symbol)

        f("AAPL")

        assert get_cache("stock").get("quote:AAPL") == 1
        assert get_cache().get("quote:AAPL") is None
        get_cache("stock").set("quote:MSFT", 99)
        assert f("MSFT") == 99

    def test_a_caches_own_decorator_does_the_same(self, log: Log) -> None:
        stock = get_cache("stock")

        @stock.cached("quote:{symbol}", ttl="15s")
        def f(symbol: str) -> int:
            return log(symbol)

        f("AAPL")

        assert stock.get("quote:AAPL") == 1
        assert stock.ttl_left("quote:AAPL") == pytest.approx(15, abs=5)

    def test_a_result_lives_as_long_as_it_is_told(self, log: Log) -> None:
        clock = Clock()
        cache = layercache.Caches(SETTINGS, now=clock)["default"]

        @cache.cached("short", ttl="15s")
        def short() -> int:
            return log()

        @cache.cached("long")
        def long() -> int:
            return log()

        assert (short(), long()) == (1, 2)
        clock.advance(16)
        assert (short(), long()) == (3, 2)
        clock.advance(300)
        assert (short(), long()) == (4, 5)

    def test_without_a_backend_every_call_runs(self, log: Log) -> None:
        @cached(cache="off")
        def f() -> int:
            return log()

        assert (f(), f()) == (1, 2)


class TestMethods:
    def test_a_template_says_what_of_a_method_is_in_the_key(self, log: Log) -> None:
        class Market:
            @cached("quote:{symbol}")
            def quote(self, symbol: str) -> int:
                return log(symbol)

            @cached("news:{symbol}")
            async def news(self, symbol: str) -> int:
                return log(symbol)

        assert (Market().quote("A"), Market().quote(symbol="A")) == (1, 1)
        assert asyncio.run(Market().news("A")) == 2
        assert get_cache().get_many(["quote:A", "news:A"]) == {"quote:A": 1, "news:A": 2}

    def test_without_one_the_object_is_part_of_the_key_and_has_to_be_spelled(self) -> None:
        class Market:
            @cached()
            def quote(self, symbol: str) -> int:
                raise AssertionError

        with pytest.raises(InvalidKey, match="Market cannot be part of a key; pass what identifies it"):
            Market().quote("A")

    def test_an_object_that_can_be_spelled_is(self, log: Log) -> None:
        class Symbol(str):
            __slots__ = ()

            @cached()
            def quote(self) -> int:
                return log(self)

        assert (Symbol("A").quote(), Symbol("B").quote(), Symbol("A").quote()) == (1, 2, 1)

    def test_bound_methods_of_two_objects_share_nothing(self, log: Log) -> None:
        class Symbol(str):
            __slots__ = ()

            def quote(self, period: str = "1d") -> int:
                return log(self, period)

        a, b = cached()(Symbol("A").quote), cached()(Symbol("B").quote)

        assert (a(), b(), a("1d"), b(period="1d")) == (1, 2, 1, 2)
        assert isinstance(a, types.FunctionType)
        assert (a.peek("1d"), b.peek()) == (1, 2)
        assert cached("{self}:{period}")(Symbol("C").quote)() == 3

    def test_a_bound_method_of_what_cannot_be_spelled_is_refused(self) -> None:
        class Market:
            def quote(self) -> int:
                raise AssertionError

        with pytest.raises(InvalidKey, match="Market cannot be part of a key"):
            cached()(Market().quote)()

    def test_class_and_static_methods_go_above(self, log: Log) -> None:
        class Market:
            @classmethod
            @cached("{symbol}")
            def of(cls, symbol: str) -> int:
                return log(cls.__name__, symbol)

            @staticmethod
            @cached()
            def at(symbol: str) -> int:
                return log(symbol)

        assert (Market.of("A"), Market.of("A"), Market.at("A"), Market().at("A")) == (1, 1, 2, 2)
        for kind in (classmethod, staticmethod):
            with pytest.raises(TypeError, match=f"write @{kind.__name__} above @cached"):
                cached()(kind(lambda: 1))


class TestTemplates:
    @pytest.mark.parametrize(
        ("template", "call", "key"),
        [
            ("quote:{a}", (("AAPL",), {}), "quote:AAPL"),
            ("quote:{a}", ((), {"a": "AAPL"}), "quote:AAPL"),
            ("quote:{a}:{b}", (("x",), {}), "quote:x:2"),
            ("{b}-{a}-{b}", ((5, "y"), {}), "y-5-y"),
            ("q:{a}", ((-5,), {}), "q:-5"),
            ("q:{a}", (("a:b c",), {}), "q:a%3Ab%20c"),
            ("q:{a}", ((True,), {}), "q:~true"),
            ("q:{a}", ((None,), {}), "q:~none"),
            ("q:{a}", ((1.0,), {}), "q:~1.0"),
            ("q:{a}", ((date(2026, 1, 1),), {}), "q:~t2026-01-01"),
            ("q:{a}", (([1, "a"],), {}), "q:~[~1,a]"),
            ("q:{args}", (("x", "y", "z", 1), {}), "q:~(z,~1)"),
            ("q:{kwargs}", (("x",), {"k": 1}), "q:~{=k=~1}"),
            ("all", (("x",), {}), "all"),
            ("{{a}}:{a}", (("x",), {}), "{a}:x"),
            ("가격:{a}", (("삼성",), {}), "가격:삼성"),
        ],
    )
    def test_parameters_stand_in_the_key(self, template: str, call: Any, key: str) -> None:
        @cached(template)
        def f(a: Any, b: Any = 2, *args: Any, **kwargs: Any) -> str:
            return "here"

        args, kwargs = call
        f(*args, **kwargs)

        assert get_cache().get(key) == "here"

    @pytest.mark.parametrize(
        "template", ["{a}", "q:{a}", "{b}:q", "{{q}}:{b}:{{q}}", "{a}:{b}", "{b}{b}", "q", None]
    )
    @pytest.mark.parametrize("args", [(1, "x"), ("a:b", None), ("", "y"), (True, 1.0), ("가" * 200, [1])])
    def test_however_the_arguments_are_passed_the_key_is_one(
        self, template: str | None, args: Any, log: Log
    ) -> None:
        def f(a: Any, b: Any) -> int:
            return log(a, b)

        class Market:
            def f(self, a: Any, b: Any) -> int:
                return log(a, b)

        a, b = args
        call = cached(template and f"t{template}")(f)

        assert [call(a, b), call(a, b=b), call(a=a, b=b), call(b=b, a=a), call(*args)] == [1] * 5
        if template is not None:
            assert cached(f"t{template}")(Market().f)(a, b) == 1
            assert cached(f"t{template}")(Market.f)(Market(), a, b) == 1

    def test_the_same_text_and_int_are_one_key(self, log: Log) -> None:
        @cached("page:{number}")
        def f(number: Any) -> int:
            return log(number)

        assert (f(1), f("1"), f(True), f(1.0)) == (1, 1, 2, 3)

    @pytest.mark.parametrize(
        ("template", "message"),
        [
            ("q:{symbl}", r"names 'symbl'; .*f has the parameters symbol, period, args"),
            ("q:{x}:{symbol}:{y}", "names 'x', 'y'"),
            ("q:{0}", "names '0'"),
            ("q:{}", "names ''"),
            ("q:{symbol.name}", r"names 'symbol\.name'"),
            ("q:{symbol[0]}", r"names 'symbol\[0\]'"),
            ("q:{ symbol }", "names ' symbol '"),
            ("q:{*args}", r"names '\*args'"),
            ("q:{symbol!r}", "holds a format; what it names stands in it as it is: {name}"),
            ("q:{symbol:>10}", "holds a format"),
            ("q:{symbol:{period}}", "holds a format"),
            ("q:{symbol", "expected '}'"),
            ("q:{", "Single '{'"),
            ("q:}", "Single '}'"),
        ],
    )
    def test_a_template_that_names_no_parameter_is_refused_at_decoration(
        self, template: str, message: str
    ) -> None:
        def f(symbol: str, period: str = "1d", *args: str) -> None: ...

        with pytest.raises(ValueError, match=message):
            cached(template)(f)

    def test_a_key_that_comes_out_empty_or_too_long_is_refused(self) -> None:
        @cached("{a}{b}")
        def f(a: str, b: str = "") -> str:
            raise AssertionError

        with pytest.raises(InvalidKey, match="this one is empty"):
            f("")
        with pytest.raises(InvalidKey, match="takes 2000 bytes"):
            cached("x" * 2000)(lambda: 1)()


class TestWhatCannotBeDecorated:
    def test_parentheses_are_needed(self) -> None:
        with pytest.raises(
            TypeError, match=r"write @cached\(\) with parentheses, or @cached\('quote:{symbol}'\)"
        ):

            @cached  # type: ignore[arg-type]
            def f() -> None: ...

        with pytest.raises(TypeError, match="parentheses"):
            get_cache().cached(len)  # type: ignore[arg-type]

    def test_generators(self) -> None:
        def plain() -> Iterator[int]:
            yield 1

        async def asynchronous() -> Any:
            yield 1

        for function in (plain, asynchronous):
            with pytest.raises(TypeError, match=f"{function.__name__} is a generator: .*; return a list"):
                cached()(function)

    @pytest.mark.parametrize("thing", [5, "text", None, object(), Point(1, 2), Point, property(len)])
    def test_what_is_no_function(self, thing: Any) -> None:
        with pytest.raises(TypeError, match="a function can be cached, not"):
            cached()(thing)

    def test_a_lambda_has_no_name_of_its_own(self, log: Log) -> None:
        with pytest.raises(TypeError, match="all lambdas of a module have one name; give a key"):
            cached()(lambda x: x)

        assert cached("{x}")(lambda x: log(x))(5) == 1

    @pytest.mark.parametrize("ttl", ["5 parsecs", "", True, float("nan"), [5]])
    def test_a_ttl_that_is_none(self, ttl: Any) -> None:
        with pytest.raises(InvalidTtl):
            cached(ttl=ttl)

    def test_a_cache_that_settings_do_not_define_is_said_at_the_first_call(self) -> None:
        @cached(cache="stokc")
        def f() -> int:
            raise AssertionError

        with pytest.raises(UnknownCache, match="did you mean 'stock'"):
            f()


class TestTypes:
    def test_the_return_annotation_says_what_comes_back(self) -> None:
        @cached()
        def quote() -> Quote:
            return QUOTE

        @cached()
        def quotes() -> list[Quote]:
            return [QUOTE]

        @cached()
        def maybe(there: bool) -> Optional[Quote]:  # noqa: UP045
            return QUOTE if there else None

        @cached()
        def point() -> dict[str, Point]:
            return {"a": Point(1, 2)}

        @cached()
        def at() -> datetime:
            return QUOTE.at

        @cached()
        def word() -> Annotated[Literal["a", "b"], Field(description="a letter")]:
            return "a"

        for _ in range(2):
            assert quote() == QUOTE
            assert quotes() == [QUOTE]
            assert (maybe(True), maybe(False)) == (QUOTE, None)
            assert point() == {"a": Point(1, 2)}
            assert at() == QUOTE.at
            assert word() == "a"

    def test_of_an_async_function_too(self) -> None:
        @cached()
        async def quote() -> Quote:
            return QUOTE

        async def main() -> list[Quote]:
            return [await quote(), await quote()]

        assert asyncio.run(main()) == [QUOTE, QUOTE]

    def test_it_may_name_a_class_that_is_defined_later(self) -> None:
        f = made(
            "@cached()\ndef f() -> 'list[Later]': return [Later(x=1)]\nclass Later(BaseModel):\n    x: int",
            BaseModel=BaseModel,
        )

        assert f() == f()
        assert type(f()[0]).__name__ == "Later"

    def test_it_may_name_a_class_of_the_function_around(self) -> None:
        @cached()
        def f() -> Local:
            return Local(x=1)

        class Local(BaseModel):
            x: int

        assert f() == f() == Local(x=1)

    def test_the_annotations_of_parameters_need_not_be_found(self, log: Log) -> None:
        @cached("{id}")
        def f(session: Session, id: int) -> Quote:
            log()
            return QUOTE

        assert f(object(), 1) == f(None, 1) == QUOTE
        assert len(log) == 1

    def test_one_that_cannot_be_found_is_said_at_the_call(self) -> None:
        @cached()
        def f() -> Session:
            raise AssertionError

        with pytest.raises(NameError, match="name 'Session' is not defined") as caught:
            f()

        assert "@cached restores what" in caught.value.__notes__[0]

    def test_without_one_values_come_back_in_the_kinds_of_json(self, log: Log) -> None:
        @cached()
        def pair():
            log()
            return (1, (2, 3))

        @cached()
        def anything() -> Any:
            return {"a": (1,)}

        assert pair() == pair() == [1, [2, 3]]
        assert anything() == anything() == {"a": [1]}
        assert len(log) == 1

    def test_the_first_call_returns_what_later_ones_do(self) -> None:
        @cached()
        def f() -> list[int]:
            return (1, 2)  # type: ignore[return-value]

        assert f() == f() == [1, 2]

    def test_what_json_cannot_carry_is_refused_and_not_stored(self, log: Log) -> None:
        @cached("k")
        def untyped():
            log()
            return datetime(2026, 1, 1, tzinfo=UTC)

        @cached("k")
        def wrong() -> int:
            return "five"  # type: ignore[return-value]

        for _ in range(2):
            with pytest.raises(EncodeError, match="a datetime"):
                untyped()
            with pytest.raises(EncodeError, match="does not fit"):
                wrong()
        assert len(log) == 2
        assert "k" not in get_cache()

    def test_what_is_returned_can_be_changed_without_changing_the_cache(self) -> None:
        @cached()
        def f() -> dict[str, list[int]]:
            return {"a": [1]}

        f()["a"].append(2)
        f()["a"].append(3)

        assert f() == {"a": [1]}


class TestResults:
    @pytest.mark.parametrize("value", [None, False, 0, "", [], {}])
    def test_a_falsy_result_is_cached_as_any_other(self, value: Any, log: Log) -> None:
        @cached()
        def f():
            log()
            return value

        @cached()
        async def g():
            log()
            return value

        async def main() -> list[Any]:
            return [await g(), await g()]

        assert [f(), f(), *asyncio.run(main())] == [value] * 4
        assert len(log) == 2

    def test_a_function_that_returns_nothing_runs_once(self, log: Log) -> None:
        @cached()
        def f() -> None:
            log()

        assert (f(), f()) == (None, None)  # type: ignore[func-returns-value]
        assert len(log) == 1

    def test_an_exception_passes_as_it_is_and_is_not_cached(self, log: Log) -> None:
        error = LookupError("no such symbol")

        @cached()
        def f() -> int:
            if log() < 3:
                raise error
            return len(log)

        for _ in range(2):
            with pytest.raises(LookupError) as caught:
                f()
            assert caught.value is error
            assert caught.value.__cause__ is None

        assert (f(), f()) == (3, 3)

    def test_so_does_one_of_an_async_function(self, log: Log) -> None:
        error = LookupError("no such symbol")

        @cached()
        async def f() -> int:
            if log() < 2:
                raise error
            return len(log)

        async def main() -> list[int]:
            with pytest.raises(LookupError) as caught:
                await f()
            assert caught.value is error
            return [await f(), await f()]

        assert asyncio.run(main()) == [2, 2]

    def test_wrong_arguments_are_a_type_error_and_run_nothing(self, log: Log) -> None:
        @cached()
        def f(a: int) -> int:
            return log(a)

        for call in (lambda: f(), lambda: f(1, 2), lambda: f(b=1)):  # type: ignore[call-arg,misc]
            with pytest.raises(TypeError, match="argument"):
                call()
        assert log == []

    def test_closing_the_caches_opens_them_anew_at_the_next_call(self, log: Log) -> None:
        @cached()
        def f() -> int:
            return log()

        held = get_cache()
        f()
        layercache.configure(SETTINGS)

        assert (f(), f()) == (2, 2)
        with pytest.raises(CacheClosed):
            held.get("k")


class TestAttributes:
    """What a decorated function offers besides being called."""

    def test_the_key_is_that_of_a_call(self) -> None:
        @cached("quote:{symbol}")
        def f(symbol: str, period: str = "1d") -> str:
            return "here"

        f("AAPL", period="1y")

        assert f.key("AAPL") == f.key(symbol="AAPL", period="1y") == "quote:AAPL"
        assert get_cache().get(f.key("AAPL")) == "here"

    def test_a_function_without_a_template_has_a_key_too(self) -> None:
        @cached()
        def f(symbol: str, period: str = "1d") -> str:
            return "here"

        f("AAPL")

        assert f.key("AAPL", "1d") == f.key(period="1d", symbol="AAPL")
        assert get_cache().get(f.key("AAPL")) == "here"

    def test_what_is_invalidated_is_loaded_anew(self, log: Log) -> None:
        @cached("{symbol}")
        def f(symbol: str) -> int:
            return log(symbol)

        assert (f("A"), f("B")) == (1, 2)
        assert (f.invalidate("A"), f.invalidate("A")) == (True, False)
        assert (f("A"), f("B")) == (3, 2)

    def test_a_load_that_was_invalidated_is_not_kept(self, log: Log) -> None:
        @cached("{symbol}")
        def f(symbol: str) -> int:
            f.invalidate(symbol)
            return log(symbol)

        assert (f("A"), f.peek("A"), f("A")) == (1, None, 2)

    def test_refresh_runs_the_function_whatever_is_there(self, log: Log) -> None:
        @cached("{symbol}")
        def f(symbol: str) -> int:
            return log(symbol)

        assert (f.refresh("A"), f("A"), f.refresh("A"), f("A")) == (1, 1, 2, 2)

    def test_a_refresh_that_fails_raises_and_leaves_what_is_there(self, log: Log) -> None:
        @cached("{symbol}")
        def f(symbol: str) -> int:
            if log(symbol) == 2:
                raise LookupError("no such symbol")
            return len(log)

        f("A")
        with pytest.raises(LookupError):
            f.refresh("A")

        assert f("A") == 1

    def test_peek_runs_nothing_and_counts_nothing(self, log: Log) -> None:
        @cached("{symbol}")
        def f(symbol: str) -> Quote:
            log(symbol)
            return QUOTE

        assert f.peek("A") is None
        f("A")
        before = get_cache().stats()

        assert f.peek("A") == QUOTE
        assert log == [("A",)]
        assert get_cache().stats() == before

    def test_peek_sees_what_is_stale(self, log: Log) -> None:
        clock = Clock()
        cache = layercache.Caches(SETTINGS, now=clock)["default"]

        @cache.cached("{symbol}", ttl=10, stale_ttl=10)
        def f(symbol: str) -> int:
            return log(symbol)

        f("A")
        clock.advance(15)

        assert f.peek("A") == 1
        assert len(log) == 1

    def test_uncached_is_the_function_itself(self, log: Log) -> None:
        def f(symbol: str) -> int:
            return log(symbol)

        decorated = cached("{symbol}")(f)

        assert (decorated.uncached("A"), decorated.uncached("A"), decorated.peek("A")) == (1, 2, None)
        assert decorated.uncached is f

    def test_those_of_an_async_function_are_awaited(self, log: Log) -> None:
        @cached("{symbol}")
        async def f(symbol: str) -> int:
            return log(symbol)

        async def main() -> None:
            assert (await f("A"), await f.refresh("A"), await f("A"), await f.peek("A")) == (1, 2, 2, 2)
            assert (await f.invalidate("A"), await f.invalidate("A"), await f.peek("A")) == (
                True,
                False,
                None,
            )
            assert (f.key("A"), await f.uncached("A"), await f("A")) == ("A", 3, 4)

        asyncio.run(main())

    def test_a_parameter_may_have_the_name_of_anything(self) -> None:
        f: Any = made("@cached('{self}{key}')\ndef f(self, key): return 'here'")

        assert f(self=1, key=2) == f.peek(self=1, key=2) == f.refresh(self=1, key=2) == "here"
        assert f.key(self=1, key=2) == "12"
        assert f.invalidate(self=1, key=2) is True


class Service:
    """Two of a kind have one cache, as their object is left out of the keys."""

    def __init__(self, log: Log) -> None:
        self.log = log

    @cached("service:{symbol}", ttl="15s")
    def quote(self, symbol: str, *, live: bool = False) -> int:
        """Return the quote."""
        return self.log(symbol)

    @cached(ignore=["self"])
    async def aquote(self, symbol: str) -> int:
        return self.log(symbol)

    @staticmethod
    @cached("static:{symbol}")
    async def at(symbol: str) -> str:
        return symbol


class TestAttributesOfMethods:
    def test_they_go_without_the_object(self, log: Log) -> None:
        service = Service(log)

        assert (service.quote("A"), service.quote.refresh("A"), service.quote.peek("A")) == (1, 2, 2)
        assert service.quote.key("A", live=True) == "service:A"
        assert (service.quote.invalidate("A"), service.quote.invalidate("A")) == (True, False)
        assert (service.quote.uncached("A"), service.quote.uncached(symbol="A")) == (3, 4)
        assert service.quote.peek("A") is None

    def test_and_are_awaited_where_the_method_is(self, log: Log) -> None:
        service = Service(log)

        async def main() -> None:
            assert (await service.aquote("A"), await service.aquote.refresh("A")) == (1, 2)
            assert await service.aquote.peek("A") == 2
            assert (await service.aquote.invalidate("A"), await service.aquote.invalidate("A")) == (
                True,
                False,
            )
            assert await service.aquote.uncached("A") == 3

        asyncio.run(main())

    def test_from_the_class_they_take_it(self, log: Log) -> None:
        service = Service(log)

        assert Service.quote(service, "A") == 1
        assert Service.quote.peek(service, "A") == 1
        assert Service.quote.key(service, "A") == service.quote.key("A")

    def test_an_ignored_object_is_no_part_of_the_key(self, log: Log) -> None:
        async def main() -> list[int]:
            return [await Service(log).aquote("A"), await Service(log).aquote("A")]

        assert asyncio.run(main()) == [1, 1]
        assert Service(log).aquote.key("A") == f"{__name__}.Service.aquote:symbol=A"

    def test_a_bound_method_looks_as_it_did(self, log: Log) -> None:
        service = Service(log)

        assert list(inspect.signature(service.quote).parameters) == ["symbol", "live"]
        assert list(inspect.signature(Service.quote).parameters) == ["self", "symbol", "live"]
        assert inspect.iscoroutinefunction(service.aquote)
        assert inspect.iscoroutinefunction(Service.aquote)
        assert not inspect.iscoroutinefunction(service.quote)
        assert inspect.iscoroutinefunction(type(Service.at).__call__) or inspect.iscoroutinefunction(
            Service.at
        )
        bound: Any = service.quote
        assert (bound.__name__, bound.__qualname__, bound.__doc__) == (
            "quote", "Service.quote", "Return the quote.",
        )  # fmt: skip
        assert bound.__self__ is service
        assert service.quote == service.quote != Service(log).quote
        assert len({service.quote, service.quote, Service(log).quote}) == 2
        assert repr(bound).startswith("<cached method Service.quote of <")

    def test_a_static_method_keeps_them(self) -> None:
        async def main() -> tuple[str, Any]:
            at: Any = Service.at
            return await at("A"), await at.peek("A")

        assert asyncio.run(main()) == ("A", "A")

    def test_a_method_that_is_overridden_is_found_by_super(self, log: Log) -> None:
        class Other(Service):
            @cached("other:{symbol}")
            def quote(self, symbol: str, *, live: bool = False) -> int:
                return 100 + super().quote(symbol)

        assert (Other(log).quote("A"), Service(log).quote("A")) == (101, 1)

    def test_a_property_may_be_cached(self, log: Log) -> None:
        class Market:
            @property
            @cached("open")
            def is_open(self) -> int:
                return log()

        assert (Market().is_open, Market().is_open) == (1, 1)


class TestIgnoring:
    def test_what_is_ignored_is_no_part_of_the_key(self, log: Log) -> None:
        @cached(ignore=["session"])
        def f(session: object, symbol: str) -> int:
            return log(symbol)

        assert (f(object(), "A"), f(object(), "A"), f(session=None, symbol="B")) == (1, 1, 2)
        assert f.key(object(), "A") == f.key(None, "A")

    def test_what_a_template_does_not_name_is_anyway(self, log: Log) -> None:
        @cached("quote:{symbol}", ignore=["session"])
        def f(session: object, symbol: str, trace: object = None) -> int:
            return log(symbol)

        assert (f(object(), "A"), f(object(), "A", object())) == (1, 1)

    def test_all_may_be(self, log: Log) -> None:
        @cached(ignore=["args", "kwargs"])
        def f(*args: Any, **kwargs: Any) -> int:
            return log()

        assert (f(object()), f(x=object())) == (1, 1)

    def test_an_unknown_name_is_said_at_decoration(self) -> None:
        with pytest.raises(InvalidOption, match=r"ignore names 'sesion'; .*f has the parameters session"):

            @cached(ignore=["sesion"])
            def f(session: object) -> None: ...

    def test_so_is_one_that_the_template_names(self) -> None:
        with pytest.raises(InvalidOption, match="names 'symbol', which is to be ignored"):
            cached("{symbol}", ignore=["symbol"])(lambda symbol: symbol)
        with pytest.raises(TypeError, match=r"several names, such as \['self'\]"):
            cached(ignore="self")


class TestOptions:
    """A policy per call site, over what the settings say."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def cache(self, clock: Clock) -> layercache.Cache[Any]:
        return layercache.Caches(SETTINGS, now=clock)["default"]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"stale_tll": 5}, "no option of a load is named 'stale_tll'; did you mean 'stale_ttl'"),
            ({"stale_ttl": None}, "stale_ttl has an end"),
            ({"none_ttl": "soon"}, "'soon' is no duration"),
            ({"jitter": 2}, r"jitter is a number from 0.0 to 1.0"),
            ({"refresh": "late"}, 'refresh is "background", "early" or "off"'),
            ({"wait": 0}, "wait is more than 0 seconds"),
            ({"tags": "quotes"}, r"several tags are wanted, such as \['quotes'\]"),
            ({"tags": [""]}, "a tag is text of 1 to 255 bytes"),
        ],
    )
    def test_what_cannot_be_right_is_said_before_any_call(self, options: Any, message: str) -> None:
        for decorate in (cached, get_cache().cached):
            with pytest.raises(ValueError, match=message):
                decorate("{x}", **options)

    def test_they_are_checked_once(self, cache: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        @cache.cached("{x}", stale_ttl="10s", tags=["quotes"])
        def f(x: int) -> int:
            return x

        def checked(*args: Any) -> Any:
            raise AssertionError

        monkeypatch.setattr("layercache.core.policy._checked", checked)
        monkeypatch.setattr("layercache.core.policy.parse_duration", checked)

        assert (f(1), f(2), f.refresh(1)) == (1, 2, 1)

    def test_a_stale_result_is_served_where_the_function_fails(
        self, cache: Any, clock: Clock, log: Log
    ) -> None:
        @cache.cached("{x}", ttl=10, stale_ttl=10, refresh="off")
        def f(x: int) -> int:
            if log(x) > 1:
                raise LookupError
            return x

        f(5)
        clock.advance(15)

        assert f(5) == 5
        assert len(log) == 2

    def test_none_has_a_ttl_of_its_own(self, cache: Any, clock: Clock, log: Log) -> None:
        @cache.cached("{x}", ttl=100, none_ttl=10)
        def f(x: int) -> int | None:
            log(x)
            return x or None

        f(0), f(1)
        clock.advance(15)
        f(0), f(1)

        assert log == [(0,), (1,), (0,)]

    def test_a_load_that_takes_too_long_is_given_up(self) -> None:
        @cached(hard_timeout="20ms")
        async def f() -> int:
            await asyncio.Event().wait()
            return 1

        with pytest.raises(LoadTimeout):
            asyncio.run(f())

    def test_a_ttl_may_depend_on_the_result(self, cache: Any) -> None:
        @cache.cached("{x}", ttl=lambda result: result * 10)
        def f(x: int) -> int:
            return x

        f(1), f(5)

        assert (cache.ttl_left("1"), cache.ttl_left("5")) == (10, 50)

    def test_and_on_the_arguments_that_it_names(self, cache: Any) -> None:
        @cache.cached("{x}", ttl=lambda result, period, unit=1: result * period * unit)
        def f(x: int, period: int = 10) -> int:
            return x

        f(1), f(2, period=20)
        f.refresh(3)

        assert [cache.ttl_left(key) for key in "123"] == [10, 40, 30]

    def test_tags_may_name_arguments(self, cache: Any, log: Log) -> None:
        @cache.cached("{symbol}:{period}", tags=["quote:{symbol}", "news"])
        def f(symbol: str, period: str = "1d") -> int:
            return log(symbol, period)

        f("A B"), f("A B", "1y"), f("C")
        cache.invalidate("quote:A B")  # spelled as in an f-string
        assert (f("A B"), f("A B", "1y"), f("C")) == (4, 5, 3)
        cache.invalidate("news")
        assert (f("A B"), f("A B", "1y"), f("C")) == (6, 7, 8)

    def test_tags_of_a_method_too(self, cache: Any, log: Log) -> None:
        class Market:
            @cache.cached("{symbol}", tags=["quote:{symbol}"])
            async def quote(self, symbol: str) -> int:
                return log(symbol)

        async def main() -> tuple[int, ...]:
            first = await Market().quote("A")
            await cache.ainvalidate("quote:A")
            return first, await Market().quote("A"), await Market().quote.refresh("A")

        assert asyncio.run(main()) == (1, 2, 3)

    def test_a_function_may_give_the_tags(self, cache: Any, log: Log) -> None:
        @cache.cached("{symbol}", tags=lambda result, symbol: [f"is:{result}", f"of:{symbol}"])
        def f(symbol: str) -> int:
            return log(symbol)

        f("A"), f("B")
        cache.invalidate("is:1")
        assert (f("A"), f("B")) == (3, 2)
        cache.invalidate("of:B")
        assert (f("A"), f("B")) == (3, 4)

    def test_or_it_gives_them_by_the_arguments_alone(self, cache: Any, log: Log) -> None:
        """Its first parameter is one of the function's, so no value is waited for."""
        asked: list[tuple[str, str]] = []

        def tags(symbol: str, period: str) -> Iterator[str]:
            asked.append((symbol, period))
            yield f"of:{symbol}"
            yield f"over:{period}"

        @cache.cached("{symbol}:{period}", tags=tags)
        def f(symbol: str, period: str = "1d") -> int:
            return log(symbol, period)

        f("A"), f("A", period="1y"), f("B"), f("A")
        assert asked == [("A", "1d"), ("A", "1y"), ("B", "1d")]  # a hit has no use for them
        cache.invalidate("of:A")
        assert (f("A"), f("A", "1y"), f("B")) == (4, 5, 3)
        cache.invalidate("over:1d")
        assert (f("A"), f("A", "1y"), f("B")) == (6, 5, 7)

    def test_it_may_ask_for_what_is_ignored_and_for_the_object_of_a_method(
        self, cache: Any, log: Log
    ) -> None:
        class Market:
            exchange = "X"

            @cache.cached(
                ignore=["self", "session"],
                tags=lambda self, symbol, *, session, sep=":": [f"{self.exchange}{sep}{symbol}", session],
            )
            async def quote(self, symbol: str, session: str = "s") -> int:
                return log(symbol)

        async def main() -> tuple[int, ...]:
            market = Market()
            got = [await market.quote("A")]
            for tag in ("X:A", "s"):
                await cache.ainvalidate(tag)
                got.append(await market.quote("A"))
            return *got, await market.quote("A")

        assert asyncio.run(main()) == (1, 2, 3, 3)

    def test_they_are_known_before_the_load_and_an_invalidation_meanwhile_counts(self, cache: Any) -> None:
        @cache.cached("{symbol}", tags=lambda symbol: [f"of:{symbol}"])
        def f(symbol: str) -> str:
            cache.invalidate("of:A")
            return symbol

        f("A")

        assert f.peek("A") is None

    @pytest.mark.parametrize(
        ("given", "message"),
        [("quotes", "several tags are wanted"), (None, "tags are several names"), ([7], "a tag is text")],
    )
    def test_what_it_gives_is_checked(self, cache: Any, given: Any, message: str) -> None:
        f = cache.cached("{x}", tags=lambda x: given)(lambda x: x)

        with pytest.raises(InvalidOption, match=message):
            f(1)
        assert cache.stats().loads == 0

    def test_those_of_the_settings_hold_besides(self, clock: Clock, log: Log) -> None:
        tagged = SETTINGS | {"caches": {"default": {"backend": "local", "tags": ["all"]}}}
        cache = layercache.Caches(tagged, now=clock)["default"]

        @cache.cached("{symbol}", tags=["quote:{symbol}"])
        def f(symbol: str) -> int:
            return log(symbol)

        f("A")
        cache.invalidate("all")

        assert f("A") == 2

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"tags": ["quote:{symbl}"]},
                r"the tag 'quote:\{symbl\}' names 'symbl'; .*f has the parameters symbol",
            ),
            ({"tags": ["{symbol:>9}"]}, "holds a format"),
            ({"tags": ["{symbol"]}, "expected '}'"),
            ({"tags": lambda quote, symbl: []}, "tags names 'symbl'; .*f has the parameters symbol, period"),
            ({"tags": lambda symbol, perod: []}, "tags names 'perod'; .*f has the parameters symbol, period"),
            (
                {"tags": lambda: ["x"]},
                "tags is a function of the value that was returned; this one takes none",
            ),
            ({"ttl": lambda quote, perod: 5}, "ttl names 'perod'"),
            ({"ttl": lambda *, quote: 5}, "ttl is a function of the value"),
            ({"ttl": lambda quote, symbol, /: 5}, "ttl names 'symbol'"),
        ],
    )
    def test_a_name_that_is_no_parameter_is_said_at_decoration(self, options: Any, message: str) -> None:
        def f(symbol: str, period: str = "1d") -> None: ...

        with pytest.raises(ValueError, match=message):
            cached("{symbol}", **options)(f)

    def test_an_async_function_of_the_result_too(self) -> None:
        async def ttl(result: Any) -> int:
            return 5

        with pytest.raises(InvalidOption, match="ttl is a plain function, as nobody would await it"):
            cached("x", ttl=ttl)(lambda: 1)  # type: ignore[arg-type]

    def test_and_one_of_the_arguments(self) -> None:
        async def tags(x: int) -> list[str]:
            return []

        with pytest.raises(InvalidOption, match="tags is a plain function, as nobody would await it"):
            cached("x", tags=tags)(lambda x: 1)  # type: ignore[arg-type]

    def test_what_has_no_signature_is_given_the_result(self, cache: Any) -> None:
        @cache.cached("{x}", ttl=int)
        def f(x: int) -> str:
            return str(x)

        f(15)

        assert cache.ttl_left("15") == 15


class TestTheLoad:
    """A function under @cached finds the load that it is part of."""

    def test_it_may_set_the_ttl_and_add_tags(self, log: Log) -> None:
        @cached("{symbol}", ttl=lambda result: 10)
        def f(symbol: str) -> int:
            load = current_load()
            assert isinstance(load, LoadContext)
            assert load.key == symbol
            load.ttl = "1h"
            load.add_tags("exchange:X")
            return log(symbol)

        f("A")

        assert get_cache().ttl_left("A") == pytest.approx(3600, abs=5)
        get_cache().invalidate("exchange:X")
        assert f("A") == 2

    def test_there_is_none_around_a_call_that_is_not_cached(self) -> None:
        @cached("{symbol}")
        async def f(symbol: str) -> bool:
            return current_load() is None

        assert asyncio.run(f.uncached("A")) is True
        assert asyncio.run(f("A")) is False
        assert current_load() is None

    def test_it_may_keep_what_is_stale(self, log: Log) -> None:
        clock = Clock()
        cache = layercache.Caches(SETTINGS, now=clock)["default"]

        @cache.cached(
            "{symbol}", ttl=10, stale_ttl=10, refresh="off", tags=lambda result, symbol: [str(result)]
        )
        def f(symbol: str) -> int:
            log(symbol)
            load = current_load()
            assert load is not None
            return 7 if load.stale is None else NotModified  # type: ignore[return-value]

        f("A")
        clock.advance(15)

        assert f("A") == 7
        assert (cache.ttl_left("A"), len(log)) == (10, 2)
        cache.invalidate("7")
        assert f.peek("A") is None

    def test_a_function_that_asks_for_itself_is_told(self) -> None:
        @cached("{x}")
        async def f(x: int) -> int:
            return await f(x)

        with pytest.raises(RecursiveLoad):
            asyncio.run(f(1))


def test_a_decorated_function_looks_as_it_did() -> None:
    def quote(symbol: str, /, period: str = "1d", *, live: bool = False) -> int:
        """Return the quote."""
        return 1

    async def aquote(symbol: str) -> int:
        """Return the quote, too."""
        return 1

    for function in (quote, aquote):
        decorated: Any = cached()(function)

        assert isinstance(decorated, types.FunctionType)
        assert decorated.__wrapped__ is function
        assert inspect.signature(decorated) == inspect.signature(function)
        assert inspect.iscoroutinefunction(decorated) is inspect.iscoroutinefunction(function)
        for name in ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__"):
            assert getattr(decorated, name) == getattr(function, name)


class TestTogether:
    def test_threads_that_call_together_share_one_run(self, log: Log) -> None:
        followers_wait = threading.Event()

        @cached()
        def f(x: int) -> int:
            assert followers_wait.wait(PATIENCE)
            return log(x)

        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(f, 1) for _ in range(8)]
            while get_cache().stats().waits < 7:
                pass  # the eighth leads
            followers_wait.set()

        assert [call.result() for call in calls] == [1] * 8
        assert log == [(1,)]

    def test_tasks_that_call_together_share_one_run(self, log: Log) -> None:
        @cached()
        async def f(x: int) -> Quote:
            while get_cache().stats().waits < 7:
                await asyncio.sleep(0)
            log(x)
            return QUOTE

        async def main() -> list[Quote]:
            return await asyncio.gather(*(f(1) for _ in range(8)))

        results = asyncio.run(main())

        assert results == [QUOTE] * 8
        assert len({id(result) for result in results}) == 8  # each a copy of its own
        assert log == [(1,)]

    def test_an_error_reaches_all_who_waited(self, log: Log) -> None:
        @cached()
        async def f() -> int:
            while get_cache().stats().waits < 3:
                await asyncio.sleep(0)
            log()
            raise LookupError("no such symbol")

        async def main() -> list[Any]:
            return await asyncio.gather(*(f() for _ in range(4)), return_exceptions=True)

        results = asyncio.run(main())

        assert [type(result) for result in results] == [LookupError] * 4
        assert log == [()]

    def test_a_function_and_its_async_twin_with_one_key_share_what_is_stored(self, log: Log) -> None:
        @cached("{x}")
        def f(x: int) -> int:
            return log(x)

        @cached("{x}")
        async def g(x: int) -> int:
            return log(x)

        assert (f(1), asyncio.run(g(1)), asyncio.run(g(2)), f(2)) == (1, 1, 2, 2)


class Quote(BaseModel):
    symbol: str
    price: Decimal
    at: datetime


QUOTE = Quote(symbol="005930.KS", price=Decimal("71400.50"), at=datetime(2026, 11, 20, 6, 30, tzinfo=UTC))
