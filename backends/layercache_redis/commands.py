"""What is sent to the server for one cache, and what its answers mean: pure, no I/O.

Each operation is steps (`wire.Steps`), which `sync` and `aio` drive.

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

from layercache.codecs.pipeline import Pipeline
from layercache_redis.calls import Calls, Setting
from layercache_redis.dictionaries import KnownDictionaries
from layercache_redis.leases import Leases
from layercache_redis.marks import Marks
from layercache_redis.names import Names
from layercache_redis.reads import Reads
from layercache_redis.stamping import Stamping
from layercache_redis.stamps import KnownStamps
from layercache_redis.updates import Updates
from layercache_redis.writes import Writes

__all__ = ["Commands"]


class Commands:
    """The operations of one cache, each from where its story is told.

    Args:
        known: the stamps that need not be asked for.
    """

    def __init__(self, setting: Setting, names: Names, pipeline: Pipeline, known: KnownStamps) -> None:
        self.setting, self.names, self.pipeline, self.known = setting, names, pipeline, known
        calls = self.calls = Calls(setting, names)
        marks = Marks(calls)
        stamping = Stamping(calls, known, marks)
        dictionaries = KnownDictionaries(calls, pipeline.dictionaries)
        reads = self._reads = Reads(pipeline, stamping, dictionaries)
        writes = Writes(pipeline, stamping, dictionaries)
        updates = Updates(pipeline, stamping, dictionaries, reads, writes)
        leases = Leases(stamping, dictionaries, reads, writes)

        self.get, self.get_many = reads.get, reads.get_many
        self.set, self.set_many = writes.set, writes.set_many
        self.added, self.set_call, self.is_stored = writes.added, writes.set_call, writes.is_stored
        self.delete, self.delete_many = writes.delete, writes.delete_many
        self.update = updates.update
        self.stamps, self.invalidate, self.clear = stamping.stamps, stamping.invalidate, stamping.clear
        self.lease_many, self.fill_many = leases.lease_many, leases.fill_many
        self.release_many, self.late_stamps = leases.release_many, marks.late_stamps
        self.forget_dictionary = dictionaries.forget

    @property
    def foreign(self) -> int:
        """How often something under a key of ours was not ours."""
        return self._reads.foreign

    @property
    def unverified(self) -> int | None:
        """How many frames nobody with a key had sealed as they stood; None where frames are not sealed."""
        return self.pipeline.unverified if self.pipeline.seals else None
