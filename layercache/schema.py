"""The JSON Schema of settings.toml, from the models that check it: for editors, which complete and check by it.

It is weaker than the check in one way: an environment's table alone need not be whole, as others are merged with it, so
nothing is required; and what has to do with several tables, such as the names of backends, it does not see.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast, get_type_hints

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from layercache.core.policy import LoadOptions
from layercache.registry import backend_named, backend_names
from layercache.settings import SECTIONS, CacheSettings, PatternSettings, Settings

__all__ = ["meanings", "settings_schema"]

# taplo, and with it VS Code, reads this draft in full
_DRAFT: Final = "http://json-schema.org/draft-07/schema#"
_ENVIRONMENTS: Final = {
    "default": "What holds in every environment.",
    "development": "The environment where LAYERCACHE_ENV is unset.",
    "testing": "Merged with [default] where LAYERCACHE_ENV=testing.",
    "production": "Merged with [default] where LAYERCACHE_ENV=production.",
}


def settings_schema() -> dict[str, Any]:
    """Return the schema, with the backends and stages that are installed here."""
    definitions: dict[str, Any] = {}
    sections: dict[str, Any] = {
        "backends": _by_name("Stores, by name.", _backend(definitions)),
        "caches": _by_name(
            "Caches, by name; all inherit from `default`.", _table(CacheSettings, definitions)
        ),
    }
    _let_be_short(definitions)
    models = get_type_hints(Settings)
    for section in SECTIONS:
        if section not in sections:
            sections[section] = _table(models[section], definitions)
    definitions["Environment"] = {"type": "object", "properties": sections, "additionalProperties": False}
    environment = {"$ref": "#/definitions/Environment"}
    return {
        "$schema": _DRAFT,
        "title": "settings.toml of layercache",
        "type": "object",
        "properties": {
            name: {"description": said, "allOf": [environment]} for name, said in _ENVIRONMENTS.items()
        },
        "additionalProperties": environment,
        "definitions": dict(sorted(definitions.items())),
    }


def _by_name(said: str, table: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": said, "type": "object", "additionalProperties": dict(table)}


def _backend(definitions: dict[str, Any]) -> dict[str, Any]:
    kinds: list[dict[str, Any]] = []
    for name in backend_names():
        type_ = {"const": name, "description": "What kind of store it is."}
        try:
            cls = backend_named(name)
        except (ImportError, AttributeError, TypeError):  # nobody knows its options here
            kinds.append({"type": "object", "properties": {"type": type_}, "required": ["type"]})
            continue
        made = definitions[_table(cls.Options, definitions)["$ref"].rpartition("/")[2]]
        made["properties"] = {"type": type_, **made.get("properties", {})}
        kinds.append({"$ref": f"#/definitions/{cls.Options.__name__}"})
    return {"anyOf": kinds}


def _let_be_short(definitions: Mapping[str, Any]) -> None:
    """Let an event be a list of tags alone, as `config` takes it."""
    event = definitions["EventSettings"]
    tags = event["properties"]["tags"]
    events = definitions["CacheSettings"]["properties"]["events"]
    events["additionalProperties"] = {"anyOf": [tags, events["additionalProperties"]]}


# -- one model


def _table(model: type[Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Add the schema of an options class, and of those that it is made of, to `definitions`; return what names it."""
    adapter: TypeAdapter[Any] = TypeAdapter(model)
    made = adapter.json_schema(ref_template="#/definitions/{model}", schema_generator=_Generator)
    inner: dict[str, Any] = made.pop("$defs", {})
    for each in (made, *inner.values()):
        definitions[each.get("title", model.__name__)] = each
    described = {model.__name__: model, **_models_of(model)}
    for name, each in described.items():
        if name in definitions:
            _tidy(definitions[name], each)
    return {"$ref": f"#/definitions/{model.__name__}"}


class _Generator(GenerateJsonSchema):
    """As pydantic does it, but a default that is no JSON is nobody's business."""

    ignored_warning_kinds: set[Any] = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012


def _models_of(model: type[Any]) -> dict[str, type[Any]]:
    """Return the options classes that the fields of one are made of, by name."""
    found: dict[str, type[Any]] = {}
    waiting: list[Any] = list(get_type_hints(model).values())
    while waiting:
        hint = waiting.pop()
        if dataclasses.is_dataclass(hint) and isinstance(hint, type) and hint.__name__ not in found:
            found[hint.__name__] = hint
            waiting += get_type_hints(hint).values()
        waiting += getattr(hint, "__args__", ())
    return found


def _tidy(table: dict[str, Any], model: type[Any]) -> None:
    """Say what each key is for, and leave out what a TOML file cannot hold."""
    table.pop("required", None)
    table.pop("description", None)
    said = meanings(model)
    defaults = dict(_defaults(model))
    for name, key in cast("dict[str, dict[str, Any]]", table.get("properties", {})).items():
        key.pop("title", None)
        key.pop("default", None)
        if defaults.get(name) is not None:
            key["default"] = defaults[name]
        choices = [choice for choice in key.get("anyOf", ()) if choice != {"type": "null"}]
        if len(choices) == 1:
            del key["anyOf"]
            key.update(choices[0])
        elif choices:
            key["anyOf"] = choices
        if name in said:
            if "$ref" in key:
                key["allOf"] = [{"$ref": key.pop("$ref")}]
            key["description"] = said[name]


def _defaults(model: type[Any]) -> Iterator[tuple[str, Any]]:
    """Yield what each key is when it is left out, as one would write it."""
    hints = get_type_hints(model, include_extras=True)
    for each in dataclasses.fields(model):
        if each.default is not dataclasses.MISSING:
            with (
                warnings.catch_warnings()
            ):  # what says how a default is checked means nothing outside of a model
                warnings.simplefilter("ignore")
                adapter: TypeAdapter[Any] = TypeAdapter(hints[each.name])
            default = adapter.validate_python(each.default)  # which looks up the names of stages
            yield each.name, adapter.dump_python(default, mode="json", fallback=str)


def meanings(model: type[Any]) -> dict[str, str]:
    """Return what the docstrings say of each key of an options class."""
    own = _described(model if model is not PatternSettings else CacheSettings)
    of_loads = _described(LoadOptions)
    return {name: of_loads[name] if "`LoadOptions`" in said else said for name, said in own.items()}


def _described(model: type[Any]) -> dict[str, str]:
    text = inspect.cleandoc(model.__doc__ or "").partition("Attributes:\n")[2]
    found: dict[str, str] = {}
    # what belongs to one attribute is indented below its first line
    for paragraph in re.split(r"\n(?=\S)", textwrap.dedent(text).strip()):
        names, _, said = " ".join(paragraph.split()).partition(": ")
        if said:
            found |= dict.fromkeys(names.split(", "), said)
    return found
