"""Sends commands from threads, over a pool of connections that they share."""

from __future__ import annotations

from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import RedisError
from redis.retry import Retry

from layercache_redis.commands import Command, Steps
from layercache_redis.driver import connection_settings, translated
from layercache_redis.options import RedisOptions

__all__ = ["SyncDriver"]

R = TypeVar("R")


class SyncDriver:
    """Blocks the calling thread, for at most `timeout` at each step."""

    def __init__(self, backend: str, options: RedisOptions) -> None:
        self._backend, self._options = backend, options
        self._client = self._new_client()

    def run(self, steps: Steps[R]) -> R:
        """Drive an operation to its result; what the driver raises becomes a `BackendError`."""
        replies: list[Any] = []
        try:
            commands = next(steps)
            while True:
                try:
                    replies = self._exchange(commands)
                except (RedisError, OSError) as error:
                    raise translated(self._backend, error) from error
                commands = steps.send(replies)
        except StopIteration as end:
            result: R = end.value
            return result

    def _exchange(self, commands: list[Command]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return pipeline.execute(raise_on_error=False)

    def close(self) -> None:
        self._client.connection_pool.disconnect()

    def after_fork(self) -> None:
        self._client = self._new_client()  # the old sockets are the parent's

    def _new_client(self) -> redis.Redis:
        settings = connection_settings(self._options, parse_url, Retry(NoBackoff(), 0))
        return redis.Redis(connection_pool=redis.BlockingConnectionPool(**settings))
