"""Errors: the tree of the docstring is the tree of the classes, and all of them travel."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest

import layercache
from layercache import errors
from layercache.codecs.frame import BadFrame

FAULTS = [
    errors.Fault("caches.web.ttl", "'5 parsecs' is no duration"),
    errors.Fault("caches.web.tll", "unknown key"),
]

# one of each, with its attributes and its message
EXAMPLES: list[tuple[errors.CacheError, dict[str, Any], str]] = [
    (errors.CacheError("what happened"), {}, "what happened"),
    (
        errors.ConfigError(FAULTS, "settings.toml", "production"),
        {"faults": tuple(FAULTS), "origin": "settings.toml", "environment": "production"},
        (
            "2 faults in settings.toml, environment 'production':\n"
            "  caches.web.ttl: '5 parsecs' is no duration\n  caches.web.tll: unknown key"
        ),
    ),
    (
        errors.ConfigError(iter(FAULTS[:1]), "a mapping", "testing"),
        {"faults": tuple(FAULTS[:1])},
        "1 fault in a mapping, environment 'testing':\n  caches.web.ttl: '5 parsecs' is no duration",
    ),
    (
        errors.UnknownCache("stokc", {"stock": 1, "default": 2}, "settings.toml", "testing"),
        {"name": "stokc", "known": ["default", "stock"], "origin": "settings.toml", "environment": "testing"},
        "no cache named 'stokc' in settings.toml, environment 'testing'; did you mean 'stock'?",
    ),
    (
        errors.UnknownBackend("postgres", ["redis", "memory"]),
        {"name": "postgres", "known": ["memory", "redis"], "faults": (), "origin": "", "environment": ""},
        "no backend named 'postgres'; there are memory, redis",
    ),
    (errors.UnknownName("x", ["y"]), {"name": "x", "known": ["y"]}, "no name named 'x'; there are y"),
    (
        errors.UnknownEviction("lru2", ["lru", "s3-fifo"]),
        {"name": "lru2", "known": ["lru", "s3-fifo"]},
        "no eviction policy named 'lru2'; did you mean 'lru'?",
    ),
    (
        errors.UnknownEvent("price_updatd", ["price_updated"]),
        {"name": "price_updatd", "known": ["price_updated"]},
        "no event named 'price_updatd'; did you mean 'price_updated'?",
    ),
    (
        errors.WrongFields("price_updated", ["symbol", "period"], ["symbl", "period"]),
        {
            "event": "price_updated",
            "fields": ("symbol", "period"),
            "missing": ("symbol",),
            "superfluous": ("symbl",),
        },
        "the event 'price_updated' has the fields symbol, period; missing: 'symbol'; none of them: 'symbl'",
    ),
    (
        errors.WrongFields("reset", [], ["x"]),
        {"fields": ()},
        "the event 'reset' has no fields; none of them: 'x'",
    ),
    (errors.UnknownStage("lz4", []), {"name": "lz4", "known": []}, "no stage named 'lz4'; there are none"),
    (
        errors.MissingExtra("the backend 'redis'", "redis", "redis"),
        {
            "package": "redis",
            "extra": "redis",
            "msg": "the backend 'redis' needs the package 'redis': pip install 'layercache-framework[redis]'",
        },
        "the backend 'redis' needs the package 'redis': pip install 'layercache-framework[redis]'",
    ),
    (errors.InvalidKey("a key has at least one character"), {}, "a key has at least one character"),
    (errors.InvalidTtl("'x' is no duration"), {}, "'x' is no duration"),
    (errors.InvalidOption("no tag is named"), {}, "no tag is named"),
    (errors.KeyNotFound("n"), {"key": "n"}, "there is no 'n' to increment; set it first, or use add(key, 0)"),
    (
        errors.NotACounter("n", "str"),
        {"key": "n", "kind": "str"},
        "'n' holds a str; only an int can be incremented",
    ),
    (errors.EncodeError("JSON cannot carry it"), {}, "JSON cannot carry it"),
    (
        errors.ValueTooLarge(2000, 1000),
        {"size": 2000, "limit": 1000},
        (
            "the value takes 2,000 bytes, more than max_value_bytes = 1,000; "
            "cache a smaller part of it or raise the limit"
        ),
    ),
    (errors.DecodeError("not JSON"), {}, "not JSON"),
    (BadFrame("altered"), {"reason": "altered"}, "not a frame of this key: altered"),
    (
        errors.BackendError("shared", "connection refused"),
        {"backend": "shared", "problem": "connection refused"},
        "backend 'shared': connection refused",
    ),
    (
        errors.BackendTimeout("shared", "no answer in 250 ms"),
        {"backend": "shared", "problem": "no answer in 250 ms", "errno": None},
        "backend 'shared': no answer in 250 ms",
    ),
    (
        errors.CircuitOpen("shared", "cache.internal:6379 is left alone"),
        {"backend": "shared", "problem": "cache.internal:6379 is left alone"},
        "backend 'shared': cache.internal:6379 is left alone",
    ),
    (
        errors.LoadTimeout("quote:AAPL", 1.5),
        {"key": "quote:AAPL", "seconds": 1.5, "errno": None},
        "'quote:AAPL' was not loaded within 1.5 s; it may be by now",
    ),
    (errors.WouldDeadlock("never"), {}, "never"),
    (
        errors.RecursiveLoad("k"),
        {"key": "k"},
        (
            "the load of 'k' waits for itself; a loader must not ask for its own key, "
            "nor for one whose loader asks for it"
        ),
    ),
    (
        errors.CannotList(),
        {},
        "this backend cannot list its keys; those of the types memory, redis and chain can",
    ),
    (
        errors.CacheClosed("stock"),
        {"name": "stock"},
        "cache 'stock' is closed; open it again with get_cache('stock')",
    ),
]


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn: dict[str, tuple[str | None, str | None]] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│ ├└─]*)([A-Z]\w+)\s*(.*)", line)
        if match is None:
            continue
        depth = len(match[1]) // 4
        also = re.search(r"\(also an? (\w+)\)", match[3])
        above[depth:] = [match[2]]
        drawn[match[2]] = (above[depth - 1] if depth else None, also[1] if also else None)

    real = {
        name: (_parent(cls), _also(cls)) for name, cls in vars(errors).items() if _is_public_error(name, cls)
    }

    assert drawn == real


def _is_public_error(name: str, value: Any) -> bool:
    return not name.startswith("_") and isinstance(value, type) and issubclass(value, Exception)


def _parent(cls: type) -> str | None:
    ours = [
        base for base in cls.__mro__[1:] if issubclass(base, errors.CacheError) and base.__name__[0] != "_"
    ]
    return ours[0].__name__ if ours else None


def _also(cls: type) -> str | None:
    """The built-in error that it adds to what its parent is."""
    parent = next((base for base in cls.__mro__[1:] if issubclass(base, errors.CacheError)), Exception)
    added = [
        base
        for base in cls.__bases__
        if not issubclass(base, errors.CacheError) and not issubclass(parent, base)
    ]
    return added[0].__name__ if added and cls is not errors.CacheError else None


def test_everything_public_is_listed_and_there_is_an_example_of_each() -> None:
    public = {name for name, value in vars(errors).items() if _is_public_error(name, value)}

    assert public | {"Fault", "suggestion"} == set(errors.__all__)
    assert public <= set(layercache.__all__)
    assert {type(error).__name__ for error, _, _ in EXAMPLES} == public | {"BadFrame"}
    assert all(issubclass(getattr(errors, name), errors.CacheError) for name in public)


@pytest.mark.parametrize(
    "travel",
    [
        *(lambda error, level=level: pickle.loads(pickle.dumps(error, level)) for level in range(6)),
        copy.copy,
        copy.deepcopy,
        lambda error: pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(error)))),
    ],
)
@pytest.mark.parametrize(("error", "attributes", "message"), EXAMPLES, ids=lambda each: type(each).__name__)
def test_an_error_survives_pickle_and_copy_with_its_parts(
    error: errors.CacheError, attributes: dict[str, Any], message: str, travel: Callable[[Any], Any]
) -> None:
    for each in (error, travel(error)):
        assert type(each) is type(error)
        assert str(each) == message
        assert each.args == error.args
        assert vars(each) == vars(error)
        assert {name: getattr(each, name) for name in attributes} == attributes
        assert repr(each) == repr(error)


def test_what_was_noted_on_an_error_travels_too() -> None:
    error = errors.KeyNotFound("n")
    error.add_note("while counting")

    assert pickle.loads(pickle.dumps(error)).__notes__ == ["while counting"]


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("stokc", ["stock", "news"], "did you mean 'stock'?"),
        ("news", ["news1", "news2"], "did you mean 'news2' or 'news1'?"),
        ("x", ["b", "a"], "there are a, b"),
        ("x", [], "there are none"),
    ],
)
def test_near_names_are_suggested_else_all_there_are(name: str, known: list[str], expected: str) -> None:
    assert errors.suggestion(name, known) == expected
