"""What both drivers share: how redis-py is set up, and which of its errors mean what.

redis-py by itself retries for seconds and waits for ever; here every wait has the backend's
`timeout` and nothing is retried. RESP2 without CLIENT SETINFO makes connecting one round trip at most (AUTH).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from layercache.errors import BackendError, BackendTimeout
from layercache_redis.options import RedisOptions

__all__ = ["connection_settings", "translated"]


def connection_settings(options: RedisOptions, parse_url: Callable[[str], Any], retry: Any) -> dict[str, Any]:
    """Return the arguments of a connection pool."""
    given: dict[str, Any] = {
        **parse_url(options.url.text),
        "max_connections": options.max_connections,
        "timeout": options.timeout,
        "socket_timeout": options.timeout,
        "socket_connect_timeout": options.timeout,
        "retry": retry,
        "protocol": 2,
    }
    if not options.url.text.startswith("rediss:"):
        # Over TLS 1.3 the server's session tickets arrive after the handshake, and redis-py takes them for
        # an answer that nobody asked for: there CLIENT SETINFO stays, whose reply is read after them.
        given["driver_info"] = None
    for name in ("host", "port", "db", "username"):
        if (value := getattr(options, name)) is not None:
            given[name] = value
    if options.password is not None:
        given["password"] = options.password.get_secret_value()
    if options.tls_ca_file is not None:
        given["ssl_ca_certs"] = options.tls_ca_file
    return given


def translated(backend: str, error: RedisError | OSError) -> BackendError:
    """Return the error of ours for a driver's; addresses are in it, passwords never are."""
    if isinstance(error, RedisTimeoutError | TimeoutError):
        return BackendTimeout(backend, f"no answer in time: {error}")
    return BackendError(backend, f"{type(error).__name__}: {error}")
