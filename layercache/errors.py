"""Everything that layercache raises: one base, names that say what happened.

    CacheError
    ├── ConfigError               settings that cannot be right; lists every fault at once
    │   └── UnknownName           something is named that does not exist; brings the nearest names
    │       ├── UnknownCache      a cache that the settings do not define (also a LookupError)
    │       ├── UnknownEvent      an event that nobody has declared (also a LookupError)
    │       ├── UnknownBackend    no installed package offers a backend of that name
    │       ├── UnknownStage      no installed package offers a codec stage of that name
    │       └── UnknownEviction   no installed package offers an eviction policy of that name
    ├── MissingExtra              an optional package is not installed (also an ImportError)
    ├── InvalidKey                a key that cannot be used (also a ValueError)
    ├── InvalidTtl                a time to live that cannot be understood (also a ValueError)
    ├── InvalidOption             an option of a load, or a tag, that cannot be right (also a ValueError)
    ├── WrongFields               an event is emitted with other fields than its tags name (also a TypeError)
    ├── KeyNotFound               `incr` or `decr` of a key that is not there (also a ValueError)
    ├── NotACounter               `incr` or `decr` of something that is no integer (also a TypeError)
    ├── CannotList                the backend cannot list its keys
    ├── EncodeError               a value that the cache's codec cannot carry
    │   └── ValueTooLarge         its encoded form is larger than `max_value_bytes`
    ├── DecodeError               bytes that are no value; inside the library this is a miss
    ├── BackendError              a store failed; `__cause__` is the driver's own error
    │   ├── BackendTimeout        …because it did not answer in time (also a TimeoutError)
    │   └── CircuitOpen           …a moment ago, and is not asked until it answers a probe
    ├── LoadTimeout               a value was not loaded in time (also a TimeoutError)
    ├── WouldDeadlock             waiting here could never end (also a RuntimeError)
    │   └── RecursiveLoad         …because the loader asks for what it is loading itself
    └── CacheClosed               the cache was closed (also a RuntimeError)

A message says what would be right; the parts of it are attributes. All of them can be pickled.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = [
    "BackendError",
    "BackendTimeout",
    "CacheClosed",
    "CacheError",
    "CannotList",
    "CircuitOpen",
    "ConfigError",
    "DecodeError",
    "EncodeError",
    "Fault",
    "InvalidKey",
    "InvalidOption",
    "InvalidTtl",
    "KeyNotFound",
    "LoadTimeout",
    "MissingExtra",
    "NotACounter",
    "RecursiveLoad",
    "UnknownBackend",
    "UnknownCache",
    "UnknownEvent",
    "UnknownEviction",
    "UnknownName",
    "UnknownStage",
    "ValueTooLarge",
    "WouldDeadlock",
    "WrongFields",
    "suggestion",
]


class CacheError(Exception):
    """The base of everything that layercache raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        # the subclasses build their message from parts, so `args` alone cannot make them again
        return _unpickled, (type(self), self.args, self.__dict__)


def _unpickled(cls: type[CacheError], args: tuple[Any, ...], parts: dict[str, Any]) -> CacheError:
    error = cls.__new__(cls)
    # what a built-in base keeps outside of __dict__, such as ImportError.msg
    super(CacheError, error).__init__(*args)
    error.__dict__.update(parts)
    return error


class Fault(NamedTuple):
    """One thing that is wrong with the settings: where, and what would be right."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class ConfigError(CacheError):
    """The settings cannot be right.

    Attributes:
        faults: every fault that was found, not only the first.
        origin: the file, or `"a mapping"`, or `"the built-in default"`.
        environment: the name of the environment that was read.
    """

    def __init__(self, faults: Iterable[Fault], origin: str, environment: str) -> None:
        self.faults = tuple(faults)
        self.origin, self.environment = origin, environment
        lines = "".join(f"\n  {fault}" for fault in self.faults)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__(f"{count} in {origin}, environment {environment!r}:{lines}")


class UnknownName(ConfigError):
    """Something is named that does not exist; `name` is what was asked for, `known` what there is."""

    kind = "name"

    def __init__(self, name: str, known: Iterable[str], origin: str = "", environment: str = "") -> None:
        self.name, self.known = name, sorted(known)
        self.faults, self.origin, self.environment = (), origin, environment
        where = f" in {origin}, environment {environment!r}" if origin else ""
        CacheError.__init__(self, f"no {self.kind} named {name!r}{where}; {suggestion(name, self.known)}")


class UnknownCache(UnknownName, LookupError):
    """No cache of that name is defined in the settings."""

    kind = "cache"


class UnknownEvent(UnknownName, LookupError):
    """Nobody has declared an event of that name, in the settings or by `on`."""

    kind = "event"


class UnknownBackend(UnknownName):
    """No installed package offers a backend of that name."""

    kind = "backend"


class UnknownStage(UnknownName):
    """No installed package offers a codec stage of that name."""

    kind = "stage"


class UnknownEviction(UnknownName):
    """No installed package offers an eviction policy of that name."""

    kind = "eviction policy"


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return "did you mean …?" for the names near to `name`, else a list of all there are."""
    from difflib import get_close_matches

    names = sorted(known)
    near = get_close_matches(name, names, n=3)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"there are {', '.join(names)}" if names else "there are none"


class MissingExtra(CacheError, ImportError):
    """Something optional was used whose package is not installed."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the package {package!r}: pip install 'layercache-framework[{extra}]'",
        )
        self.package, self.extra = package, extra


class InvalidKey(CacheError, ValueError):
    """A key that is empty, not a `str`, too long, or has no UTF-8 form."""


class InvalidTtl(CacheError, ValueError):
    """A time to live that is neither seconds, a `timedelta`, text such as "1h30m", nor None."""


class InvalidOption(CacheError, ValueError):
    """An option of a load that is unknown or out of its range, or a tag or an event that is none."""


class WrongFields(CacheError, TypeError):
    """An event is emitted with other fields than its tags name.

    Attributes:
        event: its name.
        fields: those that its tags name.
        missing: of these.
        superfluous: what was given and is none of these.
    """

    def __init__(self, event: str, fields: Iterable[str], given: Iterable[str]) -> None:
        self.event, self.fields = event, tuple(fields)
        given = tuple(given)
        self.missing = tuple(each for each in self.fields if each not in given)
        self.superfluous = tuple(each for each in given if each not in self.fields)
        has = f"the fields {', '.join(self.fields)}" if self.fields else "no fields"
        message = f"the event {event!r} has {has}"
        for what, names in (("missing", self.missing), ("none of them", self.superfluous)):
            message += f"; {what}: {', '.join(map(repr, names))}" if names else ""
        super().__init__(message)


class KeyNotFound(CacheError, ValueError):
    """`incr` and `decr` change what is there; nothing was."""

    def __init__(self, key: str) -> None:
        super().__init__(f"there is no {key!r} to increment; set it first, or use add(key, 0)")
        self.key = key


class NotACounter(CacheError, TypeError):
    """`incr` and `decr` change integers only."""

    def __init__(self, key: str, kind: str) -> None:
        super().__init__(f"{key!r} holds a {kind}; only an int can be incremented")
        self.key, self.kind = key, kind


class CannotList(CacheError):
    """The backend cannot list its keys."""

    def __init__(self) -> None:
        super().__init__("this backend cannot list its keys; those of the types memory, redis and chain can")


class EncodeError(CacheError):
    """The codec cannot carry the value; nothing was stored."""


class ValueTooLarge(EncodeError):
    """The encoded value is larger than the backend's `max_value_bytes`; nothing was stored."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"the value takes {size:,} bytes, more than max_value_bytes = {limit:,}; "
            "cache a smaller part of it or raise the limit",
        )
        self.size, self.limit = size, limit


class DecodeError(CacheError):
    """Bytes that this cache cannot turn into a value. Readers of a cache see a miss instead."""


class BackendError(CacheError):
    """The store behind a cache failed; the driver's own error is the `__cause__`.

    Attributes:
        in_doubt: whether it may have done what it was asked for all the same.
        refused: whether it answered that it would not.
    """

    in_doubt: bool = True
    refused: bool = False

    def __init__(self, backend: str, problem: str) -> None:
        super().__init__(f"backend {backend!r}: {problem}")
        self.backend, self.problem = backend, problem


class BackendTimeout(BackendError, TimeoutError):
    """The store behind a cache did not answer within its `timeout`."""


class CircuitOpen(BackendError):
    """The store behind a cache failed a moment ago; it is not asked until it answers a probe."""

    in_doubt = False


class LoadTimeout(CacheError, TimeoutError):
    """A value was not loaded in time: by the loader within `hard_timeout`, or by another caller within `wait`.

    The load itself may go on, and its value be there later.

    Attributes:
        key: what was asked for.
        seconds: how long the call waited.
    """

    def __init__(self, key: str, seconds: float) -> None:
        super().__init__(f"{key!r} was not loaded within {seconds:g} s; it may be by now")
        self.key, self.seconds = key, seconds


class WouldDeadlock(CacheError, RuntimeError):
    """A call would wait for a load that can only go on when the call returns."""


class RecursiveLoad(WouldDeadlock):
    """A loader asks, itself or through others, for the key that it is loading."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"the load of {key!r} waits for itself; a loader must not ask for its own key, nor for one whose "
            "loader asks for it"
        )
        self.key = key


class CacheClosed(CacheError, RuntimeError):
    """The cache, or the `Caches` it came from, was closed."""

    def __init__(self, name: str) -> None:
        super().__init__(f"cache {name!r} is closed; open it again with get_cache({name!r})")
        self.name = name
