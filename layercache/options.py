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
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar, cast, dataclass_transform

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import ErrorDetails

from layercache.codecs.pipeline import order_fault
from layercache.durations import parse_duration, spell_duration
from layercache.errors import Fault, UnknownStage, suggestion
from layercache.registry import stage_named
from layercache.sizes import parse_size, spell_size
from layercache.spi import Stage

__all__ = [
    "Bytes",
    "Codecs",
    "Count",
    "Deadline",
    "Duration",
    "NormalCodec",
    "Secret",
    "StageOptions",
    "checked",
    "options",
    "stages",
]

C = TypeVar("C")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def options(cls: type[C]) -> type[C]:
    """Make `cls` a frozen dataclass that refuses unknown keys when settings are checked against it."""
    made: Any = dataclasses.dataclass(frozen=True, slots=True, kw_only=True)(cls)
    made.__pydantic_config__ = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    return cast("type[C]", made)


def _duration(value: Any) -> Any:
    seconds = parse_duration(value)
    if seconds <= 0:
        raise ValueError(
            f"{value!r} is no time to live: it has to be more than 0 (the backend 'null' keeps nothing)"
        )
    return seconds


def _deadline(value: Any) -> Any:
    seconds = _duration(value)
    if math.isinf(seconds):
        raise ValueError("waiting for ever is refused; name a time such as '250ms'")
    return seconds


Duration = Annotated[float, BeforeValidator(_duration), PlainSerializer(spell_duration)]
"""Seconds, more than 0, as a number or text; `math.inf` for "forever"."""

Deadline = Annotated[float, BeforeValidator(_deadline), PlainSerializer(spell_duration)]
"""Seconds, more than 0 and not for ever."""

Bytes = Annotated[int, BeforeValidator(parse_size), Field(ge=1), PlainSerializer(spell_size)]
"""An amount of memory, 1 or more bytes, as a number or text."""

Count = Annotated[int, Field(ge=1, strict=True)]
"""How many of something, 1 or more."""

Secret = SecretStr
"""Text that is shown as asterisks wherever it is printed."""


@dataclasses.dataclass(frozen=True, slots=True)
class StageOptions:
    """A stage of a pipeline as settings name it, not opened yet."""

    name: str
    stage: type[Stage]
    options: Any

    def open(self) -> Stage:
        return self.stage(self.options)


def _stage(value: Any) -> StageOptions:
    if isinstance(value, StageOptions):
        return value
    if isinstance(value, str):
        value = {"type": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("type"), str):
        raise ValueError(  # noqa: TRY004  (pydantic reports ValueErrors)
            'a stage is a name, or a table with its options such as { type = "zstd", level = 6 }'
        )
    name, given = value["type"], {key: value[key] for key in value if key != "type"}
    try:
        stage = stage_named(name)
    except UnknownStage as error:
        raise ValueError(str(error)) from error
    made, faults = checked(stage.Options, given, name)
    if faults:
        raise ValueError("; ".join(map(str, faults)))
    return StageOptions(name, stage, made)


def _spell_stage(stage: StageOptions) -> Any:
    given = TypeAdapter(stage.stage.Options).dump_python(stage.options, mode="json")
    return {"type": stage.name, **given} if given else stage.name


def _ordered(stages: tuple[StageOptions, ...]) -> tuple[StageOptions, ...]:
    fault = order_fault([stage.stage for stage in stages])
    if fault:
        raise ValueError(fault)
    return stages


def _serializer_only(stages: tuple[StageOptions, ...]) -> tuple[StageOptions, ...]:
    if len(stages) > 1:
        raise ValueError("only the first stage has work to do here: this backend keeps values, not frames")
    return stages


Codecs = Annotated[
    tuple[Annotated[StageOptions, BeforeValidator(_stage), PlainSerializer(_spell_stage)], ...],
    AfterValidator(_ordered),
    Field(min_length=1, validate_default=True),
]
"""A codec pipeline: names of stages, or tables with their options; the first is a serializer."""

NormalCodec = Annotated[Codecs, AfterValidator(_serializer_only), Field(validate_default=True)]
"""A pipeline of a serializer alone, for backends that keep values in this process."""


def stages(*names: str) -> Any:
    """Return the default of a `Codecs` option; the names are looked up when settings are checked."""
    return names


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
        return TypeAdapter(model).validate_python(dict(values)), []
    except ValidationError as error:
        known = [field.name for field in dataclasses.fields(model)]  # type: ignore[arg-type]  # @options made it
        details = error.errors(include_url=False, include_context=False)
        return None, [_fault(detail, path, known, origin) for detail in details]


def _fault(detail: ErrorDetails, path: str, known: list[str], origin: Callable[[str], str]) -> Fault:
    where = ".".join([path, *map(str, detail["loc"])])
    if detail["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        message = f"unknown key; {suggestion(str(detail['loc'][-1]), known)}"
    elif detail["type"] in {"missing", "missing_keyword_only_argument"}:
        message = "is required"
    else:
        # the value itself is left out: it may be a password, or a URL that holds one
        message = detail["msg"].removeprefix("Value error, ")
    return Fault(where, message + origin(where))
