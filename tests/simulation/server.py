"""A server as the simulated fleet has it: the handful of commands that the client sends, and our scripts, on a clock that
somebody else moves.

The scripts are written again in Python, step by step as the Lua has them; `test_agreement` runs the same commands here
and on a real server. Only what is asked of one that is no cluster, and no scripts that change frames in place.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from hashlib import sha1
from typing import Any

from layercache_redis.scripts import (
    ADD,
    DELETE,
    FILL,
    INVALIDATE,
    LEASE,
    MARK,
    RELEASE,
    SET,
    STAMP,
    SWAP,
)
from layercache_redis.wire import Command, Refusal

__all__ = ["Server", "Stream"]

_STAMP_LIFE = 2_592_000_000
_FOR_EVER = b"281474976710655"


class Stream:
    """Attributes:
    entries: pairs of an id and fields, oldest first.
    last: the id of the latest entry there ever was.
    """

    def __init__(self) -> None:
        self.entries: list[tuple[tuple[int, int], list[bytes]]] = []
        self.last = (0, 0)

    def add(self, now_ms: int, fields: list[bytes], most: int) -> tuple[int, int]:
        milliseconds, number = self.last
        self.last = (now_ms, 0) if now_ms > milliseconds else (milliseconds, number + 1)
        self.entries.append((self.last, fields))
        if len(self.entries) > most + 100:  # a server drops a hundred at a time
            del self.entries[:100]
        return self.last


class Server:
    """One server. A command is one step, as a script is.

    Args:
        now: its clock in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.values: dict[bytes, Any] = {}
        self.ends: dict[bytes, float] = {}  # milliseconds
        self.scripts = dict(_SCRIPTS)
        self.appended = 0  # entries of streams

    # -- what happens to servers

    def snapshot(self) -> Any:
        return copy.deepcopy((self.values, self.ends))

    def restart(self, data: Any = ({}, {})) -> None:
        """Begin anew with `data`, and without the scripts."""
        self.values, self.ends = copy.deepcopy(data)
        self.scripts = {}

    # -- commands

    def execute(self, command: Command) -> Any:
        name, *words = [word if type(word) is bytes else str(word).encode() for word in command]
        act: Callable[..., Any] = getattr(self, f"_{name.decode().lower()}")
        return act(*words)

    def ms(self) -> int:
        return int(self._now() * 1000)

    def _at(self, key: bytes) -> Any:
        end = self.ends.get(key)
        if end is not None and end <= self._now() * 1000:
            del self.ends[key], self.values[key]
        return self.values.get(key)

    def _put(self, key: bytes, value: Any, px: bytes | int = 0) -> None:
        self.values[key] = value
        self.ends.pop(key, None)
        if int(px):
            self.ends[key] = self._now() * 1000 + int(px)

    def _ping(self) -> str:
        return "PONG"

    def _get(self, key: bytes) -> Any:
        return self._at(key)

    def _getrange(self, key: bytes, first: bytes, last: bytes) -> bytes:
        found: bytes = self._at(key) or b""
        return found[int(first) : int(last) + 1]

    def _pttl(self, key: bytes) -> int:
        if self._at(key) is None:
            return -2
        end = self.ends.get(key)
        return -1 if end is None else max(0, int(end - self._now() * 1000))

    def _pexpire(self, key: bytes, px: bytes | int) -> int:
        if self._at(key) is None:
            return 0
        self.ends[key] = self._now() * 1000 + int(px)
        return 1

    def _unlink(self, *keys: bytes) -> int:
        dropped = 0
        for key in keys:
            dropped += self._at(key) is not None
            self.values.pop(key, None)
            self.ends.pop(key, None)
        return dropped

    def _hmget(self, key: bytes, *fields: bytes) -> list[bytes | None]:
        found = self._at(key) or {}
        return [found.get(field) for field in fields]

    def _xadd(self, key: bytes, _maxlen: bytes, _about: bytes, most: bytes, _id: bytes, *fields: bytes) -> bytes:
        self.appended += 1
        stream = self._at(key)
        if stream is None:
            stream = self.values[key] = Stream()
        return _spelt(stream.add(self.ms(), list(fields), int(most)))

    def _xrange(self, key: bytes, first: bytes, last: bytes, *count: bytes) -> list[Any]:
        stream = self._at(key) or Stream()
        low = (0, 0) if first == b"-" else _read(first)
        high = (1 << 63, 0) if last == b"+" else _read(last)
        found = [[_spelt(id), fields] for id, fields in stream.entries if low <= id <= high]
        return found[: int(count[1])] if count else found

    def _xread(self, *words: bytes) -> Any:
        count, key, last = int(words[1]), words[-2], _read(words[-1])
        stream = self._at(key)
        if stream is None or not stream.entries or stream.entries[-1][0] <= last:
            return None
        found = [[_spelt(id), fields] for id, fields in stream.entries if id > last]
        return [[key, found[:count]]]

    def _eval(self, text: bytes, *words: bytes) -> Any:
        sha = sha1(text, usedforsecurity=False).hexdigest()
        self.scripts[sha] = _SCRIPTS[sha]
        return self._evalsha(sha.encode(), *words)

    def _evalsha(self, sha: bytes, count: bytes, *words: bytes) -> Any:
        script = self.scripts.get(sha.decode())
        if script is None:
            return Refusal("NOSCRIPT no matching script")
        keys = int(count)
        return script(_Call(self, words[:keys], words[keys:]))


def _spelt(id: tuple[int, int]) -> bytes:
    return b"%d-%d" % id


def _read(id: bytes) -> tuple[int, int]:
    milliseconds, _, number = id.partition(b"-")
    return int(milliseconds), int(number)


class _Call:
    """One call of a script, and what stands before them all."""

    def __init__(self, server: Server, keys: Sequence[bytes], arguments: Sequence[bytes]) -> None:
        self.server, self.keys = server, keys
        n, self.stamp, self.fresh, self.life, self.length, self.node, prefix, *self.own = arguments
        self.n, self.prefix = int(n), int(prefix)
        shared = keys[2 * self.n :]
        self.stamp_key = shared[0] if shared else None
        self.log_key = shared[1] if len(shared) > 1 else None

    def read(self, key: bytes) -> bytes | None:
        found = self.server._at(key)
        return found if type(found) is bytes else None

    def put(self, key: bytes, frame: bytes, px: bytes | int) -> None:
        self.server._put(key, frame, px)

    def tell(self, *fields: bytes) -> None:
        assert self.log_key is not None
        self.server._xadd(self.log_key, b"MAXLEN", b"~", self.length, b"*", b"n", self.node, *fields)

    def current_stamp(self) -> bytes:
        assert self.stamp_key is not None
        current = self.read(self.stamp_key)
        if current is None or len(current) != 8:
            self.put(self.stamp_key, self.fresh, self.life or _STAMP_LIFE)
            self.tell(b"m", self.stamp_key[self.prefix + 5 :], b"s", self.fresh)
            return self.fresh
        if self.life:
            left, life = self.server._pttl(self.stamp_key), int(self.life)
            if left >= 0 and life == 0:
                del self.server.ends[self.stamp_key]
            elif 0 <= left < life * 0.75:
                self.server._pexpire(self.stamp_key, life)
        return current

    def written(self) -> None:
        self.server._unlink(*self.keys[1 : 2 * self.n : 2])
        fields = [word for key in self.keys[: 2 * self.n : 2] for word in (b"k", key[self.prefix :])]
        self.tell(*fields)

    def be_marked(self, key: bytes) -> None:
        if self.server._pexpire(key, _STAMP_LIFE) == 1 and b"*" in self.server._at(key):
            return
        self.server._put(key, {b"*": self.fresh}, _STAMP_LIFE)


def _is_valid(frame: bytes | None, stamp: bytes) -> bool:
    return frame is not None and len(frame) >= 40 and frame[:4] == b"\xabLC\x01" and frame[27:35] == stamp


def _set(call: _Call) -> Any:
    current = call.current_stamp()
    if current != call.stamp:
        return current
    for key, frame, px in zip(call.keys[: 2 * call.n : 2], call.own[::2], call.own[1::2], strict=True):
        call.put(key, frame, px)
    call.written()
    return 1


def _delete(call: _Call) -> Any:
    heads: list[bytes] = []
    for key in call.keys[: 2 * call.n : 2]:
        found = call.read(key) or b""
        begins = int.from_bytes(found[22:24]) if len(found) >= 256 else 0
        heads.append(found[: begins + 4] if begins > 252 else found[:256])
        call.server._unlink(key)
    heads.append(call.current_stamp())
    call.written()
    return heads


def _add(call: _Call) -> Any:
    current = call.current_stamp()
    if current != call.stamp:
        return current
    found = call.read(call.keys[0])
    if _is_valid(found, current):
        return [found, call.server._pttl(call.keys[0])]
    call.put(call.keys[0], call.own[0], call.own[1])
    call.written()
    return 1


def _swap(call: _Call) -> Any:
    current = call.current_stamp()
    if current != call.stamp:
        return current
    expected, frame, px = call.own
    if (call.read(call.keys[0]) or b"") != expected:
        return 0
    call.put(call.keys[0], frame, px)
    call.written()
    return 1


def _stamp(call: _Call) -> Any:
    return call.current_stamp()


def _invalidate(call: _Call) -> Any:
    named, bucket, softly = call.own
    assert call.stamp_key is not None
    stamp, life, kind = call.fresh, _STAMP_LIFE, b"t"
    former = call.read(call.stamp_key) if softly == b"1" else None
    if former is not None and len(former) == 8:
        count = int.from_bytes(former[6:])
        if count < 65535:
            stamp, kind = former[:6] + (count + 1).to_bytes(2), b"o"
            left = call.server._pttl(call.stamp_key)
            life = 0 if left < 0 else max(left, 1)
    call.put(call.stamp_key, stamp, life)
    if len(call.keys) > 2:
        marks = call.keys[2]
        call.be_marked(marks)
        hash = call.server._at(marks)
        hash[b"n"] = hash[bucket] = b"%d" % (int(hash.get(b"n", b"0")) + 1)
    call.tell(kind, named, b"s", stamp)
    return stamp


def _lease(call: _Call) -> Any:
    token, px, beyond, useless = call.own
    value, lease = call.keys[:2]
    current = call.current_stamp()
    found = call.read(value)
    if not _is_valid(found, current) or (found and found[-4:] == useless):
        found = None
    left = call.server._pttl(value) if found else 0
    if found and int.from_bytes(found[10:16]) > int(beyond):
        return [b"fresh", found, left, current]
    holder = call.read(lease)
    if holder and len(holder) == 8 and beyond == _FOR_EVER:
        holder = None
    if holder and holder != token + current and holder[-8:] == current:
        return [b"busy", found, left, current]
    call.put(lease, token + current, px)
    return [b"granted", found, left, current]


def _fill(call: _Call) -> Any:
    token, frame, px = call.own
    current = call.current_stamp()
    if current != call.stamp or call.read(call.keys[1]) != token + current:
        return 0
    call.put(call.keys[0], frame, px)
    call.written()
    return 1


def _release(call: _Call) -> Any:
    token, px = call.own
    holder = call.read(call.keys[1])
    if not holder or holder[:-8] != token:
        return 0
    if px == b"0":
        return call.server._unlink(call.keys[1])
    call.put(call.keys[1], holder[-8:], px)
    return "OK"


def _mark(call: _Call) -> Any:
    _, *buckets = call.own
    assert not buckets, "only a cluster notes invalidations so"
    call.be_marked(call.keys[0])
    return 1


_SCRIPTS: dict[str, Callable[[_Call], Any]] = {
    SET.sha: _set, DELETE.sha: _delete, ADD.sha: _add, SWAP.sha: _swap, STAMP.sha: _stamp,
    INVALIDATE.sha: _invalidate, LEASE.sha: _lease, FILL.sha: _fill, RELEASE.sha: _release, MARK.sha: _mark,
}  # fmt: skip
