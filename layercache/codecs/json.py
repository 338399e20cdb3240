"""The stage `json`: values as JSON, written and read by orjson.

Rule: what comes back equals what went in, except that a tuple comes back a list. What JSON cannot
carry is refused rather than changed silently: dates, UUIDs, enums, dataclasses and models keep
their types through `cache.typed(T)`; NaN and infinity have no JSON.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar, Final

import orjson

from layercache.errors import DecodeError, EncodeError
from layercache.options import options
from layercache.spi import Serializer

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["JsonOptions", "JsonStage"]

_SCALARS: Final = frozenset((str, int, float, bool, type(None)))
_CONTAINERS: Final = frozenset((dict, list, tuple))
_REFUSE_SUBCLASSES: Final = (
    orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
)


@options
class JsonOptions:
    """The stage has nothing to set."""


class JsonStage(Serializer):
    name: ClassVar[str] = "json"
    Options: ClassVar[type[Any]] = JsonOptions

    def dumps(self, value: Any) -> bytes:
        try:
            payload = orjson.dumps(value, option=_REFUSE_SUBCLASSES)
        except (TypeError, RecursionError) as error:
            raise _refusal(value, str(error)) from error
        # orjson writes UUIDs and enums as text, and NaN as null, without a word: the first are looked for
        # by type (one set per container), the last only where a null was written at all
        if type(value) not in _SCALARS:
            if not _plain(value):
                raise _refusal(value, "it would change")
            if b"null" in payload and not _finite(value):
                raise _refusal(value, "it would change")
        elif payload == b"null" and value is not None:
            raise _refusal(value, "it would change")
        return payload

    def loads(self, payload: bytes) -> Any:
        try:
            return orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            raise DecodeError(f"not JSON: {error}") from error

    def dumps_as(self, value: Any, adapter: TypeAdapter[Any]) -> bytes:
        return self.dumps(adapter.dump_python(value, mode="json"))

    def loads_as(self, payload: bytes, adapter: TypeAdapter[Any]) -> Any:
        return adapter.validate_json(payload)


def _plain(value: Any) -> bool:
    """Say whether `value` is made of JSON's own types only (and tuples), all the way down."""
    items = value.values() if type(value) is dict else value if type(value) in _CONTAINERS else None
    if items is None:
        return False
    kinds = set(map(type, items))
    if kinds <= _SCALARS:
        return True
    return kinds <= _SCALARS | _CONTAINERS and all(
        _plain(item) for item in items if type(item) in _CONTAINERS
    )


def _finite(value: Any) -> bool:
    if type(value) is float:
        return isfinite(value)
    items = value.values() if type(value) is dict else value if type(value) in _CONTAINERS else ()
    return all(map(_finite, items))


def _refusal(value: Any, reason: str) -> EncodeError:
    found = _first_unfit(value, "the value", 0)
    if found is None:
        return EncodeError(f"JSON cannot carry the value: {reason}")
    where, unfit = found
    return EncodeError(
        f"JSON cannot carry {where}, {unfit}; cache.typed(T), or a return annotation under @cached, "
        "keeps types that pydantic knows",
    )


def _first_unfit(value: Any, where: str, depth: int) -> tuple[str, str] | None:
    """Find the first part that JSON cannot carry: where it is and what it is."""
    kind = type(value)
    if depth > 200:  # orjson's own limit is 254
        return where, "nested too deeply"
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                return where, f"a dict with a key of type {type(key).__name__}"
            if found := _first_unfit(item, f"{where}[{key!r}]", depth + 1):
                return found
        return None
    if kind in {list, tuple}:
        for index, item in enumerate(value):
            if found := _first_unfit(item, f"{where}[{index}]", depth + 1):
                return found
        return None
    if kind is float and not isfinite(value):
        return where, f"{value}"
    if kind is int and not -(1 << 63) <= value < 1 << 64:
        return where, "an int of more than 64 bits"
    return None if kind in _SCALARS else (where, f"a {kind.__qualname__}")
