"""What a backend and a codec stage must offer: all that a third party has to know.

A *backend* is opened once per process and hands out a *key space* for each cache that uses it. A key space
maps keys to entries with five operations; everything else has a default here. Its rules:

1. An entry is gone once `entry.left(now) <= 0`, and never comes back.
2. `update` is atomic: no other write of the key happens between what it reads and what it stores.
3. A store that fails raises `BackendError` (or `BackendTimeout`) from the driver's own error.
4. Keys arrive checked, values encoded. A key space never looks into another's keys.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from layercache.core.tickets import Fill, Ticket, Tickets
from layercache.entry import Entry, Stamps
from layercache.errors import CacheError, CannotList

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from layercache.codecs.dictionaries import Dictionaries
    from layercache.codecs.seals import SealKey
    from layercache.sights import Curve, KeyPage, Lapse, LeaseSight, Sight, TagSight

__all__ = [
    "Backend",
    "Change",
    "Curve",
    "Finding",
    "KeyPage",
    "KeySpace",
    "Lapse",
    "Lease",
    "LeaseSight",
    "LeasingKeySpace",
    "Listener",
    "Near",
    "NearRecord",
    "Opening",
    "Seal",
    "Serializer",
    "Sight",
    "Stage",
    "TagSight",
    "Trained",
    "Transform",
]


def __getattr__(name: str) -> Any:
    # what operators see of a store, nobody needs whom they do not ask
    if name not in {"Curve", "KeyPage", "Lapse", "LeaseSight", "Sight", "TagSight"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from layercache import sights

    return getattr(sights, name)


R = TypeVar("R")

Change: TypeAlias = Callable[[Entry | None], Entry | None]
"""From the entry that is there (None when none is) to the one to store, or None to leave things alone.

It may be called more than once and must have no effects of its own; what it raises, `update` raises.
"""


class Lease(NamedTuple):
    """What a store answers to who wants to load a key.

    Attributes:
        state: "fresh", there is an entry to use; "granted", the caller loads and fills; "busy", somebody else loads;
            "down", the store cannot be asked, and the caller loads without it.
        entry: the fresh entry, or a stale one to serve meanwhile, or None.
        stamps: to be carried by what is loaded.
        mark: which invalidations there have been, for tags that only the loaded value tells; see `late_stamps`.
        token: by which it is filled or released.
    """

    state: Literal["fresh", "granted", "busy", "down"]
    entry: Entry | None
    stamps: Stamps = ()
    mark: bytes | None = None
    token: Any = None


class NearRecord(Protocol):
    """One entry that the hit path may read at any time, without a lock.

    Attributes:
        value, kind: what a reader gets is `value` where `kind` is None, else `kind(value)`.
        hit_until: wall-clock seconds until which it is read without a thought: its end, or when it is to be
            refreshed early.
        hits: raised by readers, and by nobody else.
    """

    value: Any
    kind: Callable[[Any], Any] | None
    hit_until: float
    hits: int


class Near(Protocol):
    """A key space in this process's memory.

    Attributes:
        records: by key; one dict for as long as the key space lives.
        now: the clock of their times.
        trusted_until: what is near is relied on until then; a chain in front of others moves it.
    """

    trusted_until: float

    @property
    def records(self) -> Mapping[str, NearRecord]:
        """What is there, by key."""
        ...

    @property
    def now(self) -> Callable[[], float]: ...

    def take(self, key: str, *, stale: bool) -> Entry | None:
        """Return the entry of `key` and count a hit, if it is fresh or may be `stale`; else None. It has a spread only
        if it is to be refreshed early by now."""
        ...

    def hits(self) -> int:
        """Return how often its records were read through `records`, those that are gone included."""
        ...

    def put_text(self, key: str, text: str, seconds: float) -> bool:
        """Store text to live `seconds` (more than 0); return whether it is kept. Both are ASCII and checked."""
        ...


class KeySpace(ABC):
    """The keys of one cache in one backend.

    Give the five abstract methods, and set `blocks` when they wait for a disk or a network: the async
    twins then run them in a thread instead of calling them on the event loop. A driver with an async side of its
    own overrides the twins.
    """

    blocks: ClassVar[bool] = False

    near: Near | None = None
    """What this process's memory knows of these keys, for hits without a lock; None where there is no such thing."""

    tickets: Tickets | None = None
    """Those of a store in this process that voids them itself, in the step that changes something. Where it is None,
    changes are registered around the operations here, which protects against other callers of this process."""

    @abstractmethod
    def get(self, key: str) -> Entry | None:
        """Return the living entry of `key`, or None."""

    @abstractmethod
    def set(self, key: str, entry: Entry) -> bool:
        """Keep `entry` and return whether it is kept; what was there is gone in either case."""

    @abstractmethod
    def update(self, key: str, change: Change) -> Entry | None:
        """Atomically replace the entry of `key` by `change` of it; return what was stored, or None."""

    @abstractmethod
    def delete(self, key: str) -> bool:
        """Drop the entry of `key` and return whether there was one."""

    @abstractmethod
    def clear(self) -> None:
        """Drop every entry of this key space, and of no other."""

    # -- several at once: worth overriding wherever a call is a round trip

    def get_many(self, keys: Sequence[str]) -> dict[str, Entry]:
        """Return the living entries among `keys`."""
        found = {key: self.get(key) for key in keys}
        return {key: entry for key, entry in found.items() if entry is not None}

    def set_many(self, entries: Mapping[str, Entry]) -> list[str]:
        """Keep all `entries`; return the keys of those that are not kept."""
        return [key for key, entry in entries.items() if not self.set(key, entry)]

    def delete_many(self, keys: Sequence[str]) -> int:
        """Drop the entries of `keys` and return how many there were."""
        return sum([self.delete(key) for key in keys])

    # -- tickets

    def fill(self, ticket: Ticket, entry: Entry) -> bool:
        """Keep `entry` under the key of `ticket` if the ticket still permits that; return whether it did. Atomic, as
        `update` is."""
        return self.update(ticket.key, Fill(entry, ticket)) is not None

    # -- tags

    def stamps(self, tags: Sequence[str]) -> Stamps:
        """Return what an entry with `tags` has to carry that is stored, or whose load begins, now.

        A store that drops what carries a tag needs no more than the names.
        """
        return tuple((tag, 0) for tag in tags)

    def invalidate(self, tags: Sequence[str], soft: bool = False) -> None:
        """Make every entry that carries one of `tags` invalid: its tags are those of `entry.stamps`. With `soft` it is
        stale from now on, whatever is left of its life, and dead when it would have been; see `Entry.made_stale`.

        A store that cannot find them drops everything, which is never wrong; so may one that cannot make them stale.
        """
        self.clear()

    def subscribe(self, listener: Listener) -> bool:
        """Tell `listener`, from now on, what other processes do to these keys; return whether the store can. Waits for
        nothing, and calls the listener on threads of the store's own.

        Where it can, what is near is relied on only as long as the listener was told so (`confirmed`).
        """
        return False

    # -- outages

    @property
    def is_out(self) -> bool:
        """Whether the store is left alone, as it does not answer; the layers before it serve what they have."""
        return False

    def owes(self, keys: Collection[str] = (), tags: Collection[str] = ()) -> bool:
        """Whether an invalidation of one of `keys` or `tags` has not reached everything that this is made of."""
        return False

    # -- seen from outside, which counts nothing and changes nothing

    def explain(self, key: str) -> Sight:
        """Return what is under `key`, in bounded time; its value may be left out."""
        from layercache.sights import Sight

        return Sight(self.get(key))

    def list_keys(self, prefix: str, limit: int, cursor: str) -> KeyPage:
        """Return about `limit` of the keys that begin with `prefix`, in bounded time, so perhaps fewer or none.

        Args:
            cursor: "" for the first, then that of the page before, until there is none. What is there all the while is
                returned at least once. Raises `InvalidOption` for one that is none.

        Raises `CannotList` where the store cannot.
        """
        raise CannotList

    # -- the async twins

    def aexplain(self, key: str) -> Coroutine[Any, Any, Sight]:
        return self._twin(self.explain, key)

    def alist_keys(self, prefix: str, limit: int, cursor: str) -> Coroutine[Any, Any, KeyPage]:
        return self._twin(self.list_keys, prefix, limit, cursor)

    def aget(self, key: str) -> Coroutine[Any, Any, Entry | None]:
        return self._twin(self.get, key)

    def aset(self, key: str, entry: Entry) -> Coroutine[Any, Any, bool]:
        return self._twin(self.set, key, entry)

    def aupdate(self, key: str, change: Change) -> Coroutine[Any, Any, Entry | None]:
        return self._twin(self.update, key, change)

    def adelete(self, key: str) -> Coroutine[Any, Any, bool]:
        return self._twin(self.delete, key)

    def aclear(self) -> Coroutine[Any, Any, None]:
        return self._twin(self.clear)

    def aget_many(self, keys: Sequence[str]) -> Coroutine[Any, Any, dict[str, Entry]]:
        return self._twin(self.get_many, keys)

    def aset_many(self, entries: Mapping[str, Entry]) -> Coroutine[Any, Any, list[str]]:
        return self._twin(self.set_many, entries)

    def adelete_many(self, keys: Sequence[str]) -> Coroutine[Any, Any, int]:
        return self._twin(self.delete_many, keys)

    def afill(self, ticket: Ticket, entry: Entry) -> Coroutine[Any, Any, bool]:
        return self._twin(self.fill, ticket, entry)

    def astamps(self, tags: Sequence[str]) -> Coroutine[Any, Any, Stamps]:
        return self._twin(self.stamps, tags)

    def ainvalidate(self, tags: Sequence[str], soft: bool = False) -> Coroutine[Any, Any, None]:
        return self._twin(self.invalidate, tags, soft)

    async def _twin(self, operation: Callable[..., R], *args: Any) -> R:
        if not self.blocks:
            return operation(*args)
        import asyncio

        return await asyncio.to_thread(operation, *args)

    def gauges(self) -> Mapping[str, int | float]:
        """Return what this key space can say of itself without I/O, such as `entries`, `bytes`, `evictions`."""
        return {}

    def curve(self) -> Curve | None:
        """Return what the hit rate would be with less and with more memory, without I/O; None where nobody keeps book
        of it."""
        return None

    def layers(self) -> Sequence[Any]:
        """Return the layers (`core.layer.Layer`) that this key space is made of; only a chain has any."""
        return ()


class LeasingKeySpace(KeySpace):
    """A key space that says who may load a key, among all processes that share the store.

    Rules:
    1. At most one holds the lease of a key at a time, by its token and for a limited time.
    2. Every `set`, `update` that stores, `delete` and `clear` voids the lease in the step that makes the change.
    3. `fill` stores only under the lease, and then ends it.
    """

    @abstractmethod
    def lease_many(
        self, keys: Sequence[str], token: bytes, seconds: float, after: float = 0.0, tags: Sequence[str] = ()
    ) -> dict[str, Lease]:
        """For each of `keys` return its fresh entry, or grant the right to load it, or say that somebody else has that.

        Args:
            token: names the caller among all.
            seconds: how long it holds what is neither filled nor released.
            after: only an entry that is fresh beyond this time, wall-clock seconds, is fresh enough.
            tags: whose stamps the loaded entries are to carry.
        """

    @abstractmethod
    def fill_many(self, token: bytes, entries: Mapping[str, Entry]) -> list[str]:
        """Store what was loaded under leases; return the keys of those that are void by now, and not stored."""

    @abstractmethod
    def release_many(self, keys: Sequence[str], token: bytes, seconds: float = 0.0) -> None:
        """Give leases back; or, with `seconds`, keep everybody from loading for as long."""

    @abstractmethod
    def late_stamps(self, tags: Sequence[str], mark: bytes | None) -> Stamps | None:
        """Return the stamps of tags that only the loaded value told; None where one may have been invalidated since
        the lease with that `mark` was granted, so that the value may be of the past."""

    @abstractmethod
    def alease_many(
        self, keys: Sequence[str], token: bytes, seconds: float, after: float = 0.0, tags: Sequence[str] = ()
    ) -> Coroutine[Any, Any, dict[str, Lease]]: ...

    @abstractmethod
    def afill_many(self, token: bytes, entries: Mapping[str, Entry]) -> Coroutine[Any, Any, list[str]]: ...

    @abstractmethod
    def arelease_many(
        self, keys: Sequence[str], token: bytes, seconds: float = 0.0
    ) -> Coroutine[Any, Any, None]: ...

    @abstractmethod
    def alate_stamps(self, tags: Sequence[str], mark: bytes | None) -> Coroutine[Any, Any, Stamps | None]: ...


class Listener(Protocol):
    """What keeps something of one cache near, and is told what other processes do."""

    def written(self, key: str) -> None:
        """Another process has written or deleted `key`."""
        ...

    def invalidated(self, tag: str, stamp: int, soft: bool) -> None:
        """Somebody, perhaps we, has given `tag` (`*` for the whole cache) a new stamp; where that was `soft`, what
        carries the former one is stale, not gone."""
        ...

    def restamped(self, tag: str, stamp: int) -> None:
        """The stamp of `tag` was lost, and made anew: what is kept far away and carries the former one is a miss from
        now on, although nobody has invalidated it."""
        ...

    def retrained(self) -> None:
        """Another dictionary is in use."""
        ...

    def lost_track(self) -> None:
        """Anything may have happened."""
        ...

    def lost_writes(self) -> None:
        """The store has lost writes that were made: it was set back, and what is in it may be of the past."""
        ...

    def confirmed(self, until: float) -> None:
        """All that others did up to some moment has been told, and what is near may be relied on until `until`,
        wall-clock seconds."""
        ...

    def outage_began(self) -> None:
        """The store is left alone from now on: whoever asks it is told so at once."""
        ...

    def outage_ending(self) -> None:
        """The store answers again. Until this returns it is for the thread alone that calls this; raise `BackendError`
        where it fails after all."""
        ...

    def outage_ended(self) -> None:
        """The store is everybody's again."""
        ...


class Opening:
    """What a backend is opened with.

    Attributes:
        name: its name in the settings.
        options: an instance of the class's `Options`, checked.
        now: the wall clock, in seconds.
        backend: opens another backend of the same settings by name, for those made of others.
    """

    __slots__ = ("backend", "name", "now", "options")

    def __init__(
        self, name: str, options: Any, now: Callable[[], float], backend: Callable[[str], Backend]
    ) -> None:
        self.name, self.options, self.now, self.backend = name, options, now, backend


class Backend(ABC):
    """A store, opened once per process under its name in the settings; caches may share one.

    Opening waits for no I/O: a service comes up when its server is down.
    """

    Options: ClassVar[type[Any]]
    """A frozen dataclass: the keys that settings may hold for it, with their types and defaults."""

    type: str = ""
    """The name it is offered under, filled in at opening."""

    on_error: Literal["raise", "miss"] = "raise"
    """What a cache that has this backend alone does when it fails: raise its `BackendError`, or find nothing and store
    nothing. In a chain the other layers serve."""

    serializer: Serializer
    """The first stage of its codec, which gives values their normal form; set by `__init__`."""

    def __init__(self, opening: Opening) -> None:
        self.name: str = opening.name
        self.options: Any = opening.options
        self.now = opening.now

    @abstractmethod
    def key_space(self, cache: str) -> KeySpace:
        """Return the key space of a cache; the same name gives the same keys."""

    def close(self) -> None:
        """Give back what the backend holds; waits for nothing that its users still do."""

    async def aclose(self) -> None:
        """As `close`, and what belongs to the running event loop."""
        self.close()

    def after_fork(self) -> None:
        """Start afresh in the child of a fork: no lock, connection or entry of the parent."""

    @classmethod
    def faults(cls, options: Any, backends: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """Yield (key, message) for what does not fit the other backends of the settings.

        Args:
            options: of this backend, checked.
            backends: the settings of all of them by name, each with `type` and `options`; one with faults of its
                own is there with `options` None.
        """
        return ()

    # -- for operators, through the command `layercache`

    def examine(self, caches: Sequence[str]) -> Iterable[Finding]:
        """Look at the store and yield how it is, for `caches`, the names of those that use it.

        What fails is a finding, not an exception; what cannot be reached is one within the backend's time-out. Neither
        messages nor fixes repeat a secret.
        """
        return ()

    def survey(self, caches: Sequence[str]) -> Mapping[str, Mapping[str, int | float]]:
        """Return how much of each of `caches` the store itself has, whichever process put it there, in bounded time:
        such as `entries`, `bytes`, `leases`, `log_length`, and `looked_at`, the part of it all (0.0 to 1.0) by which
        the rest is judged. Raises `BackendError`. What is in the memory of processes, nobody else can count.
        """
        return {}

    def purge(self, cache: str) -> Iterator[tuple[int, int]]:
        """Give back the space of entries that a `clear` of `cache` has left behind, of use to nobody any more.

        Yields after each small step how many entries it looked at and how many it dropped; between steps, others are
        served. Raises `BackendError`. Stores that drop everything at `clear` have nothing to do.
        """
        return iter(())

    def train_dictionary(self, cache: str, samples: int) -> Trained:
        """Train a dictionary from up to `samples` of the values of `cache`, and have new ones compressed with it.

        Every process learns of it; what was written before stays readable. Raises `CacheError`, and puts none to use,
        where the cache has no stage with a use for one or the values are too few; `BackendError` where the store fails.
        """
        raise CacheError(
            f"backend {self.name!r} has no use for a dictionary; right is one that keeps compressed values, such as "
            'type = "redis" with codecs = ["json", "zstd"]',
        )


class Stage(ABC):
    """One step of a codec pipeline, looked up by name like a backend.

    The first stage of a pipeline is a `Serializer`; `Transform`s follow, and last of all `Seal`s. One instance serves
    all threads.
    """

    name: ClassVar[str]
    Options: ClassVar[type[Any]]

    def __init__(self, options: Any) -> None:
        self.options = options


class Serializer(Stage):
    """Values to bytes and back: gives every value its normal form."""

    names_code: ClassVar[bool] = False
    """Whether its payloads name code that reading them runs, as those of pickle do. Frames of such are read only
    behind a seal; and what one process wrote, another may have no code for: a `DecodeError`, which is a miss."""

    is_exact: ClassVar[bool] = False
    """Whether a tuple comes back as one, and keys of a dict may be of any kind; else tuples become lists, and keys are
    text."""

    @abstractmethod
    def dumps(self, value: Any) -> bytes:
        """Return `value` as bytes, or raise `EncodeError` saying what cannot be carried and where."""

    @abstractmethod
    def loads(self, payload: bytes) -> Any:
        """Return a new value from `payload`, or raise `DecodeError`."""

    def dumps_as(self, value: Any, adapter: TypeAdapter[Any]) -> bytes:
        """As `dumps`, for a value of the adapter's type."""
        return self.dumps(value)

    def loads_as(self, payload: bytes, adapter: TypeAdapter[Any]) -> Any:
        """As `loads`, for a value of the adapter's type."""
        return adapter.validate_python(self.loads(payload))


class Transform(Stage):
    """Bytes to bytes and back, such as compression or encryption."""

    dictionaries: Dictionaries | None = None
    """What a backend may train for the values of one cache; None where the stage has no use for it."""

    @abstractmethod
    def encode(self, payload: bytes) -> bytes | None:
        """Return the transformed payload, or None to leave it as it is (the frame then omits the stage)."""

    def dictionary_of(self, payload: bytes) -> int | None:
        """Return the id of the dictionary that a payload of ours, perhaps cut off, needs; None where it needs none."""
        return None

    @abstractmethod
    def decode(self, payload: bytes, max_bytes: int) -> bytes:
        """Return the original payload. Raise `DecodeError` when it is none of ours, or would be larger
        than `max_bytes`, before the memory is spent."""


class Seal(Stage):
    """Bytes to bytes that only a holder of a key can have made, and made for this place: a signature, encryption.

    Every frame of the pipeline has it, none is read without it, and nothing of a payload is decoded before.

    Args:
        options: as for every stage.
        keys: the first seals, all of them unseal. At least one.
    """

    def __init__(self, options: Any, keys: Sequence[SealKey]) -> None:
        super().__init__(options)
        if not keys:
            raise ValueError(f"the stage {self.name!r} needs a key; settings give it one by seal_keys")

    @abstractmethod
    def seal(self, payload: bytes, place: bytes) -> bytes:
        """Return the sealed payload, which may be unsealed with an equal `place` only.

        Args:
            place: the key it is filed under, and everything else that its frame says. Not kept with it.
        """

    @abstractmethod
    def unseal(self, sealed: bytes, place: bytes) -> bytes:
        """Return the payload; raise `DecodeError` unless a holder of one of the keys has sealed it for this place."""


# -- what operators are told


class Finding(NamedTuple):
    """One thing that a look at a backend has shown.

    Attributes:
        level: "ok"; "warning", it works, but not as it should; "error", it does not.
        subject: what was looked at, such as "memory policy"; the same words for the same thing.
        message: how it is.
        fix: what to do about it, "" where there is nothing to do.
    """

    level: Literal["ok", "warning", "error"]
    subject: str
    message: str
    fix: str = ""


class Trained(NamedTuple):
    """A dictionary that is in use now, and what it does for the values that it was trained from.

    Attributes:
        id: what compressed values call it by.
        size: its own bytes.
        samples: how many values.
        payload_bytes: what they take before compression.
        without: what they take compressed without it.
        with_dictionary: what they take compressed with it.
    """

    id: int
    size: int
    samples: int
    payload_bytes: int
    without: int
    with_dictionary: int
