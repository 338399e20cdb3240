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
from layercache_redis.commands import Commands, Writing

__all__ = ["JoinedSets"]


class _Turn:
    """One turn of a loop, and what gathers in it: what one script each stores, and who waits for that."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.writing: Writing | None = None
        self.waiting: list[asyncio.Future[bool]] = []
        self.gathered: list[tuple[Writing, list[asyncio.Future[bool]]]] = []

    def joins(self, writing: Writing) -> asyncio.Future[bool]:
        """Return what becomes whether `writing`, to which an entry was added, was stored."""
        if writing is not self.writing:
            self.writing, self.waiting = writing, []
            self.gathered.append((writing, self.waiting))
        stored: asyncio.Future[bool] = self.loop.create_future()
        self.waiting.append(stored)
        return stored


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
            writing = self._commands.added(turn.writing, key, entry)
            if writing is not None and await turn.joins(writing):
                return True
        return await self._aio.run(self._commands.set(key, entry))

    def _end(self, turn: _Turn) -> None:
        if self._own.turn is turn:
            self._own.turn = None
        for writing, waiting in turn.gathered:
            sending = turn.loop.create_task(self._send(writing, waiting))
            self._sending.add(sending)  # a loop keeps no task alive by itself
            sending.add_done_callback(self._sending.discard)

    async def _send(self, writing: Writing, waiting: list[asyncio.Future[bool]]) -> None:
        try:
            stored = await self._aio.run(self._commands.set_written(writing))
        except BackendError as error:
            for one in waiting:
                if not one.done():
                    own = type(error)(error.backend, error.problem)
                    own.__cause__ = error.__cause__
                    one.set_exception(own)
        except BaseException:
            for one in waiting:
                one.cancel()
            raise
        else:
            for one in waiting:
                if not one.done():
                    one.set_result(stored)
