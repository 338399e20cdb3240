"""The normal form: what every value becomes at `set`, so that all backends give back the same.

Rule: what `decode` returns is never shared with what was given to `encode` or returned before,
unless it is immutable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from layercache.entry import MISSING, Entry
from layercache.errors import DecodeError, EncodeError
from layercache.spi import Serializer

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["NormalForm", "TypedForm"]

_IMMUTABLE: Final = frozenset((str, int, float, bool, type(None), bytes))


class NormalForm:
    """Values of JSON's kinds (or whatever the serializer carries) as they come."""

    def __init__(self, serializer: Serializer) -> None:
        self.serializer = serializer

    def encode(self, value: Any) -> tuple[bytes, Any]:
        """Return the payload, and the value itself where it can be shared, else `MISSING`.

        Raises `EncodeError` when the serializer cannot carry the value.
        """
        return self.serializer.dumps(value), value if type(value) in _IMMUTABLE else MISSING

    def decode(self, entry: Entry) -> Any:
        """Return the value of `entry`, or raise `DecodeError`."""
        if entry.value is not MISSING:
            return entry.value
        assert entry.payload is not None
        return self.serializer.loads(entry.payload)


class TypedForm(NormalForm):
    """Values of one type, restored by a pydantic `TypeAdapter`."""

    def __init__(self, serializer: Serializer, type_: Any) -> None:
        super().__init__(serializer)
        self.type = type_
        self.adapter = _adapter(type_)

    def encode(self, value: Any) -> tuple[bytes, Any]:
        from pydantic import ValidationError
        from pydantic_core import PydanticSerializationError

        try:
            # validated first: pydantic serialises a value of another type with no more than a warning
            value = self.adapter.validate_python(value)
            return self.serializer.dumps_as(value, self.adapter), MISSING
        except (ValidationError, PydanticSerializationError) as error:
            raise EncodeError(f"the value does not fit {self.type!r}: {error}") from error

    def decode(self, entry: Entry) -> Any:
        from pydantic import ValidationError

        payload = self.serializer.dumps(entry.value) if entry.payload is None else entry.payload
        try:
            return self.serializer.loads_as(payload, self.adapter)
        except ValidationError as error:
            raise DecodeError(f"cached as another type: {error}") from error


def _adapter(type_: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter

    try:
        # bytes have no JSON; base64 carries all of them
        return TypeAdapter(type_, config=ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"))
    except PydanticUserError:
        return TypeAdapter(type_)  # models and dataclasses bring a configuration of their own
