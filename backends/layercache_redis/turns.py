"""Sets that tasks of one loop issue in the same turn, in one script: most of a script's cost is had once, not per key.

The first of a turn goes at once, as it may be the only one; those after it gather until the turn is over. Each
encodes its own entry before, so what cannot be encoded fails nobody else's.
"""

from __future__ import annotations

import asyncio
from threading import local

from layercache.entry import Entry
from layercache.errors import BackendError
from layercache_redis.aio import AioDriver
from layercache_redis.commands import Commands, Encoded

__all__ = ["JoinedSets"]


class _Turn:
    """One turn of a loop, and what gathers in it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.gathered: list[tuple[Encoded, asyncio.Future[bool]]] = []


class _Own(local):
    turn: _Turn | None = None


class JoinedSets:
    """The sets of one cache."""

    def __init__(self, commands: Commands, aio: AioDriver) -> None:
        self._commands, self._aio = commands, aio
        self._own = _Own()  # a thread runs one loop at a time
        self._sending: set[asyncio.Task[None]] = set()

    async def set(self, key: str, entry: Entry) -> bool:
        if self._commands.is_spread:  # then it would share the fate of sets on other nodes, for no gain
            return await self._aio.run(self._commands.set(key, entry))
        loop, turn = asyncio.get_running_loop(), self._own.turn
        if turn is None or turn.loop is not loop:
            self._own.turn = turn = _Turn(loop)
            loop.call_soon(self._end, turn)
        else:
            encoded = self._commands.encoded(key, entry)
            if encoded is not None:
                stored = loop.create_future()
                turn.gathered.append((encoded, stored))
                if await stored:
                    return True
        return await self._aio.run(self._commands.set(key, entry))

    def _end(self, turn: _Turn) -> None:
        if self._own.turn is turn:
            self._own.turn = None
        if turn.gathered:
            sending = turn.loop.create_task(self._send(turn.gathered))
            self._sending.add(sending)  # a loop keeps no task alive by itself
            sending.add_done_callback(self._sending.discard)

    async def _send(self, gathered: list[tuple[Encoded, asyncio.Future[bool]]]) -> None:
        try:
            stored = await self._aio.run(self._commands.set_encoded([encoded for encoded, _ in gathered]))
        except BackendError as error:
            for _, waiting in gathered:
                if not waiting.done():
                    own = type(error)(error.backend, error.problem)
                    own.__cause__ = error.__cause__
                    waiting.set_exception(own)
        except BaseException:
            for _, waiting in gathered:
                waiting.cancel()
            raise
        else:
            for _, waiting in gathered:
                if not waiting.done():
                    waiting.set_result(stored)
