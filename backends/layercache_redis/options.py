"""What settings say of a Redis backend. Nothing here imports the driver."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final
from urllib.parse import urlsplit, urlunsplit

from pydantic import BeforeValidator, Field, PlainSerializer

from layercache.options import Bytes, Codecs, Count, Deadline, Secret, options, stages

__all__ = ["RedisOptions", "RedisUrl"]

_SCHEMES: Final = ("redis", "rediss", "unix")
_EXAMPLE: Final = "right are redis://host:6379/0, rediss://host:6379/0 (TLS) and unix:///path/to/socket?db=0"


class RedisUrl:
    """The address of a server. Shown without its password; `text` has it whole."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        parts = urlsplit(self.text)
        shown = re.sub(r":[^:@]*@", ":**********@", parts.netloc)
        query = re.sub(r"(?i)(password=)[^&]*", r"\1**********", parts.query)
        return urlunsplit(parts._replace(netloc=shown, query=query))

    def __repr__(self) -> str:
        return f"RedisUrl({str(self)!r})"


def _url(value: Any) -> RedisUrl:
    if isinstance(value, RedisUrl):
        return value
    if not isinstance(value, str):
        raise ValueError(f"is no URL; {_EXAMPLE}")  # noqa: TRY004  (pydantic reports ValueErrors)
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:  # a port that is no number, or brackets of an IPv6 address that do not match
        raise ValueError(f"is no URL of a host and a port; {_EXAMPLE}") from None
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"is no address of a Redis server: unknown scheme {parts.scheme!r}; {_EXAMPLE}")
    if parts.scheme == "unix" and not parts.path:
        raise ValueError(f"names no socket; {_EXAMPLE}")
    if parts.scheme != "unix" and (not parts.hostname or port == 0):
        raise ValueError(f"names no host and port; {_EXAMPLE}")
    if parts.scheme != "unix" and not re.fullmatch(r"/?|/\d+", parts.path):
        raise ValueError(f"names a database that is no number; {_EXAMPLE}")
    return RedisUrl(value)


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
    host: str | None = None
    port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    db: Annotated[int, Field(ge=0)] | None = None
    username: str | None = None
    password: Secret | None = None
    tls_ca_file: str | None = None
    prefix: Annotated[str, Field(min_length=1, max_length=200)] = "layercache"
    codecs: Codecs = stages("json")
    timeout: Deadline = 0.25
    max_connections: Count = 50
    max_value_bytes: Bytes = 32 << 20
