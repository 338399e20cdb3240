"""What is sent to the server and what its answers mean: pure, no I/O.

Each operation is a generator that yields a list of commands to be sent in one round trip, is sent the list of
replies (an error reply as the driver's exception, not raised), and returns the result. `sync` and
`aio` drive them.

Rules:
1. Every key begins with the key space's prefix; nothing else on the server is read, counted or deleted.
2. What is under our key but is not ours (another type, no frame, a frame of another codec) is a miss and counted.
3. The server's own expiry bounds what a frame says of its life, never the other way round.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from hashlib import sha1
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from redis.exceptions import NoScriptError, ResponseError

from layercache.codecs.pipeline import Pipeline
from layercache.entry import Entry
from layercache.errors import BackendError, DecodeError
from layercache.keys import key_space_prefix, physical_key
from layercache.spi import Change

__all__ = ["Command", "Commands", "Steps"]

R = TypeVar("R")

Command: TypeAlias = tuple[str | bytes | int, ...]
Steps: TypeAlias = Generator[list[Command], list[Any], R]

_SWAP: Final = Path(__file__).with_name("scripts").joinpath("swap.lua").read_text(encoding="utf-8")
_SWAP_SHA: Final = sha1(_SWAP.encode(), usedforsecurity=False).hexdigest()
_SCAN_COUNT: Final = 500


class Commands:
    """The operations of one key space.

    Attributes:
        foreign: how often something under a key of ours was not ours.
    """

    def __init__(
        self, backend: str, prefix: str, cache: str, pipeline: Pipeline, now: Callable[[], float]
    ) -> None:
        self._backend, self._pipeline, self._now = backend, pipeline, now
        self._prefix = key_space_prefix(prefix, cache)
        self.foreign = 0

    # -- operations

    def get(self, key: str) -> Steps[Entry | None]:
        entries = yield from self.get_many([key])
        return entries.get(key)

    def get_many(self, keys: Sequence[str]) -> Steps[dict[str, Entry]]:
        """Two commands a key: the frame, and what the server leaves it to live."""
        physical = [self._physical(key) for key in keys]
        replies = yield [command for at in physical for command in (("GET", at), ("PTTL", at))]
        now = self._now()
        found: dict[str, Entry] = {}
        for key, at, frame, px in zip(keys, physical, replies[::2], replies[1::2], strict=True):
            entry = self._entry(at, frame, px, now)
            if entry is not None:
                found[key] = entry
        return found

    def set(self, key: str, entry: Entry) -> Steps[bool]:
        (reply,) = yield [self._set_command(key, entry)]
        self._checked(reply)
        return True

    def set_many(self, entries: Mapping[str, Entry]) -> Steps[list[str]]:
        # all are encoded before any is sent: nothing is stored by halves
        replies = yield [self._set_command(key, entry) for key, entry in entries.items()]
        return [key for key, reply in zip(entries, replies, strict=True) if isinstance(reply, ResponseError)]

    def update(self, key: str, change: Change) -> Steps[Entry | None]:
        """Read, change, and swap if what was read is still there, else once more. Each turn that fails
        means that somebody else's update went through, so the callers together always get on."""
        at = self._physical(key)
        while True:
            frame, px = yield [("GET", at), ("PTTL", at)]
            changed = change(self._entry(at, frame, px, self._now()))
            if changed is None:
                return None
            # what is of another type is replaced as if nothing were there
            expected = frame if isinstance(frame, bytes) else b""
            swapped = yield from self._swap(at, expected, changed)
            if swapped:
                return changed

    def delete(self, key: str) -> Steps[bool]:
        count = yield from self.delete_many([key])
        return count > 0

    def delete_many(self, keys: Sequence[str]) -> Steps[int]:
        # one command a key, as a cluster would have it
        replies = yield [("UNLINK", self._physical(key)) for key in keys]
        return sum(self._checked(reply) for reply in replies)

    def clear(self) -> Steps[None]:
        """In steps of a few hundred keys, so that other clients are served in between."""
        cursor: Any = 0
        while True:
            (reply,) = yield [("SCAN", cursor, "MATCH", self._prefix + "*", "COUNT", _SCAN_COUNT)]
            cursor, keys = self._checked(reply)
            if keys:
                (reply,) = yield [("UNLINK", *keys)]
                self._checked(reply)
            if int(cursor) == 0:
                return

    # -- parts

    def _physical(self, key: str) -> bytes:
        return (self._prefix + physical_key(key)).encode()

    def _set_command(self, key: str, entry: Entry) -> Command:
        at = self._physical(key)
        frame = self._pipeline.encode(entry, at)
        px = self._px(entry)
        return ("SET", at, frame, "PX", px) if px else ("SET", at, frame)

    def _swap(self, at: bytes, expected: bytes, entry: Entry) -> Steps[bool]:
        arguments = (1, at, expected, self._pipeline.encode(entry, at), self._px(entry))
        (reply,) = yield [("EVALSHA", _SWAP_SHA, *arguments)]
        if isinstance(reply, NoScriptError):
            (reply,) = yield [("EVAL", _SWAP, *arguments)]
        return bool(self._checked(reply))

    def _px(self, entry: Entry) -> int:
        """The milliseconds that the server keeps `entry`, 0 for ever."""
        left = entry.left(self._now())
        return 0 if math.isinf(left) else max(1, math.ceil(left * 1000))

    def _entry(self, at: bytes, frame: Any, px: Any, now: float) -> Entry | None:
        if isinstance(frame, ResponseError) and str(frame).startswith("WRONGTYPE"):
            self.foreign += 1
            return None
        data = self._checked(frame)
        if data is None:
            return None
        try:
            entry = self._pipeline.decode(data, at)
        except DecodeError:
            self.foreign += 1
            return None
        left, px = entry.left(now), self._checked(px)
        if px != -1:  # -1: no expiry; -2: it expired between the two commands
            left = min(left, px / 1000)
        return entry.living_at_most(left, now) if left > 0 else None

    def _checked(self, reply: Any) -> Any:
        if isinstance(reply, ResponseError):
            raise BackendError(
                self._backend, f"the server refused: {type(reply).__name__}: {reply}"
            ) from reply
        return reply
