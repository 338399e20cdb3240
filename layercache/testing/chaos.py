"""A network that fails when it is told to: a proxy in front of a server, for tests of what stands behind it.

Rules:
1. A verb returns when it is so: after `down` nobody connects, after `freeze` nothing gets through.
2. A connection on which something was lost never passes anything on again. Only who has it can end it.
3. What a client had on its way to the server never arrives where it resets the connection, and does where it closes it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from random import Random
from typing import Any, Final, Self

from layercache.durations import Duration, parse_duration

__all__ = ["Chaos", "Fault"]

_PIECE: Final = 1 << 16
_ON_THE_WAY: Final = 1024  # pieces of one direction; a sender of more has to wait, as with any network
_DRIPS: Final = 0.01  # seconds between what drips
_RESET: Final = struct.pack("ii", 1, 0)  # linger for no time at all: closing sends a reset

_OnTheWay = asyncio.Queue[tuple[float, bytes]]  # when each piece is due; an empty one is the end


class Fault:
    """What is wrong from now on: until `end`, the end of its `with` block, or `Chaos.heal`."""

    def __init__(self, end: Callable[[], None]) -> None:
        self.end = end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end()


class Chaos:
    """Passes on all that comes by, between clients and the server at `port`, until it is told otherwise.

        with Chaos(port) as chaos:
            caches = Caches({"backends": {"shared": {"type": "redis", "url": chaos.url}}, ...})
            with chaos.down():
                assert caches["stock"].get("quote:AAPL") is None

    Verbs may be combined, and each of them replaces what it said before. What they do begins at once and ends with
    `heal`, or with the block of `with chaos.freeze():`. The proxy turns on a thread and in a loop of its own: tests of
    either kind may use it, and call its verbs from any thread or task. A server that is down itself is seen through it
    as connections that are made and reset at once.

    Args:
        port: of the server.
        host: of the server. The proxy itself listens on loopback.
        seed: of all that is left to chance, in the order in which it comes by.

    Attributes:
        port: of the proxy.
        connections: how many clients have connected.
    """

    def __init__(self, port: int, host: str = "127.0.0.1", *, seed: int = 7) -> None:
        self._server = (host, port)
        self._weather = _Weather(Random(seed))  # noqa: S311
        self.port = self.connections = 0
        self._flapping: asyncio.Task[None] | None = None
        self._listener: socket.socket | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The address of the proxy, as `redis://` and database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def requests(self) -> int:
        """How many pieces came by from clients, those that were lost among them: a piece is what arrives at once, such
        as one request, or several that travel together."""
        return self._weather.requests

    @property
    def cuts(self) -> int:
        """How many connections `cut` has ended."""
        return self._weather.cuts

    # -- verbs

    def down(self) -> Fault:
        """Reset all connections, and refuse new ones."""
        self._do(self._go_down())
        return Fault(lambda: self._do(self._come_up()))

    def freeze(self) -> Fault:
        """Swallow all that comes by, without a word: a black hole.

        Connections can still be made, and lead nowhere. Those from before on which nothing came by meanwhile are of
        use afterwards; all others stay silent for ever.
        """
        return self._until_it_ends("is_frozen", True)

    def delay(self, each_way: Duration, jitter: Duration = 0) -> Fault:
        """Have everything arrive later: as long for requests, and again for answers.

        Args:
            jitter: up to so much more, as chance has it. What travels on one connection keeps its order.
        """
        return self._until_it_ends("delay", (parse_duration(each_way), parse_duration(jitter)))

    def drip(self, bytes_per_second: float) -> Fault:
        """Pass on only so much, each way on each connection."""
        if bytes_per_second <= 0:
            raise ValueError("right are more than 0 bytes a second; what lets nothing through is `freeze`")
        return self._until_it_ends("rate", bytes_per_second)

    def cut(
        self, after: int | None = None, *, one_in: int = 1, times: int | None = None, requests: bool = False
    ) -> Fault:
        """Reset the connection in the middle of an answer.

        Args:
            after: how many of the answer's bytes still arrive: with 0 none, though the server did what it was asked
                for. None leaves it to chance.
            one_in: cut one in so many pieces, as chance has it.
            times: cut so many, and no more.
            requests: cut requests as well.
        """
        return self._until_it_ends("cut", _Cut(after, one_in, times, requests))

    def flap(self, up: Duration = "100ms", down: Duration = "100ms") -> Fault:
        """Be up and down by turns."""
        self._do(self._begin_flapping(parse_duration(up), parse_duration(down)))
        return Fault(lambda: self._do(self._come_up()))

    def heal(self) -> None:
        """Pass on all that comes by, as in the beginning. What is on its way arrives when it is due."""
        self._do(self._heal())

    def start(self) -> Self:
        """Listen, on a port that stays the same while the proxy is down, and pass on."""
        self._loop = asyncio.new_event_loop()
        # keeps the port ours while nobody listens: else another socket might be given it
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._place.bind(("127.0.0.1", 0))
        self.port = self._place.getsockname()[1]
        name = f"chaos at {self.port}"
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()
        self._do(self._come_up())
        return self

    def close(self) -> None:
        """Reset all connections and end the proxy: no thread or socket of it is left."""
        if self._thread is None:
            return
        self._do(self._go_down())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._thread = None
        self._loop.close()
        self._place.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- on the loop

    def _do(self, act: Coroutine[Any, Any, None]) -> None:
        """Have the loop do it, and wait for that."""
        if self._thread is None:
            act.close()
            raise RuntimeError("this Chaos is not running; right is `with Chaos(port) as chaos:`")
        asyncio.run_coroutine_threadsafe(act, self._loop).result()

    def _until_it_ends(self, name: str, value: Any) -> Fault:
        self._do(self._become(name, value))
        return Fault(lambda: self._do(self._become(name, getattr(_Weather, name))))

    async def _become(self, name: str, value: Any) -> None:
        setattr(self._weather, name, value)

    async def _heal(self) -> None:
        self._weather.clear_up()
        await self._come_up()

    async def _begin_flapping(self, up: float, down: float) -> None:
        await self._come_up()
        self._flapping = self._loop.create_task(self._flap(up, down))

    async def _flap(self, up: float, down: float) -> None:
        while True:
            await asyncio.sleep(up)
            await self._stop_listening()
            await asyncio.sleep(down)
            self._listen()

    async def _go_down(self) -> None:
        await self._stop_flapping()
        await self._stop_listening()

    async def _come_up(self) -> None:
        await self._stop_flapping()
        self._listen()

    async def _stop_flapping(self) -> None:
        flapping, self._flapping = self._flapping, None
        if flapping is not None:
            flapping.cancel()
            await asyncio.wait([flapping])

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), reuse_port=True)
            self._listener.setblocking(False)
            self._loop.add_reader(self._listener, self._accept, self._listener)

    async def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            self._loop.remove_reader(listener)
            listener.close()
        links = list(self._links)
        for link in links:
            link.cancel()
        if links:
            await asyncio.wait(links)

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:  # it has gone again
            return
        self.connections += 1
        link = _Link(self._weather, client)
        task = self._loop.create_task(link.pass_on(self._server))
        self._links.add(task)
        task.add_done_callback(self._links.discard)
        # not by the task itself, which does nothing at all where it is cancelled before it begins
        task.add_done_callback(link.close)


class _Cut:
    """Which pieces are cut, and where."""

    def __init__(self, after: int | None, one_in: int, times: int | None, requests: bool) -> None:
        self._after, self._one_in, self._left, self._requests = after, one_in, times, requests

    def place(self, random: Random, size: int, *, is_answer: bool) -> int | None:
        """Return how many of the `size` bytes of a piece still arrive; None for all."""
        if self._left == 0 or not (is_answer or self._requests) or random.randrange(self._one_in):
            return None
        if self._left is not None:
            self._left -= 1
        return random.randrange(size) if self._after is None else min(self._after, size)


class _Weather:
    """What happens to all that comes by, and what came by."""

    is_frozen = False
    delay = (0.0, 0.0)  # at least, and up to so much more
    rate = 0.0
    cut: _Cut | None = None

    def __init__(self, random: Random) -> None:
        self.random = random
        self.requests = self.cuts = 0

    def arrival(self, now: float) -> float:
        """Return when what comes by now is to arrive."""
        at_least, up_to = self.delay
        return now + at_least + (self.random.uniform(0, up_to) if up_to else 0.0)

    def clear_up(self) -> None:
        self.is_frozen, self.delay, self.rate, self.cut = False, (0.0, 0.0), 0.0, None


class _Link:
    """The connection of one client, and the one to the server that belongs to it."""

    def __init__(self, weather: _Weather, client: socket.socket) -> None:
        self._weather, self._client, self._server = weather, client, socket.socket()
        self._loop = asyncio.get_running_loop()
        self._is_lost = weather.is_frozen  # passes nothing on any more
        self._is_reset = True  # unless both have closed
        for end in (self._client, self._server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def pass_on(self, server: tuple[str, int]) -> None:
        """Pass on what comes by until both ends have closed, or one of them is reset: then so is the other."""
        try:
            if not self._is_lost:
                await self._loop.sock_connect(self._server, server)
            async with asyncio.TaskGroup() as directions:
                self._begin(directions, self._client, self._server, is_answer=False)
                if not self._is_lost:
                    self._begin(directions, self._server, self._client, is_answer=True)
            self._is_reset = False
        except* OSError:
            pass

    def close(self, _: object) -> None:
        for end in (self._client, self._server):
            if self._is_reset:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.close()

    def _begin(
        self, directions: asyncio.TaskGroup, source: socket.socket, target: socket.socket, *, is_answer: bool
    ) -> None:
        # two tasks: that the sender is gone is noticed while what it sent is on its way
        on_the_way = _OnTheWay(_ON_THE_WAY)
        directions.create_task(self._take(source, on_the_way, is_answer))
        directions.create_task(self._give(target, on_the_way, is_answer))

    async def _take(self, source: socket.socket, on_the_way: _OnTheWay, is_answer: bool) -> None:
        piece, due = b"the first", 0.0
        while piece:
            piece = await self._loop.sock_recv(source, _PIECE)
            if piece and not is_answer:
                self._weather.requests += 1
            self._look()
            due = max(due, self._weather.arrival(self._loop.time()))
            await on_the_way.put((due, piece))

    def _look(self) -> None:
        self._is_lost = self._is_lost or self._weather.is_frozen

    async def _give(self, target: socket.socket, on_the_way: _OnTheWay, is_answer: bool) -> None:
        while True:
            due, piece = await on_the_way.get()
            if due > self._loop.time():
                await asyncio.sleep(due - self._loop.time())
            self._look()
            if self._is_lost:
                if not piece and not is_answer:
                    raise ConnectionAbortedError("its client has ended it, the only one who can")
            elif piece:
                await self._pass_on(target, piece, is_answer)
            else:
                with suppress(OSError):  # the other end may have gone by itself
                    target.shutdown(socket.SHUT_WR)
                return

    async def _pass_on(self, target: socket.socket, piece: bytes, is_answer: bool) -> None:
        cut = self._weather.cut
        place = None if cut is None else cut.place(self._weather.random, len(piece), is_answer=is_answer)
        await self._send(target, piece[:place])
        if place is not None:
            self._weather.cuts += 1
            raise ConnectionAbortedError("cut")

    async def _send(self, target: socket.socket, piece: bytes) -> None:
        while piece and (rate := self._weather.rate):
            drop = piece[: max(1, int(rate * _DRIPS))]
            await self._loop.sock_sendall(target, drop)
            piece = piece[len(drop) :]
            await asyncio.sleep(len(drop) / rate)
            self._look()
            if self._is_lost:
                return
        await self._loop.sock_sendall(target, piece)
