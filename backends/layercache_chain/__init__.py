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

import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from layercache.core.layer import Layer
from layercache.core.port import Port
from layercache.entry import Entry
from layercache.errors import BackendError
from layercache.inline import InlinePort, run
from layercache.loop import LoopPort
from layercache.options import options
from layercache.spi import Backend, Change, KeySpace, Opening

__all__ = ["ChainBackend", "ChainOptions"]

log = logging.getLogger("layercache.chain")

R = TypeVar("R")


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
            entry = await self._tried(layer, layer.read(port, key), None)
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
            nothing: dict[str, Entry] = {}
            here = await self._tried(layer, layer.read_many(port, wanted), nothing)
            await self._fill(port, depth, here)
            found |= here
        return found

    async def _fill(self, port: Port, depth: int, entries: Mapping[str, Entry]) -> None:
        """Give `entries`, found at `depth`, to the layers before it; their times say what is left of their lives."""
        for layer in self._layers[:depth]:
            if entries:
                await self._tried(layer, port.write_many(layer.space, entries), [])

    # -- writing: farthest first

    async def _write_many(self, port: Port, entries: Mapping[str, Entry]) -> list[str]:
        refused: list[str] = []
        for layer in reversed(self._layers):
            here = await self._tried(layer, port.write_many(layer.space, entries), [])
            # what only a near layer refused is stored all the same, and read from farther away
            refused = here if layer is self._layers[-1] else refused
        return refused

    async def _update(self, port: Port, key: str, change: Change) -> Entry | None:
        """The farthest layer that answers decides; the nearer ones get what it decided."""
        answered, changed = False, None
        for layer in reversed(self._layers):
            if not answered:
                answered, changed = await self._tried(
                    layer, _answer(port.update(layer.space, key, change)), (False, None)
                )
            elif changed is not None:
                await self._tried(layer, port.write(layer.space, key, changed), False)
        return changed

    async def _delete_many(self, port: Port, keys: Sequence[str]) -> int:
        counts = [
            await self._tried(layer, port.delete_many(layer.space, keys), 0)
            for layer in reversed(self._layers)
        ]
        return max(counts)

    async def _clear(self, port: Port) -> None:
        for layer in reversed(self._layers):
            await self._tried(layer, port.clear(layer.space), None)

    async def _tried(self, layer: Layer, operation: Coroutine[Any, Any, R], otherwise: R) -> R:
        try:
            result = await operation
        except BackendError as error:
            layer.errors += 1
            if not layer.degraded:
                layer.degraded = True
                log.warning("layer %r failed; serving without it: %s", layer.name, error)
            return otherwise
        if layer.degraded:
            layer.degraded = False
            log.warning("layer %r answers again", layer.name)
        return result

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


async def _answer(update: Coroutine[Any, Any, Entry | None]) -> tuple[bool, Entry | None]:
    return True, await update


class ChainBackend(Backend):
    Options: ClassVar[type[Any]] = ChainOptions

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self._backends = [opening.backend(name.lower()) for name in self.options.layers]
        self.serializer = self._backends[-1].serializer

    def key_space(self, cache: str) -> KeySpace:
        layers = [Layer(backend.name, backend.type, backend.key_space(cache)) for backend in self._backends]
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
