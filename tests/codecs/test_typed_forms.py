"""Typed forms: what is taken comes back as its type, what would come back as another is refused."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Json,
    PrivateAttr,
    PydanticUserError,
    SecretStr,
    computed_field,
    field_serializer,
    model_validator,
)
from typing_extensions import TypedDict

from layercache.codecs.json import JsonOptions, JsonStage
from layercache.codecs.normal import NormalForm, TypedForm
from layercache.entry import MISSING, Entry
from layercache.errors import DecodeError, EncodeError

JSON = JsonStage(JsonOptions())
BERLIN = ZoneInfo("Europe/Berlin")
COPIES: dict[type, Callable[[Any], Any]] = {dict: dict.copy, list: list.copy}


def stored(type_: Any, value: Any) -> Entry:
    payload, shared = TypedForm(JSON, type_).encode(value)
    return Entry(payload, shared, 0, 1, 1)


def back(type_: Any, value: Any) -> Any:
    return TypedForm(JSON, type_).decode(stored(type_, value))


def refusal(type_: Any, value: Any) -> str:
    with pytest.raises(EncodeError) as caught:
        TypedForm(JSON, type_).encode(value)
    return str(caught.value)


class Colour(enum.Enum):
    RED = "red"
    BLUE = 2


class TextColour(enum.StrEnum):
    RED = "red"


class Quote(BaseModel):
    symbol: str
    price: Decimal
    at: datetime


class StrictQuote(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    id: uuid.UUID
    price: Decimal
    at: datetime
    day: date
    tags: frozenset[str]
    pair: tuple[int, float]
    colour: Colour


class Portfolio(BaseModel):
    owner: str
    quotes: dict[str, list[Quote]] = {}
    best: Quote | None = None


class Aliased(BaseModel):
    name: str = Field(alias="theName")
    one_way: int = Field(validation_alias="in", serialization_alias="out")
    nested: Aliased | None = Field(None, alias="theNested")


class Area(BaseModel):
    model_config = ConfigDict(extra="forbid")

    width: int
    height: int

    @computed_field
    def size(self) -> int:
        return self.width * self.height


@dataclass
class Point:
    x: int
    y: int = 0
    marks: list[str] = field(default_factory=list)


@dataclass(eq=False)
class Nameless:
    at: datetime


class Row(TypedDict):
    day: date
    close: Decimal


class Pair(NamedTuple):
    left: int
    at: datetime


QUOTE = Quote(symbol="005930.KS", price=Decimal("71400.50"), at=datetime(2026, 11, 20, 6, 30, tzinfo=UTC))
STRICT = StrictQuote(
    id=uuid.UUID(int=7),
    price=Decimal("1.10"),
    at=datetime(2026, 1, 1, tzinfo=UTC),
    day=date(2026, 1, 1),
    tags=frozenset({"a", "b"}),
    pair=(1, 2.0),
    colour=Colour.BLUE,
)

zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(timezones=st.none() | zones)
days = st.dates()
decimals = st.decimals(allow_nan=False, allow_infinity=False)
whole = st.integers(-(2**63), 2**64 - 1)
text = st.text(st.characters(exclude_categories=("Cs",)))
quotes = st.builds(Quote, symbol=text, price=decimals, at=moments)
stricts = st.builds(
    StrictQuote,
    id=st.uuids(),
    price=decimals,
    at=moments,
    day=days,
    tags=st.frozensets(text, max_size=3),
    pair=st.tuples(whole, st.floats(allow_nan=False, allow_infinity=False)),
    colour=st.sampled_from(Colour),
)
points = st.builds(Point, x=whole, y=whole, marks=st.lists(text, max_size=3))

LAWS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, whole),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (str, text),
    (bool, st.booleans()),
    (bytes, st.binary()),
    (datetime, moments),
    (date, days),
    (time, st.times()),
    (timedelta, st.timedeltas(timedelta(days=-10_000), timedelta(days=10_000))),
    (Decimal, decimals),
    (uuid.UUID, st.uuids()),
    (Colour, st.sampled_from(Colour)),
    (TextColour, st.sampled_from(TextColour)),
    (PurePosixPath, st.sampled_from([PurePosixPath("/a/b"), PurePosixPath("c")])),
    (int | None, st.none() | whole),
    (int | str, whole | text),
    (int | float, whole | st.floats(allow_nan=False, allow_infinity=False)),
    (Decimal | int, decimals | whole),
    (date | datetime, days | moments),
    (Quote | Point | None, st.none() | quotes | points),
    (Literal["a", 1] | None, st.sampled_from(["a", 1, None])),
    (set[int], st.sets(whole)),
    (frozenset[date], st.frozensets(days)),
    (tuple[int, str], st.tuples(whole, text)),
    (tuple[bytes, ...], st.lists(st.binary()).map(tuple)),
    (list[bytes], st.lists(st.binary())),
    (dict[int, str], st.dictionaries(whole, text)),
    (dict[date, list[Decimal]], st.dictionaries(days, st.lists(decimals), max_size=3)),
    (dict[TextColour, int], st.dictionaries(st.sampled_from(TextColour), whole)),
    (dict[bytes, bytes], st.dictionaries(st.binary(), st.binary())),
    (Quote, quotes),
    (StrictQuote, stricts),
    (list[Quote], st.lists(quotes, max_size=4)),
    (Portfolio, st.builds(Portfolio, quotes=st.dictionaries(text, st.lists(quotes, max_size=2), max_size=2))),
    (Point, points),
    (dict[str, Point], st.dictionaries(text, points, max_size=3)),
    (Row, st.fixed_dictionaries({"day": days, "close": decimals})),
    (list[Row], st.lists(st.fixed_dictionaries({"day": days, "close": decimals}), max_size=3)),
    (Pair, st.builds(Pair, whole, moments)),
    (Annotated[int, Field(gt=0)], st.integers(1, 99)),
]


class TestRoundTrip:
    @pytest.mark.parametrize(("type_", "values"), LAWS, ids=lambda each: str(each)[:40])
    @given(st.data())
    @settings(max_examples=30)
    def test_what_comes_back_equals_what_went_in(
        self, type_: Any, values: st.SearchStrategy[Any], data: Any
    ) -> None:
        value = data.draw(values)

        restored = back(type_, value)

        assert restored == value
        assert type(restored) is type(value)

    @pytest.mark.parametrize(
        "moment",
        [
            datetime(2026, 7, 1, 12, tzinfo=BERLIN),
            # the hour that Berlin has twice, when == across zones is never true
            datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN),
            datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
        ],
    )
    def test_a_zone_comes_back_as_its_offset(self, moment: datetime) -> None:
        assert back(datetime, moment).isoformat() == moment.isoformat()
        assert back(Quote, QUOTE.model_copy(update={"at": moment})).at.isoformat() == moment.isoformat()
        assert back(Nameless, Nameless(moment)).at.isoformat() == moment.isoformat()

    def test_a_model_comes_back_whatever_its_fields_are_called_outside(self) -> None:
        value = Aliased.model_validate({"theName": "a", "in": 1, "theNested": {"theName": "b", "in": 2}})

        assert stored(Aliased, value).payload == (
            b'{"name":"a","one_way":1,"nested":{"name":"b","one_way":2,"nested":null}}'
        )
        assert back(Aliased, value) == value
        assert back(list[Aliased], [value]) == [value]

    def test_computed_fields_are_computed_again(self) -> None:
        assert stored(Area, Area(width=2, height=3)).payload == b'{"width":2,"height":3}'
        assert back(Area, Area(width=2, height=3)).size == 6

    def test_a_field_of_json_text_stays_one(self) -> None:
        class Raw(BaseModel):
            body: Json[list[int]]

        assert back(Raw, Raw.model_validate({"body": "[1, 2]"})).body == [1, 2]

    def test_what_a_model_keeps_to_itself_does_not_come_back(self) -> None:
        class Session(BaseModel):
            user: str
            password: str = Field("", exclude=True)
            _seen: int = PrivateAttr(0)

        session = Session(user="a", password="p")
        session._seen = 5

        restored = back(Session, session)

        assert (restored.user, restored.password, restored._seen) == ("a", "", 0)

    def test_bytes_in_a_model_are_carried_as_the_model_says(self) -> None:
        class AsText(BaseModel):
            body: bytes

        class AsBase64(BaseModel):
            model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
            body: bytes

        assert back(AsText, AsText(body="가".encode())).body == "가".encode()
        assert "ConfigDict(ser_json_bytes='base64', val_json_bytes='base64')" in refusal(
            AsText, AsText(body=b"\xff")
        )
        assert back(AsBase64, AsBase64(body=b"\xff\0")).body == b"\xff\0"

    def test_a_tuple_of_no_type_comes_back_a_list(self) -> None:
        assert back(dict[str, Any], {"a": (1, (2,)), "b": {"c": ()}}) == {"a": [1, [2]], "b": {"c": []}}

    @pytest.mark.parametrize(
        ("type_", "value", "restored"),
        [
            (int, "5", 5),
            (float, 5, 5.0),
            (list[int], (1, 2), [1, 2]),
            (date, "2026-01-01", date(2026, 1, 1)),
            (Quote, QUOTE.model_dump(), QUOTE),
            (Point, {"x": 1}, Point(1)),
        ],
    )
    def test_what_pydantic_takes_for_the_type_is_stored_as_the_type(
        self, type_: Any, value: Any, restored: Any
    ) -> None:
        assert back(type_, value) == restored
        assert type(back(type_, value)) is type(restored)

    def test_an_instance_of_a_subclass_comes_back_as_the_class_of_the_form(self) -> None:
        class Detailed(Quote):
            volume: int

        assert type(back(Quote, Detailed(**QUOTE.model_dump(), volume=3))) is Quote


def wrong_instance() -> Quote:
    quote = QUOTE.model_copy()
    quote.price = "dear"  # type: ignore[assignment]
    return quote


def circle() -> Any:
    class Node(BaseModel):
        next: Any = None

    node = Node()
    node.next = node
    return node


@dataclass(eq=False, frozen=True)
class Unequal:
    x: int


class Secret(BaseModel):
    password: SecretStr


class Unwritten(BaseModel):
    name: str = Field(exclude=True)


class Formatted(BaseModel):
    price: float

    @field_serializer("price")
    def write(self, price: float) -> str:
        return f"{price:,.2f} EUR"


class Lenient(BaseModel):
    model_config = ConfigDict(use_enum_values=True)
    colour: Colour = Colour.RED


class TestRefusal:
    @pytest.mark.parametrize(
        ("type_", "value"),
        [
            (int, "five"),
            (int, None),
            (int, 1.5),
            (int, [1]),
            (str, 5),
            (bytes, 5),
            (datetime, "soon"),
            (date, datetime(2026, 1, 1, 12, tzinfo=UTC)),
            (Colour, "green"),
            (Literal["a"], "b"),
            (set[int], {"x"}),
            (dict[int, str], {"x": "y"}),
            (dict[int, str], {1: 1}),
            (list[Quote], [QUOTE, None]),
            (Quote, {"symbol": "A"}),
            (Quote, Point(1)),
            (StrictQuote, STRICT.model_dump() | {"price": "1.10"}),
            (Quote, wrong_instance()),
            (list[Quote], [wrong_instance()]),
            (Point, Point("x")),  # type: ignore[arg-type]
            (Pair, (1,)),
            (Row, {"day": date(2026, 1, 1)}),
            (Annotated[int, Field(gt=0)], 0),
        ],
    )
    def test_a_value_of_another_type_is_refused(self, type_: Any, value: Any) -> None:
        assert "the value does not fit" in refusal(type_, value) or "cannot be read back" in refusal(
            type_, value
        )

    @pytest.mark.parametrize(
        ("type_", "value"),
        [
            (int, 2**64),
            (float, float("nan")),
            (float, float("inf")),
            (Decimal, Decimal("NaN")),
            (str, "\ud800"),
            (dict[str, Any], {"a": object()}),
            (Any, circle()),
            (list[Any], [float("nan")]),
        ],
    )
    def test_what_json_cannot_carry_is_refused_as_without_a_type(self, type_: Any, value: Any) -> None:
        assert refusal(type_, value)

    @pytest.mark.parametrize(
        ("type_", "value", "message"),
        [
            (datetime | str, "2026-01-01T00:00:00", "the value, a str, would come back as a datetime"),
            (uuid.UUID | str, str(uuid.UUID(int=1)), "the value, a str, would come back as a UUID"),
            (list[int] | set[int], {1}, "the value, a set, would come back as a list"),
            (Colour | str, Colour.RED, "the value, a Colour, would come back as a str"),
            (dict[str, Any], {"at": date(2026, 1, 1)}, "the value['at'], a date, would come back as a str"),
            (list[Any], [1, {"s": {2}}], "the value[1]['s'], a set, would come back as a list"),
            (dict[str, object], {"b": b"x"}, "the value['b'], a bytes, would come back as a str"),
            (dict[Any, int], {1: 2}, "the value, a dict, would come back as another dict"),
            (dict[int | str, int], {1: 2, "1": 3}, "the value, a dict, would come back as another dict"),
            (Secret, Secret(password=SecretStr("p")), "the value['password'], a SecretStr, would come back"),
            (Lenient, Lenient(), "the value['colour'], a Colour, would come back as a str"),
            (datetime, datetime(1800, 1, 1, tzinfo=BERLIN), "the value, a datetime, would come back"),
            (set[Unequal], {Unequal(1)}, "the value, a set, would come back as another set"),
            (dict[tuple[int, int], str], {(1, 2): "a"}, "cannot be read back"),
            (dict[None, str], {None: "a"}, "cannot be read back"),
            (dict[Colour, int], {Colour.BLUE: 1}, "cannot be read back"),
            (Unwritten, Unwritten(name="a"), "cannot be read back"),
            (Formatted, Formatted(price=1.5), "cannot be read back"),
        ],
        ids=str,
    )
    def test_what_would_come_back_as_another_is_refused(self, type_: Any, value: Any, message: str) -> None:
        assert message in refusal(type_, value)

    def test_no_refusal_shows_a_secret(self) -> None:
        assert "hunter2" not in refusal(Secret, Secret(password=SecretStr("hunter2")))
        assert "hunter2" not in refusal(dict[str, Any], {"password": b"hunter2"})

    @pytest.mark.parametrize("type_", [object(), memoryview, range])
    def test_a_type_that_pydantic_does_not_know_is_refused_at_once(self, type_: Any) -> None:
        with pytest.raises(PydanticUserError):
            TypedForm(JSON, type_)


class Old(BaseModel):
    at: Any = None

    @model_validator(mode="before")
    @classmethod
    def upgrade(cls, values: Any) -> Any:
        return {"at": values["time"]["at"]}  # as users write it: KeyError, TypeError, AttributeError


class TestPayloadsOfAnotherShape:
    @pytest.mark.parametrize(
        ("type_", "payload"),
        [
            (int, b'"five"'),
            (int, b"null"),
            (Quote, b"{}"),
            (Quote, b'{"symbol":"A","price":"1","at":"soon"}'),
            (Quote, b"[]"),
            (StrictQuote, b'{"id":1}'),
            (list[Quote], b"{}"),
            (bytes, b'"no base 64!"'),
            (Colour, b'"green"'),
            (Pair, b"[1]"),
            (Quote, b"{"),
            (Quote, b""),
            (Old, b"{}"),
            (Old, b"5"),
        ],
    )
    def test_they_are_a_decode_error(self, type_: Any, payload: bytes) -> None:
        with pytest.raises(DecodeError, match="cached as another type"):
            TypedForm(JSON, type_).decode(Entry(payload, MISSING, 0, 1, 1))

    def test_a_shared_value_of_another_type_is_one_too(self) -> None:
        with pytest.raises(DecodeError):
            TypedForm(JSON, Quote).decode(Entry(None, "text", 0, 1, 1))

        assert TypedForm(JSON, date).decode(Entry(None, "2026-01-01", 0, 1, 1)) == date(2026, 1, 1)

    @pytest.mark.parametrize(
        "type_", [Quote, StrictQuote, Point, Row, Pair, Old, list[Quote], dict[int, str], bytes | date]
    )
    @given(
        st.recursive(
            st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
            lambda items: (
                st.lists(items) | st.dictionaries(text | st.sampled_from(["symbol", "x", "time"]), items)
            ),
            max_leaves=6,
        )
    )
    @settings(max_examples=50)
    def test_any_json_is_a_value_of_the_type_or_a_decode_error(self, type_: Any, value: Any) -> None:
        try:
            payload = JSON.dumps(value)
        except EncodeError:
            return
        with suppress(DecodeError):
            TypedForm(JSON, type_).decode(Entry(payload, MISSING, 0, 1, 1))


class TestIsolation:
    @pytest.mark.parametrize(
        ("type_", "value"),
        [
            (list[int], [1]),
            (dict[str, list[int]], {"a": [1]}),
            (set[int], {1}),
            (Point, Point(1, marks=["a"])),
            (Portfolio, Portfolio(owner="a", quotes={"q": [QUOTE]})),
            (Portfolio, Portfolio(owner="a")),  # its default is a dict that all instances could share
            (Row, {"day": date(2026, 1, 1), "close": Decimal(1)}),
            (Any, {"a": [1]}),
        ],
        ids=str,
    )
    def test_no_two_decodes_share_what_can_change(self, type_: Any, value: Any) -> None:
        form, entry = TypedForm(JSON, type_), stored(type_, value)
        first, second = form.decode(entry), form.decode(entry)

        assert first == second
        assert not (_changeable(first) & _changeable(second))
        assert not (_changeable(first) & _changeable(value))

    def test_what_changes_after_it_was_stored_is_not_what_was_stored(self) -> None:
        value = Portfolio(owner="a", quotes={"q": [QUOTE]})
        entry = stored(Portfolio, value)

        value.quotes["q"].clear()

        assert TypedForm(JSON, Portfolio).decode(entry).quotes == {"q": [QUOTE]}

    @pytest.mark.parametrize(("type_", "value"), [(int, 5), (str, "a"), (float, 1.5), (bool, True)])
    def test_a_scalar_is_shared_and_read_by_other_forms_as_their_type(self, type_: Any, value: Any) -> None:
        entry = stored(type_, value)

        assert entry.value is value
        assert TypedForm(JSON, type_).decode(entry) is value
        for other in (str | int | float | bool, Any, type_ | None):
            restored = TypedForm(JSON, other).decode(Entry(None, value, 0, 1, 1))
            assert (restored, type(restored)) == (value, type_)
        assert TypedForm(JSON, Decimal).decode(stored(float, 1.5)) == Decimal("1.5")

    @pytest.mark.parametrize(
        ("type_", "value"),
        [(int | None, 5), (Colour, Colour.RED), (TextColour, TextColour.RED), (list[int], [1])],
    )
    def test_what_is_no_scalar_is_not_shared(self, type_: Any, value: Any) -> None:
        assert stored(type_, value).value is MISSING

    @pytest.mark.parametrize("value", [5, "2026-01-01", True, 1.5, None, {"a": 1}, [1, "a"], {"a": [1]}])
    @pytest.mark.parametrize("type_", [Any, date, int, str, dict[str, int], list[Any], bool | None])
    def test_a_near_record_is_restored_as_its_entry_is_decoded(self, type_: Any, value: Any) -> None:
        payload, shared = NormalForm(JSON).encode(value)
        # as the memory backend keeps it: shared, a container to copy, or a payload to load
        held, kind = (payload, JSON.loads) if shared is MISSING else (shared, COPIES.get(type(shared)))
        form = TypedForm(JSON, type_)

        def outcome(act: Callable[[], Any]) -> Any:
            try:
                return repr(act())
            except DecodeError:
                return DecodeError

        restored = outcome(lambda: form.restore(held, kind))

        assert restored == outcome(lambda: form.decode(Entry(payload, MISSING, 0, 1, 1)))
        assert restored == outcome(
            lambda: form.decode(Entry(None if kind is None else payload, shared, 0, 1, 1))
        )


def _changeable(value: Any) -> set[int]:
    """The identities of everything in `value` that can be changed."""
    if isinstance(value, BaseModel | Point):
        return {id(value)}.union(*map(_changeable, vars(value).values()))
    if isinstance(value, dict):
        return {id(value)}.union(*map(_changeable, value.values()))
    if isinstance(value, list | set):
        return {id(value)}.union(*map(_changeable, value))
    assert isinstance(value, Hashable)
    return set()
