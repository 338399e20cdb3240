"""What settings say of a Redis backend. Nothing here imports the driver, so its URLs are checked here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Annotated, Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from layercache.options import Bytes, Codecs, Count, Deadline, Secret, options, stages

__all__ = ["RedisOptions", "RedisUrl"]

_RIGHT: Final = "right are redis://host:6379/0, rediss://host:6379/0 (TLS) and unix:///path/to/socket?db=0"
_MASK: Final = "**********"

_QUERY: Final = {"db": r"[0-9]{1,9}", "username": r".+", "password": r".+"}
_TLS_QUERY: Final = _QUERY | {
    "ssl_ca_certs": r".+",
    "ssl_certfile": r".+",
    "ssl_keyfile": r".+",
    "ssl_cert_reqs": r"none|optional|required",
    "ssl_check_hostname": r"(?i:true|false)",
}
_QUERY_OF: Final = {"redis": _QUERY, "rediss": _TLS_QUERY, "unix": _QUERY}
"""Scheme to what its query may hold. redis-py takes more, of which our own options are the better half; what it
does not know breaks its first connection."""


@dataclass(frozen=True, slots=True, repr=False)
class RedisUrl:
    """The address of a server. Shown without its password; `text` has it whole."""

    text: str

    def __str__(self) -> str:
        parts = urlsplit(self.text)
        login, at, place = parts.netloc.rpartition("@")
        user, colon, _ = login.partition(":")
        query = [(name, _MASK if "password" in name else value) for name, value in _query(parts)]
        shown = f"{parts.scheme}://{user}{colon and f':{_MASK}'}{at}{place}{parts.path}"
        return f"{shown}?{urlencode(query, safe='*/')}" if query else shown

    def __repr__(self) -> str:
        return f"RedisUrl({str(self)!r})"


def _query(parts: SplitResult) -> list[tuple[str, str]]:
    return parse_qsl(parts.query, keep_blank_values=True)


def _url(value: Any) -> RedisUrl:
    text = value.text if isinstance(value, RedisUrl) else value
    if not isinstance(text, str):
        raise ValueError(f"is no URL; {_RIGHT}")  # noqa: TRY004  (pydantic reports ValueErrors)
    scheme, colon, rest = text.partition("://")
    text = scheme.lower() + colon + rest  # the driver takes small letters only
    problem = next(_problems(text), None)
    if problem is not None:
        raise ValueError(f"{problem}; {_RIGHT}")
    return RedisUrl(text)


def _problems(text: str) -> Iterator[str]:
    """Yield what is wrong with a URL, never repeating a part of it: any may be a piece of a password."""
    if re.search(r"[\s\x00-\x1f\x7f#]", text):
        yield "holds a blank, a line end or a '#'; in a password they are written %20, %0A and %23"
        return
    if not text.startswith(tuple(f"{scheme}://" for scheme in _QUERY_OF)):
        yield "is no address of a Redis server"
        return
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:  # a port that is no number, or brackets of an IPv6 address that do not match
        yield "has no host and port; in a password '/', '?' and '@' are written %2F, %3F and %40"
        return
    if parts.scheme == "unix":
        if parts.netloc.rpartition("@")[2]:
            yield "names a host; the path of a socket begins with a third slash"
        if parts.path in {"", "/"}:
            yield "names no socket"
        if "@" in parts.path:  # the rest of a password that began before the path, most likely
            yield "has an '@' in its path; in a password '/' and '@' are written %2F and %40, in a path '@' is %40"
    else:
        if not host or not _is_host(unquote(host)) or port == 0:
            yield "has no host and port"
        if not re.fullmatch(r"/?|/[0-9]{1,9}", parts.path):
            yield "names a database that is no number"
    allowed = _QUERY_OF[parts.scheme]
    for name, value in _query(parts):
        if name not in allowed:
            yield f"has a query of more than {', '.join(allowed)}; all else is said by options of the backend"
        elif not re.fullmatch(allowed[name], value):
            yield f"has a query whose {name} makes no sense"


def _is_host(text: str) -> bool:
    if ":" in text:
        return _is_ipv6(text)
    try:
        text.encode("idna")
    except UnicodeError:  # a label that is empty or too long, which getaddrinfo would trip over
        return False
    return re.fullmatch(r"[^\s\x00-\x1f\x7f/@?#\\]+", text) is not None


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _host(value: str) -> str:
    if not _is_host(value):
        raise ValueError(
            "is no name or address of a host; it stands alone, such as cache.internal or 10.0.0.7"
        )
    return value


@options
class RedisOptions:
    """Attributes:
    url: `redis://`, `rediss://` (TLS, certificates verified) or `unix://`.
    host, port, db, username, password: each, where given, wins over its part of the URL.
    tls_ca_file: certificate authorities to trust instead of the system's.
    prefix: of every key this application writes; two applications on one server need two.
    codecs: the pipeline that makes frames.
    timeout: seconds that one operation may take, connecting and waiting for a connection included each.
    max_connections: of the threads of this process, and as many of each event loop.
    max_value_bytes: the largest payload, before compression, that is written or read.
    """

    url: Annotated[RedisUrl, BeforeValidator(_url), PlainSerializer(str), Field(validate_default=True)] = (
        RedisUrl("redis://localhost:6379/0")
    )
    host: Annotated[str, AfterValidator(_host)] | None = None
    port: Annotated[int, Field(ge=1, le=65_535, strict=True)] | None = None
    db: Annotated[int, Field(ge=0, strict=True)] | None = None
    username: str | None = None
    password: Secret | None = None
    tls_ca_file: str | None = None
    prefix: Annotated[str, Field(min_length=1, max_length=200)] = "layercache"
    codecs: Codecs = stages("json")
    timeout: Deadline = 0.25
    max_connections: Count = 50
    max_value_bytes: Bytes = 32 << 20

    def __post_init__(self) -> None:
        if self.url.text.startswith("unix:") and (self.host or self.port):
            raise ValueError("a socket has no host and no port: leave them out, or the unix:// of the url")
        if self.tls_ca_file is not None and not self.url.text.startswith("rediss:"):
            raise ValueError("tls_ca_file is for TLS: the url has to begin with rediss://")
