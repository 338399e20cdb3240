"""How scripts are called, and what their answers are before they mean anything.

What stands before each script (`scripts/prelude.lua`) says what it is given. A cluster has the log and the stamps in
slots of their own, which no script sees that has to do with a value; so there the log is told right after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

from layercache.entry import CACHE_TAG
from layercache.errors import BackendError
from layercache_redis.names import Names, Node
from layercache_redis.scripts import INVALIDATE, Script, text_of
from layercache_redis.stamps import packed_stamp
from layercache_redis.wire import Command, Refusal, Steps

__all__ = ["Calls", "Setting", "Taken"]

W = TypeVar("W")

_MOST: Final = 250
"""Keys that one script writes: some milliseconds of the server's time, in which it serves nobody else."""


@dataclass(frozen=True)
class Setting:
    """What all caches of one backend share.

    Attributes:
        backend: its name in the settings.
        cluster: whether keys of one script have to be in one slot.
        log_length: how many entries the log keeps.
        node: who we are in the log, as it is now: a fork changes it.
        now: the wall clock in seconds.
    """

    backend: str
    cluster: bool
    log_length: int
    node: Node
    now: Callable[[], float]


class Taken(NamedTuple):
    """What a write takes for the cache's stamp.

    Attributes:
        stamp: that its frames carry; a script refuses them where it is not the current one.
        fresh: to become the stamp where that is lost. Never what it was before: it may have changed before it was lost.
        version: of `KnownStamps`, at which this was true.
    """

    stamp: int
    fresh: int
    version: int


class Calls:
    """What is sent on behalf of one cache.

    Attributes:
        cluster: whether a script has to do with one key alone.
        most: how many keys one script has to do with at most.
        own_stamp: the name of the cache's stamp.
        log_of: returns the stream that is told of a name.
    """

    def __init__(self, setting: Setting, names: Names) -> None:
        self.setting, self.names = setting, names
        self.cluster = setting.cluster
        self.most = 1 if self.cluster else _MOST
        self.own_stamp, self.log_of = names.stamp(CACHE_TAG), names.streams.of

    def parts(self, keys: Sequence[W]) -> list[Sequence[W]]:
        """Return what one script each has to do with."""
        return [keys[first : first + self.most] for first in range(0, len(keys), self.most)]

    def script(
        self,
        script: Script,
        ats: Sequence[bytes],
        taken: Taken,
        life: int | str,
        *arguments: bytes | str | int,
    ) -> Command:
        """Return the call of a script that has to do with the keys at `ats`.

        Args:
            life: the milliseconds that the cache's stamp has to live, 0 for ever, '' as it is.
        """
        pairs = [name for at in ats for name in (at, self.names.lease(at))]
        if not self.cluster:
            pairs += (self.own_stamp, self.log_of(ats[0]))
        return self.call(script, pairs, len(ats), taken, life, *arguments)

    def stamp_script(
        self, script: Script, tag: str, stamp: int, life: int | str, *arguments: bytes
    ) -> Command:
        """Return the call of a script that has to do with the stamp of `tag` alone.

        Args:
            stamp: to become its stamp where it has none; that it has already is not among them.
            life: the milliseconds that it has to live, 0 for ever, '' as it is.
        """
        at = self.names.stamp(tag)
        keys: tuple[bytes, ...] = (at,)
        if not self.cluster:
            with_mark = script is INVALIDATE and tag != CACHE_TAG
            log = self.log_of(at)
            keys = (at, log, self.names.marks) if with_mark else (at, log)
        return self.call(script, keys, 0, Taken(stamp, stamp, 0), life, *arguments)

    def call(
        self,
        script: Script,
        keys: Sequence[bytes],
        n: int,
        taken: Taken,
        life: int | str,
        *arguments: bytes | str | int,
    ) -> Command:
        stamps = (packed_stamp(taken.stamp), packed_stamp(taken.fresh))
        return self.words(script, keys, n, *stamps, life, self.setting.node.id, *arguments)

    def words(
        self,
        script: Script,
        keys: Sequence[W],
        n: int,
        stamp: W,
        fresh: W,
        life: W,
        node: bytes,
        *arguments: W,
    ) -> tuple[W | str | bytes | int, ...]:
        """Return the words of a call of a script that changes something, with what all of them are told."""
        shared = (n, stamp, fresh, life, self.setting.log_length, node, self.names.application)
        return ("EVALSHA", script.sha, len(keys), *keys, *shared, *arguments)

    def evaluated(self, commands: Sequence[Command]) -> Steps[list[Any]]:
        """Send calls of scripts; to a server that has forgotten one (NOSCRIPT), with its text."""
        replies = yield commands
        forgotten = [
            index
            for index, reply in enumerate(replies)
            if type(reply) is Refusal and reply.code == "NOSCRIPT"
        ]
        if forgotten:
            again = yield [("EVAL", text_of(commands[index][1]), *commands[index][2:]) for index in forgotten]
            for index, reply in zip(forgotten, again, strict=True):
                replies[index] = reply
        return replies

    def answer(
        self, script: Script, at: bytes, taken: Taken, life: int | str, *arguments: bytes | str | int
    ) -> Steps[Any]:
        """Call a script that has to do with the key at `at`, and return its answer."""
        (reply,) = yield from self.evaluated([self.script(script, [at], taken, life, *arguments)])
        return reply

    def told(self, ats: Sequence[bytes]) -> Steps[None]:
        """Tell the log what was written, where the script could not."""
        if self.cluster and ats:
            shared = self.names.application
            (reply,) = yield [self.log_entry(ats[0], [(b"k", at[shared:]) for at in ats])]
            self.checked(reply)

    def log_entry(self, name: bytes, pairs: Sequence[tuple[bytes, bytes]]) -> Command:
        """Return what appends `pairs` to the stream that is told of `name`; as `tell` in `prelude.lua` does it."""
        words = [word for pair in pairs for word in pair]
        node, length = self.setting.node.id, self.setting.log_length
        return ("XADD", self.log_of(name), "MAXLEN", "~", length, "*", b"n", node, *words)

    def string(self, reply: Any) -> bytes | None:
        """Return what GET answered; None for what is not there or of another type."""
        if type(reply) is Refusal and reply.code == "WRONGTYPE":
            return None
        data: bytes | None = self.checked(reply)
        return data

    def checked(self, reply: Any) -> Any:
        """Return `reply`; raise `BackendError` for what the server refused."""
        if isinstance(reply, Refusal):
            refusal = BackendError(self.setting.backend, f"the server refused: {reply}")
            refusal.refused = True
            raise refusal from reply
        return reply
