"""What is sent to the server and what its answers mean: pure, no I/O.

Each operation is a generator that yields a list of commands to be sent in one round trip, is sent the list of
replies (an error as a `Refusal` in its place), and returns the result. `sync` and `aio` drive them.

Rules:
1. Every key begins with the application's prefix; nothing else on the server is read, counted or deleted.
2. What is under our key but is not ours (another type, no frame, a frame of another codec) is a miss and counted.
3. The server's own expiry bounds what a frame says of its life, never the other way round.
4. A write voids the leases of its keys and appends to the log in one script with it. A cluster has the log in a slot
   of its own, so there the log is told right after.
5. An entry is valid while its stamps are current; one that is not is as if it were not there, for every verb. Where
   its tags were invalidated softly alone, it is stale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeVar
from zlib import crc32

from layercache.codecs.dictionaries import UnknownDictionary
from layercache.codecs.frame import BadFrame, head_of, is_of_another_version, pack_times, unpack_stamps
from layercache.codecs.normal import NormalForm, TypedForm
from layercache.codecs.pipeline import Pipeline
from layercache.core.changes import Add, Increment, Touch
from layercache.entry import CACHE_TAG, Entry, Stamps
from layercache.errors import BackendError, DecodeError
from layercache.spi import Change, Lease
from layercache_redis.names import Names, Node
from layercache_redis.scripts import (
    ADD,
    DELETE,
    FILL,
    INCREMENT,
    INVALIDATE,
    LEASE,
    MARK,
    RELEASE,
    SET,
    STAMP,
    SWAP,
    TOUCH,
    Script,
    text_of,
)
from layercache_redis.stamps import KnownStamps, is_alive, new_stamp
from layercache_redis.wire import Command, Packed, Refusal, packed, pattern

__all__ = ["Commands", "Setting", "Steps", "Writing"]

R = TypeVar("R")
W = TypeVar("W")

Steps: TypeAlias = Generator[Sequence[Command], list[Any], R]

_MOST: Final = 250
"""Keys that one script writes: some milliseconds of the server's time, in which it serves nobody else."""

_PATTERNS: Final = 64
"""Numbers of keys for which the command that stores them is kept as a pattern: half a megabyte at most."""

_HEAD_BYTES: Final = 1 << 17
"""What a frame may hold besides its payload, and what a stage that does not shrink may add to that."""

STAMP_LIFE: Final = 30 * 86_400_000
"""Milliseconds that a stamp lives at least, prolonged by writes; with its stamp an entry is gone."""

_MOST_TAGS: Final = 10_000

_BUCKETS: Final = 256
"""Of tags that were invalidated. Another tag of the same bucket, while a load tells its tags late, costs no
more than that what was loaded is not stored."""

_STATES: Final[dict[bytes, Literal["fresh", "granted", "busy"]]] = {
    b"fresh": "fresh", b"granted": "granted", b"busy": "busy",
}  # fmt: skip

_FOR_EVER_MS: Final = (1 << 48) - 1

_STAMP: Final = Struct(">Q")


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


class _Taken(NamedTuple):
    """What a write takes for the cache's stamp.

    Attributes:
        stamp: that its frames carry; a script refuses them where it is not the current one.
        fresh: to become the stamp where that is lost. Never what it was before: it may have changed before it was lost.
        version: of `KnownStamps`, at which this was true.
    """

    stamp: int
    fresh: int
    version: int


class Writing:
    """What one script stores: entries that carry one stamp of the cache.

    Attributes:
        stamp: that one.
        stamps: it alone, as frames carry it.
        ats: the names of the values.
        pxs: for how many milliseconds each is kept, 0 for ever.
        names, frames: words of the call, each behind its length.
        prolongs: whether the call prolongs the life of the stamp.
    """

    __slots__ = ("ats", "frames", "names", "prolongs", "pxs", "stamp", "stamps")

    def __init__(self, stamp: int) -> None:
        self.stamp = stamp
        self.stamps: Stamps = ((CACHE_TAG, stamp),)
        self.ats: list[bytes] = []
        self.pxs: list[int] = []
        self.names: list[int | bytes] = []
        self.frames: list[int | bytes] = []
        self.prolongs = False


class Commands:
    """The operations of one cache.

    Attributes:
        is_spread: whether keys are on several servers.
        foreign: how often something under a key of ours was not ours.
    """

    def __init__(self, setting: Setting, names: Names, pipeline: Pipeline, stamps: KnownStamps) -> None:
        self._setting, self._names, self._pipeline, self._stamps = setting, names, pipeline, stamps
        self._now = setting.now
        self.is_spread = setting.cluster
        self._own_stamp = names.stamp(CACHE_TAG)
        self._log_of = names.streams.of
        self._most = 1 if setting.cluster else _MOST
        self._most_bytes = pipeline.max_value_bytes + _HEAD_BYTES
        # with JSON an int is its digits, which the server can add to
        digits = pipeline.serializer.name == "json"
        self._digit_stages = pipeline.serializer.name.encode() if digits else b""
        self._dictionaries = pipeline.dictionaries
        self._dictionary_news = 0  # how often another was said to be in use
        self._dictionary_known = self._dictionaries is None
        self._lasting: dict[
            str, tuple[int, float]
        ] = {}  # by tag: a stamp, and until when it is known to live
        self._lost: set[int] = set()  # dictionaries that the server does not have any more
        # not GET: of what is longer than anything of ours no more than that comes over the wire
        self._reading = pattern("GETRANGE", None, 0, self._most_bytes) + pattern("PTTL", None)
        self._asking_stamp = packed([("GET", self._own_stamp)])
        self._set_pattern = lru_cache(_PATTERNS)(self._new_set_pattern)
        self.foreign = 0

    # -- reading

    def get(self, key: str) -> Steps[Entry | None]:
        at = self._names.value(key)
        reading = self._reading % (len(at), at, len(at), at)
        own, version = self._stamps.own(), self._stamps.version
        if own is None:
            frame, px, stamp = yield Packed(reading + self._asking_stamp, 3)
            own = self._learnt(stamp, version)
        else:
            frame, px = yield Packed(reading, 2)
        if px == -2:
            return None
        try:
            entry = self._entry(at, frame, px, own)
        except UnknownDictionary:
            entry = None
        else:
            if entry is None or len(entry.stamps) == 1:
                return entry
        return (yield from self._living([at], [frame], [px], own))[0]

    def get_many(self, keys: Sequence[str]) -> Steps[dict[str, Entry]]:
        """For each key the frame, and what the server leaves it to live."""
        if not keys:
            return {}
        ats = [self._names.value(key) for key in keys]
        own, version = self._stamps.own(), self._stamps.version
        asked = [self._reading % (len(at), at, len(at), at) for at in ats]
        if own is None:
            asked.append(self._asking_stamp)
        replies = yield Packed(b"".join(asked), len(ats) + len(asked))
        if own is None:
            own = self._learnt(replies.pop(), version)
        living = yield from self._living(ats, replies[::2], replies[1::2], own)
        return {key: entry for key, entry in zip(keys, living, strict=True) if entry is not None}

    def _living(
        self,
        ats: Sequence[bytes],
        frames: Sequence[Any],
        pxs: Sequence[Any],
        own: int | None,
        *,
        are_current: bool = False,
    ) -> Steps[list[Entry | None]]:
        """Decode `frames` of the keys at `ats`: entries that are alive and valid, or stale; None for all else.

        Args:
            own: the cache's stamp.
            are_current: their tags are known to be.
        """
        try:
            entries = [
                self._entry(at, frame, px, own) for at, frame, px in zip(ats, frames, pxs, strict=True)
            ]
        except UnknownDictionary as unknown:
            yield from self._learn_dictionary(unknown.id)
            return (yield from self._living(ats, frames, pxs, own, are_current=are_current))
        tagged = [entry for entry in entries if entry is not None and len(entry.stamps) > 1]
        if not tagged or are_current:
            return entries
        current = yield from self._current(tag for entry in tagged for tag, _ in entry.stamps[1:])
        return [None if entry is None else _by_tags(entry, current) for entry in entries]

    def _entry(self, at: bytes, frame: Any, px: Any, own: int | None) -> Entry | None:
        """Decode one frame; whether its tags are current remains to be seen."""
        if not frame or type(frame) is Refusal:
            self._nothing(frame, px)
            return None
        try:
            entry = self._pipeline.decode(frame, at)
        except UnknownDictionary as unknown:
            if unknown.id not in self._lost:
                raise
            self.foreign += 1
            return None
        except DecodeError:
            self.foreign += 1
            return None
        if own is None or not entry.stamps or entry.stamps[0] != (CACHE_TAG, own):
            return None
        now = self._now()
        # -1: no expiry; -2: it expired between the two commands
        living = entry.living_at_most(math.inf if px == -1 else self._checked(px) / 1000, now)
        return living if living.dead_at > now else None

    def _nothing(self, frame: Any, px: Any) -> None:
        """Tell what is not there from what is empty, or of another type."""
        if type(frame) is Refusal and frame.code != "WRONGTYPE":
            self._checked(frame)
        if self._checked(px) != -2:
            self.foreign += 1

    # -- writing

    def set(self, key: str, entry: Entry) -> Steps[bool]:
        writing = self.added(None, key, entry)
        if writing is not None:
            (reply,) = yield Packed(self.set_call(writing), 1)
            if self.is_stored(writing, reply):
                if self._setting.cluster:
                    yield from self._stored(writing.ats, ((CACHE_TAG, writing.stamp),), writing.pxs[0])
                return True
        yield from self.set_many({key: entry})  # what else the reply may be, is seen to there
        return True

    def added(self, writing: Writing | None, key: str, entry: Entry) -> Writing | None:
        """Add `entry` to `writing`, or to a new one where there is none or no place in it, and return that. None where
        something has to be asked for before, or `entry` carries stamps: then it has to be stored by `set`."""
        own = self._stamps.own()
        if own is None or not self._dictionary_known or entry.stamps:
            return None
        if writing is None or writing.stamp != own or len(writing.ats) >= self._most:
            writing = Writing(own)
        self._put(writing, key, entry)
        return writing

    def _put(self, writing: Writing, key: str, entry: Entry) -> None:
        at, px = self._names.value(key), self._px(entry)
        lease, digits = self._names.lease(at), b"%d" % px
        stamps = _carried(writing.stamps, entry) if entry.stamps else writing.stamps
        frame = self._pipeline.encode(entry, at, stamps)
        writing.ats.append(at)
        writing.pxs.append(px)
        writing.names += (len(at), at, len(lease), lease)
        writing.frames += (len(frame), frame, len(digits), digits)

    def set_call(self, writing: Writing) -> bytes:
        """Return the call of the script that stores all of it, as it is sent; for `is_stored`."""
        longest = _longest(writing.pxs)
        writing.prolongs = not self._lasts(CACHE_TAG, writing.stamp, longest)
        return self._set_call(writing, new_stamp(), _life(longest) if writing.prolongs else "")

    def is_stored(self, writing: Writing, reply: Any) -> bool:
        """Return whether the call went as usual; if not, each has to be stored by `set`. In a cluster, where a script
        sees its own key alone, there is more to do."""
        if reply != 1:
            return False
        if writing.prolongs and not self._setting.cluster:
            self._seen_to_last({CACHE_TAG: writing.stamp}, _longest(writing.pxs), self._now())
        return True

    def _set_call(self, writing: Writing, fresh: int, life: int | str) -> bytes:
        digits = str(life).encode()
        shared = (8, _STAMP.pack(writing.stamp), 8, _STAMP.pack(fresh), len(digits), digits)
        call = self._set_pattern(len(writing.ats), self._setting.node.id)
        if self._setting.cluster:
            return call % (*writing.names, *shared, *writing.frames)
        log = self._log_of(writing.ats[0])
        return call % (*writing.names, len(log), log, *shared, *writing.frames)

    def _new_set_pattern(self, n: int, node: bytes) -> bytes:
        """Return the call of the script that stores n keys, as the process that is `node` sends it."""
        holes = [None] * 2 * n
        shared = () if self._setting.cluster else (self._own_stamp, None)
        return pattern(*self._words(SET, (*holes, *shared), n, None, None, None, node, *holes))

    def set_many(self, entries: Mapping[str, Entry]) -> Steps[list[str]]:
        if not entries:
            return []
        # all are encoded before any is sent: nothing is stored by halves
        yield from self._learn_dictionary_in_use()
        taken = yield from self._stamp_to_write()
        parts = self._parts(list(entries))
        refused: list[str] = []
        while parts:
            writings = [self._written(part, entries, taken.stamp) for part in parts]
            longest = _longest([px for writing in writings for px in writing.pxs])
            life = "" if self._lasts(CACHE_TAG, taken.stamp, longest) else _life(longest)
            calls = [self._set_call(writing, taken.fresh, life) for writing in writings]
            replies = yield from self._evaluated(Packed(b"".join(calls), len(calls)))
            others: list[Sequence[str]] = []
            stored: list[str] = []
            ats: list[bytes] = []
            for part, writing, reply in zip(parts, writings, replies, strict=True):
                if type(reply) is bytes:  # the current stamp, which is not the one we took for it
                    others.append(part)
                    taken = self._corrected(reply, taken)
                elif isinstance(reply, Refusal):
                    refused += part
                    if len(refused) == len(entries):
                        self._checked(reply)
                else:
                    stored += part
                    ats += writing.ats
            if stored:
                self._learn_taken(taken)
                yield from self._stored(ats, ((CACHE_TAG, taken.stamp),), longest)
                for entry in [entries[key] for key in stored if entries[key].stamps]:
                    yield from self._assure(entry.stamps, self._px(entry))
            parts = others
        return refused

    def _written(self, keys: Sequence[str], entries: Mapping[str, Entry], stamp: int) -> Writing:
        writing = Writing(stamp)
        for key in keys:
            self._put(writing, key, entries[key])
        return writing

    def _parts(self, keys: Sequence[W]) -> list[Sequence[W]]:
        """Return what one script each has to do with."""
        return [keys[first : first + self._most] for first in range(0, len(keys), self._most)]

    def update(self, key: str, change: Change) -> Steps[Entry | None]:
        """Apply `change` atomically: by a script of its own where there is one, else by comparing and swapping."""
        yield from self._learn_dictionary_in_use()
        if isinstance(change, Add):
            return (yield from self._add(key, change))
        if isinstance(change, Touch):
            return (yield from self._touch(key, change))
        if isinstance(change, Increment) and _is_plain_int(change.form) and abs(change.delta) < 10**15:
            return (yield from self._increment(key, change))
        return (yield from self._swap(key, change))

    def _add(self, key: str, change: Add) -> Steps[Entry | None]:
        at = self._names.value(key)
        taken = yield from self._stamp_to_write()
        px = self._px(change.entry)
        while True:
            frame = self._frame(change.entry, at, taken.stamp)
            (reply,) = yield from self._evaluated([self._script(ADD, [at], taken, px, frame, px)])
            if type(reply) is bytes:
                taken = self._corrected(reply, taken)
                continue
            if self._checked(reply) == 1:
                self._learn_taken(taken)
                yield from self._stored([at], ((CACHE_TAG, taken.stamp), *change.entry.stamps), px)
                return change.entry
            (found,) = yield from self._living([at], [reply[0]], [reply[1]], taken.stamp)
            if change(found) is None:
                return None
            return (yield from self._swap(key, change))

    def _touch(self, key: str, change: Touch) -> Steps[Entry | None]:
        at = self._names.value(key)
        taken = yield from self._stamp_to_write()
        end = change.now + change.ttl
        life = change.ttl + change.stale_ttl
        px = 0 if math.isinf(life) else max(1, math.ceil(life * 1000))
        arguments = (pack_times(change.now, end, end + change.stale_ttl), px, int(change.now * 1000))
        reply, are_current = yield from self._in_place(TOUCH, at, taken, px, *arguments)
        if reply is None:
            return None
        entry = yield from self._still_there(at, reply, -1, are_current=are_current)
        yield from self._stored([at], () if entry is None else entry.stamps, px)
        return entry and entry.living_again(change.ttl, change.now, change.stale_ttl)

    def _increment(self, key: str, change: Increment) -> Steps[Entry | None]:
        at = self._names.value(key)
        taken = yield from self._stamp_to_write()
        arguments = (change.delta, self._digit_stages, crc32(at), int(change.now * 1000))
        reply, are_current = yield from self._in_place(INCREMENT, at, taken, None, *arguments)
        if reply is None:
            return change(None)
        counted, frame, px = reply
        if not counted:
            return (yield from self._swap(key, change))
        entry = yield from self._still_there(at, frame, px, are_current=are_current)
        yield from self._told([at])
        if entry is None:
            return change(None)
        count = change.form.decode(entry)
        return Entry(entry.payload, count, entry.created_at, entry.fresh_until, entry.dead_at, entry.stamps)

    def _in_place(
        self, script: Script, at: bytes, taken: _Taken, px: int | None, *arguments: bytes | int
    ) -> Steps[tuple[Any, bool]]:
        """Have a script change what is there, and return its answer, None where nothing is that is fresh; and whether
        the tags of that were looked at.

        The script cannot see whether tags are current, and gives back what carries some; it is called again with what
        was found to be, until that is what it meets.
        """
        seen = b""
        while True:
            (reply,) = yield from self._evaluated([self._script(script, [at], taken, px, *arguments, seen)])
            if type(self._checked(reply)) is not list or reply[0] != b"tagged":
                return reply, bool(seen)
            _, frame, left = reply
            entry = yield from self._still_there(at, frame, left)
            if entry is None or entry.fresh_until <= self._now():
                return None, True
            seen = head_of(frame)

    def _still_there(
        self, at: bytes, frame: bytes, px: int, *, are_current: bool = False
    ) -> Steps[Entry | None]:
        """Decode what a script took by the look of its head; what turns out to be no frame is dropped."""
        spoilt = self.foreign
        try:
            own = next((stamp for tag, stamp in unpack_stamps(frame) if tag == CACHE_TAG), None)
        except BadFrame:
            own = None
        if own != self._stamps.own():
            self._stamps.forget(CACHE_TAG)  # the script knows better
        (entry,) = yield from self._living([at], [frame], [px], own, are_current=are_current)
        if entry is None and self.foreign > spoilt:
            yield from self._dropped([at])
        return entry

    def _swap(self, key: str, change: Change) -> Steps[Entry | None]:
        """Read, change, and swap if what was read is still there, else once more. Each turn that fails
        means that somebody else's write went through, so the callers together always get on."""
        at = self._names.value(key)
        while True:
            version = self._stamps.version
            frame, px, stored = yield [self._read(at), ("PTTL", at), ("GET", self._own_stamp)]
            own = self._learnt(stored, version)
            if isinstance(frame, bytes) and len(frame) > self._most_bytes:
                yield from self._dropped([at])  # nothing of ours is as long, and it was not read to its end
                continue
            (found,) = yield from self._living([at], [frame], [px], own)
            try:
                changed = change(found)
            except Exception:
                if found is None and frame and not (type(frame) is bytes and is_of_another_version(frame)):
                    yield from self._dropped([at])  # it is of no use to anybody
                raise
            if changed is None:
                return None
            taken = yield from self._stamp_to_write(own)
            # what is of another type is replaced as if nothing were there
            expected = frame if isinstance(frame, bytes) else b""
            new_px = self._px(changed)
            arguments = (expected, self._frame(changed, at, taken.stamp), new_px)
            (reply,) = yield from self._evaluated([self._script(SWAP, [at], taken, new_px, *arguments)])
            if self._checked(reply) == 1:
                yield from self._stored([at], ((CACHE_TAG, taken.stamp), *changed.stamps), new_px)
                return changed

    # -- dropping

    def delete(self, key: str) -> Steps[bool]:
        count = yield from self.delete_many([key])
        return count > 0

    def delete_many(self, keys: Sequence[str]) -> Steps[int]:
        return (yield from self._dropped([self._names.value(key) for key in keys])) if keys else 0

    def _dropped(self, ats: Sequence[bytes]) -> Steps[int]:
        """Drop the keys at `ats`; return how many held a valid entry."""
        taken = yield from self._stamp_to_write()
        commands = [self._script(DELETE, part, taken, None) for part in self._parts(ats)]
        replies = yield from self._evaluated(commands)
        yield from self._told(ats)
        stamped: list[Stamps] = []
        for reply in replies:
            *heads, current = self._checked(reply)
            for head in heads:
                try:
                    stamps = unpack_stamps(head)
                except BadFrame:
                    continue
                if stamps and _STAMP.pack(stamps[0][1]) == current:
                    stamped.append(stamps)
        current_tags = yield from self._current(tag for stamps in stamped for tag, _ in stamps[1:])
        return sum(
            all((now := current_tags[tag]) is not None and is_alive(stamp, now) for tag, stamp in stamps[1:])
            for stamps in stamped
        )

    def clear(self) -> Steps[None]:
        """A new stamp for the cache: what is there is of no use from now on, and goes when its time is over."""
        yield from self.invalidate([CACHE_TAG])

    def invalidate(self, tags: Sequence[str], soft: bool = False) -> Steps[None]:
        """Give each of `tags` a new stamp: one that counts a soft invalidation more, or another. The cache's own is
        always another."""
        if not tags:
            return
        for tag in tags:
            self._stamps.forget(tag)
        version = self._stamps.version
        fresh = {tag: new_stamp() for tag in tags}
        yield from self._marked(tags, "1")
        counts = [b"1" if soft and tag != CACHE_TAG else b"" for tag in fresh]
        commands = [
            self._stamp_script(INVALIDATE, tag, stamp, "", self._names.in_log(tag), _bucket(tag), count)
            for (tag, stamp), count in zip(fresh.items(), counts, strict=True)
        ]
        replies = yield from self._evaluated(commands)
        given = {tag: self._checked(reply) for tag, reply in zip(fresh, replies, strict=True)}
        yield from self._marked(tags, "0")
        if self._setting.cluster:
            pairs: list[tuple[bytes, bytes]] = []
            for tag, stamp in given.items():
                kind = b"t" if stamp == _STAMP.pack(fresh[tag]) else b"o"
                pairs += [(kind, self._names.in_log(tag)), (b"s", stamp)]
            (reply,) = yield [self._log_entry(self._names.stamp(tags[0]), pairs)]
            self._checked(reply)
        # what others fetched meanwhile may be the former stamps
        known = {tag: _STAMP.unpack(stamp)[0] for tag, stamp in given.items()}
        for tag, now in known.items():
            self._stamps.forget(tag, unless=now)
        self._stamps.learn(known.items(), version + len(known))

    def _marked(self, tags: Sequence[str], pending: str) -> Steps[None]:
        """Note in a cluster that `tags` are being invalidated, or were; elsewhere the script does it."""
        buckets = [_bucket(tag) for tag in tags if tag != CACHE_TAG]
        if self._setting.cluster and buckets:
            yield from self._mark(pending, buckets)

    def _mark(self, pending: str, buckets: Sequence[bytes]) -> Steps[None]:
        stamp = new_stamp()
        command = self._call(MARK, (self._names.marks,), 0, _Taken(stamp, stamp, 0), "", pending, *buckets)
        for reply in (yield from self._evaluated([command])):
            self._checked(reply)

    # -- stamps

    def stamps(self, tags: Sequence[str]) -> Steps[Stamps]:
        """Return the current stamps of the cache and of `tags`, for an entry whose load begins now."""
        wanted = [CACHE_TAG, *tags]
        version = self._stamps.version
        unknown = [tag for tag in wanted if self._stamps.get(tag) is None]
        found = {tag: known for tag in wanted if (known := self._stamps.get(tag)) is not None}
        if unknown:
            commands = [self._stamp_script(STAMP, tag, new_stamp(), "") for tag in unknown]
            replies = yield from self._evaluated(commands)
            for tag, reply in zip(unknown, replies, strict=True):
                (found[tag],) = _STAMP.unpack(self._checked(reply))
            self._stamps.learn([(tag, found[tag]) for tag in unknown], version)
        return tuple((tag, found[tag]) for tag in wanted)

    def _current(self, tags: Any) -> Steps[dict[str, int | None]]:
        """Return what stamps `tags` have, None for those that are lost; one round trip where some are unknown."""
        version = self._stamps.version
        current: dict[str, int | None] = {tag: self._stamps.get(tag) for tag in tags}
        unknown = [tag for tag, stamp in current.items() if stamp is None]
        if unknown:
            replies = yield [("GET", self._names.stamp(tag)) for tag in unknown]
            for tag, reply in zip(unknown, replies, strict=True):
                current[tag] = self._stamp_of(reply)
            self._stamps.learn([(tag, stamp) for tag in unknown if (stamp := current[tag])], version)
        return current

    def _learnt(self, reply: Any, version: int) -> int | None:
        stamp = self._stamp_of(reply)
        if stamp is not None:
            self._stamps.learn([(CACHE_TAG, stamp)], version)
        return stamp

    def _stamp_of(self, reply: Any) -> int | None:
        """Return a stamp as the server keeps it; None for what is lost or none of ours."""
        data = self._string(reply)
        return _STAMP.unpack(data)[0] if data is not None and len(data) == _STAMP.size else None

    def _stamp_to_write(self, own: int | None = None) -> Steps[_Taken]:
        """Return what to take for the cache's stamp. Where it is not known, a new one is proposed, which the script
        refuses if there is another; in a cluster the script cannot see it, so it is asked for."""
        version, own = self._stamps.version, own or self._stamps.own()
        if own is None and self._setting.cluster:
            ((_, own),) = yield from self.stamps([])
        if own is not None:
            return _Taken(own, new_stamp(), version)
        proposed = new_stamp()
        return _Taken(proposed, proposed, version)

    def _corrected(self, reply: bytes, taken: _Taken) -> _Taken:
        """Return what to take for the stamp after a script has said that it is not what was `taken` for it."""
        (current,) = _STAMP.unpack(reply)
        # known from now on: of many tasks that begin at once, each would else make the others forget it again
        self._stamps.learn([(CACHE_TAG, current)], taken.version)
        return _Taken(current, new_stamp(), self._stamps.version)

    def _learn_taken(self, taken: _Taken) -> None:
        """A script has stored what carries that stamp, so it is the current one."""
        if self._stamps.own() != taken.stamp:
            self._stamps.learn([(CACHE_TAG, taken.stamp)], taken.version)

    def _stored(self, ats: Sequence[bytes], stamps: Stamps, px: int) -> Steps[None]:
        """After a write: the log is told of the keys at `ats`, and what they carry lives as long as they do."""
        if self._setting.cluster:
            yield from self._told(ats)
        yield from self._assure(stamps, px)

    def _assure(self, stamps: Stamps, px: int) -> Steps[None]:
        """See to it that `stamps` live longer than an entry of `px` milliseconds, 0 for ever.

        A script prolongs the cache's own with the write, where it can see it; others take a round trip, once in a long
        while.
        """
        now = self._now()
        short = {tag: stamp for tag, stamp in stamps if not self._lasts(tag, stamp, px)}
        if not short:
            return
        commands = [
            self._stamp_script(STAMP, tag, new_stamp(), _life(px))
            for tag in short
            if self._setting.cluster or tag != CACHE_TAG
        ]
        if commands:
            for reply in (yield from self._evaluated(commands)):
                self._checked(reply)
        self._seen_to_last(short, px, now)

    def _seen_to_last(self, stamps: Mapping[str, int], px: int, now: float) -> None:
        lasts = math.inf if px == 0 else now + 0.75 * _life(px) / 1000
        if len(self._lasting) > _MOST_TAGS:
            self._lasting.clear()
        self._lasting.update((tag, (stamp, lasts)) for tag, stamp in stamps.items())

    def _lasts(self, tag: str, stamp: int, px: int) -> bool:
        """Whether the stamp of `tag` was seen to live longer than an entry that is stored now."""
        known, until = self._lasting.get(tag, (0, 0.0))
        return known == stamp and (math.inf if px == 0 else self._now() + px / 1000) <= until

    # -- leases

    def lease_many(
        self, keys: Sequence[str], token: bytes, seconds: float, after: float, tags: Sequence[str]
    ) -> Steps[dict[str, Lease]]:
        """For each of `keys` return its fresh entry; or grant its lease, for `seconds`, to the holder of `token`; or
        say that somebody else has it. A stale entry comes along."""
        ats = {key: self._names.value(key) for key in keys}
        useless = dict.fromkeys(keys, b"")
        stale: dict[str, Entry] = {}  # by their tags, which no script sees
        beyond = _FOR_EVER_MS if math.isinf(after) else int(max(after, self._now()) * 1000)
        px = max(1, _ms(seconds))
        leases: dict[str, Lease] = {}
        pending = list(keys)
        while pending:
            taken = yield from self._stamp_to_write()
            version = self._stamps.version
            unknown = [tag for tag in tags if self._stamps.get(tag) is None]
            known = {tag: stamp for tag in tags if (stamp := self._stamps.get(tag)) is not None}
            asked = [
                self._script(LEASE, [ats[key]], taken, None, token, px, beyond, useless[key])
                for key in pending
            ]
            asked += [self._stamp_script(STAMP, tag, new_stamp(), "") for tag in unknown]
            *replies, marks = yield from self._evaluated([*asked, ("HMGET", self._names.marks, "*", "n")])
            for tag, reply in zip(unknown, replies[len(pending) :], strict=True):
                (known[tag],) = _STAMP.unpack(self._checked(reply))
            self._stamps.learn([(tag, known[tag]) for tag in unknown], version)
            again: list[str] = []
            for key, reply in zip(pending, replies, strict=False):
                state, frame, left, current = self._checked(reply)
                own = self._learnt(current, taken.version)
                assert own is not None
                (entry,) = (yield from self._living([ats[key]], [frame], [left], own)) if frame else (None,)
                if state == b"fresh" and (entry is None or entry.fresh_until <= self._now()):
                    useless[key] = frame[-4:]  # altered, or its tags are not current
                    if entry is not None:
                        stale[key] = entry
                    again.append(key)
                    continue
                stamps = ((CACHE_TAG, own), *((tag, known[tag]) for tag in tags))
                leases[key] = Lease(_STATES[state], entry or stale.get(key), stamps, _mark_of(marks), token)
            pending = again
        return leases

    def fill_many(self, token: bytes, entries: Mapping[str, Entry]) -> Steps[list[str]]:
        """Store what was loaded under leases, with the stamps that came with them; return the keys of those that are
        void by now: their leases, as the keys were written or the cache cleared, or what they carry, as a tag of theirs
        was invalidated. The latter are stored, and stale or of no use to anybody; but nobody is to keep them near."""
        if not entries:
            return []
        yield from self._learn_dictionary_in_use()
        version = self._stamps.version
        commands: list[Command] = []
        for key, entry in entries.items():
            at, px = self._names.value(key), self._px(entry)
            taken = _Taken(dict(entry.stamps)[CACHE_TAG], new_stamp(), version)
            frame = self._frame(entry, at, taken.stamp)
            commands.append(self._script(FILL, [at], taken, px, token, frame, px))
        carried = {
            tag: stamp for entry in entries.values() for tag, stamp in entry.stamps if tag != CACHE_TAG
        }
        looks: list[Command] = [("GET", self._names.stamp(tag)) for tag in carried]
        if self._setting.cluster and looks:  # in no order else, as they go to several servers
            replies = yield from self._evaluated(commands)
            replies += yield looks
        else:
            replies = yield from self._evaluated([*commands, *looks])
        stored = [key for key, reply in zip(entries, replies, strict=False) if reply == 1]
        if stored:
            stamps = dict.fromkeys(pair for key in stored for pair in entries[key].stamps)
            longest = _longest([self._px(entries[key]) for key in stored])
            yield from self._stored([self._names.value(key) for key in stored], tuple(stamps), longest)
        now = [self._stamp_of(reply) for reply in replies[len(commands) :]]
        gone = {tag for (tag, stamp), current in zip(carried.items(), now, strict=True) if stamp != current}
        for tag in gone:
            self._stamps.forget(tag)  # sooner than the log says so
        return [
            key
            for (key, entry), reply in zip(entries.items(), replies, strict=False)
            if self._checked(reply) != 1 or any(tag in gone for tag, _ in entry.stamps)
        ]

    def release_many(self, keys: Sequence[str], token: bytes, seconds: float) -> Steps[None]:
        """Give leases back; or keep them, so that nobody loads, for so long."""
        if not keys:
            return
        taken, px = _Taken(0, 0, 0), _ms(seconds)
        commands = [self._script(RELEASE, [self._names.value(key)], taken, None, token, px) for key in keys]
        for reply in (yield from self._evaluated(commands)):
            self._checked(reply)

    def late_stamps(self, tags: Sequence[str], mark: bytes | None) -> Steps[Stamps | None]:
        """Return the stamps of `tags` that were not known when the lease with that `mark` was granted.

        What was loaded since may be from before an invalidation of one of them, and would carry the stamp from after
        it. So every invalidation leaves a number in the bucket of its tag, in the step that changes the stamp: none of
        the buckets may hold one beyond that of the lease. In a cluster, where that is no single step, a bucket is
        pending before and until after it.
        """
        if mark is None:
            yield from self._mark("0", ())
            return None  # from now on there are marks
        asked = [self._stamp_script(STAMP, tag, new_stamp(), "") for tag in tags]
        marks: Command = ("HMGET", self._names.marks, "*", *(_bucket(tag) for tag in tags))
        if self._setting.cluster:  # the stamps first: they go to several servers, in no order
            stamps = yield from self._evaluated(asked)
            (noted,) = yield [marks]
        else:
            *stamps, noted = yield [*asked, marks]
            if any(type(reply) is Refusal and reply.code == "NOSCRIPT" for reply in stamps):
                yield from self._evaluated(asked)
                *stamps, noted = yield [*asked, marks]
        if type(noted) is Refusal and noted.code == "WRONGTYPE":
            return None
        current, *numbers = self._checked(noted)
        name, count = mark[: _STAMP.size], mark[_STAMP.size :]
        if current != name or any(number is not None and not _is_until(number, count) for number in numbers):
            return None
        return tuple(
            (tag, _STAMP.unpack(self._checked(stamp))[0]) for tag, stamp in zip(tags, stamps, strict=True)
        )

    # -- dictionaries

    def _learn_dictionary_in_use(self) -> Steps[None]:
        """Ask which dictionary new values are compressed with, once, and again when the log says that it changed."""
        if self._dictionary_known:
            return
        news = self._dictionary_news
        (reply,) = yield [("GET", self._names.dictionary())]
        id = self._string(reply)
        in_use = int(id) if id is not None and id.isdigit() and len(id) <= 10 else None
        if in_use is not None:
            yield from self._learn_dictionary(in_use)
        if self._dictionaries is not None:
            self._dictionaries.use(None if in_use in self._lost else in_use)
        self._dictionary_known = news == self._dictionary_news

    def _learn_dictionary(self, id: int) -> Steps[None]:
        """Fetch a dictionary; frames that were made with one that is lost are unreadable."""
        (data,) = yield [("GET", self._names.dictionary(id))]
        assert self._dictionaries is not None
        try:
            if self._dictionaries.add(self._string(data) or b"") != id:
                self._lost.add(id)
        except DecodeError:
            self._lost.add(id)

    def forget_dictionary(self) -> None:
        """Another may be in use by now."""
        self._dictionary_news += 1
        self._dictionary_known = self._dictionaries is None
        self._lost.clear()

    # -- parts

    def _frame(self, entry: Entry, at: bytes, stamp: int) -> bytes:
        return self._pipeline.encode(entry, at, _carried(((CACHE_TAG, stamp),), entry))

    def _px(self, entry: Entry) -> int:
        """The milliseconds that the server keeps `entry`, 0 for ever."""
        left = entry.left(self._now())
        return 0 if math.isinf(left) else max(1, math.ceil(left * 1000))

    def _script(
        self,
        script: Script,
        ats: Sequence[bytes],
        taken: _Taken,
        px: int | None,
        *arguments: bytes | str | int,
    ) -> Command:
        """Return the call of a script that has to do with the keys at `ats`.

        Args:
            px: the milliseconds that the longest of the entries to store lives, 0 for ever; None: none is stored.
        """
        pairs = [name for at in ats for name in (at, self._names.lease(at))]
        life = "" if px is None or self._lasts(CACHE_TAG, taken.stamp, px) else _life(px)
        if not self._setting.cluster:
            pairs += (self._own_stamp, self._log_of(ats[0]))
        return self._call(script, pairs, len(ats), taken, life, *arguments)

    def _stamp_script(
        self, script: Script, tag: str, stamp: int, life: int | str, *arguments: bytes
    ) -> Command:
        """Return the call of a script that has to do with the stamp of `tag` alone.

        Args:
            stamp: to become its stamp where it has none; that it has already is not among them.
            life: the milliseconds that it has to live, 0 for ever, '' as it is.
        """
        at = self._names.stamp(tag)
        keys: tuple[bytes, ...] = (at,)
        if not self._setting.cluster:
            with_mark = script is INVALIDATE and tag != CACHE_TAG
            log = self._log_of(at)
            keys = (at, log, self._names.marks) if with_mark else (at, log)
        return self._call(script, keys, 0, _Taken(stamp, stamp, 0), life, *arguments)

    def _call(
        self,
        script: Script,
        keys: Sequence[bytes],
        n: int,
        taken: _Taken,
        life: int | str,
        *arguments: bytes | str | int,
    ) -> Command:
        stamps = (_STAMP.pack(taken.stamp), _STAMP.pack(taken.fresh))
        return self._words(script, keys, n, *stamps, life, self._setting.node.id, *arguments)

    def _words(
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
        shared = (n, stamp, fresh, life, self._setting.log_length, node, self._names.application)
        return ("EVALSHA", script.sha, len(keys), *keys, *shared, *arguments)

    def _evaluated(self, commands: Sequence[Command]) -> Steps[list[Any]]:
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

    def _told(self, ats: Sequence[bytes]) -> Steps[None]:
        """Tell the log what was written, where the script could not."""
        if self._setting.cluster and ats:
            shared = self._names.application
            (reply,) = yield [self._log_entry(ats[0], [(b"k", at[shared:]) for at in ats])]
            self._checked(reply)

    def _log_entry(self, name: bytes, pairs: Sequence[tuple[bytes, bytes]]) -> Command:
        setting = self._setting
        words = [word for pair in pairs for word in pair]
        return (
            "XADD",
            self._log_of(name),
            "MAXLEN",
            "~",
            setting.log_length,
            "*",
            b"n",
            setting.node.id,
            *words,
        )

    def _read(self, at: bytes) -> Command:
        # not GET: of what is longer than anything of ours no more than that comes over the wire
        return ("GETRANGE", at, 0, self._most_bytes)

    def _string(self, reply: Any) -> bytes | None:
        """Return what GET answered; None for what is not there or of another type."""
        if type(reply) is Refusal and reply.code == "WRONGTYPE":
            return None
        data: bytes | None = self._checked(reply)
        return data

    def _checked(self, reply: Any) -> Any:
        if isinstance(reply, Refusal):
            raise BackendError(self._setting.backend, f"the server refused: {reply}") from reply
        return reply


def _by_tags(entry: Entry, current: Mapping[str, int | None]) -> Entry | None:
    """Return `entry` as the `current` stamps of its tags leave it: as it is, stale, or None."""
    is_current = True
    for tag, stamp in entry.stamps[1:]:
        now = current[tag]
        if now != stamp:
            if now is None or not is_alive(stamp, now):
                return None
            is_current = False
    return entry if is_current else entry.made_stale()


def _bucket(tag: str) -> bytes:
    return b"%d" % (crc32(tag.encode()) % _BUCKETS)


def _mark_of(reply: Any) -> bytes | None:
    """Return what the hash of marks says of itself, None where there is none."""
    if type(reply) is not list or not isinstance(reply[0], bytes) or len(reply[0]) != _STAMP.size:
        return None
    return reply[0] + (reply[1] or b"0")


def _is_until(number: bytes, count: bytes) -> bool:
    """Whether what a bucket holds is no later than `count`; one that is pending may be."""
    return number.isdigit() and int(number) <= int(count)


def _ms(seconds: float) -> int:
    """Return the milliseconds of a lease; a lease for ever ends in some thousand years."""
    return math.ceil(min(seconds * 1000, _FOR_EVER_MS))


def _carried(own: Stamps, entry: Entry) -> Stamps:
    """Return the stamps of a frame of `entry` that carries `own` for the cache's."""
    return own + tuple(pair for pair in entry.stamps if pair[0] != CACHE_TAG)


def _life(px: int) -> int:
    """Return the milliseconds that a stamp has to live for the sake of an entry of `px`, 0 for ever: more than is
    needed, so that it need not be looked at for a while."""
    return 0 if px == 0 else max(STAMP_LIFE, 2 * px)


def _longest(pxs: Sequence[int]) -> int:
    """Return the longest of some lives in milliseconds; 0, for ever, is longer than all."""
    return 0 if 0 in pxs else max(pxs)


def _is_plain_int(form: NormalForm) -> bool:
    """Whether every int that `form` can read is stored as its digits."""
    return form.type is int if isinstance(form, TypedForm) else True
