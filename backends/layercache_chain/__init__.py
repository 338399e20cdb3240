"""The chain: layers behind one another, nearest first.

    [default.backends.layered]
    type = "chain"
    layers = ["local", "shared"]

`space` has what the verbs do, `hearing` what the layers tell of each other, `deliveries` what becomes of changes that
did not arrive.
"""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Iterable, Iterator, Mapping, Sequence
from threading import Lock
from typing import Any, ClassVar, Literal
from weakref import finalize

from layercache.core.layer import Health, Layer
from layercache.core.outbox import Outbox
from layercache.core.tickets import Tickets
from layercache.options import Count, Duration, options
from layercache.spi import Backend, Finding, KeySpace, Opening, Trained
from layercache_chain.deliveries import Deliveries
from layercache_chain.space import ChainSpace

__all__ = ["ChainBackend", "ChainOptions"]


@options
class ChainOptions:
    """Attributes:
    layers: names of backends, nearest first; all with the same first stage in `codecs`.
    on_outage: what the nearer layers do while a farther one does not answer: `"serve"` what they have, stale or not, or
        `"bypass"`, as soon as they are `max_staleness` behind.
    degraded_ttl: how long they keep at most what they are given meanwhile.
    outbox_length: how many invalidations wait for a layer that does not answer, for each cache; with more it is cleared
        instead.
    """

    layers: tuple[str, ...]
    on_outage: Literal["serve", "bypass"] = "serve"
    degraded_ttl: Duration = 30.0
    outbox_length: Count = 10_000


class ChainBackend(Backend):
    """Makes layers of other backends, nearest first, act as one."""

    Options: ClassVar[type[Any]] = ChainOptions

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self._backends = [opening.backend(name.lower()) for name in self.options.layers]
        self.serializer = self._backends[-1].serializer
        self._health = [Health(backend.name) for backend in self._backends]
        self._deliveries = Deliveries(self.now)
        finalize(self, self._deliveries.end).atexit = False
        self._spaces: dict[str, ChainSpace] = {}

    def key_space(self, cache: str) -> KeySpace:
        if cache not in self._spaces:  # one for all, as what it subscribes to lives as long as the layers do
            layers = [
                self._layer(backend, health, cache)
                for backend, health in zip(self._backends, self._health, strict=True)
            ]
            serves, ttl = self.options.on_outage == "serve", self.options.degraded_ttl
            self._spaces[cache] = ChainSpace(layers, self.now, serves=serves, degraded_ttl=ttl)
        return self._spaces[cache]

    def _layer(self, backend: Backend, health: Health, cache: str) -> Layer:
        space, length = backend.key_space(cache), self.options.outbox_length
        outbox = Outbox(cache, backend.name, length, Lock(), self._deliveries.noticed)
        self._deliveries.add(outbox, space)
        tickets = Tickets(Lock())
        return Layer(backend.name, backend.type, space, tickets, health, forgiving=True, outbox=outbox)

    def close(self) -> None:
        """Deliver what is owed, if that can be done at once."""
        self._deliveries.close()

    async def aclose(self) -> None:
        """As `close`, without blocking the event loop."""
        await to_thread(self.close)

    def after_fork(self) -> None:
        self._deliveries.after_fork()
        for space in self._spaces.values():
            space.after_fork()

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
