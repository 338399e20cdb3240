"""The chain: layers behind one another, nearest first.

    [default.backends.layered]
    type = "chain"
    layers = ["local", "shared"]

Reads go through the layers until one has the key, and fill the nearer ones with what is left of its
life. Writes go to the farthest layer first, so that no near layer ever knows what the far one does
not. Rule: a layer that fails is a miss; it is counted, logged once when it begins and once when it
ends, and never raised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from layercache.core.layer import Layer
from layercache.core.port import Port
from layercache.entry import Entry
from layercache.inline import InlinePort, run
from layercache.loop import LoopPort
from layercache.options import options
from layercache.spi import Backend, Change, Finding, KeySpace, Opening, Trained

__all__ = ["ChainBackend", "ChainOptions"]


@options
class ChainOptions:
    """Attributes:
    layers: names of backends, nearest first.
    """

    layers: tuple[str, ...]


class ChainSpace(KeySpace):
    """The keys of one cache in every layer: logic in coroutines, which the verbs run inline or on the loop."""

    def __init__(self, layers: Sequence[Layer], now: Callable[[], float]) -> None:
        self._layers = list(layers)
        self._inline, self._loop = InlinePort(now), LoopPort(now)
        self.near = self._layers[0].space.near

    # -- reading: nearest first

    async def _read(self, port: Port, key: str) -> Entry | None:
        for depth, layer in enumerate(self._layers):
            entry = await layer.read(port, key)
            if entry is not None:
                await self._fill(port, depth, {key: entry})
                return entry
        return None

    async def _read_many(self, port: Port, keys: Sequence[str]) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for depth, layer in enumerate(self._layers):
            wanted = [key for key in keys if key not in found]
            if not wanted:
                break
            here = await layer.read_many(port, wanted)
            await self._fill(port, depth, here)
            found |= here
        return found

    async def _fill(self, port: Port, depth: int, entries: Mapping[str, Entry]) -> None:
        """Give `entries`, found at `depth`, to the layers before it; their times say what is left of their lives."""
        for layer in self._layers[:depth]:
            if entries:
                await layer.write_many(port, entries)

    # -- writing: farthest first

    async def _write_many(self, port: Port, entries: Mapping[str, Entry]) -> list[str]:
        refused: list[str] = []
        for layer in reversed(self._layers):
            here = await layer.write_many(port, entries)
            # what only a near layer refused is stored all the same, and read from farther away
            if layer is self._layers[-1] and not layer.degraded:
                refused = here
        return refused

    async def _update(self, port: Port, key: str, change: Change) -> Entry | None:
        """The farthest layer that answers decides; the nearer ones drop what they have. Were they given what was
        decided, those of two callers could arrive in the other order, and the older one stay."""
        answered, changed = False, None
        for layer in reversed(self._layers):
            if not answered:
                answered, changed = await layer.try_update(port, key, change)
            elif changed is not None:
                await layer.delete(port, key)
        return changed

    async def _delete_many(self, port: Port, keys: Sequence[str]) -> int:
        counts = [await layer.delete_many(port, keys) for layer in reversed(self._layers)]
        return max(counts)

    async def _clear(self, port: Port) -> None:
        for layer in reversed(self._layers):
            await layer.clear(port)

    # -- the verbs

    def get(self, key: str) -> Entry | None:
        return run(self._read(self._inline, key))

    async def aget(self, key: str) -> Entry | None:
        return await self._read(self._loop, key)

    def get_many(self, keys: Sequence[str]) -> dict[str, Entry]:
        return run(self._read_many(self._inline, keys))

    async def aget_many(self, keys: Sequence[str]) -> dict[str, Entry]:
        return await self._read_many(self._loop, keys)

    def set(self, key: str, entry: Entry) -> bool:
        return not run(self._write_many(self._inline, {key: entry}))

    async def aset(self, key: str, entry: Entry) -> bool:
        return not await self._write_many(self._loop, {key: entry})

    def set_many(self, entries: Mapping[str, Entry]) -> list[str]:
        return run(self._write_many(self._inline, entries))

    async def aset_many(self, entries: Mapping[str, Entry]) -> list[str]:
        return await self._write_many(self._loop, entries)

    def update(self, key: str, change: Change) -> Entry | None:
        return run(self._update(self._inline, key, change))

    async def aupdate(self, key: str, change: Change) -> Entry | None:
        return await self._update(self._loop, key, change)

    def delete(self, key: str) -> bool:
        return run(self._delete_many(self._inline, [key])) > 0

    async def adelete(self, key: str) -> bool:
        return await self._delete_many(self._loop, [key]) > 0

    def delete_many(self, keys: Sequence[str]) -> int:
        return run(self._delete_many(self._inline, keys))

    async def adelete_many(self, keys: Sequence[str]) -> int:
        return await self._delete_many(self._loop, keys)

    def clear(self) -> None:
        run(self._clear(self._inline))

    async def aclear(self) -> None:
        await self._clear(self._loop)

    def layers(self) -> Sequence[Layer]:
        return self._layers


class ChainBackend(Backend):
    Options: ClassVar[type[Any]] = ChainOptions

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self._backends = [opening.backend(name.lower()) for name in self.options.layers]
        self.serializer = self._backends[-1].serializer

    def key_space(self, cache: str) -> KeySpace:
        layers = [
            Layer(backend.name, backend.type, backend.key_space(cache), forgiving=True)
            for backend in self._backends
        ]
        return ChainSpace(layers, self.now)

    @classmethod
    def faults(cls, options: Any, backends: Mapping[str, Any]) -> Any:
        names = [name.lower() for name in options.layers]
        if not names:
            yield "layers", "a chain has at least one layer"
        if len(set(names)) < len(names):
            yield "layers", "a backend can be a layer only once"
        serializers: dict[str, str] = {}
        for name in names:
            layer = backends.get(name)
            if layer is None:
                yield "layers", f"no backend named {name!r}; there are {', '.join(backends)}"
            elif layer.type == "chain":
                yield "layers", f"{name!r} is a chain; name its layers here instead"
            elif getattr(layer.options, "codecs", None):
                serializers[name] = layer.options.codecs[0].name
        if len(set(serializers.values())) > 1:
            stated = ", ".join(f"{name} with {serializer!r}" for name, serializer in serializers.items())
            yield (
                "layers",
                f"all layers need the same first stage in `codecs`, to give back the same values; here {stated}",
            )

    # -- for operators

    def examine(self, caches: Sequence[str]) -> Iterable[Finding]:
        """Say which layers there are; each of them is examined by itself."""
        named = [f"{backend.name} ({backend.type})" for backend in self._backends]
        yield Finding("ok", "layers", f"{', '.join(named)}; nearest first")

    def purge(self, cache: str) -> Iterator[tuple[int, int]]:
        for backend in self._backends:
            yield from backend.purge(cache)

    def train_dictionary(self, cache: str, samples: int) -> Trained:
        """Have the farthest layer do it: the one whose entries outlive a process."""
        return self._backends[-1].train_dictionary(cache, samples)
