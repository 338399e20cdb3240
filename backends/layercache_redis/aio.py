"""Sends commands from event loops: what is issued in one turn of a loop travels together.

Rules:
1. Answers come in the order of the commands, so each is owed to somebody in that order, and stays owed when its caller
   has left: a cancelled or late caller never shifts another's answer.
2. Connections belong to the running loop. An async generator that is left suspended in the loop closes them when the
   loop shuts its generators down, as `asyncio.run` and every server do at their end.
3. A connection whose oldest answer is late gets no more commands while another can be had, so a slow answer
   holds up at most what was sent in the few milliseconds behind it.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from math import inf
from threading import local
from time import monotonic
from typing import Any, Final, Protocol, TypeAlias, TypeVar, cast

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from layercache.errors import BackendError
from layercache_redis.circuit import Circuit
from layercache_redis.driver import (
    Servers,
    before,
    forget_unsent,
    no_answer,
    translated,
    unreachable,
)
from layercache_redis.options import Place
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

__all__ = ["AioDriver"]

R = TypeVar("R")

_LATE: Final = 0.005
"""Seconds after which an answer is late. Eight times the slowest of a million on loopback here."""

_CONNECTIONS: Final = 4
"""To one server from one loop, unless `max_connections` is less: one does the work, others go round late answers."""

_Replies: TypeAlias = "asyncio.Future[list[Any]]"


class _Taker(Protocol):
    """Who is told the replies to what was sent, or why there are none: a future, or what stands for several."""

    def done(self) -> bool:
        """Return whether nobody waits any more."""
        ...

    def set_result(self, replies: list[Any], /) -> None: ...
    def set_exception(self, error: RedisError, /) -> None: ...


_Owed: TypeAlias = tuple[_Taker, int, float, float]
"""An answer that somebody waits for, or waited: who takes it, of how many replies, when it was sent, its deadline.
No class: making one takes as long as packing what is sent."""


class _Connection(asyncio.Protocol):
    """One connection, shared by all tasks of its loop. Times are those of `time.monotonic`.

    Attributes:
        circuit: is told what becomes of what was sent, for all who wait for it together.
    """

    circuit: Circuit | None = None

    def __init__(self, place: Place, timeout: float, loop: asyncio.AbstractEventLoop) -> None:
        self._place, self._timeout, self._loop = place, timeout, loop
        self._reader = new_reader()
        self._owed: deque[_Owed] = deque()
        self._replies: list[Any] = []  # of the first that is owed
        self._unsent: list[bytes | Callable[[], bytes]] = []
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._looks_at = inf  # when the timer goes off
        self.made = monotonic()
        self.ended: BaseException | None = None

    # -- sending

    def ask(self, data: bytes, count: int, sent: float, deadline: float) -> _Replies:
        """Return what becomes the `count` replies to `data`, which is written at the end of this turn of the loop."""
        future: _Replies = self._loop.create_future()
        self.send(data, count, sent, deadline, future)
        return future

    def send(
        self, data: bytes | Callable[[], bytes], count: int, sent: float, deadline: float, taker: _Taker
    ) -> None:
        """As `ask`, and tell `taker`. What is called for the data, is called when it is written."""
        if self.ended is not None:
            error = ConnectionEnded(str(self.ended))
            self._failed(error, sent)
            raise error
        self._owed.append((taker, count, sent, deadline))
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(data)
        # the second step of an operation has to be over before the first of one that began later
        if deadline < self._looks_at:
            self._look_later(deadline)

    def is_late(self, now: float) -> bool:
        # judged once in a turn of the loop, in which nothing is read: a long one is nobody's delay but its own
        return bool(self._owed) and not self._unsent and now - self._owed[0][2] > _LATE

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._transport is not None:
            self._transport.write(b"".join([part if isinstance(part, bytes) else part() for part in unsent]))

    # -- receiving, called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        owed, replies, gets = self._owed, self._replies, self._reader.gets
        answered = 0.0
        self._reader.feed(data)
        try:
            while (reply := gets()) is not False:
                if not owed:
                    self._end(ConnectionEnded(f"{self._place} answered what nobody asked"))
                    return
                taker, count, _, deadline = owed[0]
                replies.append(reply)
                if len(replies) == count:
                    owed.popleft()
                    answered = deadline
                    if type(replies[0]) is Refusal and self.circuit is not None:
                        self.circuit.refused(replies[0])
                    if not taker.done():
                        taker.set_result(replies)
                    self._replies = replies = []
        except RedisError as error:  # bytes that are no reply
            self._end(ConnectionEnded(f"{self._place}: {error}"))
        if answered and self.circuit is not None:
            self.circuit.answered(answered - self._timeout)

    def eof_received(self) -> bool:
        return False  # the transport closes, and connection_lost follows

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(ConnectionEnded(f"{self._place} ended the connection" + (f": {exc}" if exc else "")))

    # -- ending

    def _look_at_the_time(self) -> None:
        """Tell whoever waited long enough; give the connection up when an answer is twice as late as it may be."""
        self._looks_at = inf
        now = monotonic()
        if self._owed and self._owed[0][3] + self._timeout <= now:
            self._end(no_answer(self._place))
            return
        following = inf
        for taker, _, _, deadline in self._owed:
            if deadline <= now:
                self._tell(taker, no_answer(self._place), deadline)
            else:
                following = min(following, deadline)
        if self._owed:
            self._look_later(min(following, now + self._timeout))

    def _look_later(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._looks_at = at
        self._timer = self._loop.call_later(max(at - monotonic(), 0.0), self._look_at_the_time)

    def close(self) -> None:
        self._end(ConnectionEnded(f"the connection to {self._place} was closed"))

    def let_go(self, nothing: int) -> None:
        """In the child of a fork, hold the parent's socket no more: what has its number becomes a copy of `nothing`.

        Closed it cannot be, here: it would leave the poller of the parent's loop, which both processes share, and the
        parent hear of it no more.
        """
        socket = self._transport.get_extra_info("socket") if self._transport is not None else None
        number = -1 if socket is None else socket.fileno()
        if number >= 0:
            os.dup2(nothing, number, inheritable=False)

    def _end(self, error: RedisError) -> None:
        if self.ended is not None:
            return
        self.ended = error
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            if self._owed:
                forget_unsent(self._transport.get_extra_info("socket"))
            self._transport.abort()
        while self._owed:
            taker, _, _, deadline = self._owed.popleft()
            self._tell(taker, error, deadline)

    def _tell(self, taker: _Taker, error: RedisError, deadline: float) -> None:
        """Tell who waits still, and the circuit, that there will be no answer."""
        if not taker.done():
            self._failed(error, deadline - self._timeout)
            taker.set_exception(error)

    def _failed(self, error: RedisError, began: float) -> None:
        if self.circuit is not None:
            self.circuit.told(error, began, self.made)


class _Pool:
    """The connections of one loop to one server."""

    def __init__(self, place: Place, servers: Servers) -> None:
        self._place, self._servers = place, servers
        self._timeout = servers.options.timeout
        self._most = min(servers.options.max_connections, _CONNECTIONS)
        self._connections: list[_Connection] = []
        self._opening: asyncio.Task[_Connection] | None = None
        self._is_closed = False
        self.circuit = servers.circuit(place)

    def exchange(self, commands: Sequence[Command], began: float, deadline: float) -> Awaitable[list[Any]]:
        """Send `commands`; what is returned becomes their replies. No coroutine: what its connection does is enough.

        Args:
            began: when the operation did, monotonic seconds.
            deadline: when it has to be over.
        """
        if self.circuit.is_open:
            self.circuit.check()
        connection = self._best(began)
        if connection is None:
            return self._exchange_anew(commands, began, deadline)
        return connection.ask(packed(commands), len(commands), began, deadline)

    def tell(self, call: Callable[[], bytes], taker: _Taker, began: float) -> bool:
        """Send what `call` returns at the end of this turn of the loop; `taker` is told its one reply. Return False,
        and do nothing, where that would have to wait for a connection."""
        if self.circuit.is_open:
            self.circuit.check()
        connection = self._best(began)
        if connection is not None:
            connection.send(call, 1, began, began + self._timeout, taker)
        return connection is not None

    async def _exchange_anew(self, commands: Sequence[Command], began: float, deadline: float) -> list[Any]:
        connection = await self._opened(began, deadline)
        return await connection.ask(packed(commands), len(commands), monotonic(), deadline)

    def _best(self, now: float) -> _Connection | None:
        """Return a connection to use now; None where one has to be opened."""
        for connection in self._connections:
            if connection.ended is not None:
                self._connections = [other for other in self._connections if other.ended is None]
                return self._best(now)
            if not connection.is_late(now):
                return connection
        return self._connections[-1] if len(self._connections) >= self._most else None

    async def _opened(self, began: float, deadline: float) -> _Connection:
        """Wait for a connection that all who need one now share; who leaves does not take it along."""
        if self._is_closed:  # nobody would close it
            raise ConnectionEnded(f"the connections to {self._place} were closed")
        opening = self._opening or self._open()
        done, _ = await asyncio.wait({opening}, timeout=deadline - monotonic())
        if not done:
            error: RedisError = no_answer(self._place)
            self.circuit.told(error, began)
            raise error
        try:
            return opening.result()
        except asyncio.CancelledError:  # not ours: the loop is ending
            raise ConnectionEnded(f"the connection to {self._place} was given up") from None
        except RedisError as error:
            self.circuit.told(error, began)
            raise

    def _open(self) -> asyncio.Task[_Connection]:
        opening = self._opening = asyncio.create_task(self._connect(self._servers.greeting()))

        def opened(task: asyncio.Task[_Connection]) -> None:
            self._opening = None
            if not task.cancelled() and task.exception() is None:
                task.result().circuit = self.circuit
                self._connections.append(task.result())
                if self._is_closed:  # it was made in the turn in which this was closed
                    task.result().close()

        opening.add_done_callback(opened)
        return opening

    async def _connect(self, greeting: Greeting) -> _Connection:
        return await _connected(self._place, self._servers, greeting, monotonic() + self._timeout)

    def let_go(self, nothing: int) -> None:
        for connection in self._connections:
            connection.let_go(nothing)

    def close(self) -> None:
        self._is_closed = True
        if self._opening is not None:
            self._opening.cancel()
        for connection in self._connections:
            connection.close()


async def _connected(place: Place, servers: Servers, greeting: Greeting, deadline: float) -> _Connection:
    """Return a connection that was greeted, by `deadline`; raises an error of redis-py."""
    loop = asyncio.get_running_loop()
    timeout = servers.options.timeout
    connection = _Connection(place, timeout, loop)
    said = greeting.commands()
    try:
        async with asyncio.timeout(deadline - monotonic()):
            if place.path is not None:
                await loop.create_unix_connection(lambda: connection, place.path)
            else:
                context = tls_context(servers.options, place)
                await loop.create_connection(lambda: connection, place.host, place.port, ssl=context)
            greeting.check(await connection.ask(packed(said), len(said), monotonic(), deadline))
    except OSError as error:  # asyncio's TimeoutError and the errors of TLS are among them
        connection.close()
        raise unreachable(place, error) from error
    except ConnectionEnded as error:
        raise RedisConnectionError(str(error)) from error
    except BaseException:
        connection.close()
        raise
    return connection


class _LoopPools:
    """What one loop has.

    Attributes:
        direct: where everything goes, if that is one place.
        is_left: whether the loop is one of the process that this one is a fork of.
    """

    def __init__(self, servers: Servers, direct: Place | None) -> None:
        self._servers, self.is_left = servers, False
        self._pools: dict[Place, _Pool] = {}
        self.direct = None if direct is None else self.pool(direct)
        self.tether: AsyncGenerator[None, None] | None = None

    def pool(self, place: Place) -> _Pool:
        found = self._pools.get(place)
        if found is None:
            found = self._pools[place] = _Pool(place, self._servers)
        return found

    def let_go(self, nothing: int) -> None:
        """In the child of a fork: the loop is the parent's, and nothing that it has is touched any more."""
        self.is_left = True
        for pool in self._pools.values():
            pool.let_go(nothing)
        if self.tether is not None:
            with suppress(
                StopIteration, RuntimeError
            ):  # it ends at once, or is at its end in a thread of the parent
                self.tether.aclose().__await__().send(None)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()


class _Own(local):
    """The loop that a thread used last: looking it up among all takes a twentieth of a read."""

    loop: asyncio.AbstractEventLoop | None = None
    pools: _LoopPools | None = None


class AioDriver:
    """Awaits the server, for at most `timeout` an operation."""

    def __init__(self, servers: Servers, topology: Topology) -> None:
        self._servers, self._topology = servers, topology
        self._timeout = servers.options.timeout
        self._begin()

    async def run(self, steps: Steps[R]) -> R:
        """Drive an operation to its result.

        Raises `BackendError` for what the server or the way to it did.
        """
        began = monotonic()
        deadline = began + self._timeout
        pools = self._own.pools
        if pools is None or self._own.loop is not asyncio.get_running_loop():
            pools = self._loops.get(asyncio.get_running_loop()) or await self._new_loop()
        direct = pools.direct
        try:
            commands = next(steps)
            while True:
                if direct is not None:
                    replies = await direct.exchange(commands, began, deadline)
                else:
                    asking = _Asking(self._servers, pools, began, deadline)
                    replies = await self._topology.exchange(asking, commands)
                commands = steps.send(replies)
        except StopIteration as end:
            result: R = end.value
            return result
        except RedisError as error:
            raise self.failure(began, error) from error

    def tell(self, call: Callable[[], bytes], taker: _Taker, began: float) -> bool:
        """Send what `call` returns at the end of this turn of the loop; `taker` is told its one reply, or a `failure`.
        Return False, and do nothing, where something has to be waited for before. Raises `CircuitOpen`.

        Args:
            began: when the operation did, monotonic seconds.
        """
        pools, place = self._own.pools, self._topology.only
        if pools is None or place is None or self._own.loop is not asyncio.get_running_loop():
            return False
        return pools.pool(place).tell(call, taker, began)

    def failure(self, began: float, error: RedisError) -> BackendError:
        """Return what `error` is, on the way to a server or from it, of what began at `began`."""
        self._topology.forget()
        self._servers.doubt(began, error)
        return translated(self._servers.backend, error)

    async def _new_loop(self) -> _LoopPools:
        loop = asyncio.get_running_loop()
        # a loop that was closed without shutting its generators down leaves its tether behind
        for closed in [other for other in list(self._loops) if other.is_closed()]:
            self._loops.pop(closed, None)
        pools = self._loops[loop] = _LoopPools(self._servers, self._topology.direct)
        pools.tether = self._tethered(loop, pools)
        await anext(pools.tether)  # it yields before it awaits anything, so no other task comes between
        self._own.loop, self._own.pools = loop, pools
        return pools

    async def _tethered(
        self, loop: asyncio.AbstractEventLoop, pools: _LoopPools
    ) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            if not pools.is_left:
                self._own.loop = self._own.pools = None
                self._loops.pop(loop, None)
                pools.close()
                await asyncio.sleep(0)  # the transports close their sockets in the next turn

    async def aclose(self) -> None:
        """Close what belongs to the running loop."""
        pools = self._loops.pop(asyncio.get_running_loop(), None)
        if pools is not None and pools.tether is not None:
            await pools.tether.aclose()

    def after_fork(self) -> None:
        left = list(self._loops.values())
        self._begin()
        if left:
            nothing = os.open(os.devnull, os.O_RDWR)
            for pools in left:
                pools.let_go(nothing)
            os.close(nothing)

    def _begin(self) -> None:
        self._loops: dict[asyncio.AbstractEventLoop, _LoopPools] = {}
        self._own = _Own()


class _Asking:
    """How a topology reaches servers from a loop: all at once, by one deadline."""

    def __init__(self, servers: Servers, pools: _LoopPools, began: float, deadline: float) -> None:
        self._servers, self._pools, self._began, self._deadline = servers, pools, began, deadline

    async def exchange(self, place: Place, commands: Sequence[Command]) -> list[Any]:
        return await self._pools.pool(place).exchange(commands, self._began, self._deadline)

    async def exchange_all(self, parts: Sequence[tuple[Place, Sequence[Command]]]) -> list[list[Any]]:
        if len(parts) == 1:
            return [await self.exchange(*parts[0])]
        return await asyncio.gather(*(self.exchange(place, commands) for place, commands in parts))

    async def pause(self, seconds: float) -> bool:
        if self._deadline - monotonic() < seconds:
            return False
        await asyncio.sleep(seconds)
        return True

    async def sentinel(self, place: Place, command: Command) -> Any:
        self._servers.circuit(place).check()
        deadline = before(self._deadline)
        connection = await _connected(place, self._servers, self._servers.greeting(sentinel=True), deadline)
        try:
            (reply,) = await connection.ask(packed([command]), 1, monotonic(), deadline)
        finally:
            connection.close()
        return reply
