"""The normal form: what every value becomes at `set`, so that all backends give back the same.

Rule: what `decode` returns is never shared with what was given to `encode` or returned before,
unless it is immutable. What `encode` accepts, `decode` gives back: a value that would return as
something else is refused when it is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from sys import getsizeof
from typing import TYPE_CHECKING, Any, Final

from layercache.entry import MISSING, Entry
from layercache.errors import DecodeError, EncodeError
from layercache.spi import Serializer

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["NormalForm", "Shared", "TypedForm"]

_IMMUTABLE: Final = frozenset((str, int, float, bool, type(None), bytes))
_SCALARS: Final = frozenset((str, int, float, bool))


class Shared:
    """A value that all readers share, although it can be changed: `isolation = "reference"`.

    Attributes:
        value: what readers of the form that made it get, all of them the same object.
        form: that form; another view of the cache decodes the payload.
        payload: its normal form.
    """

    __slots__ = ("_size", "form", "payload", "value")

    def __init__(self, value: Any, form: NormalForm, payload: bytes) -> None:
        self.value, self.form, self.payload = value, form, payload
        self._size = _size_of_all(form.serializer.loads(payload))

    def __sizeof__(self) -> int:
        # the payload says what there is; a model of the same parts takes about as much as their dict
        return object.__sizeof__(self) + getsizeof(self.payload) + self._size


class NormalForm:
    """Values of JSON's kinds (or whatever the serializer carries) as they come.

    Args:
        serializer: gives values their normal form.
        by_reference: let readers in this process share what was stored here, instead of giving each its own.
        is_near: whether this process keeps what is stored: only then is there a use for copies.
    """

    def __init__(self, serializer: Serializer, *, by_reference: bool = False, is_near: bool = True) -> None:
        self.serializer, self.by_reference, self._is_near = serializer, by_reference, is_near

    def encode(self, value: Any) -> tuple[bytes, Any]:
        """Return the payload, and what `Entry.value` is, `MISSING` where nothing can be shared.

        Raises `EncodeError` when the serializer cannot carry the value.
        """
        payload = self.serializer.dumps(value)
        kind = type(value)
        if kind in _IMMUTABLE:
            return payload, value
        if self.by_reference:
            return payload, Shared(self.serializer.loads(payload), self, payload)
        if not self._is_near:
            return payload, MISSING
        if kind is dict and set(map(type, value.values())) <= _IMMUTABLE:
            if self.serializer.is_exact and not set(map(type, value)) <= _IMMUTABLE:
                return payload, MISSING
            return payload, value.copy()
        if kind is tuple and self.serializer.is_exact:
            return payload, MISSING
        if kind in (list, tuple) and set(map(type, value)) <= _IMMUTABLE:
            return payload, list(value)
        return payload, MISSING

    def decode(self, entry: Entry) -> Any:
        """Return the value of `entry`, or raise `DecodeError`."""
        value = entry.value
        if value is MISSING:
            assert entry.payload is not None
            return self.serializer.loads(entry.payload)
        if type(value) is Shared:
            return self.shared(value)
        return value.copy() if type(value) in (dict, list) else value

    def readable(self, entry: Entry) -> Any:
        """Return the value of `entry`, or `MISSING` when it is none of this form."""
        try:
            return self.decode(entry)
        except DecodeError:
            return MISSING

    def restore(self, value: Any, kind: Callable[[Any], Any] | None) -> Any:
        """Return what a near record holds as `value` of `kind`, or raise `DecodeError`."""
        if type(value) is Shared:
            return self.shared(value)
        return value if kind is None else kind(value)

    def shared(self, value: Shared) -> Any:
        """Return the value itself to a reader of the form that stored it, its own to another."""
        return value.value if value.form is self else self.serializer.loads(value.payload)


class TypedForm(NormalForm):
    """Values of one type, restored by a pydantic `TypeAdapter`.

    What pydantic takes for the type is stored as the type: "5" as an int 5, an instance of a subclass
    of a model as the model.
    """

    def __init__(self, serializer: Serializer, type_: Any, *, by_reference: bool = False) -> None:
        super().__init__(serializer, by_reference=by_reference)
        self.type = type_
        self.adapter = _adapter(type_)
        self._scalar = next(
            (scalar for scalar in _SCALARS if scalar is type_), None
        )  # its values are shared as they are

    def encode(self, value: Any) -> tuple[bytes, Any]:
        try:
            # validated first: pydantic serialises a value of another type with no more than a warning
            value = self.adapter.validate_python(value)
            payload = self.serializer.dumps_as(value, self.adapter)
        except UnicodeDecodeError as error:
            raise EncodeError(
                f"{self.type!r} writes bytes as UTF-8, and these are none; give it "
                "ConfigDict(ser_json_bytes='base64', val_json_bytes='base64')"
            ) from error
        except ValueError as error:  # pydantic's own are all under it
            raise EncodeError(f"the value does not fit {self.type!r}: {error}") from error
        self._check(payload, value)
        if type(value) is self._scalar:
            return payload, value
        return payload, Shared(self._read(payload), self, payload) if self.by_reference else MISSING

    def _check(self, payload: bytes, value: Any) -> None:
        """Raise `EncodeError` unless `payload` is read back as `value`.

        A secret is written as asterisks, a `str | datetime` that looks like the other is read as the
        other, a date under `Any` stays text: nothing but reading it shows all that JSON loses.
        """
        try:
            back = self._read(payload)
        except DecodeError as error:
            raise EncodeError(f"what is written of {self.type!r} cannot be read back: {error}") from error
        if _change(value, back) is None:
            return
        # what is not equal may be so for private or excluded attributes, or want of an `__eq__`
        change = _change(self._plain(value), self._plain(back))
        if change:
            where, before, after = change
            article = "another" if type(before) is type(after) else "a"
            raise EncodeError(
                f"the value{where}, a {type(before).__qualname__}, would come back as {article} "
                f"{type(after).__qualname__}; JSON does not tell all values of {self.type!r} apart"
            )

    def _plain(self, value: Any) -> Any:
        try:
            return self.adapter.dump_python(value, by_alias=False, round_trip=True, warnings=False)
        except TypeError:
            return value  # a set of models has no form of plain parts: dicts cannot be in sets

    def restore(self, value: Any, kind: Callable[[Any], Any] | None) -> Any:
        if type(value) is self._scalar:
            return value
        if type(value) is Shared:
            return self.shared(value)
        encoded = type(value) is bytes and kind is not None
        return self._read(value if encoded else self.serializer.dumps(value))

    def shared(self, value: Shared) -> Any:
        return value.value if value.form is self else self._read(value.payload)

    def decode(self, entry: Entry) -> Any:
        if entry.value is not MISSING:
            return self.restore(entry.value, None)
        assert entry.payload is not None
        return self._read(entry.payload)

    def _read(self, payload: bytes) -> Any:
        try:
            return self.serializer.loads_as(payload, self.adapter)
        except Exception as error:
            # of the user's own validators as well, which may meet what an older version stored
            raise DecodeError(f"cached as another type: {error}") from error


def _size_of_all(value: Any) -> int:
    """Return what `value` and all its parts take, each counted as often as it stands there."""
    parts: list[Any] = value if isinstance(value, list) else []
    if isinstance(value, dict):
        parts = [*value, *value.values()]
    return getsizeof(value) + sum(map(_size_of_all, parts))


def _change(one: Any, other: Any) -> tuple[str, Any, Any] | None:
    """Find the first part of `one` that differs in `other`: where it is and both of it.

    A tuple that became a list is no change.
    """
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        pairs = ((key, part, other[key]) for key, part in one.items())
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = ((index, *parts) for index, parts in enumerate(zip(one, other, strict=True)))
    else:
        return None if _equal(one, other) else ("", one, other)
    for step, before, after in pairs:
        change = _change(before, after)
        if change:
            return f"[{step!r}]{change[0]}", change[1], change[2]
    return None


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, datetime) and isinstance(other, datetime):
        # == is never true across zones in the hour that a zone has twice (PEP 495)
        return one.isoformat() == other.isoformat()
    return bool(one == other)


def _adapter(type_: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter

    try:
        # bytes have no JSON; base64 carries all of them
        return TypeAdapter(type_, config=ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"))
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            raise
        return TypeAdapter(type_)  # models and dataclasses bring a configuration of their own
