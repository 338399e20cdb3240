"""The building blocks of a backend's or a stage's `Options`: types that settings are checked against.

@options
class ToyOptions:
    folder: str
    ttl_limit: Seconds = math.inf
    password: Secret | None = None
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, TypeVar, cast, dataclass_transform

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails

from layercache.codecs.pipeline import order_fault, unsealed_fault
from layercache.codecs.seals import RIGHT_KEY, SealKey
from layercache.durations import parse_duration, spell_duration
from layercache.errors import Fault, InvalidTtl, UnknownStage, suggestion
from layercache.registry import stage_named, stage_names
from layercache.sizes import parse_size, spell_size
from layercache.spi import Seal, Stage

__all__ = [
    "Bytes",
    "Codecs",
    "Count",
    "Deadline",
    "Duration",
    "NormalCodec",
    "Patience",
    "Ratio",
    "SealKeys",
    "Secret",
    "Span",
    "StageOptions",
    "checked",
    "options",
    "plain",
    "seal_faults",
    "stages",
]

C = TypeVar("C")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def options(cls: type[C]) -> type[C]:
    """Make `cls` a frozen dataclass that refuses unknown keys when settings are checked against it."""
    made: Any = dataclasses.dataclass(frozen=True, slots=True, kw_only=True)(cls)
    made.__pydantic_config__ = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    return cast("type[C]", made)


_DURATIONS: Final = 'right are seconds (15, 0.5) and text such as "250ms", "15s", "5m" or "1h30m"'
_SIZES: Final = 'right are bytes (65536), 1 or more, and text such as "512KB", "64MB" or "1GB"'
_LONGEST_WAIT: Final = 86_400.0
_LONGEST_LIFE: Final = 36_525 * 86_400.0  # what is longer overflows somewhere, in a socket or a server
_MOST_BYTES: Final = 1 << 62


def _seconds(value: Any) -> float:
    try:
        seconds = parse_duration(value)
    except InvalidTtl:
        raise ValueError(f"is no duration; {_DURATIONS}") from None
    if 0 < seconds < 0.001:
        raise ValueError("is too short: times are kept in milliseconds")
    return seconds


def _duration(value: Any) -> Any:
    seconds = _seconds(value)
    if seconds <= 0:
        raise ValueError("is no time to live: it has to be more than 0 (the backend 'null' keeps nothing)")
    if _LONGEST_LIFE < seconds < math.inf:
        raise ValueError('is longer than a century; write "forever"')
    return seconds


def _span(value: Any) -> Any:
    seconds = _seconds(value)
    if seconds < 0:
        raise ValueError("is less than nothing: it has to be 0 or more")
    if _LONGEST_LIFE < seconds < math.inf:
        raise ValueError('is longer than a century; write "forever"')
    return seconds


def _patience(value: Any) -> Any:
    return math.inf if _seconds(value) == math.inf else _deadline(value)


def _deadline(value: Any) -> Any:
    seconds = _seconds(value)
    if seconds <= 0:
        raise ValueError("is no time to wait: it has to be more than 0")
    if seconds > _LONGEST_WAIT:
        raise ValueError('is too long to wait: at most a day; right is a time such as "250ms"')
    return seconds


def _size(value: Any) -> Any:
    try:
        size = parse_size(value)
    except ValueError:
        size = 0
    if size < 1:
        raise ValueError(f"is no size; {_SIZES}")
    if size > _MOST_BYTES:
        raise ValueError("is more memory than there is")
    return size


_DURATION_TEXT: Final = (
    r"^\s*([0-9]+(\.[0-9]+)?\s*(ms|[dhms])\s*)+$|^\s*[0-9.]+\s*$|^\s*[Ff][Oo][Rr][Ee][Vv][Ee][Rr]\s*$"
)
_AS_DURATION: Final = WithJsonSchema({
    "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": _DURATION_TEXT}],
    "examples": ["15s", "5m", "1h30m", "250ms", "forever"],
})  # fmt: skip
_AS_SIZE: Final = WithJsonSchema({
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*([KkMmGg]([Ii])?[Bb]|[Bb])?\s*$"},
    ],
    "examples": ["512KB", "64MB", "1GB"],
})  # fmt: skip

Duration = Annotated[float, BeforeValidator(_duration), PlainSerializer(spell_duration), _AS_DURATION]
"""Seconds, more than 0, as a number or text; `math.inf` for "forever"."""

Span = Annotated[float, BeforeValidator(_span), PlainSerializer(spell_duration), _AS_DURATION]
"""Seconds, 0 or more, as a number or text; `math.inf` for "forever"."""

Patience = Annotated[float, BeforeValidator(_patience), PlainSerializer(spell_duration), _AS_DURATION]
"""Seconds to wait, more than 0 and at most a day, as a number or text; `math.inf` for "forever"."""

Deadline = Annotated[float, BeforeValidator(_deadline), PlainSerializer(spell_duration), _AS_DURATION]
"""Seconds, more than 0 and at most a day, as a number or text."""

Bytes = Annotated[int, BeforeValidator(_size), PlainSerializer(spell_size), _AS_SIZE]
"""An amount of memory, 1 or more bytes, as a number or text."""

Count = Annotated[int, Field(ge=1, strict=True)]
"""How many of something, 1 or more."""

Ratio = Annotated[float, Field(ge=0.0, le=1.0)]
"""A part of something, 0.0 to 1.0."""

Secret = SecretStr
"""Text that is shown as asterisks wherever it is printed."""


@dataclasses.dataclass(frozen=True, slots=True)
class StageOptions:
    """A stage of a pipeline as settings name it, not opened yet."""

    name: str
    stage: type[Stage]
    options: Any

    def open(self, seal_keys: Sequence[SealKey] = ()) -> Stage:
        """Return the stage, opened; a seal with these keys. Raises `MissingExtra` where its package is missing."""
        return (
            self.stage(self.options, seal_keys) if issubclass(self.stage, Seal) else self.stage(self.options)
        )


def _stage(value: Any) -> StageOptions:
    if isinstance(value, StageOptions):
        return value
    if isinstance(value, str):
        value = {"type": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("type"), str):
        raise ValueError(  # noqa: TRY004  (pydantic reports ValueErrors)
            'has to be the name of a stage, or a table with its options such as { type = "zstd", level = 6 }'
        )
    name, given = value["type"], {str(key): value[key] for key in value if key != "type"}
    try:
        stage = stage_named(name)
    except UnknownStage as error:
        raise ValueError(str(error)) from None
    except (ImportError, AttributeError, TypeError) as error:
        raise ValueError(f"{name!r} cannot be loaded: {error}") from None
    made, faults = checked(stage.Options, given, name)
    if faults:
        raise ValueError("; ".join(map(str, faults)))
    return StageOptions(name, stage, made)


def _spell_stage(stage: StageOptions) -> Any:
    given = plain(stage.options)
    return {"type": stage.name, **given} if given else stage.name


def _ordered(stages: tuple[StageOptions, ...]) -> tuple[StageOptions, ...]:
    if not stages:
        raise ValueError("has to name one stage at least, such as 'json'")
    fault = order_fault([stage.stage for stage in stages])
    if fault:
        raise ValueError(fault)
    return stages


def _sealed(stages: tuple[StageOptions, ...]) -> tuple[StageOptions, ...]:
    fault = unsealed_fault([stage.stage for stage in stages])
    if fault:
        raise ValueError(fault)
    return stages


def _serializer_only(stages: tuple[StageOptions, ...]) -> tuple[StageOptions, ...]:
    if len(stages) > 1:
        raise ValueError("only the first stage has work to do here: this backend keeps values, not frames")
    return stages


class _StageSchema:
    """What JSON Schema says of one stage: its name, or a table with its options, of those that are installed."""

    def __get_pydantic_json_schema__(self, *_: Any) -> dict[str, Any]:
        kinds: list[dict[str, Any]] = []
        for name in stage_names():
            given = {"type": {"const": name}}
            kinds.append({"const": name})
            try:
                made = TypeAdapter(stage_named(name).Options).json_schema()
            except (ImportError, AttributeError, TypeError):  # nobody knows its options here
                kinds.append({"type": "object", "properties": given, "required": ["type"]})
                continue
            table = {"properties": given | made.get("properties", {}), "additionalProperties": False}
            kinds.append({"type": "object", "required": ["type"], **table})
        return {"anyOf": kinds}


_Stages = Annotated[
    tuple[
        Annotated[StageOptions, BeforeValidator(_stage), PlainSerializer(_spell_stage), _StageSchema()], ...
    ],
    AfterValidator(_ordered),
]

Codecs = Annotated[_Stages, AfterValidator(_sealed), Field(validate_default=True)]
"""A codec pipeline: names of stages, or tables with their options; the first is a serializer. A backend that takes one
takes `SealKeys` as well."""

NormalCodec = Annotated[_Stages, AfterValidator(_serializer_only), Field(validate_default=True)]
"""A pipeline of a serializer alone, for backends that keep values in this process: what it makes is read by nobody
else, and nobody else can write it, so even `pickle` needs no seal."""


def _key_list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _distinct(keys: tuple[SealKey, ...]) -> tuple[SealKey, ...]:
    if len({key.id for key in keys}) < len(keys):
        raise ValueError("two keys have the same id, by which frames call them")
    return keys


SealKeys = Annotated[
    tuple[
        Annotated[
            SealKey, BeforeValidator(SealKey.parsed), PlainSerializer(str), WithJsonSchema({"type": "string"})
        ],
        ...,
    ],
    BeforeValidator(_key_list),
    AfterValidator(_distinct),
]
"""The keys of the pipeline's seals, each `id:secret`: the first seals, all of them unseal."""


def seal_faults(codecs: Sequence[StageOptions], seal_keys: Sequence[SealKey]) -> Iterator[tuple[str, str]]:
    """Yield (key, message) where a pipeline has a seal and no key: for `Backend.faults`."""
    seals = [stage.name for stage in codecs if issubclass(stage.stage, Seal)]
    if seals and not seal_keys:
        yield "seal_keys", f"the stage {seals[0]!r} of `codecs` needs a key; {RIGHT_KEY}"


def stages(*names: str) -> Any:
    """Return the default of a `Codecs` option; the names are looked up when settings are checked."""
    return names


_adapters: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(model: type[C]) -> TypeAdapter[C]:
    # making one takes milliseconds, and a settings file has a use for several
    made = _adapters.get(model)
    if made is None:
        made = _adapters[model] = TypeAdapter(model)
    return made


def checked(
    model: type[C], values: Mapping[str, Any], path: str, *, origin: Callable[[str], str] = lambda _: ""
) -> tuple[C | None, list[Fault]]:
    """Check `values` against an options class.

    Args:
        model: a class made by `@options`.
        values: what the settings hold.
        path: where they stand, such as "caches.stock".
        origin: says of a path where its value comes from, such as " (from REDIS_PORT)".

    Returns:
        The instance and no faults, or None and every fault.
    """
    try:
        return _adapter(model).validate_python(dict(values)), []
    except ValidationError as error:
        known = [field.name for field in dataclasses.fields(model)]  # type: ignore[arg-type]  # @options made it
        return None, [_fault(detail, path, known, origin) for detail in error.errors(include_url=False)]


def plain(instance: Any) -> dict[str, Any]:
    """Return an instance of an options class as a table ready for JSON: what is None left out, secrets masked."""
    if instance is None:
        return {}
    given: dict[str, Any] = _adapter(type(instance)).dump_python(
        instance, mode="json", exclude_none=True, fallback=str
    )
    return given


_MESSAGES: Final = {
    "string_type": "has to be text",
    "bool_type": "has to be true or false",
    "bool_parsing": "has to be true or false",
    "int_type": "has to be a whole number",
    "int_parsing": "has to be a whole number",
    "int_from_float": "has to be a whole number",
    "float_type": "has to be a number",
    "float_parsing": "has to be a number",
    "tuple_type": "has to be a list",
    "list_type": "has to be a list",
    "dict_type": "has to be a table",
    "greater_than_equal": "has to be {ge} or more",
    "less_than_equal": "has to be {le} or less",
    "string_too_short": "has to have {min_length} or more characters",
    "string_too_long": "has to have {max_length} characters at most",
    "missing": "is required",
    "missing_keyword_only_argument": "is required",
}
"""pydantic's kinds of faults, in the words of settings; its own words serve for others."""

_IN_VARIABLES: Final = {
    "string_type": "; write @str before the value",
    "tuple_type": """; write it as '["a", "b"]'""",
    "list_type": """; write it as '["a", "b"]'""",
}


def _fault(detail: ErrorDetails, path: str, known: list[str], origin: Callable[[str], str]) -> Fault:
    keys = detail["loc"]
    where = path + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    from_where = origin(where) if keys else ""
    kind = detail["type"]
    # the value itself is left out: it may be a password, or a URL that holds one
    if kind in {"unexpected_keyword_argument", "extra_forbidden"}:
        message = f"unknown key; {suggestion(str(keys[-1]), known)}"
    elif kind in _MESSAGES:
        message = _MESSAGES[kind].format(**detail.get("ctx", {}))
    else:
        message = detail["msg"].removeprefix("Value error, ")
    if from_where:
        message += _IN_VARIABLES.get(kind, "")
    return Fault(where, message + from_where)
