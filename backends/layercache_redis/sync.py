"""Sends commands from threads, over connections that they share.

redis-py spends about 15 µs a command between a call and its socket (docs/decisions/0007); here a call takes an idle
connection from a deque, sends one piece, and reads until all replies are there.

Rules:
1. Whoever does not read all of its answers closes the connection: nobody reads another's.
2. Every wait, for a connection as well, ends at the operation's deadline.
3. A kept connection that the server has ended since, or has sent anything over, is not used again: it is looked at
   before each use, which takes 0.3 µs. Nothing is ever sent twice.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError

from layercache.inline import run
from layercache_redis.driver import (
    Servers,
    before,
    forget_unsent,
    no_answer,
    translated,
    unreachable,
)
from layercache_redis.options import Place, RedisOptions
from layercache_redis.topology import Topology
from layercache_redis.wire import (
    Command,
    ConnectionEnded,
    Greeting,
    Refusal,
    Steps,
    new_reader,
    packed,
    tls_context,
)

__all__ = ["SyncConnection", "SyncDriver"]

R = TypeVar("R")

_CHUNK = 1 << 16

_making = threading.RLock()
"""Held while a socket is made and noted: a fork waits for that, or its child would not know of one that it has."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_making.acquire, after_in_parent=_making.release, after_in_child=_making.release
    )


class SyncConnection:
    """One connection to one server, for one caller at a time.

    Args:
        deadline: monotonic seconds by which the server has answered the greeting.
        sockets: where its own is found until it is closed.

    Raises an error of redis-py where that fails.
    """

    def __init__(
        self,
        place: Place,
        options: RedisOptions,
        greeting: Greeting,
        deadline: float,
        sockets: set[socket.socket],
    ) -> None:
        self.place = place
        self._timeout = options.timeout
        self._sockets = sockets
        try:
            self._socket = _connected(place, options, max(deadline - monotonic(), 0.001), sockets)
        except OSError as error:
            raise unreachable(place, error) from error
        self.made = monotonic()
        self._limit = 0.0  # the time-out that the socket has
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._reader = new_reader()
        self._send, self._recv = self._socket.sendall, self._socket.recv
        self._feed, self._gets = self._reader.feed, self._reader.gets
        try:
            said = greeting.commands()
            greeting.check(self.exchange(packed(said), len(said), deadline))
        except ConnectionEnded as error:
            self.close()
            raise RedisConnectionError(str(error)) from error
        except BaseException:
            self.close()
            raise

    def exchange(self, data: bytes, count: int, deadline: float) -> list[Any]:
        """Send `data` and return the `count` replies to it."""
        # the limit is set anew only when the deadline is much nearer, for it costs a system call
        left = deadline - monotonic()
        if not left <= self._limit * 1.05 or left < self._limit * 0.9:
            self._set_limit(left)
        replies: list[Any] = []
        gets, feed, recv = self._gets, self._feed, self._recv
        try:
            self._send(data)
            left = deadline - monotonic()
            if left < self._limit * 0.9:
                self._set_limit(left)
            while True:
                chunk = recv(_CHUNK)
                if not chunk:
                    raise ConnectionEnded(f"{self.place} ended the connection")
                feed(chunk)
                while (reply := gets()) is not False:
                    replies.append(reply)
                if len(replies) >= count:
                    break
                self._set_limit(deadline - monotonic())
        except TimeoutError as error:
            raise no_answer(self.place) from error
        except (OSError, InvalidResponse) as error:
            raise ConnectionEnded(f"{self.place}: {error}") from error
        if len(replies) > count:
            raise ConnectionEnded(f"{self.place} answered what nobody asked")
        return replies

    def is_stale(self) -> bool:
        """Whether the server has ended it, or sent what nobody asked for."""
        return bool(self._poll.poll(0)) and not self._has_only_housekeeping()

    def _has_only_housekeeping(self) -> bool:
        """Whether what can be read is TLS's own, such as the session tickets that follow a handshake."""
        if not isinstance(self._socket, ssl.SSLSocket):
            return False
        self._set_limit(0.0)
        try:
            self._recv(1)
        except (ssl.SSLWantReadError, TimeoutError):
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        self._socket.close()
        self._sockets.discard(self._socket)

    def abandon(self) -> None:
        """As `close`, in the middle of an exchange: what was not sent yet is not sent any more."""
        forget_unsent(self._socket)
        self._socket.close()

    def shut(self) -> None:
        """End an exchange that another thread waits in: it sees the connection end."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _set_limit(self, left: float) -> None:
        self._limit = max(left, 0.001)
        self._socket.settimeout(self._limit)


def _connected(
    place: Place, options: RedisOptions, limit: float, sockets: set[socket.socket]
) -> socket.socket:
    """Return a socket that is connected, and has been one of `sockets` from before it was."""
    if place.path is not None:
        return _opened(socket.AF_UNIX, place.path, limit, sockets)
    context = tls_context(options, place)
    failed: OSError | None = None
    for family, _, _, _, address in socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM):
        try:
            made = _opened(family, address, limit, sockets)
        except OSError as error:
            failed = error
            continue
        return made if context is None else _secured(made, context, place.host, sockets)
    raise failed or OSError(f"{place.host} has no address")


def _opened(family: int, address: Any, limit: float, sockets: set[socket.socket]) -> socket.socket:
    with _making:
        made = socket.socket(family)
        sockets.add(made)
    try:
        made.settimeout(limit)
        if family != socket.AF_UNIX:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        made.connect(address)
    except BaseException:
        made.close()
        sockets.discard(made)
        raise
    return made


def _secured(
    plain: socket.socket, context: ssl.SSLContext, host: str, sockets: set[socket.socket]
) -> socket.socket:
    made = plain
    try:
        with _making:
            made = context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
            sockets.add(made)
        made.do_handshake()
    except BaseException:
        made.close()
        sockets.discard(made)
        raise
    finally:
        sockets.discard(plain)  # which has no connection any more
    return made


class _Pool:
    """The connections to one server: at most so many, handed from caller to caller, the warmest first."""

    def __init__(
        self, place: Place, servers: Servers, connect: Callable[[Place, float], SyncConnection]
    ) -> None:
        self._place, self._servers, self._connect = place, servers, connect
        self._options = servers.options
        self.circuit = servers.circuit(place)
        self._idle: deque[SyncConnection] = deque()
        self._changed = threading.Condition()  # guards the three below; notified when a connection may be had
        self._made = 0
        self._waiting = 0
        self._closings = 0

    def exchange(self, commands: Sequence[Command], deadline: float) -> list[Any]:
        """Send `commands` and return their replies."""
        circuit = self.circuit
        if circuit.is_open:
            circuit.check()
        began, data = deadline - self._options.timeout, packed(commands)
        closings = self._closings
        connection = self._take(deadline)
        try:
            replies = connection.exchange(data, len(commands), deadline)
        except BaseException as error:  # a reply may still come, and would be taken for another's
            connection.abandon()
            self._uncount()
            if isinstance(error, RedisError):
                circuit.told(error, began, connection.made)
            raise
        circuit.answered(began)
        if type(replies[0]) is Refusal:
            circuit.refused(replies[0])
        if closings != self._closings:
            self._drop(connection)
        else:
            self._idle.append(connection)
            if self._servers.ended.is_set():
                self.close()  # nobody else will
            if self._waiting:
                with self._changed:
                    self._changed.notify()
        return replies

    def _take(self, deadline: float) -> SyncConnection:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                pass
            else:
                if not connection.is_stale():
                    return connection
                self._drop(connection)
                continue
            with self._changed:
                if self._made < self._options.max_connections:
                    self._made += 1
                    break
                # who gives one back looks at _waiting after it has put it there, so none is missed
                self._waiting += 1
                try:
                    if not self._idle and not self._changed.wait(deadline - monotonic()):
                        raise no_answer(self._place)
                finally:
                    self._waiting -= 1
        return self._counted(deadline)

    def _counted(self, deadline: float) -> SyncConnection:
        try:
            return self._connect(self._place, deadline)
        except BaseException as error:
            self._uncount()
            if isinstance(error, RedisError):
                self.circuit.told(error, deadline - self._options.timeout)
            raise

    def _drop(self, connection: SyncConnection) -> None:
        connection.close()
        self._uncount()

    def _uncount(self) -> None:
        with self._changed:
            self._made -= 1
            self._changed.notify()

    def close(self) -> None:
        """Close what is idle now, and what is in use when it is given back."""
        self._closings += 1
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took the last
                return
            self._drop(connection)


class SyncDriver:
    """Blocks the calling thread, for at most `timeout` an operation."""

    def __init__(self, servers: Servers, topology: Topology) -> None:
        self.servers, self._topology = servers, topology
        self._sockets: set[socket.socket] = set()  # in use or not, the log's and a probe's among them
        self.after_fork()

    def run(self, steps: Steps[R]) -> R:
        """Drive an operation to its result.

        Raises `BackendError` for what the server or the way to it did.
        """
        deadline = monotonic() + self.servers.options.timeout
        direct = self._direct
        try:
            commands = next(steps)
            while True:
                if direct is not None:
                    replies = direct.exchange(commands, deadline)
                else:
                    replies = run(self._topology.exchange(_Asking(self, deadline), commands))
                commands = steps.send(replies)
        except StopIteration as end:
            result: R = end.value
            return result
        except RedisError as error:
            self._topology.forget()
            self.servers.doubt(deadline - self.servers.options.timeout, error)
            raise translated(self.servers.backend, error) from error

    def connect_for_log(self, key: bytes) -> SyncConnection:
        """Return a connection for the log alone, to the server of `key`; raises an error of redis-py."""
        deadline = monotonic() + self.servers.options.timeout
        try:
            place = run(self._topology.place_of(_Asking(self, deadline), key))
            return self.connect(place, deadline, self.servers.greeting(part="-log"))
        except RedisError:
            self._topology.forget()
            raise

    def connect(self, place: Place, deadline: float, greeting: Greeting | None = None) -> SyncConnection:
        """Return a new connection to the server at `place`; raises an error of redis-py."""
        greeting = greeting or self.servers.greeting()
        return SyncConnection(place, self.servers.options, greeting, deadline, self._sockets)

    def forget_places(self) -> None:
        """Where servers are is in doubt: look anew."""
        self._topology.forget()

    def probe(self, place: Place) -> None:
        """Ask the server for an answer; raises an error of redis-py where there is none.

        Of a service that sentinels watch, the primary is asked, wherever it is by now.
        """
        deadline = monotonic() + self.servers.options.timeout
        if self.servers.options.url.is_sentinel:
            self._topology.forget()
            place = run(self._topology.place_of(_Asking(self, deadline, probing=True), b""))
        connection = self.connect(place, deadline)
        try:
            (reply,) = connection.exchange(packed([("PING",)]), 1, deadline)
        finally:
            connection.close()
        if isinstance(reply, Refusal) and reply.code != "NOPERM":
            raise RedisConnectionError(str(reply))

    def close(self) -> None:
        for pool in list(self._pools.values()):
            pool.close()

    def after_fork(self) -> None:
        # the parent's: it goes on with them, and its server is to see their end with its own
        for inherited in self._sockets:
            inherited.close()
        self._sockets.clear()
        self._pools: dict[Place, _Pool] = {}
        direct = self._topology.direct
        self._direct = None if direct is None else self.pool(direct)

    def pool(self, place: Place) -> _Pool:
        """Return the connections to a server, made when first asked for."""
        found = self._pools.get(place)
        return found or self._pools.setdefault(place, _Pool(place, self.servers, self.connect))


class _Asking:
    """How a topology reaches servers from a thread: one after the other, by one deadline."""

    def __init__(self, driver: SyncDriver, deadline: float, *, probing: bool = False) -> None:
        self._driver, self._deadline, self._probing = driver, deadline, probing

    async def exchange(self, place: Place, commands: Sequence[Command]) -> list[Any]:
        return self._driver.pool(place).exchange(commands, self._deadline)

    async def exchange_all(self, parts: Sequence[tuple[Place, Sequence[Command]]]) -> list[list[Any]]:
        return [await self.exchange(place, commands) for place, commands in parts]

    async def sentinel(self, place: Place, command: Command) -> Any:
        servers = self._driver.servers
        if not self._probing:
            servers.circuit(place).check()
        deadline = before(self._deadline)
        connection = self._driver.connect(place, deadline, servers.greeting(sentinel=True))
        try:
            (reply,) = connection.exchange(packed([command]), 1, deadline)
        finally:
            connection.close()
        return reply

    async def pause(self, seconds: float) -> bool:
        if self._deadline - monotonic() < seconds:
            return False
        return not self._driver.servers.ended.wait(seconds)
