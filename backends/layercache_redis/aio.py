"""Sends commands from event loops, over connections that belong to the running loop.

Rule: connections are found by the running loop and end with it. An async generator that is left
suspended in the loop closes them when the loop shuts its generators down, as `asyncio.run` and every
server do at their end; so nothing leaks or warns where `aclose` was forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import redis.asyncio as aioredis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from layercache_redis.commands import Command, Steps
from layercache_redis.driver import connection_settings, translated
from layercache_redis.options import RedisOptions

__all__ = ["AioDriver"]

R = TypeVar("R")


class AioDriver:
    """Awaits the server, for at most `timeout` at each step."""

    def __init__(self, backend: str, options: RedisOptions) -> None:
        self._backend, self._options = backend, options
        self._tethers: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncGenerator[aioredis.Redis, None]]
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, aioredis.Redis]
        self.after_fork()

    async def run(self, steps: Steps[R]) -> R:
        """Drive an operation to its result; what the driver raises becomes a `BackendError`."""
        replies: list[Any] = []
        try:
            commands = next(steps)
            while True:
                try:
                    replies = await self._exchange(commands)
                except (RedisError, OSError) as error:
                    raise translated(self._backend, error) from error
                commands = steps.send(replies)
        except StopIteration as end:
            result: R = end.value
            return result

    async def _exchange(self, commands: list[Command]) -> list[Any]:
        client = self._clients.get(asyncio.get_running_loop()) or await self._new_client()
        pipeline = client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return await pipeline.execute(raise_on_error=False)

    async def aclose(self) -> None:
        loop = asyncio.get_running_loop()
        self._clients.pop(loop, None)
        tether = self._tethers.pop(loop, None)
        if tether is not None:
            await tether.aclose()

    def after_fork(self) -> None:
        self._tethers = WeakKeyDictionary()
        self._clients = WeakKeyDictionary()

    async def _new_client(self) -> aioredis.Redis:
        loop = asyncio.get_running_loop()
        tether = _tethered(self._options)
        # the generator yields before it awaits anything, so no other task opens a second client meanwhile
        client = await anext(tether)
        self._tethers[loop], self._clients[loop] = tether, client
        return client


async def _tethered(options: RedisOptions) -> AsyncGenerator[aioredis.Redis, None]:
    settings = connection_settings(options, parse_url, Retry(NoBackoff(), 0))
    client = aioredis.Redis(connection_pool=aioredis.BlockingConnectionPool(**settings))
    try:
        yield client
    finally:
        await client.connection_pool.disconnect()
