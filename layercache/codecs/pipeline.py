"""A codec pipeline: one serializer, then transforms, then seals; what it all makes is a frame.

Rules:
1. `decode` raises `DecodeError` for anything that this pipeline did not make for this key, and spends no more memory
   on it than a few times `max_value_bytes`, whatever it claims to hold.
2. Where there are seals, every frame has all of them, they bind all that the frame says, and nothing of a payload is
   decoded before they are verified (docs/decisions/0014).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from layercache.codecs.frame import (
    MAX_PAYLOAD,
    BadFrame,
    pack,
    sealed_with,
    sealed_with_parts,
    unpack,
)
from layercache.entry import MISSING, Entry, Stamps
from layercache.errors import DecodeError, ValueTooLarge
from layercache.spi import Seal, Serializer, Stage, Transform

if TYPE_CHECKING:
    from layercache.codecs.dictionaries import Dictionaries

__all__ = ["Pipeline", "order_fault", "unsealed_fault"]


class Pipeline:
    """The codec of one backend; safe to share between threads.

    Args:
        stages: a `Serializer` followed by any number of `Transform`s and then of `Seal`s, else `ValueError`.
        max_value_bytes: the largest payload, before the transforms, that is written or read; a frame
            holds no more than 4 GiB of it.

    Attributes:
        unverified: how many frames were refused as no holder of a key had sealed them as they stood.
    """

    def __init__(self, stages: Sequence[Stage], max_value_bytes: int) -> None:
        kinds = [type(stage) for stage in stages]
        fault = order_fault(kinds) or unsealed_fault(kinds)
        if fault:
            raise ValueError(fault)
        first, *rest = stages
        assert isinstance(first, Serializer)
        self.serializer = first
        self._serializer_alone: tuple[str, ...] = (first.name,)
        self.transforms = {stage.name: stage for stage in rest if isinstance(stage, Transform)}
        self.seals = {stage.name: stage for stage in rest if isinstance(stage, Seal)}
        self._seals: tuple[str, ...] = tuple(self.seals)
        self.unverified = 0
        self.max_value_bytes = min(max_value_bytes, MAX_PAYLOAD)

    @property
    def dictionaries(self) -> Dictionaries | None:
        """The trained dictionaries of the stage that takes some; None where none does, and where there are seals: a
        dictionary lies unsealed on the server, and decides what is decompressed with it."""
        if self.seals:
            return None
        found = (transform.dictionaries for transform in self.transforms.values())
        return next((dictionaries for dictionaries in found if dictionaries is not None), None)

    def encode(self, entry: Entry, key: bytes, stamps: Stamps | None = None) -> bytes:
        """Return the frame of `entry`, with `stamps` in place of its own, for the physical `key`; `ValueTooLarge` when
        its payload is."""
        payload = self.serializer.dumps(entry.value) if entry.payload is None else entry.payload
        if len(payload) > self.max_value_bytes:
            raise ValueTooLarge(len(payload), self.max_value_bytes)
        applied = self._serializer_alone
        for name, transform in self.transforms.items():
            transformed = transform.encode(payload)
            if transformed is not None:
                payload = transformed
                applied += (name,)
        times = (entry.created_at, entry.fresh_until, entry.dead_at)
        carried = entry.stamps if stamps is None else stamps
        if self.seals:
            applied += self._seals
            place = sealed_with_parts((applied, *times, carried, b"", entry.spread), key)
            for seal in self.seals.values():
                payload = seal.seal(payload, place)
        return pack((applied, *times, carried, payload, entry.spread), key)

    def decode(self, data: bytes, key: bytes) -> Entry:
        """Return the entry of a frame filed under the physical `key`, or raise `DecodeError`."""
        stages, created_at, fresh_until, dead_at, stamps, payload, spread = unpack(data, key)
        if self.seals:
            stages, payload = self._unsealed(stages, payload, data, key)
        if stages != self._serializer_alone:
            serializer, *applied = stages
            unknown = serializer != self.serializer.name or not self.transforms.keys() >= set(applied)
            if unknown or len(set(applied)) < len(applied):
                raise BadFrame("stages")
            for name in reversed(applied):
                payload = self.transforms[name].decode(payload, self.max_value_bytes)
        if len(payload) > self.max_value_bytes:
            raise BadFrame("size")
        return Entry(payload, MISSING, created_at, fresh_until, dead_at, stamps, spread)

    def _unsealed(
        self, stages: tuple[str, ...], payload: bytes, data: bytes, key: bytes
    ) -> tuple[tuple[str, ...], bytes]:
        count = len(self._seals)
        try:
            if len(stages) <= count or stages[-count:] != self._seals:
                raise BadFrame("unsealed")
            place = sealed_with(data, key)
            for name in reversed(self._seals):
                payload = self.seals[name].unseal(payload, place)
        except DecodeError:
            self.unverified += 1
            raise
        return stages[:-count], payload


def order_fault(kinds: Sequence[type[Stage]]) -> str | None:
    """Say what is wrong with the order of stages, or return None."""
    if not kinds:
        return "a pipeline has at least one stage, such as 'json'"
    names = [kind.name for kind in kinds]
    if not issubclass(kinds[0], Serializer):
        return f"the first stage has to turn values into bytes, such as 'json'; {names[0]!r} does not"
    seal = None
    for name, kind in zip(names[1:], kinds[1:], strict=True):
        if issubclass(kind, Seal):
            seal = name
        elif not issubclass(kind, Transform):
            return f"{name!r} takes values, so it can only be the first stage"
        elif seal:
            return f"{name!r} has to stand before {seal!r}: nothing is decoded that is not verified"
    if len(set(names)) < len(names):
        return f"a stage can be named only once; here are {', '.join(names)}"
    return None


def unsealed_fault(kinds: Sequence[type[Stage]]) -> str | None:
    """Say that frames of these stages would have to be sealed, and are not, or return None."""
    first = kinds[0]
    if not (issubclass(first, Serializer) and first.names_code) or any(
        issubclass(kind, Seal) for kind in kinds
    ):
        return None
    return (
        f"reading {first.name!r} runs code that the bytes name, so nobody else must be able to write them: "
        f'a stage has to follow that verifies who did, as in ["{first.name}", "sign"] or ["{first.name}", "encrypt"]'
    )
