"""What settings are once they are checked: frozen models, with their defaults. `config` makes them.

Rule: what one key may be is said here, by the type of its field; what keys have to be to each other, `config` checks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field

from layercache.core.policy import Plan, Policy, Refresh, checked_tags
from layercache.errors import InvalidOption
from layercache.events import tag_template
from layercache.options import (
    Count,
    Deadline,
    Duration,
    Patience,
    Ratio,
    Secret,
    Span,
    options,
)
from layercache.registry import backend_named
from layercache.spi import Backend, Opening

__all__ = [
    "SECTIONS",
    "AdminSettings",
    "AlertSettings",
    "BackendSettings",
    "CacheSettings",
    "EventSettings",
    "PatternSettings",
    "Settings",
]

SECTIONS: Final = ("backends", "caches", "admin", "alerts")
"""The tables of a settings file."""

_SHORTEST_TOKEN: Final = 32

_BackendClass: TypeAlias = type[Backend]


def _tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return checked_tags(tags)
    except InvalidOption as error:
        raise ValueError(str(error)) from None


_Tags: TypeAlias = Annotated[tuple[str, ...], AfterValidator(_tags)]


@options
class PatternSettings:
    """What the settings say of the keys that a pattern matches; what is left out, the cache says.

    Attributes: those of `CacheSettings`.
    """

    ttl: Duration | None = None
    stale_ttl: Span | None = None
    none_ttl: Span | None = None
    jitter: Ratio | None = None
    refresh: Refresh | None = None
    early_beta: Annotated[float, Field(gt=0.0)] | None = None
    retry_after: Span | None = None
    wait: Patience | None = None
    lease_ttl: Deadline | None = None
    soft_timeout: Patience | None = None
    hard_timeout: Patience | None = None
    tags: _Tags | None = None

    def stated(self) -> dict[str, Any]:
        """Return what it says, by name."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in given.items() if value is not None}


def _templates(tags: tuple[str, ...]) -> tuple[str, ...]:
    try:
        for tag in tags:
            tag_template(tag)
    except InvalidOption as error:
        raise ValueError(str(error)) from None
    return tags


@options
class EventSettings:
    """What the settings have an event do to one cache.

    Attributes:
        tags: templates of the event's fields; what carries one of them is invalid when it is emitted. A list instead
            of the table is this.
        soft: whether it is stale then, and not gone.
    """

    tags: Annotated[_Tags, AfterValidator(_templates)]
    soft: bool = False


@options
class CacheSettings:
    """What the settings say of one cache.

    Attributes:
        backend: the name of its backend.
        ttl: how long an entry is fresh where nothing else says; `"forever"` is allowed.
        ttls: patterns of keys to their own ttl: the short form of `patterns` where a ttl is all there is to say.
        patterns: patterns of keys to tables of `ttl` and of what follows down to `tags`.
        stale_ttl, none_ttl, jitter, refresh, early_beta, retry_after, wait, lease_ttl, soft_timeout, hard_timeout: how
            values are loaded and kept, as `LoadOptions` describes.
        tags: what `invalidate` knows its values by.
        events: by name, what an event makes invalid.
        max_key_bytes: the longest key, in UTF-8.
        isolation: `"copy"`, or `"reference"` to let readers in this process share values that can be changed.
    """

    backend: Annotated[str, AfterValidator(str.lower)]
    ttl: Duration = 300.0
    ttls: dict[str, Duration] = field(default_factory=dict[str, float])
    patterns: dict[str, PatternSettings] = field(default_factory=dict[str, PatternSettings])
    stale_ttl: Span = 0.0
    none_ttl: Span | None = None
    jitter: Ratio = 0.0
    refresh: Refresh = "background"
    early_beta: Annotated[float, Field(gt=0.0)] = 1.0
    retry_after: Span = 5.0
    wait: Patience = 30.0
    lease_ttl: Deadline = 30.0
    soft_timeout: Patience = math.inf
    hard_timeout: Patience = math.inf
    tags: _Tags = ()
    events: dict[str, EventSettings] = field(default_factory=dict[str, EventSettings])
    max_key_bytes: Count = 1024
    isolation: Literal["copy", "reference"] = "copy"

    def policy(self) -> Policy:
        """Return how its entries live and are loaded."""
        names = [each.name for each in fields(PatternSettings)]
        base = Plan(**{name: getattr(self, name) for name in names})
        patterns = {pattern: settings.stated() for pattern, settings in self.patterns.items()}
        for pattern, ttl in self.ttls.items():
            patterns.setdefault(pattern, {})["ttl"] = ttl
        return Policy(base, patterns, self.max_key_bytes)


def _token(token: Secret) -> Secret:
    text = token.get_secret_value()
    if len(text) < _SHORTEST_TOKEN:
        raise ValueError(
            f"is too short for a token: {_SHORTEST_TOKEN} characters or more, such as `openssl rand -hex 32` prints"
        )
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("is no token: it has to be made of ASCII letters, digits and signs, without blanks")
    return token


_Token: TypeAlias = Annotated[Secret, AfterValidator(_token)]


@options
class AdminSettings:
    """What the settings say of the management API and the dashboard.

    Attributes:
        read_token: who sends it may look. Without any token only clients of this same machine are served.
        write_token: who sends it may look, delete, invalidate, clear and warm as well.
        show_values: whether cached values are shown, to who asks for them.
    """

    read_token: _Token | None = None
    write_token: _Token | None = None
    show_values: bool = False


@options
class AlertSettings:
    """When the settings have something be said to be wrong; what is left out is not looked at.

    Attributes:
        window: over which rates are taken: "1m", "5m" or "1h".
        hit_rate_under: of a cache, 0.0 to 1.0.
        memory_over: how full a layer in memory is, of its entries or its bytes, 0.0 to 1.0.
        circuit_open_longer_than: of a far layer.
        log_lag_over: since what is known of other processes was confirmed.
        load_errors_over: failures among all loads of a cache, 0.0 to 1.0.
        least_reads, least_loads: rates of fewer in the window say nothing.
        ignore: names of caches that are not looked at.
    """

    window: Literal["1m", "5m", "1h"] = "5m"
    hit_rate_under: Ratio | None = None
    memory_over: Ratio | None = None
    circuit_open_longer_than: Span | None = None
    log_lag_over: Span | None = None
    load_errors_over: Ratio | None = None
    least_reads: Count = 100
    least_loads: Count = 10
    ignore: tuple[Annotated[str, AfterValidator(str.lower)], ...] = ()

    @property
    def is_wanted(self) -> bool:
        """Whether there is a threshold."""
        thresholds = (
            self.hit_rate_under,
            self.memory_over,
            self.circuit_open_longer_than,
            self.log_lag_over,
            self.load_errors_over,
        )
        return any(threshold is not None for threshold in thresholds)


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """What the settings say of one backend: its type, the class behind that, and its checked options.

    Class and options are None where the package that offers the type cannot be imported, which is nobody's
    trouble until the backend is opened.
    """

    type: str
    cls: _BackendClass | None
    options: Any

    def open(self, opening: Opening) -> Backend:
        """Return the backend, opened. Raises `ImportError` where its package cannot be imported."""
        backend: Backend = (self.cls or backend_named(self.type))(opening)
        backend.type = self.type
        return backend


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force.

    Attributes:
        origin: the file they were read from, or what stood in for one.
        environment: the environment that was chosen.
        backends, caches: by name, in the order of the file.
        admin: of the management API.
        alerts: the thresholds.
    """

    origin: str
    environment: str
    backends: dict[str, BackendSettings]
    caches: dict[str, CacheSettings]
    admin: AdminSettings = field(default_factory=AdminSettings)
    alerts: AlertSettings = field(default_factory=AlertSettings)
