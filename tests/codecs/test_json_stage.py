"""The stage `json`: what it takes comes back equal, and what would not is refused with its place."""

from __future__ import annotations

import enum
import math
import sys
import types
import uuid
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from unittest.mock import MagicMock

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from layercache.codecs.json import JsonOptions, JsonStage
from layercache.codecs.normal import NormalForm
from layercache.entry import MISSING, Entry
from layercache.errors import DecodeError, EncodeError

JSON = JsonStage(JsonOptions())

text = st.text(st.characters(exclude_categories=("Cs",)))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    text,
)
values = st.recursive(scalars, lambda items: st.lists(items) | st.dictionaries(text, items), max_leaves=20)


class TestRoundTrip:
    @given(values)
    @settings(max_examples=300)
    @example(-0.0)
    @example([2**64 - 1, -(2**63), 2.0**63, 1e308, 5e-324, 1.0, 0.1 + 0.2])
    @example({"": None, "null": "null", "\0\u2028\uffff😀": ["\ud7ff\ue000"]})
    def test_what_comes_back_equals_what_went_in(self, value: Any) -> None:
        back = JSON.loads(JSON.dumps(value))

        assert back == value
        assert repr(back) == repr(value)  # types, signs of zeros and the order of dicts as well

    @pytest.mark.parametrize(
        ("value", "back"),
        [((), []), ((1, (2, 3)), [1, [2, 3]]), ({"a": (None,)}, {"a": [None]}), ([((),)], [[[]]])],
    )
    def test_a_tuple_comes_back_a_list(self, value: Any, back: Any) -> None:
        assert JSON.loads(JSON.dumps(value)) == back

    def test_depth_is_bounded_at_what_orjson_writes(self) -> None:
        value: Any = 1
        for _ in range(254):
            value = {"a": value}
        assert JSON.loads(JSON.dumps(value)) == value

        with pytest.raises(EncodeError, match=r"the value\['a'\].*…, nested too deeply"):
            JSON.dumps({"a": value})

    def test_a_part_may_stand_in_many_places(self) -> None:
        part = ["x", None]

        assert JSON.loads(JSON.dumps([part, {"a": part}, part])) == [part, {"a": part}, part]

    def test_a_caller_deep_in_its_own_calls_needs_few_more(self) -> None:
        value: Any = 1
        for _ in range(250):
            value = [value]

        def deep(calls: int) -> bytes:
            return deep(calls - 1) if calls else JSON.dumps(value)

        used = len(_frames())
        assert JSON.loads(deep(sys.getrecursionlimit() - used - 60)) == value


def _frames() -> list[types.FrameType]:
    frame, found = sys._getframe(), []
    while frame:
        found.append(frame)
        frame = frame.f_back
    return found


class Colour(enum.Enum):
    RED = "red"


class TextColour(str, enum.Enum):  # noqa: UP042
    RED = "red"


class StrColour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Perm(enum.Flag):
    READ = 1


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Real(float):
    pass


class Mapping(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("not to be asked")


class Sequence(list[Any]):
    def __iter__(self) -> Any:
        raise RuntimeError("not to be asked")


Point = namedtuple("Point", "x y")  # noqa: PYI024


@dataclass
class Data:
    x: int = 1


class Model(BaseModel):
    x: int = 1


class Unhashable(type):
    def __eq__(cls, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class OfUnhashable(metaclass=Unhashable):
    pass


class Hostile:
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no ==")

    def __hash__(self) -> int:
        raise RuntimeError("no hash")


class Pretender:
    @property
    def __class__(self) -> type:  # type: ignore[override]
        return dict


def circle_of_lists() -> Any:
    circle: list[Any] = []
    circle.append([circle, circle])
    return circle


def circle_of_dicts() -> Any:
    circle: dict[str, Any] = {"a": 1}
    circle["self"] = {"again": circle}
    return circle


def too_deep() -> Any:
    value: Any = []
    for _ in range(5000):
        value = [value]
    return value


# makers, as some cannot be shown by pytest
ODD: dict[str, Callable[[], Any]] = {
    "nan": lambda: math.nan,
    "inf": lambda: math.inf,
    "-inf": lambda: -math.inf,
    "2**64": lambda: 2**64,
    "-2**63-1": lambda: -(2**63) - 1,
    "a googol": lambda: 10**100,
    "more digits than int() reads": lambda: 1 << 20_000,
    "a lone surrogate": lambda: "price \ud83d",
    "a key with a lone surrogate": lambda: {"\udc00": 1},
    "an int key": lambda: {1: 1},
    "a None key": lambda: {None: 1},
    "a bool key": lambda: {True: 1},
    "a tuple key": lambda: {("a", 1): 1},
    "a key of a subclass of str": lambda: {Text("a"): 1},
    "a key of a str enum": lambda: {TextColour.RED: 1},
    "a set": lambda: {1},
    "a frozenset": lambda: frozenset({1}),
    "bytes": lambda: b"a",
    "bytearray": lambda: bytearray(b"a"),
    "memoryview": lambda: memoryview(b"a"),
    "datetime": lambda: datetime(2026, 1, 1, tzinfo=UTC),
    "date": lambda: date(2026, 1, 1),
    "time": lambda: time(1, 2),
    "timedelta": lambda: timedelta(1),
    "Decimal": lambda: Decimal("1.5"),
    "Fraction": lambda: Fraction(1, 2),
    "complex": lambda: 1j,
    "UUID": lambda: uuid.UUID(int=1),
    "enum": lambda: Colour.RED,
    "str and enum": lambda: TextColour.RED,
    "StrEnum": lambda: StrColour.RED,
    "IntEnum": lambda: Level.LOW,
    "Flag": lambda: Perm.READ,
    "dataclass": Data,
    "model": Model,
    "namedtuple": lambda: Point(1, 2),
    "a subclass of str": lambda: Text("a"),
    "a subclass of int": lambda: Number(1),
    "a subclass of float": lambda: Real(1.5),
    "a subclass of dict": lambda: Mapping(a=1),
    "a subclass of list": lambda: Sequence([1]),
    "OrderedDict": lambda: OrderedDict(a=1),
    "defaultdict": lambda: defaultdict(int, a=1),
    "range": lambda: range(3),
    "generator": lambda: (x for x in [1]),
    "dict view": lambda: {"a": 1}.keys(),
    "a function": lambda: circle_of_lists,
    "a class": lambda: Data,
    "a module": lambda: math,
    "an exception": lambda: ValueError("x"),
    "object": object,
    "MISSING": lambda: MISSING,
    "a ready-made fragment of JSON": lambda: orjson.Fragment(b"not even JSON"),
    "a class whose metaclass has no hash": OfUnhashable,
    "an object that answers nothing": Hostile,
    "an object that says it is a dict": Pretender,
    "a mock": MagicMock,
    "a circle of lists": circle_of_lists,
    "a circle of dicts": circle_of_dicts,
    "five thousand lists": too_deep,
}


# these Hypothesis could not even show
DRAWN = sorted(ODD.keys() - {"an object that answers nothing", "an object that says it is a dict"})


class TestRefusal:
    @pytest.mark.parametrize("name", ODD)
    def test_what_would_change_is_refused_wherever_it_is(self, name: str) -> None:
        odd = ODD[name]()

        flat = {"a": 1.5, "b": "null", "c": None, "d": True, "e": odd, "f": 0.5}
        for value in (odd, [odd], {"a": odd}, (odd,), [None, "null", {"a": (1, odd)}], [odd, odd], flat):
            with pytest.raises(EncodeError, match="JSON cannot carry the value"):
                JSON.dumps(value)

    @pytest.mark.parametrize(
        ("value", "where"),
        [
            (math.nan, "the value, nan;"),
            ({"a": [1, {"b": math.nan}]}, "the value['a'][1]['b'], nan;"),
            ([0.5, -math.inf], "the value[1], -inf;"),
            ({"n": [2**64]}, "the value['n'][0], an int of more than 64 bits;"),
            (({"a": "\ud800"},), "the value[0]['a'], text with a lone surrogate, which has no UTF-8 form;"),
            ({"a": {"\ud800": 1}}, "the value['a'], a dict with a key that has no UTF-8 form;"),
            ([{"a": 1, 2: 3}], "the value[0], a dict with a key of type int;"),
            ([{None: 3}], "the value[0], a dict with a key of type NoneType;"),
            ({"at": [date(2026, 1, 1)]}, "the value['at'][0], a date;"),
            ([1, {2}], "the value[1], a set;"),
            ({"c": TextColour.RED}, "the value['c'], a TextColour;"),
            ({"p": Point(1, 2)}, "the value['p'], a Point;"),
            ([[[[[[[[[{1}]]]]]]]]], "the value[0][0][0][0][0][0][0][0]…, a set;"),
            ({"a" * 500: {1}}, "the value['aaaaaaaaaaaa...aaaaaaaaaaaaa'], a set;"),
        ],
    )
    def test_it_names_the_place(self, value: Any, where: str) -> None:
        with pytest.raises(EncodeError) as caught:
            JSON.dumps(value)

        assert str(caught.value).startswith(f"JSON cannot carry {where} cache.typed(T)")

    @given(
        st.recursive(
            scalars | st.sampled_from(DRAWN).map(lambda name: ODD[name]()),
            lambda items: (
                st.lists(items, max_size=4)
                | st.lists(items, max_size=4).map(tuple)
                | st.dictionaries(text | scalars, items, max_size=4)
            ),
            max_leaves=12,
        )
    )
    @settings(max_examples=300)
    def test_it_is_carried_as_it_is_or_refused_with_nothing_but_an_encode_error(self, value: Any) -> None:
        try:
            payload = JSON.dumps(value)
        except EncodeError:
            return

        assert repr(JSON.loads(payload)) == repr(_lists(value))

    @given(st.binary(max_size=200))
    @example(b"")
    @example(b"NaN")
    @example(b'"\\ud800"')
    @example(b"\xff")
    @example(b"[" * 100_000)
    @example(b"1" * 5000)
    def test_what_is_no_json_is_refused_with_nothing_but_a_decode_error(self, payload: bytes) -> None:
        try:
            JSON.loads(payload)
        except DecodeError as error:
            assert "not JSON" in str(error)  # noqa: PT017


def _lists(value: Any) -> Any:
    if type(value) is dict:
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if type(value) in {list, tuple} else value


class TestNormalForm:
    @pytest.mark.parametrize("value", ["text", 5, 1.5, True, None])
    def test_what_cannot_change_is_shared(self, value: Any) -> None:
        payload, shared = NormalForm(JSON).encode(value)

        assert shared is value
        assert NormalForm(JSON).decode(Entry(None, shared, 0, 1, 1)) is value
        assert JSON.loads(payload) == value

    def test_what_can_change_is_rebuilt_each_time(self) -> None:
        form, value = NormalForm(JSON), {"a": [1, {"b": [2]}]}
        payload, shared = form.encode(value)
        entry = Entry(payload, shared, 0, 1, 1)

        value["a"].append("after it was stored")
        first = form.decode(entry)
        first["a"][1]["b"].append("after it was read")

        assert shared is MISSING
        assert form.decode(entry) == {"a": [1, {"b": [2]}]}

    @pytest.mark.parametrize(
        ("value", "kept"),
        [
            ({"a": 1, "b": None, "c": "x"}, {"a": 1, "b": None, "c": "x"}),
            ([1, 2.5, True], [1, 2.5, True]),
            ((1, "a"), [1, "a"]),
            ({}, {}),
            ([], []),
        ],
    )
    def test_a_container_of_what_cannot_change_is_kept_and_copied(self, value: Any, kept: Any) -> None:
        form = NormalForm(JSON)
        payload, shared = form.encode(value)
        entry = Entry(payload, shared, 0, 1, 1)

        if not isinstance(value, tuple):
            value.clear()
        first = form.decode(entry)
        assert repr(first) == repr(kept) == repr(JSON.loads(payload))
        first.clear()

        assert form.decode(entry) == kept

    @pytest.mark.parametrize("value", [{"a": 1, "b": None}, [1, 2.5], (1, "a"), {"a": [1]}])
    def test_nothing_is_copied_where_nothing_is_near(self, value: Any) -> None:
        form = NormalForm(JSON, is_near=False)
        payload, shared = form.encode(value)

        assert shared is MISSING
        assert form.decode(Entry(payload, shared, 0, 1, 1)) == JSON.loads(payload)
        assert form.encode("text") == (b'"text"', "text")

    @given(values)
    def test_what_is_kept_reads_as_its_payload_does(self, value: Any) -> None:
        form = NormalForm(JSON)
        payload, shared = form.encode(value)

        assert repr(form.decode(Entry(payload, shared, 0, 1, 1))) == repr(JSON.loads(payload))

    def test_a_payload_that_is_none_of_the_serializers_is_a_decode_error(self) -> None:
        with pytest.raises(DecodeError, match="not JSON"):
            NormalForm(JSON).decode(Entry(b"{", MISSING, 0, 1, 1))
