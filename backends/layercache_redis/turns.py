"""Sets that tasks of one loop issue in the same turn, in one script: most of a script's cost is had once, not per key.

The first of a turn sends the script, which is made when the turn is over, so what follows in the same turn is in it.
Each encodes its own entry before, so what cannot be encoded fails nobody else's; each has a future of its own, so who
is cancelled takes nobody along.
"""

from __future__ import annotations

import asyncio
from threading import local
from time import monotonic
from typing import Any

from redis.exceptions import RedisError

from layercache.entry import Entry
from layercache_redis.aio import AioDriver
from layercache_redis.commands import Commands
from layercache_redis.writes import Writing

__all__ = ["JoinedSets"]


class _Own(local):
    turn: _Turn | None = None


class JoinedSets:
    """The sets of one cache."""

    def __init__(self, commands: Commands, aio: AioDriver) -> None:
        self._commands, self._aio = commands, aio
        self._own = _Own()  # a thread runs one loop at a time

    async def set(self, key: str, entry: Entry) -> bool:
        stored = self._joined(key, entry)
        if stored is not None and await stored:
            return True
        return await self._aio.run(self._commands.set(key, entry))

    def _joined(self, key: str, entry: Entry) -> asyncio.Future[bool] | None:
        """Return what becomes whether `entry` was stored with the others of this turn; None where it does not join."""
        if self._commands.setting.cluster:  # then it would share the fate of sets on other nodes, for no gain
            return None
        loop, turn = asyncio.get_running_loop(), self._own.turn
        if turn is not None and turn.loop is not loop:
            turn = None
        writing = self._commands.added(None if turn is None else turn.writing, key, entry)
        if writing is None:
            return None
        if turn is None or turn.writing is not writing:
            turn = _Turn(loop, writing, self._commands, self._aio, self._own)
            if not self._aio.tell(turn.call, turn, turn.began):
                return None
            self._own.turn = turn
        stored: asyncio.Future[bool] = loop.create_future()
        turn.waiting.append(stored)
        return stored


class _Turn:
    """What gathers in one turn of a loop, and takes the one reply to it.

    Attributes:
        loop: whose turn.
        writing: what gathers.
        began: monotonic seconds.
        waiting: what becomes whether it was stored, for each who waits.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        writing: Writing,
        commands: Commands,
        aio: AioDriver,
        own: _Own,
    ) -> None:
        self.loop, self.writing, self.began = loop, writing, monotonic()
        self.waiting: list[asyncio.Future[bool]] = []
        self._commands, self._aio, self._own = commands, aio, own
        self._is_told = False

    def call(self) -> bytes:
        """Return what is sent: the turn is over."""
        self._end()
        return self._commands.set_call(self.writing)

    def done(self) -> bool:
        return self._is_told

    def set_result(self, replies: list[Any], /) -> None:
        self._is_told = True
        stored = self._commands.is_stored(self.writing, replies[0])
        for waiting in self.waiting:
            if not waiting.done():
                waiting.set_result(stored)

    def set_exception(self, error: RedisError, /) -> None:
        self._is_told = True
        self._end()  # the connection may end before the turn does
        for waiting in self.waiting:
            if not waiting.done():
                failure = self._aio.failure(self.began, error)
                failure.__cause__ = error
                waiting.set_exception(failure)

    def _end(self) -> None:
        if self._own.turn is self:
            self._own.turn = None
