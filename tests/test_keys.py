"""Keys: what may be one, how one is made of parts, and where it lands in a store."""

from __future__ import annotations

import enum
import fnmatch
import re
from collections import namedtuple
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from layercache import InvalidKey, make_key
from layercache.keys import check_key, key_part, key_space_prefix, physical_key

MOST = 1024  # the default of `max_key_bytes`


class Colour(enum.Enum):
    RED = "red"


class Size(enum.Enum):
    RED = "red"


class TextColour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Perm(enum.Flag):
    READ = 1
    WRITE = 2


class Bits(enum.IntFlag):
    ONE = 1


class Markup(str):
    __slots__ = ()


class Outer:
    class Colour(enum.Enum):
        RED = "red"


Point = namedtuple("Point", "x y")  # noqa: PYI024


class TestCheckKey:
    @pytest.mark.parametrize(
        "key", ["a", "quote:AAPL", " ", "\n", "가격", "{a}", "x" * 1024, "가" * 341, "*", TextColour.RED]
    )
    def test_any_text_within_the_limit_is_a_key(self, key: str) -> None:
        check_key(key, MOST)

    @pytest.mark.parametrize("key", [None, 5, b"quote", ("quote", 1), 1.5, True, object(), ["a"]])
    def test_a_key_is_a_str(self, key: Any) -> None:
        with pytest.raises(InvalidKey, match=f"a key is a str, not {type(key).__name__}; make_key"):
            check_key(key, MOST)

    def test_a_key_is_not_empty(self) -> None:
        with pytest.raises(InvalidKey, match="this one is empty"):
            check_key("", MOST)

    @pytest.mark.parametrize(("key", "size"), [("x" * 1025, 1025), ("가" * 342, 1026), ("😀" * 257, 1028)])
    def test_its_length_is_counted_in_bytes(self, key: str, size: int) -> None:
        with pytest.raises(InvalidKey, match=f"takes {size} bytes, more than max_key_bytes = 1024; make_key"):
            check_key(key, MOST)

    @pytest.mark.parametrize("key", ["\ud800", "quote:\udfff", "x" * 5000 + "\ud800"])
    def test_a_key_has_a_utf_8_form(self, key: str) -> None:
        with pytest.raises(InvalidKey, match="has no UTF-8 form: surrogates not allowed") as caught:
            check_key(key, MOST)

        assert len(str(caught.value)) < 200

    @given(st.text(), st.integers(1, 50))
    def test_what_is_let_through_is_valid(self, key: str, most: int) -> None:
        try:
            check_key(key, most)
        except InvalidKey:
            return

        assert 0 < len(key.encode()) <= most


# what `make_key` takes, each with the type it counts as
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.text(alphabet="a:=,~%()[]{}.h \ud800"),
    st.binary(max_size=10),
    st.decimals(allow_nan=False),
    st.dates(),
    st.datetimes(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.sampled_from(
        [Colour.RED, Size.RED, TextColour.RED, Level.LOW, Perm.READ, Perm.READ | Perm.WRITE, Perm(0)]
    ),
    st.builds(Markup, st.text(max_size=3)),
)
hashable = st.recursive(leaves, lambda part: st.lists(part, max_size=3).map(tuple), max_leaves=4)
parts = st.recursive(
    leaves,
    lambda part: (
        st.lists(part, max_size=3)
        | st.lists(part, max_size=3).map(tuple)
        | st.dictionaries(hashable, part, max_size=3)
        | st.sets(hashable, max_size=3)
    ),
    max_leaves=6,
)
names = st.text(max_size=5) | st.sampled_from(["a", "b", "a=~1", "a:b"])
resources = st.text(min_size=1, max_size=8) | st.sampled_from(["quote", "~h", "a:b", "x" * 600])
calls = st.tuples(
    resources, st.lists(parts, max_size=3).map(tuple), st.dictionaries(names, parts, max_size=3)
)


def identity(part: Any) -> Any:
    """What a part counts as: equal for two parts exactly when they may share a key."""
    match part:
        case enum.Enum():
            return ("enum", type(part), part.value)
        case tuple() | list():
            return ("tuple" if isinstance(part, tuple) else "list", *map(identity, part))
        case set():
            return ("set", frozenset(map(identity, part)))
        case dict():
            return ("dict", frozenset((identity(name), identity(value)) for name, value in part.items()))
        case float() | Decimal():
            return (type(part), repr(part))  # 0.0 and -0.0, 1.0 and 1.00 differ
        case _:
            return (type(part), part)


def same(one: Any, other: Any) -> bool:
    (resource, parts, params), (resource2, parts2, params2) = one, other
    return (resource, identity(parts), identity(params)) == (resource2, identity(parts2), identity(params2))


class TestMakeKey:
    @pytest.mark.parametrize(
        ("key", "expected"),
        [
            (make_key("quote"), "quote"),
            (make_key("quote", "AAPL"), "quote:AAPL"),
            (make_key("quote", "AAPL", period="1d"), "quote:AAPL:period=1d"),
            (make_key("quote", "005930.KS", b=2, a=True), "quote:005930.KS:a=~true:b=~2"),
            (make_key("a:b", "c"), "a%3Ab:c"),
            (make_key("a", "b:c"), "a:b%3Ac"),
            (make_key("f", ""), "f:"),
            (make_key("f", None, False, 1, -1, 1.0, 1e300), "f:~none:~false:~1:~-1:~1.0:~1e+300"),
            (make_key("f", b"\x00\xff", Decimal("1.50")), "f:~x00ff:~d1.50"),
            (make_key("f", date(2026, 11, 22), time(6, 30)), "f:~t2026-11-22:~t06%3A30%3A00"),
            (make_key("f", datetime(2026, 11, 22, tzinfo=UTC)), "f:~t2026-11-22T00%3A00%3A00+00%3A00"),
            (make_key("f", timedelta(days=1, seconds=2)), "f:~p1.2.0"),
            (make_key("f", UUID(int=1)), "f:~u00000000000000000000000000000001"),
            (make_key("f", Colour.RED), f"f:~e({__name__}.Colour,RED)"),
            (make_key("f", Outer.Colour.RED), f"f:~e({__name__}.Outer.Colour,RED)"),
            (make_key("f", Perm.READ | Perm.WRITE), f"f:~e({__name__}.Perm,~3)"),
            (make_key("f", Markup("a b")), f"f:~s({__name__}.Markup,a%20b)"),
            (make_key("f", (1, "a"), [2], {3}), "f:~(~1,a):~[~2]:~{~3}"),
            (make_key("f", {"b": 1, "a": (2,)}), "f:~{=a=~(~2),b=~1}"),
            (make_key("f", (), [], set(), {}), "f:~():~[]:~{}:~{=}"),
            (make_key("f", ("",), [""], {""}, {"": ""}), "f:~(~):~[~]:~{~}:~{==}"),
            (make_key("가격", "삼성 전자"), "가격:삼성%20전자"),
            (make_key("f", "\ud800"), "f:%ED%A0%80"),
            (make_key("f", "x" * 120), "f:" + "x" * 120),
            (make_key("f", "x" * 121), "f:~ha6141c743b35b75fec8fc6e480b35db4"),
        ],
    )
    def test_the_spelling_does_not_change_unnoticed(self, key: str, expected: str) -> None:
        assert key == expected

    @given(calls, calls)
    @settings(max_examples=300)
    @example(("r", ("",), {}), ("r", (), {}))
    @example(("r", ((),), {}), ("r", (("",),), {}))
    @example(("r", ([],), {}), ("r", ([""],), {}))
    @example(("r", (["", ""],), {}), ("r", ([""],), {}))
    @example(("r", (set(),), {}), ("r", ({},), {}))
    @example(("r", (Colour.RED,), {}), ("r", (Size.RED,), {}))
    @example(("r", (Colour.RED,), {}), ("r", (Outer.Colour.RED,), {}))
    @example(("r", (TextColour.RED,), {}), ("r", ("red",), {}))
    @example(("r", (Level.LOW,), {}), ("r", (1,), {}))
    @example(("r", (Bits.ONE,), {}), ("r", (Bits.ONE | Bits(8),), {}))
    @example(("r", (Markup("a"),), {}), ("r", ("a",), {}))
    @example(("r", (), {"a": "x", "b": "y"}), ("r", (), {"a=x:b": "y"}))
    @example(("r", (), {"a": "x", "b": "y"}), ("r", (), {"a": "x:b=y"}))
    @example(("r", ("period=1d",), {}), ("r", (), {"period": "1d"}))
    @example(("r", ("x" * 400,), {}), ("r", ("x" * 400 + "y",), {}))
    @example(("r" * 700, ("x",), {}), ("r" * 701, ("x",), {}))
    @example(("r", tuple("x" * 100 for _ in range(9)), {}), ("r", tuple("x" * 100 for _ in range(10)), {}))
    @example(("r", (10**5000,), {}), ("r", (10**5000 + 1,), {}))
    @example(("r", ("\ud800",), {}), ("r", ("%ED%A0%80",), {}))
    @example(("r", (date(2026, 1, 1),), {}), ("r", (datetime(2026, 1, 1),), {}))  # noqa: DTZ001
    def test_two_calls_share_a_key_only_when_they_are_the_same(self, one: Any, other: Any) -> None:
        (resource, parts, params), (resource2, parts2, params2) = one, other

        keys_are_equal = make_key(resource, *parts, **params) == make_key(resource2, *parts2, **params2)

        assert keys_are_equal is same(one, other)

    @pytest.mark.parametrize(
        "alike",
        [
            [1, "1", True, 1.0, Decimal(1), b"1", "~1", "True", "true", Level.LOW, (1,), [1], {1}, {1: 1}],
            [None, "None", "none", "~none", "", (), [], set(), {}, False, 0, 0.0, -0.0],
            [("a:b", "c"), ("a", "b:c"), ("a", "b", "c"), ["a", "b", "c"], "a,b,c", ("a,b", "c"), "(a,b,c)"],
            [{"a": 1}, {"a": "1"}, {("a", 1)}, "a=1", {"a=": 1}, {"a": {"": 1}}, ["a", 1]],
            [Point(1, 2), [1, 2], {1, 2}, {1: 2}],
            [float("inf"), "inf", float("-inf"), float("nan"), Decimal("Infinity")],
        ],
    )
    def test_what_looks_alike_differs(self, alike: list[Any]) -> None:
        assert len({make_key("f", part) for part in alike}) == len(alike)

    def test_parts_and_resource_keep_their_places(self) -> None:
        assert make_key("a", "b") != make_key("a:b")
        assert make_key("a:b", "c") != make_key("a", "b:c") != make_key("a", "b", "c")

    def test_no_text_forges_a_digest(self) -> None:
        long = make_key("f", "x" * 500)
        digest = long.removeprefix("f:")

        assert re.fullmatch(r"~h[0-9a-f]{32}", digest)
        assert make_key("f", digest) != long
        assert make_key("f", Markup(digest)) != long
        assert make_key(long) != long

    @given(st.dictionaries(names, parts, max_size=5), st.randoms())
    def test_the_order_of_params_and_items_is_irrelevant(self, params: dict[str, Any], random: Any) -> None:
        shuffled = list(params.items())
        random.shuffle(shuffled)

        assert make_key("f", **params) == make_key("f", **dict(shuffled))
        assert make_key("f", params) == make_key("f", dict(shuffled))

    def test_the_order_in_which_a_set_was_filled_is_irrelevant(self) -> None:
        one, other = set([0]) | {8}, set([8]) | {0}  # noqa: C405  (one place in the table for both)
        assert list(one) != list(other)

        assert make_key("f", one) == make_key("f", other)

    @given(calls)
    @settings(max_examples=300)
    @example(("😀" * 500, ("가" * 119,) * 9, {"가" * 500: "가" * 120}))
    def test_the_key_is_valid_and_bounded(self, call: Any) -> None:
        resource, parts, params = call

        key = make_key(resource, *parts, **params)

        check_key(key, 961)
        assert not re.search(r"[\x00-\x20\x7f-\xa0*?\\'\"\u2028\u2029]", key)

    def test_any_name_may_be_a_param(self) -> None:
        assert make_key("f", resource="a", parts=1, self=2) == "f:parts=~1:resource=a:self=~2"

    @pytest.mark.parametrize(
        "part", [object(), 1j, range(3), bytearray(b"a"), Colour, len, iter([]), [1, [object()]], {"a": 1j}]
    )
    def test_what_has_no_spelling_is_refused(self, part: Any) -> None:
        with pytest.raises(
            InvalidKey, match="cannot be part of a key; pass what identifies it, such as its id"
        ):
            make_key("f", part)

    def test_a_part_in_circles_is_refused(self) -> None:
        circle: list[Any] = []
        circle.append(circle)

        with pytest.raises(InvalidKey, match="nested too deeply"):
            make_key("f", circle)
        with pytest.raises(InvalidKey, match="nested too deeply"):
            key_part(circle)

    @pytest.mark.parametrize("resource", ["", None, 5, b"quote", ("quote",)])
    def test_a_resource_is_text(self, resource: Any) -> None:
        with pytest.raises(
            InvalidKey, match="a key begins with the name of a resource, such as 'quote'; not with"
        ):
            make_key(resource, "AAPL")


class TestKeyPart:
    @pytest.mark.parametrize(
        ("value", "part"),
        [
            ("AAPL", "AAPL"),
            ("a:b", "a%3Ab"),
            (5, "5"),
            (-5, "-5"),
            (True, "~true"),
            (None, "~none"),
            (1.5, "~1.5"),
            ("", ""),
            (Level.LOW, f"~e({__name__}.Level,LOW)"),
            ((1, "a"), "~(~1,a)"),
        ],
    )
    def test_text_and_ints_stand_as_they_are(self, value: Any, part: str) -> None:
        assert key_part(value) == part

    @given(parts)
    def test_it_is_bounded(self, value: Any) -> None:
        assert len(key_part(value).encode()) <= 120

    def test_a_long_int_is_too(self) -> None:
        assert key_part(10**119) == "1" + "0" * 119
        assert key_part(10**120).startswith("~h")
        assert key_part(10**5000) != key_part(10**5000 + 1)


class TestPhysicalKeys:
    @pytest.mark.parametrize(
        ("key", "physical"),
        [
            ("quote:AAPL", "quote:AAPL"),
            ("{a}b", "%7Ba%7Db"),
            ("a b\n", "a%20b%0A"),
            ("100%", "100%25"),
            ("가\u3000격", "가%E3%80%80격"),
            ("*?[x]", "*?[x]"),
        ],
    )
    def test_the_spelling_does_not_change_unnoticed(self, key: str, physical: str) -> None:
        assert physical_key(key) == physical

    @given(st.text(), st.text())
    @settings(max_examples=300)
    @example("%20", " ")
    @example("{", "%7B")
    def test_different_keys_stay_different(self, one: str, other: str) -> None:
        assume(one != other)

        assert physical_key(one) != physical_key(other)

    @given(st.text())
    def test_nothing_is_left_that_would_end_a_line_or_move_to_another_slot(self, key: str) -> None:
        physical = physical_key(key)

        assert not re.search(r"[{}\s\x00-\x1f\x7f-\x9f]", physical)
        physical.encode()  # it has a UTF-8 form

    @given(st.text(), st.text(), st.text(), st.text())
    @settings(max_examples=300)
    @example("a", "b:c", "a:b", "c")
    @example("a:b", "", "a", "b")
    @example("*", "c", "a", "c")
    @example("", "a", "", "")
    def test_no_two_key_spaces_overlap(self, prefix: str, cache: str, prefix2: str, cache2: str) -> None:
        assume((prefix, cache) != (prefix2, cache2))
        one, other = key_space_prefix(prefix, cache), key_space_prefix(prefix2, cache2)

        assert not one.startswith(other)
        assert not other.startswith(one)

    @given(st.text(), st.text(), st.text())
    def test_a_prefix_is_its_own_pattern(self, prefix: str, cache: str, key: str) -> None:
        space = key_space_prefix(prefix, cache)

        assert space.count(":") == 2
        assert not re.search(r"[{}*?\[\]\\\s\x00-\x1f\x7f-\x9f]", space)
        assert fnmatch.fnmatchcase(space + physical_key(key), space + "*")
