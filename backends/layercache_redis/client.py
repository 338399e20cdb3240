"""The servers of a backend through redis-py's own client: for tools, which are no part of what a service does.

A service asks over the wire of our own (`sync`, `aio`), which cares for microseconds; tools care for INFO and SCAN.

Rule: nothing is tried twice, and no command takes longer than the backend's `timeout`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from time import monotonic, sleep
from typing import Any, Final, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry

from layercache_redis.options import Place, RedisOptions

__all__ = ["Reached", "batches", "client_of", "connected"]

_COUNT: Final = 200  # keys that one SCAN looks at: a tenth of a millisecond of the server's time
_REST: Final = 3  # times as long as a step took, others are served before the next


class Reached(NamedTuple):
    """The servers of one backend.

    Attributes:
        whole: sends a command to the server of its key.
        primaries: each server that has a share of the keys, by where it listens.
    """

    whole: Any
    primaries: Mapping[str, Any]


@contextmanager
def connected(options: RedisOptions) -> Generator[Reached, None, None]:
    """Reach the servers that `options` name.

    Raises errors of redis-py, all of them `RedisError`, and some not before the first command.
    """
    with ExitStack() as opened:
        try:
            yield _reached(options, opened)
        except RedisClusterException as error:  # which is no RedisError
            raise RedisConnectionError(str(error)) from error


def _reached(options: RedisOptions, opened: ExitStack) -> Reached:
    if options.url.is_cluster:
        cluster = _cluster_of(options)
        opened.callback(cluster.close)
        nodes = cluster.get_primaries()
        return Reached(cluster, {node.name: cluster.get_redis_connection(node) for node in nodes})
    place = _primary_of(options) if options.url.is_sentinel else options.places()[0]
    client = opened.enter_context(client_of(options, place))
    return Reached(client, {str(place): client})


def client_of(options: RedisOptions, place: Place, *, sentinel: bool = False) -> redis.Redis:
    """Return a client, not connected yet, of the server or sentinel at `place`."""
    where: dict[str, Any] = (
        {"host": place.host, "port": place.port} if place.path is None else {"unix_socket_path": place.path}
    )
    database = 0 if sentinel else options.database()
    return redis.Redis(**where, db=database, **_arguments(options, place, sentinel=sentinel))


def _cluster_of(options: RedisOptions) -> RedisCluster:
    places = options.places()
    nodes = [ClusterNode(place.host, place.port) for place in places]
    try:
        # slots that nobody has are for the tool to tell of
        return RedisCluster(
            startup_nodes=nodes, require_full_coverage=False, **_arguments(options, places[0])
        )
    except IndexError as error:  # it takes the first node that has slots
        raise RedisConnectionError("no node of the cluster has any slots") from error


def _primary_of(options: RedisOptions) -> Place:
    service, said, cause = options.url.service, "there are none", None
    for place in options.places():
        try:
            with client_of(options, place, sentinel=True) as sentinel:
                found: Any = sentinel.sentinel_get_master_addr_by_name(service)
        except RedisError as error:
            said, cause = f"{place}: {error}", error
            continue
        if found is not None:
            return Place(_text(found[0]), int(found[1]), tls=place.tls)
        said = f"{place} knows no service of that name"
    raise RedisConnectionError(f"no sentinel names the primary of {service!r}: {said}") from cause


def _arguments(options: RedisOptions, place: Place, *, sentinel: bool = False) -> dict[str, Any]:
    user, password = options.login(sentinel=sentinel)
    given: dict[str, Any] = {
        "username": user if password is not None else None,
        "password": password,
        "socket_timeout": options.timeout,
        "socket_connect_timeout": options.timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    if not place.tls:
        # who we are is no news to a server, and a user may lack the right to say it
        return given | {"driver_info": None}
    # Over TLS 1.3 the server's session tickets arrive after the handshake, and redis-py takes them for an answer that
    # nobody asked for: there CLIENT SETINFO stays, whose reply is read after them.
    required, check = options.tls("ssl_cert_reqs"), options.tls("ssl_check_hostname")
    return given | {
        "ssl": True,
        "ssl_ca_certs": options.tls("ssl_ca_certs"),
        "ssl_certfile": options.tls("ssl_certfile"),
        "ssl_keyfile": options.tls("ssl_keyfile"),
        "ssl_cert_reqs": "none" if required == "none" else "required",
        "ssl_check_hostname": check != "false" and required not in {"none", "optional"},
    }


def _text(said: Any) -> str:
    return said.decode() if isinstance(said, bytes) else str(said)


def batches(
    server: Any, pattern: bytes | None = None, pause: Callable[[float], object] = sleep
) -> Iterator[list[bytes]]:
    """Yield the keys of a server that match, some at a time, none of those left out that are there all the while.

    The work between two of them counts: after each, three times as long as it took is left to others. A key may come
    twice.
    """
    cursor = 0
    while True:
        began = monotonic()
        cursor, keys = server.scan(cursor, match=pattern, count=_COUNT)
        yield keys
        if cursor == 0:
            return
        pause(_REST * (monotonic() - began))
