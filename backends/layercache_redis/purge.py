"""Gives back the space of entries that a clear has left behind.

A clear gives the cache a new stamp, whatever it holds; what carries the old one is dead weight until its time is over.
Here the server's keys are looked through in small steps, a quarter of the time at most.

Rule: a key is dropped by a script that looks at it and at the current stamp in one. Nothing else is touched: no other
prefix or cache, no lease or dictionary, no stamp (but one that is lost is made anew, as by any write); and the log has
no news of it, as nobody could see what is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from struct import Struct
from time import sleep
from typing import Any, Final

from redis.exceptions import AskError, NoScriptError, RedisError, TryAgainError

from layercache.entry import CACHE_TAG
from layercache_redis.client import Reached, batches, connected
from layercache_redis.driver import translated
from layercache_redis.names import Names
from layercache_redis.options import RedisOptions
from layercache_redis.scripts import PURGE
from layercache_redis.stamps import new_stamp

__all__ = ["purged"]

_STAMP: Final = Struct(">Q")
_PASSED_OVER: Final = (NoScriptError, AskError, TryAgainError)


def purged(
    backend: str, options: RedisOptions, cache: str, pause: Callable[[float], object] = sleep
) -> Iterator[tuple[int, int]]:
    """Yield after each step how many keys of `cache` it looked at and how many it dropped.

    Args:
        backend: its name in the settings.
        pause: waits between steps, for so many seconds.

    Raises `BackendError`.
    """
    names = Names(options.prefix, cache)
    try:
        with connected(options) as reached:
            for server in reached.primaries.values():
                purge = _Purge(reached, server, names, one_slot=not options.url.is_cluster)
                for keys in batches(server, f"{names.values}*".encode(), pause):
                    yield len(keys), purge.drop(keys) if keys else 0
    except RedisError as error:
        raise translated(backend, error) from error


class _Purge:
    """The purge of one cache on one server.

    Args:
        one_slot: whether a script may have to do with keys, stamp and log together. In a cluster the stamp is asked for
            before: an entry that a clear and a new write overtake within that round trip is dropped with the old
            ones, and is a miss.
    """

    def __init__(self, reached: Reached, server: Any, names: Names, *, one_slot: bool) -> None:
        self._reached, self._server, self._names, self._one_slot = reached, server, names, one_slot
        self._stamp = names.stamp(CACHE_TAG)
        self._log = names.streams.of(self._stamp)

    def drop(self, keys: Sequence[bytes]) -> int:
        """Drop those of `keys` that a clear has made invalid; return how many."""
        if self._one_slot:
            return sum(self._run([self._call(keys, _STAMP.pack(new_stamp()), self._stamp, self._log)]))
        stamp = self._reached.whole.get(self._stamp)
        if stamp is None or len(stamp) != _STAMP.size:
            return (
                0  # whoever reads or writes next makes a new one; until then there is nothing to compare with
            )
        return sum(self._run([self._call([key], stamp) for key in keys]))

    def _call(self, keys: Sequence[bytes], stamp: bytes, *shared: bytes) -> list[bytes | int | str]:
        """Return what EVALSHA gets after the digest; see `scripts/prelude.lua`."""
        pairs = [name for key in keys for name in (key, self._names.lease(key))]
        # as nothing is stored, the stamp's life stays as it is; and as nothing is told, the log's arguments say nothing
        return [len(pairs) + len(shared), *pairs, *shared, len(keys), stamp, stamp, "", 0, "", 0]

    def _run(self, calls: Sequence[list[bytes | int | str]]) -> list[int]:
        replies = self._piped("EVALSHA", PURGE.sha, calls)
        forgotten = [
            call for call, reply in zip(calls, replies, strict=True) if isinstance(reply, NoScriptError)
        ]
        if forgotten:
            replies += self._piped("EVAL", PURGE.text, forgotten)
        for reply in replies:
            # a key that moves to another server of a cluster is found there, or the next time
            if isinstance(reply, RedisError) and not isinstance(reply, _PASSED_OVER):
                raise reply
        return [reply for reply in replies if isinstance(reply, int)]

    def _piped(self, command: str, script: str, calls: Sequence[list[bytes | int | str]]) -> list[Any]:
        with self._server.pipeline(transaction=False) as pipeline:
            for call in calls:
                pipeline.execute_command(command, script, *call)
            replies: list[Any] = pipeline.execute(raise_on_error=False)
        return replies
