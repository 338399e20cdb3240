"""What an error on the way to a server means, and what INFO says of it: findings, with what to do. Pure, no I/O."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    RedisClusterException,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from layercache.sizes import rough_size
from layercache.spi import Finding
from layercache_redis.options import RedisOptions

__all__ = ["counted", "listed", "of_info", "why_unreachable"]

_LAG: Final = 5  # seconds since a replica last said how far it is, which it does each second
_BEHIND: Final = 8 << 20  # bytes
_OLDEST: Final = {"Redis": (6, 2), "Valkey": (7, 2)}
_NO_POLICY: Final = "CONFIG SET maxmemory-policy allkeys-lru, and keep it in the server's own configuration"
_NO_BOUND: Final = (
    "CONFIG SET maxmemory to what the host can spare, and keep it in the server's own configuration"
)


# -- what keeps us from a server


def why_unreachable(options: RedisOptions, error: Exception) -> Finding:
    """Return what to do about `error`, with which no server could be asked anything."""
    causes = list(_causes(error))
    fix = next((fix for kinds, fix in _FIXES for cause in causes if isinstance(cause, kinds)), _GENERAL_FIX)
    if options.url.is_tls and fix is _TIMED_OUT:
        fix += "; and that it speaks TLS on this port"
    address = str(options.url)
    if options.host is not None or options.port is not None:
        address = listed(map(str, options.places()))
    return Finding("error", "connection", f"{address} cannot be used: {error}", fix)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


_TIMED_OUT: Final = (
    "check that the server runs and is not overloaded, and that no firewall stands between; where the way is long, "
    "raise timeout"
)
_NO_LOGIN: Final = (
    "give username and password of the backend, in .secrets.toml, as the server has them (ACL LIST)"
)
_NO_TLS: Final = (
    "check that the server speaks TLS on this port, that its certificate is for this host, and that tls_ca_file "
    "names who signed it"
)
_FIXES: Final[tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...]] = (
    (AuthenticationError, _NO_LOGIN),
    (NoPermissionError, "allow the user of the backend what is refused (ACL SETUSER)"),
    (BusyLoadingError, "wait: the server reads what it saved before it stopped"),
    (socket.gaierror, "check the name of the host in url, or in host"),
    (ssl.SSLError, _NO_TLS),
    (ConnectionRefusedError, "start the server, or have url (or host and port) say where it listens"),
    (FileNotFoundError, "start the server, or have url name its socket (or tls_ca_file its file)"),
    ((RedisTimeoutError, TimeoutError), _TIMED_OUT),
    (ResponseError, "check url: the kind of server that it names, and its database"),
    (
        RedisClusterException,
        "check that url names nodes of a cluster; a single server is redis://host:6379/0",
    ),
)
_GENERAL_FIX: Final = "check url: host and port, and whether the server wants TLS there (rediss://)"


# -- what a server says of itself


def of_info(info: Mapping[str, Any], options: RedisOptions) -> Iterator[Finding]:
    """Yield what follows from the answer to INFO, as redis-py parses it."""
    yield _version(info)
    yield from _mode(info, options)
    yield _memory(info)
    yield _policy(info)
    yield from _replicas(info)


def _version(info: Mapping[str, Any]) -> Finding:
    kind = "Valkey" if info.get("server_name") == "valkey" else "Redis"
    said = str(info.get("valkey_version") or info.get("redis_version") or "of no version")
    oldest = ".".join(map(str, _OLDEST[kind]))
    if tuple(map(int, re.findall(r"\d+", said)[:3])) >= _OLDEST[kind]:
        return Finding("ok", "version", f"{kind} {said}")
    return Finding(
        "error", "version", f"{kind} {said}, older than {oldest}", f"install {kind} {oldest} or newer"
    )


def _mode(info: Mapping[str, Any], options: RedisOptions) -> Iterator[Finding]:
    mode, url = info.get("server_mode") or info.get("redis_mode"), options.url
    if mode == "cluster" and not url.is_cluster:
        fix = "write the url as redis+cluster://host:6379"
        yield Finding("error", "topology", "a node of a cluster, which refuses the keys of the others", fix)
    elif mode == "sentinel":
        fix = "write the url as redis+sentinel://host:26379/service/0"
        yield Finding("error", "topology", "a sentinel, which stores nothing", fix)
    elif info.get("role") == "slave":
        fix = "have url name the primary, or the sentinels that know it"
        yield Finding("error", "topology", "a replica, which takes no writes", fix)
    elif mode == "standalone" and not url.is_sentinel:
        replicas = int(info.get("connected_slaves", 0))
        yield Finding("ok", "topology", f"standalone, {counted(replicas, 'replica')}")


def _memory(info: Mapping[str, Any]) -> Finding:
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    evicted = int(info.get("evicted_keys", 0))
    if not most:
        message = f"{rough_size(used)} used and no maxmemory: it grows until the system ends the server"
        return Finding("warning", "memory", message, _NO_BOUND)
    message = f"{rough_size(used)} of {rough_size(most)} used ({used / most:.0%}), {evicted:,} keys evicted"
    if info.get("maxmemory_policy") == "noeviction" and used >= most:
        return Finding("error", "memory", f"{message}: writes are refused", _NO_POLICY)
    return Finding("ok", "memory", message)


def _policy(info: Mapping[str, Any]) -> Finding:
    policy = str(info.get("maxmemory_policy", "unknown"))
    if policy == "noeviction":
        message = "noeviction: with the memory used up, writes are refused instead of old entries dropped"
        return Finding("warning", "memory policy", message, _NO_POLICY)
    return Finding("ok", "memory policy", policy)


def _replicas(info: Mapping[str, Any]) -> Iterator[Finding]:
    written = int(info.get("master_repl_offset", 0))
    for number in range(int(info.get("connected_slaves", 0))):
        replica = info.get(f"slave{number}")
        if not isinstance(replica, Mapping):
            continue
        behind, lag = written - int(replica.get("offset", 0)), int(replica.get("lag", 0))
        state = str(replica.get("state", "online"))
        where = f"{replica.get('ip')}:{replica.get('port')}"
        message = f"{where} {state}, {rough_size(max(behind, 0))} behind, heard of {lag} s ago"
        if state == "online" and behind < _BEHIND and lag < _LAG:
            yield Finding("ok", "replication", message)
        else:
            fix = "look at the replica's host and network: after a failover, what it has not got was never deleted"
            yield Finding("warning", "replication", message, fix)


# -- how it is said


def listed(names: Iterable[str]) -> str:
    """Return names as a sentence has them."""
    return ", ".join(names)


def counted(count: int, one: str, several: str | None = None) -> str:
    """Return a count with its noun, in the plural where it is not one."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"
