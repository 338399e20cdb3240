"""Trains a dictionary from the values that a cache has on the server, and puts it to use.

Rule: the dictionary is stored before it is named as the one in use, and that before the log says so: whoever hears of
it finds it. It has no expiry, nor have those before it, which values that are there may need.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

from redis.exceptions import NoPermissionError, RedisError

from layercache.codecs.dictionaries import LARGEST_PAYLOAD, Dictionaries, UnknownDictionary, train
from layercache.codecs.frame import Frame, unpack
from layercache.codecs.pipeline import Pipeline
from layercache.entry import CACHE_TAG
from layercache.errors import CacheError, DecodeError
from layercache.spi import Seal, Trained, Transform
from layercache_redis.client import Reached, batches, connected
from layercache_redis.driver import translated
from layercache_redis.names import Names, Node
from layercache_redis.options import RedisOptions
from layercache_redis.stamps import packed_stamp

__all__ = ["trained"]

_DIGITS: Final = 10  # of an id, which has 32 bits
_HEAD: Final = 1024  # bytes of a frame besides its payload, hundreds of tags left aside


def trained(backend: str, options: RedisOptions, cache: str, samples: int) -> Trained:
    """Train a dictionary for `cache` and have every process use it.

    Args:
        backend: its name in the settings.
        samples: values to train from, at most.

    Raises `CacheError`, and puts none to use, where no stage takes a dictionary, where there are too few values, or
    where a dictionary would not make them smaller; `BackendError` for what the server or the way to it did.
    """
    seals = [stage.name for stage in options.codecs if issubclass(stage.stage, Seal)]
    if seals:
        raise CacheError(
            f"the frames of backend {backend!r} are sealed ({seals[0]!r}), and a dictionary would lie unsealed on the "
            "server: it shows pieces of the values, and whoever changed it would change what they become"
        )
    pipeline = Pipeline([stage.open() for stage in options.codecs], options.max_value_bytes)
    stage = next((stage for stage in pipeline.transforms.values() if stage.dictionaries is not None), None)
    if stage is None:
        named = ", ".join(f'"{stage.name}"' for stage in options.codecs)
        raise CacheError(
            f"no stage of backend {backend!r} takes a dictionary: it has codecs = [{named}]; "
            f'right is codecs = [{named}, "zstd"]',
        )
    try:
        with connected(options) as reached:
            values = _Values(reached, Names(options.prefix, cache), pipeline, stage)
            values.retire_lost(options.log_length)
            # the same values give the same dictionary, in whatever order they are found
            payloads = sorted(islice(values.payloads(), samples))
            data = train(payloads, level=getattr(stage.options, "level", 3))
            made = _measured(stage, payloads, data)
            if made.with_dictionary >= made.without:
                raise CacheError(
                    f"a dictionary would not make the values of cache {cache!r} smaller: {len(payloads):,} samples "
                    f"take {made.without:,} bytes without one and {made.with_dictionary:,} with it; it was not stored",
                )
            values.put_to_use(made.id, data, options.log_length)
            return made
    except RedisError as error:
        raise translated(backend, error) from error


def _measured(stage: Transform, payloads: Sequence[bytes], data: bytes) -> Trained:
    stage.dictionaries = dictionaries = Dictionaries()
    without = _size(stage, payloads)
    id = dictionaries.add(data)
    dictionaries.use(id)
    taken = sum(map(len, payloads))
    return Trained(id, len(data), len(payloads), taken, without, _size(stage, payloads))


def _size(stage: Transform, payloads: Sequence[bytes]) -> int:
    return sum(len(stage.encode(payload) or payload) for payload in payloads)


class _Values:
    """The values of one cache on the server, as the stage that takes a dictionary is given them.

    Args:
        stage: of `pipeline`.
    """

    def __init__(self, reached: Reached, names: Names, pipeline: Pipeline, stage: Transform) -> None:
        self._reached, self._names, self._pipeline = reached, names, pipeline
        order = list(pipeline.transforms)
        self._undone = order[order.index(stage.name) :]
        self._dictionaries = stage.dictionaries or Dictionaries()
        self._asked_for: set[int] = set()

    def payloads(self) -> Iterator[bytes]:
        """Yield the payloads that a dictionary is used for, of valid values, in no order."""
        stamp = self._reached.whole.get(self._names.stamp(CACHE_TAG))
        for server in self._reached.primaries.values():
            for keys in batches(server, f"{self._names.values}*".encode()):
                for key, frame in zip(keys, _beginnings(server, keys), strict=True):
                    payload = self._payload(frame, key, stamp)
                    if payload and len(payload) <= LARGEST_PAYLOAD:
                        yield payload

    def _payload(self, data: Any, key: bytes, stamp: bytes | None) -> bytes | None:
        try:
            frame = unpack(data, key)
            own = next((stamp for tag, stamp in frame.stamps if tag == CACHE_TAG), 0)
            return self._undo(frame) if packed_stamp(own) == stamp else None
        except DecodeError:
            return None  # none of ours, larger than what counts, or made with a dictionary that is lost

    def _undo(self, frame: Frame) -> bytes:
        payload = frame.payload
        for name in reversed(frame.stages[1:]):
            if name not in self._undone:
                break
            transform = self._pipeline.transforms[name]
            try:
                payload = transform.decode(payload, self._pipeline.max_value_bytes)
            except UnknownDictionary as unknown:
                self._learn(unknown.id)
                payload = transform.decode(payload, self._pipeline.max_value_bytes)
        return payload

    def _learn(self, id: int) -> None:
        if id not in self._asked_for:
            self._asked_for.add(id)
            self._dictionaries.add(self._reached.whole.get(self._names.dictionary(id)) or b"")

    def retire_lost(self, log_length: int) -> None:
        """Have the dictionary in use used no more where it is gone: what processes that have it still compress with it,
        no other can read, nor anybody train from."""
        server, in_use = self._reached.whole, self._names.dictionary()
        id = server.get(in_use)
        is_id = id is not None and id.isdigit() and len(id) <= _DIGITS
        if id is not None and not (is_id and server.exists(self._names.dictionary(int(id)))):
            server.delete(in_use)
            self._tell(log_length)

    def put_to_use(self, id: int, data: bytes, log_length: int) -> None:
        """Store a dictionary, have it used from now on, and tell everybody."""
        server = self._reached.whole
        server.set(self._names.dictionary(id), data)
        server.set(self._names.dictionary(), id)
        self._tell(log_length)

    def _tell(self, log_length: int) -> None:
        # from a node of our own, so that it is news to this process as well
        fields = {b"n": Node().id, b"d": self._names.in_log("")}
        self._reached.whole.xadd(self._names.streams.of(b""), fields, maxlen=log_length, approximate=True)


def _beginnings(server: Any, keys: Sequence[bytes]) -> list[Any]:
    """Return what is under `keys`, but of what is too large to count only a part, which is no frame then."""
    with server.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.getrange(key, 0, LARGEST_PAYLOAD + _HEAD)
        found: list[Any] = pipeline.execute(raise_on_error=False)
    for error in found:
        if isinstance(error, NoPermissionError):
            raise error
    # what is of another type, or on its way to another server, is an error too
    return [data if isinstance(data, bytes) else b"" for data in found]
