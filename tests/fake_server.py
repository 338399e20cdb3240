"""A server of our own making: it speaks RESP, keeps what is set, and misbehaves as a test tells it to.

What the scripts of `set` and `incr` do is done by hand here, as far as one key goes. Whoever wants to follow the log is
refused, so a cache on this server never knows its stamp and asks for it with every value: three replies a `get`, two
round trips the first `set`.

Rule: nothing is sent that the test did not have a say in. Each command but the greeting is given to `misbehave`, with
the connection and the honest answer.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Self, TypeAlias, cast

from hiredis import Reader
from waiting import PATIENCE

from layercache_redis.scripts import SET

__all__ = ["Client", "Command", "FakeServer", "honestly", "in_pieces"]

Command: TypeAlias = list[bytes]

_GREETING = {b"CLIENT", b"AUTH", b"SELECT"}


class Client(asyncio.Protocol):
    """One connection that was made to the server.

    Attributes:
        number: of connections of callers and probes, in the order they were made; the log's have none.
        segments: the commands that came together, one list for each time that something came.
    """

    def __init__(self, server: FakeServer) -> None:
        self._server, self._parser = server, Reader()
        self._commands: asyncio.Queue[Command] = asyncio.Queue()
        self.number = -1
        self.is_log = False
        self.segments: list[list[Command]] = []

    @property
    def commands(self) -> list[Command]:
        return [command for segment in self.segments for command in segment]

    def say(self, data: bytes) -> None:
        """Send these bytes."""
        self._transport.write(data)

    def hang_up(self) -> None:
        """End the connection after what was said."""
        self._transport.close()

    def reset(self) -> None:
        """End the connection at once, as a crash would."""
        with suppress(OSError):
            held = self._transport.get_extra_info("socket")
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._transport.abort()

    def read_nothing_for(self, seconds: float) -> None:
        self._transport.pause_reading()
        asyncio.get_running_loop().call_later(seconds, self._transport.resume_reading)

    # -- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.connected.add(self)
        self._obeying = asyncio.get_running_loop().create_task(self._obey_all())

    def data_received(self, data: bytes) -> None:
        self._parser.feed(data)
        self.segments.append([])
        while (command := self._parser.gets()) is not False:
            self.segments[-1].append(command)
            self._commands.put_nowait(command)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connected.discard(self)
        self._obeying.cancel()

    async def _obey_all(self) -> None:
        while True:
            await self._server.obey(self, await self._commands.get())


Misbehaviour: TypeAlias = Callable[[Client, Command, bytes], Awaitable[None]]


async def honestly(client: Client, command: Command, answer: bytes) -> None:
    client.say(answer)


async def in_pieces(client: Client, command: Command, answer: bytes) -> None:
    """Answer a few bytes at a time, each in a turn of the loop of its own."""
    for at in range(0, len(answer), 5):
        client.say(answer[at : at + 5])
        await asyncio.sleep(0)


class FakeServer:
    """Runs in the running loop (`async with`), or in a thread of its own (`with`).

    Attributes:
        values: what is kept, by name.
        clients: the connections of callers and of probes, in the order they were made.
        connected: those that stand now, of the log as well.
        misbehave: sends the answer, or something else; may be replaced at any time.
    """

    def __init__(self, misbehave: Misbehaviour = honestly) -> None:
        self.misbehave = misbehave
        self.values: dict[bytes, bytes] = {}
        self.clients: list[Client] = []
        self.connected: set[Client] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    # -- what it does

    async def obey(self, client: Client, command: Command) -> None:
        """Answer a greeting, refuse the log, leave all else to `misbehave`."""
        if command[0] in _GREETING:
            client.is_log = b"-log:" in command[-1]
            if not client.is_log and client.number < 0:
                client.number = len(self.clients)
                self.clients.append(client)
            client.say(b"+OK\r\n")
        elif client.is_log:
            client.say(b"-ERR no log here\r\n")
        else:
            await self.misbehave(client, command, self.answer(command))

    def answer(self, command: Command) -> bytes:
        """Obey one command and return the honest answer."""
        match command:
            case [b"PING"]:
                return b"+PONG\r\n"
            case [b"GET", at]:
                return _bulk(self.values.get(at))
            case [b"GETRANGE", at, first, last]:
                return _bulk(self.values.get(at, b"")[int(first) : int(last) + 1])
            case [b"MGET", *ats]:
                return b"*%d\r\n%s" % (len(ats), b"".join(_bulk(self.values.get(at)) for at in ats))
            case [b"PTTL", at]:
                return b":%d\r\n" % (60_000 if at in self.values else -2)
            case [b"EVALSHA", sha, *_] if sha == SET.sha.encode():
                return self._set(command)
        return b"-ERR unknown command\r\n"

    def _set(self, command: Command) -> bytes:
        count = int(command[2])
        keys, arguments = command[3 : 3 + count], command[3 + count :]
        pairs, expected, proposed, frames = int(arguments[0]), arguments[1], arguments[2], arguments[7:]
        stamp = self.values.setdefault(keys[2 * pairs], proposed)
        if stamp != expected:
            return _bulk(stamp)
        for index in range(pairs):
            self.values[keys[2 * index]] = frames[2 * index]
        return b":1\r\n"

    # -- running it

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Client(self), "127.0.0.1", 0, backlog=100)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        for _ in range(5):  # who was accepted a moment ago is connected some turns later
            await asyncio.sleep(0)
        while self.connected:
            for client in list(self.connected):
                client.reset()
            await asyncio.sleep(0)

    def __enter__(self) -> Self:
        started = threading.Event()

        async def main() -> None:
            self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
            async with self:
                started.set()
                await self._stopped.wait()

        self._thread = threading.Thread(target=lambda: asyncio.run(main()), name="fake server")
        self._thread.start()
        assert started.wait(PATIENCE)
        return self

    def between_commands(self, act: Callable[[], object]) -> None:
        """Do something in the server's thread; return when it is done."""
        done = threading.Event()

        def acting() -> None:
            act()
            done.set()

        self._loop.call_soon_threadsafe(acting)
        assert done.wait(PATIENCE)

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


def _bulk(data: bytes | None) -> bytes:
    return b"$-1\r\n" if data is None else b"$%d\r\n%s\r\n" % (len(data), data)
