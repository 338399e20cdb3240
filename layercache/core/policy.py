"""How entries of a cache live and how they are loaded: what the call says, else its key's patterns, else the cache.

Rule for patterns: each setting comes from the pattern that matches, has it, and holds the most literal characters;
equal ones go in alphabetical order. So the order of tables in a settings file never matters. Tags add up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import translate
from typing import Any, Final, Literal, TypeAlias, TypedDict, get_args

from layercache.durations import DEFAULT, Duration, Ttl, parse_duration
from layercache.errors import InvalidOption, InvalidTtl, suggestion

__all__ = [
    "NOTHING",
    "CallOptions",
    "LoadOptions",
    "Overrides",
    "Plan",
    "Policy",
    "Refresh",
    "Tags",
    "checked_tags",
]

Refresh: TypeAlias = Literal["background", "early", "off"]

Tags: TypeAlias = Iterable[str] | Callable[[Any], Iterable[str]]
"""Names, or what gives them for a value that was loaded."""


class _Options(TypedDict, total=False):
    stale_ttl: Duration
    none_ttl: Ttl
    jitter: float
    refresh: Refresh
    early_beta: float
    retry_after: Duration
    wait: Duration | None
    lease_ttl: Duration
    soft_timeout: Duration | None
    hard_timeout: Duration | None


class LoadOptions(_Options, total=False):
    """What a call may say of its load; what it leaves out, the key's patterns and the cache say.

    Durations are seconds, a `timedelta`, or text such as "250ms"; None is for ever.

    Attributes:
        stale_ttl: how long after its `ttl` a value is kept to be served while a new one is loaded, or cannot be.
        none_ttl: the `ttl` of a None, which is then never stale; left out everywhere, a None lives as any value.
        jitter: up to which part of it (0.0 to 1.0) a ttl is shortened at random, so that what was loaded together is
            not reloaded together.
        refresh: `"background"`, a stale value is served and one caller's loader runs in the background; `"early"`, that
            too, and the busier a key and the slower its load, the earlier before its ttl ends (XFetch); `"off"`, who
            finds a stale value loads, and gets the stale one only where the load fails or takes too long.
        early_beta: more than 1.0 refreshes earlier, less later.
        retry_after: how long after a load that failed while a stale value was there the next one is tried.
        wait: how long a call waits for another's load.
        lease_ttl: how long a load has the key to itself among all processes; longer than any load takes.
        soft_timeout: how long a call waits for a load when it has a stale value to return; with `refresh = "off"`, as
            others return it at once.
        hard_timeout: how long a call waits for a load at all.
        tags: what `invalidate` knows the value by: names, or a function of the value that was loaded.
    """

    tags: Tags


class CallOptions(_Options, total=False):
    """What a decorated function says of its loads: `LoadOptions`, where tags may depend on the arguments.

    Attributes:
        tags: templates over the parameters; or a function of arguments by the names of their parameters; or, where its
            first parameter has another name, of the value that was loaded, and of arguments.
    """

    tags: Iterable[str] | Callable[..., Iterable[str]]


@dataclass(frozen=True)
class Plan:
    """How one key's values live and are loaded: all of `LoadOptions`, in seconds, `math.inf` for ever.

    Attributes:
        none_ttl: None where a None lives as any value.
        ttl_of, tags_of: what gives them for a value that was loaded, over `ttl` and besides `tags`.
    """

    ttl: float = 300.0
    stale_ttl: float = 0.0
    none_ttl: float | None = None
    jitter: float = 0.0
    refresh: Refresh = "background"
    early_beta: float = 1.0
    retry_after: float = 5.0
    wait: float = 30.0
    lease_ttl: float = 30.0
    soft_timeout: float = math.inf
    hard_timeout: float = math.inf
    tags: tuple[str, ...] = ()
    ttl_of: Callable[[Any], Any] | None = None
    tags_of: Callable[[Any], Iterable[str]] | None = None
    # worked out once, as they are looked at with every load
    has_timeout: bool = field(init=False)
    refreshes: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "has_timeout", min(self.soft_timeout, self.hard_timeout) < math.inf)
        object.__setattr__(self, "refreshes", self.refresh != "off")


_NAMES: Final = frozenset(each.name for each in fields(Plan) if each.init) - {"ttl_of", "tags_of"}
_ENDLESS: Final = frozenset({"wait", "soft_timeout", "hard_timeout"})  # None is "as long as it takes"


class Overrides:
    """What one call says, checked: made once for a decorated function, and for each other call.

    Raises `InvalidTtl` for a ttl that is none, and `InvalidOption` for what is no option, or out of its range.
    """

    __slots__ = ("_merged", "given")

    def __init__(self, ttl: Any = DEFAULT, options: Mapping[str, Any] | None = None) -> None:
        self.given: dict[str, Any] = {}
        self._merged: tuple[Plan, Plan] | None = None
        if callable(ttl):
            self.given["ttl_of"] = ttl
        elif ttl is not DEFAULT:
            self.given["ttl"] = parse_duration(ttl)
        for name, value in (options or {}).items():
            if name == "tags" and callable(value):
                self.given["tags_of"] = value
            else:
                self.given[name] = _checked(name, value)

    def over(self, plan: Plan) -> Plan:
        """Return `plan` with what the call says in its place; tags add up."""
        if not self.given:
            return plan
        merged = self._merged
        if merged is None or merged[0] is not plan:
            given = dict(self.given)
            if "tags" in given:
                given["tags"] = _united(plan.tags, given["tags"])
            merged = self._merged = (plan, replace(plan, **given))
        return merged[1]


NOTHING: Final = Overrides()


def _checked(name: str, value: Any) -> Any:
    if name not in _NAMES:
        raise InvalidOption(f"no option of a load is named {name!r}; {suggestion(name, _NAMES)}")
    if name == "tags":
        return checked_tags(value)
    if name == "refresh":
        if value not in get_args(Refresh):
            raise InvalidOption(f'refresh is "background", "early" or "off", not {value!r}')
        return value
    if name in {"jitter", "early_beta"}:
        most = 1.0 if name == "jitter" else math.inf
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= most:
            raise InvalidOption(f"{name} is a number from 0.0 to {most}, not {value!r}")
        return float(value)
    if value is None and name != "none_ttl" and name not in _ENDLESS:
        raise InvalidTtl(f"{name} has an end; right are seconds and text such as '15s'")
    seconds = parse_duration(value)
    if seconds < 0 or (seconds == 0 and name in {"wait", "lease_ttl", "soft_timeout", "hard_timeout"}):
        raise InvalidTtl(f"{name} is more than 0 seconds, not {value!r}")
    return seconds


def checked_tags(tags: Any) -> tuple[str, ...]:
    """Return `tags` as a tuple without repetitions, or raise `InvalidOption` for what are none."""
    if isinstance(tags, str):
        raise InvalidOption(f"several tags are wanted, such as [{tags!r}]; got one str")
    try:
        unique = tuple(dict.fromkeys(tags))
    except TypeError:
        raise InvalidOption(f"tags are several names, such as ['news'], not {tags!r}") from None
    for tag in unique:
        _check_tag(tag)
    return unique


def _check_tag(tag: Any) -> None:
    """Raise `InvalidOption` unless `tag` is text of 1 to 255 bytes in UTF-8, and not the cache's own."""
    try:
        fits = isinstance(tag, str) and tag != "*" and 0 < len(tag.encode()) <= 255
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise InvalidOption(f"a tag is text of 1 to 255 bytes, and not '*'; got {tag!r}")


def _united(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*one, *other)))


class Policy:
    """The plans of one cache.

    Args:
        base: what holds where no pattern says otherwise.
        patterns: glob patterns of keys (`*`, `?`, `[…]`, case-sensitive) to the fields of `Plan` that they set.
        max_key_bytes: the longest key, in UTF-8.

    Attributes:
        is_uniform: whether one plan serves all keys.
        is_plain: whether an entry has no more to it than its value and its ttl: it is never stale, and has no tags.
    """

    def __init__(self, base: Plan, patterns: Mapping[str, Mapping[str, Any]], max_key_bytes: int) -> None:
        self.base, self.max_key_bytes = base, max_key_bytes
        ranked = sorted(patterns, key=lambda pattern: (-len(re.sub(r"[*?]|\[.*?\]", "", pattern)), pattern))
        self._patterns = [(_matcher(pattern), patterns[pattern]) for pattern in ranked]
        self._plans: dict[tuple[int, ...], Plan] = {(): base}  # by the patterns that match; they are few
        self.is_uniform = not patterns
        stated = (vars(base), *patterns.values())
        self.is_plain = not any(plan.get("stale_ttl") or plan.get("tags") for plan in stated)

    def plan_for(self, key: str) -> Plan:
        """Return the plan of `key`, as the settings have it."""
        if self.is_uniform:
            return self.base
        matching = tuple(index for index, (matches, _) in enumerate(self._patterns) if matches(key))
        plan = self._plans.get(matching)
        if plan is None:
            plan = self._plans[matching] = self._merged(matching)
        return plan

    def _merged(self, matching: tuple[int, ...]) -> Plan:
        plan = self.base
        for index in reversed(matching):  # the most literal one last, over the others
            given = dict(self._patterns[index][1])
            given["tags"] = _united(plan.tags, given.get("tags", ()))
            plan = replace(plan, **given)
        return plan


def _matcher(pattern: str) -> Any:
    if pattern.endswith("*") and not re.search(r"[*?\[]", pattern[:-1]):
        prefix = pattern[:-1]
        return lambda key: key.startswith(prefix)
    return re.compile(translate(pattern)).match
