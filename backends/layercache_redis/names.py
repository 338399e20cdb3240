"""The names of everything on the server: values, leases, stamps, dictionaries, the log.

    {prefix}:{cache}:{key}                       a value
    {prefix}:%lease:{{prefix}:{cache}:{key}}     its lease; the braces put it in the value's cluster slot
    {prefix}:%tag:{cache}:{tag}                  a stamp; the cache's own has the tag '*'
    {prefix}:%marks:{cache}                      which tags were invalidated lately, by bucket
    {prefix}:%dict:{cache}[:{id}]                the dictionary in use, and each there is
    {prefix}:%log                                the log, or the first of its streams
    {prefix}:%log:{number}                       each other stream
    {prefix}:%shards:{{prefix}:%log}             to how many streams processes have said that they write

Rule: the name of a cache is escaped so that it never begins with `%` and a letter beyond F; what does is ours.
"""

from __future__ import annotations

from typing import Final
from uuid import uuid4
from zlib import crc32

from layercache.keys import key_space_prefix, physical_key

__all__ = ["Names", "Node", "Streams", "log_name", "shards_name"]

_LOG: Final = "%log"


def log_name(prefix: str, number: int = 0) -> bytes:
    """Return the name of a stream of the log of all caches under `prefix`; the first is called as if it were alone."""
    return (_application(prefix) + (f"{_LOG}:{number}" if number else _LOG)).encode()


def shards_name(prefix: str) -> bytes:
    """Return the name of what says how many streams are in use; the braces put it in the slot of the first."""
    return b"%b%%shards:{%b}" % (_application(prefix).encode(), log_name(prefix))


def _application(prefix: str) -> str:
    return key_space_prefix(prefix, "")[:-1]


class Node:
    """A process with its backend, as the log names it.

    Attributes:
        id: one of its own, and another after a fork.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Take another name, as a forked process must."""
        self.id = uuid4().hex[:12].encode()


class Streams:
    """The streams of the log that this process writes to.

    Attributes:
        stated: how many, by the settings.
        in_use: to how many of them it writes now: only to the first, until others have been told of more.
        said_at: where that is said.
    """

    def __init__(self, prefix: str, stated: int = 1) -> None:
        self.stated, self.in_use = stated, 1
        self.said_at = shards_name(prefix)
        self._names = [log_name(prefix, number) for number in range(stated)]

    def of(self, name: bytes) -> bytes:
        """Return the stream that is told of a value or a stamp: any does, as all are followed; so one script has to do
        with one of them only."""
        return self._names[0 if self.in_use == 1 else crc32(name) % self.in_use]


class Names:
    """The names of one cache.

    Attributes:
        streams: of the log.
        values: what every value's name begins with.
        application: bytes of the part that all names under one prefix share.
        marks: the name of the hash that says which tags were invalidated.
    """

    def __init__(self, prefix: str, cache: str, streams: Streams | None = None) -> None:
        self.values = key_space_prefix(prefix, cache)
        shared = _application(prefix)
        self.application = len(shared.encode())
        self._cache = self.values[len(shared) : -1]
        self._leases = f"{shared}%lease:{{".encode()
        self._tags = f"{shared}%tag:{self._cache}:"
        self.marks = f"{shared}%marks:{self._cache}".encode()
        self._dictionaries = f"{shared}%dict:{self._cache}"
        self.streams = streams or Streams(prefix)

    def value(self, key: str) -> bytes:
        """Return the name of the value of a key."""
        return (self.values + physical_key(key)).encode()

    def lease(self, value: bytes) -> bytes:
        """Return the name of the lease of the value of that name."""
        return b"%b%b}" % (self._leases, value)

    def stamp(self, tag: str) -> bytes:
        """Return the name of the stamp of a tag."""
        return (self._tags + physical_key(tag)).encode()

    def in_log(self, tag: str) -> bytes:
        """Return what the log calls a tag of this cache; a value is there by its name without the prefix."""
        return f"{self._cache}:{physical_key(tag)}".encode()

    def dictionary(self, id: int | None = None) -> bytes:
        """Return the name of a dictionary, or of what says which one is in use."""
        return (self._dictionaries if id is None else f"{self._dictionaries}:{id}").encode()
