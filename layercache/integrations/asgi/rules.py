"""What HTTP says of a response: whether it may be stored, how long it is fresh, whom it serves. Nothing here does
I/O.

Sections are those of RFC 9111 (HTTP Caching) where no other RFC is named. This cache is a shared one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from typing import Any, Final, NamedTuple, TypeAlias

__all__ = [
    "Directives",
    "Headers",
    "Request",
    "Terms",
    "end_to_end",
    "first",
    "initial_age",
    "is_buffered",
    "is_not_modified",
    "terms_of",
    "variant_of",
    "varies_on",
]

Headers: TypeAlias = "list[tuple[str, str]]"
"""Names in small letters, and values, as latin-1 text, in their order."""

_STATED: Final = frozenset(
    {200, 203, 204, 300, 301, 302, 307, 308, 404, 405, 410, 414, 501},
)
"""Statuses that are stored where the response says how long. §3 would have any that is understood."""

_UNSTATED: Final = frozenset({200, 203, 301, 308, 410})
"""Statuses that are stored for the cache's own ttl where it does not: of those of RFC 9110 §15.1 the ones that the
next request to another resource does not make wrong, as it would a 404."""

_LONGEST: Final = 365 * 86_400
_MOST_SECONDS: Final = 1 << 31  # §1.2.2
_DIRECTIVE: Final = re.compile(
    r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s,;\"]*)))?"
)
_HOP_BY_HOP: Final = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authentication-info", "proxy-authorization",
        "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_NOT_BUFFERED: Final = ("text/event-stream", "multipart/x-mixed-replace")
"""Kinds of content that have no end, or whose reader waits for each part."""


class Directives(Mapping[str, "str | None"]):
    """The directives of a Cache-Control, by name in small letters; of one that is there twice, the first (§4.2.1)."""

    __slots__ = ("_given",)

    def __init__(self, values: Iterable[str]) -> None:
        self._given: dict[str, str | None] = {}
        for value in values:
            for match in _DIRECTIVE.finditer(value):
                quoted = match[2]
                argument = match[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                self._given.setdefault(match[1].lower(), argument)

    def __getitem__(self, name: str) -> str | None:
        return self._given[name]

    def __contains__(self, name: object) -> bool:
        return name in self._given

    def __iter__(self) -> Any:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)

    def seconds(self, name: str) -> int | None:
        """Return the seconds that a directive states, None where it is not there; 0 for what cannot be read:
        "consider responses that have invalid freshness information to be stale" (§4.2.1)."""
        if name not in self._given:
            return None
        value = self._given[name] or ""
        return (
            min(int(value), _MOST_SECONDS) if value.isascii() and value.isdigit() and len(value) < 20 else 0
        )


_NO_DIRECTIVES: Final = Directives(())
_FOR_THE_APP: Final = frozenset({"range", "if-match", "if-unmodified-since", "upgrade", "transfer-encoding"})


def _all_of(headers: Headers, name: str) -> list[str]:
    return [value for given, value in headers if given == name]


def first(headers: Headers, name: str) -> str | None:
    """Return the first value of a header, by its name in lower case; None where there is none."""
    return next((value for given, value in headers if given == name), None)


class Request:
    """What of a GET or HEAD its cache looks at."""

    __slots__ = ("_names", "directives", "headers", "method")

    def __init__(self, scope: Mapping[str, Any]) -> None:
        self.method: str = scope["method"]
        self.headers: Headers = [
            (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]
        ]
        # a hit asks for ten names, of which nearly all requests have none
        self._names = frozenset([name for name, _ in self.headers])
        self.directives = _NO_DIRECTIVES
        if "cache-control" in self._names:
            self.directives = Directives(_all_of(self.headers, "cache-control"))
        elif "pragma" in self._names and "no-cache" in str(first(self.headers, "pragma")).lower():  # §5.4
            self.directives = Directives(["no-cache"])

    def has(self, name: str) -> bool:
        return name in self._names

    @property
    def is_for_the_app(self) -> bool:
        """Whether it asks for what no whole response answers: a part (§3.3), a change under conditions, a protocol;
        or has content of its own, which no key tells."""
        if not self._names.isdisjoint(_FOR_THE_APP):
            return True
        return "content-length" in self._names and str(first(self.headers, "content-length")).strip() != "0"


class Terms(NamedTuple):
    """How a response may be stored.

    Attributes:
        lifetime: seconds that it is fresh from now on (§4.2.1); None: it does not say.
        stale: seconds that it may be served after that while it is loaded anew (RFC 5861 §3); None: it does not say.
        on_error: seconds that it may be served after that where it cannot be (RFC 5861 §4); None likewise.
    """

    lifetime: float | None
    stale: float | None
    on_error: float | None


def terms_of(
    request: Request,
    status: int,
    headers: Headers,
    now: float,
    *,
    statuses: frozenset[int] | None = None,
    stores_unstated: bool = True,
) -> Terms | None:
    """Return the terms on which a response may be stored, None where it may not (§3)."""
    given = Directives(_all_of(headers, "cache-control"))
    understood = statuses or _STATED
    if status not in understood:
        return None
    if (
        "no-store" in given and "must-understand" not in given
    ):  # §5.2.2.3: whoever understands the status may store it
        return None
    # qualified or not: it is allowed to treat `private="x"` as `private`, and there is nobody to validate with
    # (§5.2.2.4)
    if "private" in given or "no-cache" in given:
        return None
    varying = varies_on(headers)
    if "*" in varying or first(headers, "set-cookie") is not None:  # §4.1; §7.3
        return None
    if first(headers, "content-range") is not None:
        return None
    if request.has("authorization") and given.keys().isdisjoint(
        {"public", "must-revalidate", "s-maxage"}
    ):  # §3.5
        return None
    lifetime = _lifetime(given, headers, now)
    if lifetime is None:
        if not stores_unstated or status not in (statuses or _UNSTATED):
            return None
        # it may be one person's page of an application that does not say so: only where it says the opposite
        if request.has("cookie") and "public" not in given and "cookie" not in varying:
            return None
    elif lifetime <= 0:
        return None  # of use only to who validates with the application, which is what running it would be
    return Terms(lifetime, *_staleness(given))


def _lifetime(given: Directives, headers: Headers, now: float) -> float | None:
    """Return for how long it is fresh (§4.2.1), less the age that it came with (§4.2.3)."""
    for name in ("s-maxage", "max-age"):
        stated = given.seconds(name)
        if stated is not None:
            return min(stated, _LONGEST) - initial_age(headers)
    expires = first(headers, "expires")
    if expires is None:
        return None
    end, began = _date(expires), _date(first(headers, "date"))
    if end is None:
        return 0.0  # an invalid date, "0" among them, means a time in the past (§5.3)
    return min(end - (now if began is None else began), _LONGEST) - initial_age(headers)


def initial_age(headers: Headers) -> int:
    """Return the Age that a response came with, such as from a server that the application asked (§5.1)."""
    value = (first(headers, "age") or "").strip()
    return min(int(value), _MOST_SECONDS) if value.isascii() and value.isdigit() and len(value) < 20 else 0


def _staleness(given: Directives) -> tuple[float | None, float | None]:
    if "must-revalidate" in given or "proxy-revalidate" in given:  # §5.2.2.2, §5.2.2.8
        return 0.0, 0.0
    stale, on_error = given.seconds("stale-while-revalidate"), given.seconds("stale-if-error")
    if stale is None and on_error is None and "s-maxage" not in given:
        return None, None
    # s-maxage means proxy-revalidate as well (§5.2.2.10). An origin that states how long past it a response may be
    # served has said what it wants, and Fastly, Cloudflare and Vercel serve it so
    stale, on_error = min(stale or 0, _LONGEST), min(on_error or 0, _LONGEST)
    return float(stale), float(max(stale, on_error))


def varies_on(headers: Headers) -> tuple[str, ...]:
    """Return the names of request headers that Vary lists, sorted and in small letters."""
    listed = ",".join(_all_of(headers, "vary")).split(",")
    return tuple(sorted({name.strip().lower() for name in listed} - {""}))


def variant_of(request: Request, names: Sequence[str]) -> str:
    """Return what tells requests apart that a response with these names in its Vary does not all answer (§4.1)."""
    if not names:
        return ""
    digest = blake2b(digest_size=16)
    for name in names:
        # values that differ in white space and in how they are split over lines match
        parts = [
            " ".join(part.split()) for value in _all_of(request.headers, name) for part in value.split(",")
        ]
        digest.update(f"{name}:{','.join(parts) if request.has(name) else chr(0)}\n".encode())
    return digest.hexdigest()


def end_to_end(headers: Headers) -> Headers:
    """Return those that are for the response and not for one connection (§3.1); Age is told anew each time."""
    named = {name.strip().lower() for value in _all_of(headers, "connection") for name in value.split(",")}
    dropped = _HOP_BY_HOP | named | {"age", "cache-status"}
    return [(name, value) for name, value in headers if name not in dropped]


def is_buffered(headers: Headers, most: int) -> bool:
    """Whether a response can be waited for: it is no stream of events, and not known to be larger than `most`."""
    kind = (first(headers, "content-type") or "").strip().lower()
    length = (first(headers, "content-length") or "0").strip()
    return (
        not kind.startswith(_NOT_BUFFERED) and length.isdigit() and len(length) < 20 and int(length) <= most
    )


def is_not_modified(request: Request, headers: Headers) -> bool:
    """Whether the client has this response already (§4.3.2)."""
    if not (request.has("if-none-match") or request.has("if-modified-since")):
        return False
    wanted = _all_of(request.headers, "if-none-match")
    if wanted:  # and then If-Modified-Since does not count (RFC 9110 §13.2.2)
        etag = (first(headers, "etag") or "").strip()
        tags = re.findall(r'(?:W/)?"[^"]*"|\*', ",".join(wanted))
        # weak comparison (RFC 9110 §13.1.2)
        return "*" in tags or (
            etag != "" and etag.removeprefix("W/") in [tag.removeprefix("W/") for tag in tags]
        )
    since, modified = (
        _date(first(request.headers, "if-modified-since")),
        _date(first(headers, "last-modified")),
    )
    return since is not None and modified is not None and modified <= since


def _date(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        return parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
