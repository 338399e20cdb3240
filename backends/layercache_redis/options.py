"""What settings say of a Redis backend. Nothing here imports the driver, so its URLs are checked here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv6Address
from typing import Annotated, Any, Final, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from layercache.options import Bytes, Codecs, Count, Deadline, SealKeys, Secret, options, stages

__all__ = ["Place", "RedisOptions", "RedisUrl"]

_RIGHT: Final = (
    "right are redis://host:6379/0, rediss://host:6379/0 (TLS), unix:///path/to/socket?db=0, "
    "redis+sentinel://host:26379,host:26379/service/0 and redis+cluster://host:6379,host:6379"
)
_MASK: Final = "**********"

_QUERY: Final = {"db": r"[0-9]{1,9}", "username": r".+", "password": r".+"}
_TLS_QUERY: Final = _QUERY | {
    "ssl_ca_certs": r".+",
    "ssl_certfile": r".+",
    "ssl_keyfile": r".+",
    "ssl_cert_reqs": r"none|optional|required",
    "ssl_check_hostname": r"(?i:true|false)",
}
_SENTINEL_QUERY: Final = {"sentinel_username": r".+", "sentinel_password": r".+"}
_QUERY_OF: Final = {
    "redis": _QUERY,
    "rediss": _TLS_QUERY,
    "unix": _QUERY,
    "redis+sentinel": _QUERY | _SENTINEL_QUERY,
    "rediss+sentinel": _TLS_QUERY | _SENTINEL_QUERY,
    "redis+cluster": {name: _QUERY[name] for name in ("username", "password")},
    "rediss+cluster": {name: _TLS_QUERY[name] for name in _TLS_QUERY if name != "db"},
}
"""Scheme to what its query may hold. redis-py takes more, of which our own options are the better half."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one server listens: a host and a port, or the path of a socket."""

    host: str = ""
    port: int = 6379
    path: str | None = None
    tls: bool = False

    def __str__(self) -> str:
        if self.path is not None:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, repr=False)
class RedisUrl:
    """The address of a server. Shown without its password; `text` has it whole."""

    text: str

    @property
    def scheme(self) -> str:
        """What the URL begins with, such as `rediss+sentinel`."""
        return self.text.partition("://")[0]

    @property
    def is_sentinel(self) -> bool:
        """Whether it names sentinels, which know the servers."""
        return self.scheme.endswith("+sentinel")

    @property
    def is_cluster(self) -> bool:
        """Whether it names nodes of a cluster."""
        return self.scheme.endswith("+cluster")

    @property
    def is_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.scheme.startswith("rediss")

    @property
    def places(self) -> list[Place]:
        """Where servers listen: the one, the sentinels, or some nodes of a cluster."""
        parts = _split(self.text)
        if parts.scheme == "unix":
            return [Place(path=unquote(parts.path))]
        standard = 26379 if self.is_sentinel else 6379
        hosts = _hosts(parts, standard) or []
        return [Place(host, port, tls=self.is_tls) for host, port in hosts]

    @property
    def service(self) -> str:
        """What sentinels call the servers that they watch."""
        return unquote(_service_and_database(_split(self.text))[0])

    @property
    def database(self) -> int:
        """The number of the database; 0 where none is named."""
        return int(self.query.get("db") or _service_and_database(_split(self.text))[1] or 0)

    @property
    def login(self) -> tuple[str | None, str | None]:
        """The user and the password, each None where the URL has none."""
        stated, at, _ = _split(self.text).netloc.rpartition("@")
        user, _, password = stated.partition(":")
        query = self.query
        return (
            (unquote(user) if at else "") or query.get("username"),
            (unquote(password) if at else "") or query.get("password"),
        )

    @property
    def query(self) -> dict[str, str]:
        """The parameters behind the question mark."""
        return dict(_query(_split(self.text)))

    def __str__(self) -> str:
        parts = _split(self.text)
        login, at, place = parts.netloc.rpartition("@")
        user, colon, _ = login.partition(":")
        query = [(name, _MASK if "password" in name else value) for name, value in _query(parts)]
        shown = f"{parts.scheme}://{user}{colon and f':{_MASK}'}{at}{place}{parts.path}"
        return f"{shown}?{urlencode(query, safe='*/')}" if query else shown

    def __repr__(self) -> str:
        return f"RedisUrl({str(self)!r})"


def _split(text: str) -> SplitResult:
    """Split a URL that may name several hosts, where `urlsplit` of some Pythons refuses all but one IPv6 address."""
    scheme, _, rest = text.partition("://")
    place, _, query = rest.partition("?")
    netloc, slash, path = place.partition("/")
    return SplitResult(scheme, netloc, slash + path, query, "")


def _service_and_database(parts: SplitResult) -> tuple[str, str]:
    """Return the service, '' where it is not for sentinels, and the database as it stands, '' for none."""
    if parts.scheme == "unix":
        return "", ""
    path = parts.path.removeprefix("/")
    if not parts.scheme.endswith("+sentinel"):
        return "", path
    service, _, database = path.partition("/")
    return service, database


def _hosts(parts: SplitResult, standard_port: int) -> list[tuple[str, int]] | None:
    """Return the hosts and ports that an address names, None where one of them makes no sense.

    Raises `ValueError` for a port that is no number.
    """
    found: list[tuple[str, int]] = []
    for stated in parts.netloc.rpartition("@")[2].split(","):
        one = urlsplit(f"redis://{stated}")
        host, port = unquote(one.hostname or ""), one.port
        if not _is_host(host) or port == 0:
            return None
        found.append((host, port or standard_port))
    return found


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
    parts = _split(text)
    try:
        hosts = None if parts.scheme == "unix" else _hosts(parts, 1)
    except ValueError:  # a port that is no number, or brackets of an IPv6 address that do not match
        yield "has no host and port; in a password '/', '?' and '@' are written %2F, %3F and %40"
        return
    yield from _socket_problems(parts) if parts.scheme == "unix" else _server_problems(parts, hosts)
    allowed = _QUERY_OF[parts.scheme]
    for name, value in _query(parts):
        if name not in allowed:
            yield f"has a query of more than {', '.join(allowed)}; all else is said by options of the backend"
        elif not re.fullmatch(allowed[name], value):
            yield f"has a query whose {name} makes no sense"


def _socket_problems(parts: SplitResult) -> Iterator[str]:
    if parts.netloc.rpartition("@")[2]:
        yield "names a host; the path of a socket begins with a third slash"
    if parts.path in {"", "/"}:
        yield "names no socket"
    if "@" in parts.path:  # the rest of a password that began before the path, most likely
        yield "has an '@' in its path; in a password '/' and '@' are written %2F and %40, in a path '@' is %40"


def _server_problems(parts: SplitResult, hosts: list[tuple[str, int]] | None) -> Iterator[str]:
    several = parts.scheme.endswith(("+sentinel", "+cluster"))
    if hosts is None or (len(hosts) > 1 and not several):
        yield "has no host and port"
    service, database = _service_and_database(parts)
    if parts.scheme.endswith("+sentinel") and not service:
        yield "names no service, which sentinels know their servers by"
    if parts.scheme.endswith("+cluster") and database:
        yield "names a database, which a cluster does not have"
    elif not re.fullmatch(r"|[0-9]{1,9}", database):
        yield "names a database that is no number"


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
    url: `redis://`, `rediss://` (TLS, certificates verified), `unix:///path?db=0`,
        `redis+sentinel://host:26379,host:26379/service/0` or `redis+cluster://host:6379,host:6379` (`rediss+…` for
        TLS); its query may hold `db`, `username`, `password`, `sentinel_username`, `sentinel_password` and, with TLS,
        the `ssl_…` keys of redis-py.
    host, port: each, where given, wins over its part of the URL, where that names one server only.
    db, username, password: each, where given, wins over its part of the URL.
    tls_ca_file: certificate authorities to trust instead of the system's.
    prefix: of every key this application writes; two applications on one server need two.
    codecs: the pipeline that makes frames.
    seal_keys: `id:secret` of the keys that seals (`sign`, `encrypt`) work with; the first seals, all of them unseal.
    timeout: how long one operation may take, connecting and waiting for a free connection included.
    on_error: what a cache that has this backend alone does when it fails: `"raise"`, or `"miss"`, which finds nothing
        and stores nothing. In a chain the other layers serve.
    max_connections: to one server, of the threads of this process; an event loop has 4 of them at most.
    max_value_bytes: the largest payload, before compression, that is written or read.
    max_staleness: for how long what this process knows of invalidations is believed without the log's word; past that
        every read asks, and the layers before this one are bypassed.
    log_length: how many entries the log of invalidations keeps, about; who has missed more forgets what it knew.
    log_shards: of how many streams the log is made, which a cluster has on several of its nodes.
    log_gathering: for how long news gather at the server before this process asks again, a quarter of `max_staleness`
        at most. Where there is much news it comes so much later; and the server has less to answer.
    """

    url: Annotated[
        RedisUrl,
        BeforeValidator(_url),
        PlainSerializer(str),
        WithJsonSchema({"type": "string", "pattern": r"^(rediss?(\+sentinel|\+cluster)?|unix)://"}),
        Field(validate_default=True),
    ] = RedisUrl("redis://localhost:6379/0")
    host: Annotated[str, AfterValidator(_host)] | None = None
    port: Annotated[int, Field(ge=1, le=65_535, strict=True)] | None = None
    db: Annotated[int, Field(ge=0, strict=True)] | None = None
    username: str | None = None
    password: Secret | None = None
    tls_ca_file: str | None = None
    prefix: Annotated[str, Field(min_length=1, max_length=200)] = "layercache"
    codecs: Codecs = stages("json")
    seal_keys: SealKeys = ()
    timeout: Deadline = 0.25
    on_error: Literal["raise", "miss"] = "raise"
    max_connections: Count = 50
    max_value_bytes: Bytes = 32 << 20
    max_staleness: Deadline = 5.0
    log_length: Count = 10_000
    log_shards: Annotated[int, Field(ge=1, le=64, strict=True)] = 1
    log_gathering: Deadline = 0.003

    def __post_init__(self) -> None:
        if self.url.scheme == "unix" and (self.host or self.port):
            raise ValueError("a socket has no host and no port: leave them out, or the unix:// of the url")
        if (self.url.is_sentinel or self.url.is_cluster) and (self.host or self.port):
            several = "sentinels" if self.url.is_sentinel else "nodes of a cluster"
            raise ValueError(f"the url names {several}: leave out host and port (REDIS_HOST, REDIS_PORT)")
        if self.url.is_cluster and self.db:
            raise ValueError("a cluster has no databases: leave out db (REDIS_DB)")
        if self.tls_ca_file is not None and not self.url.is_tls:
            raise ValueError("tls_ca_file is for TLS: the url has to begin with rediss://")

    # -- what they come to

    def places(self) -> list[Place]:
        """Return where servers listen: the one, the sentinels, or some nodes of a cluster."""
        return [
            replace(place, host=self.host or place.host, port=self.port or place.port)
            for place in self.url.places
        ]

    def login(self, *, sentinel: bool = False) -> tuple[str | None, str | None]:
        """Return user and password, of the servers or of the sentinels; None where there is none."""
        if sentinel:
            query = self.url.query
            return query.get("sentinel_username"), query.get("sentinel_password")
        user, password = self.url.login
        given = None if self.password is None else self.password.get_secret_value()
        return self.username or user, given or password

    def database(self) -> int:
        """The number of the database: `db`, else the URL's."""
        return self.url.database if self.db is None else self.db

    def client_name(self) -> str:
        """Return what connections are called in CLIENT LIST, which takes no blanks."""
        return re.sub(r"[^!-~]", "_", self.prefix)

    def tls(self, name: str) -> str | None:
        """Return what the URL says of TLS by one of its names, such as `ssl_certfile`."""
        if name == "ssl_ca_certs" and self.tls_ca_file is not None:
            return self.tls_ca_file
        said = self.url.query.get(name)
        return said.lower() if said is not None and name in {"ssl_cert_reqs", "ssl_check_hostname"} else said
