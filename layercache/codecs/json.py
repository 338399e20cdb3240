"""The stage `json`: values as JSON, written and read by orjson.

Rule: what comes back equals what went in, except that a tuple comes back a list. What JSON cannot
carry is refused rather than changed silently: dates, UUIDs, enums, dataclasses and models keep
their types through `cache.typed(T)`; NaN and infinity have no JSON.
"""

from __future__ import annotations

import marshal
import re
import reprlib
from collections.abc import Iterator
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
_SEQUENCES: Final = frozenset((list, tuple))
_CONTAINERS: Final = _SEQUENCES | {dict}
_REFUSE_SUBCLASSES: Final = (
    orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
)
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_MAX_DEPTH: Final = 254  # orjson's own
_SHOWN_STEPS: Final = 8
_FEW: Final = 64
"""Parts of a flat value that are looked at one by one: 33 of a quote take 1.2 us, where `marshal` and what it needs
take 3.4. Of thousands it takes half as long."""


@options
class JsonOptions:
    """The stage has nothing to set."""


class JsonStage(Serializer):
    """Serializes values with orjson."""

    name: ClassVar[str] = "json"
    Options: ClassVar[type[Any]] = JsonOptions

    def dumps(self, value: Any) -> bytes:
        try:
            payload = orjson.dumps(value, option=_REFUSE_SUBCLASSES)
        except TypeError as error:
            raise _refusal(value, str(error)) from error
        # orjson writes UUIDs and enums as text, and NaN as null, without a word
        if not _is_carried(value, payload):
            raise _refusal(value, "it would change")
        return payload

    def loads(self, payload: bytes) -> Any:
        try:
            return orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            raise DecodeError(f"not JSON: {error}") from error

    def dumps_as(self, value: Any, adapter: TypeAdapter[Any]) -> bytes:
        # by field names whatever the aliases: those for reading and for writing may differ
        return self.dumps(
            adapter.dump_python(value, mode="json", by_alias=False, round_trip=True, warnings="error")
        )

    def loads_as(self, payload: bytes, adapter: TypeAdapter[Any]) -> Any:
        return adapter.validate_json(payload, by_alias=False, by_name=True)


def _is_carried(value: Any, payload: bytes) -> bool:
    """Say whether `payload`, which orjson wrote of `value`, says all of it."""
    kind: type[Any] = type(value)
    # a list of its own, as another thread may change the value meanwhile
    parts = list(value.values() if kind is dict else value if kind in _SEQUENCES else (value,))
    if len(parts) <= _FEW:
        for part in parts:
            kind = type(part)
            if kind is float:
                if not isfinite(part):
                    return False
            elif kind is not str and kind not in _SCALARS:
                break
        else:
            return True
    try:
        exact = marshal.dumps(value)  # refuses all but exact built-in types, at an eighth of a walk in Python
    except ValueError:
        return False
    # where a null was written and the bytes of a NaN may be there, the floats are looked at
    return b"null" not in payload or not _may_hold_no_number(exact) or _as_written(value)


def _may_hold_no_number(exact: bytes) -> bool:
    # A float that is NaN or infinite ends, as marshal spells IEEE 754, in 0x7F or 0xFF with 0xF0 or more before; few
    # other bytes do. Looking for one byte takes a twentieth of looking for a pattern.
    for end in (b"\x7f", b"\xff"):
        at = exact.find(end)
        while at > 0:
            if exact[at - 1] >= 0xF0:
                return True
            at = exact.find(end, at + 1)
    return False


def _as_written(value: Any) -> bool:
    """Say whether no float under `value`, which is of exact built-in types, is one that JSON has no word for."""
    pending = [[value]]
    while pending:
        container: Any = pending.pop()
        items = container.values() if type(container) is dict else container
        if not all(isfinite(item) for item in items if type(item) is float):
            return False
        pending += [item for item in items if type(item) in _CONTAINERS]
    return True


def _refusal(value: Any, reason: str) -> EncodeError:
    found = _first_unfit(value)
    if found is None:
        return EncodeError(f"JSON cannot carry the value: {reason}")
    where, unfit = found
    return EncodeError(
        f"JSON cannot carry {where}, {unfit}; cache.typed(T), or a return annotation under @cached, "
        "keeps types that pydantic knows",
    )


def _first_unfit(value: Any) -> tuple[str, str] | None:
    """Find the first part that JSON cannot carry: where it is and what it is.

    Walks without recursion and without building what it does not need: the value may be in circles.
    """
    walk: list[Iterator[tuple[Any, Any]]] = [iter([(None, value)])]  # one iterator for each level
    steps: list[Any] = [None]  # where each of them stands
    while walk:
        for steps[-1], part in walk[-1]:
            unfit = _unfit(part)
            items = _items(part)
            if items is not None and len(walk) > _MAX_DEPTH:
                unfit = "nested too deeply or in a circle"
            if unfit:
                return _place(steps[1:]), unfit
            if items is not None:
                walk.append(items)
                steps.append(None)
                break
        else:
            walk.pop()
            steps.pop()
    return None


def _unfit(part: Any) -> str | None:
    """Say what is wrong with `part`, apart from what it holds; None when nothing is."""
    # compared by `is`: a class may have a metaclass with a hash or an == of its own
    kind: type[Any] = type(part)
    if kind is dict:
        strange = [type(key) for key in part if type(key) is not str]
        if strange:
            return f"a dict with a key of type {strange[0].__qualname__}"
        return "a dict with a key that has no UTF-8 form" if any(map(_surrogates, part)) else None
    if kind is float:
        return None if isfinite(part) else f"{part}"
    if kind is int:
        return None if -(1 << 63) <= part < 1 << 64 else "an int of more than 64 bits"
    if kind is str:
        return "text with a lone surrogate, which has no UTF-8 form" if _surrogates(part) else None
    if any(kind is fit for fit in (*_SCALARS, *_CONTAINERS)):
        return None
    return f"a {kind.__qualname__}"


def _items(part: Any) -> Iterator[tuple[Any, Any]] | None:
    if type(part) is dict:
        return iter(part.items())
    return iter(enumerate(part)) if type(part) is list or type(part) is tuple else None


def _surrogates(text: str) -> bool:
    return not text.isascii() and _SURROGATE.search(text) is not None


def _place(steps: list[Any]) -> str:
    shown = "".join(f"[{reprlib.repr(step)}]" for step in steps[:_SHOWN_STEPS])
    return f"the value{shown}" + ("…" if len(steps) > _SHOWN_STEPS else "")
