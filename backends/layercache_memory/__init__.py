"""The memory backend: entries in this process, bounded by number and by bytes, and choosing well what to
keep.

    [default.backends.local]
    type = "memory"
    max_entries = 10_000
    max_bytes = "64MB"
    eviction = "lazy-tinylfu"

A hit is a plain function over a dict: it takes no lock and moves no list (`record` says why that is safe).
Everything else is short and under one lock (`storage`). Who makes room is a policy's choice (`policies`).
The bounds are the backend's, shared by the caches that use it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, cast

from pydantic import AfterValidator

from layercache.errors import UnknownEviction
from layercache.options import Bytes, Count, Duration, NormalCodec, options, stages
from layercache.registry import class_named
from layercache.spi import Backend, Finding, KeySpace, Opening, Serializer
from layercache_memory.policies.base import Policy
from layercache_memory.space import MemorySpace
from layercache_memory.storage import UNIT, Storage

__all__ = ["MemoryBackend", "MemoryOptions", "policy_named"]


def policy_named(name: str) -> type[Policy]:
    """Return the eviction policy that an installed package offers as `name`, or raise `UnknownEviction`."""
    return class_named("layercache.evictions", name, Policy, UnknownEviction)


def _known_policy(name: str) -> str:
    try:
        policy_named(name)
    except UnknownEviction as error:
        raise ValueError(str(error)) from error
    return name


@options
class MemoryOptions:
    """Attributes:
    max_entries: how many entries are kept at most, of all its caches together.
    max_bytes: how many bytes they may take: keys, values and bookkeeping.
    max_entry_bytes: an entry that takes more is not kept, as it would drive out too many others; a
        quarter of `max_bytes` when left out.
    max_ttl: no entry lives longer here, whatever its own ttl.
    eviction: who makes room: `"lazy-tinylfu"`, `"lru"`, `"s3-fifo"`, or the name of a third party's policy.
    codecs: the serializer that gives values their normal form.
    miss_ratio_curve: whether to keep book of what the hit rate would be with less memory, and with more.
    """

    max_entries: Count = 10_000
    max_bytes: Bytes = 64 << 20
    max_entry_bytes: Bytes | None = None
    max_ttl: Duration = math.inf
    eviction: Annotated[str, AfterValidator(_known_policy)] = "lazy-tinylfu"
    codecs: NormalCodec = stages("json")
    miss_ratio_curve: bool = False


class MemoryBackend(Backend):
    """Stores in the memory of this process; never blocks, and threads and tasks share it."""

    Options: ClassVar[type[Any]] = MemoryOptions

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        chosen: MemoryOptions = self.options
        self.serializer = cast("Serializer", chosen.codecs[0].open())
        self._storage = Storage(
            chosen.max_entries,
            chosen.max_bytes,
            chosen.max_entry_bytes or chosen.max_bytes // 4,
            policy_named(chosen.eviction)(),
            self.now,
            curve=chosen.miss_ratio_curve,
        )
        self._spaces: dict[str, MemorySpace] = {}

    def key_space(self, cache: str) -> KeySpace:
        if cache not in self._spaces:
            self._spaces[cache] = MemorySpace(self._storage, self.serializer, self.options.max_ttl)
        return self._spaces[cache]

    def close(self) -> None:
        self._storage.empty()

    def after_fork(self) -> None:
        self._storage.after_fork()
        for space in self._spaces.values():
            space.after_fork()

    @classmethod
    def faults(cls, options: Any, backends: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if options.max_entry_bytes is not None and options.max_entry_bytes > options.max_bytes:
            yield "max_entry_bytes", f"is more than max_bytes = {options.max_bytes:,}"

    def examine(self, caches: Sequence[str]) -> Iterable[Finding]:
        """Say how full it is in this process; what others hold cannot be seen from here."""
        chosen, storage = self.options, self._storage
        entries = f"{storage.entries:,} of {chosen.max_entries:,} entries"
        held = f"{storage.units * UNIT:,} of {chosen.max_bytes:,} bytes"
        yield Finding("ok", "fill", f"{entries}, {held}, in this process")
