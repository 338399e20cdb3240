"""The caches of somebody's settings in memory, and outages of theirs: what the pytest plugin gives to tests.

Each backend is replaced by one in memory that can fail. A chain stays one, of such layers, and serves from its near
ones as it does in production; a null backend keeps nothing, as the settings want it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final

from layercache.caches import Caches
from layercache.core.tickets import Ticket
from layercache.entry import Entry, Stamps
from layercache.errors import BackendError, BackendTimeout
from layercache.options import checked
from layercache.registry import backend_named
from layercache.settings import BackendSettings, Settings
from layercache.spi import Backend, Change, KeySpace, Opening
from layercache.testing.chaos import Fault

__all__ = ["WorldChaos", "world_in_memory"]

_KEPT: Final = frozenset({"chain", "null"})


def world_in_memory(
    source: str | Path | Mapping[str, Any] | None,
    environment: str | None,
    chaos: WorldChaos,
    now: Callable[[], float],
) -> Caches:
    """Return a world with the caches of some settings, their backends replaced.

    Args:
        source, environment: as for `Caches`.
        chaos: what has its backends fail.
        now: the wall clock.

    Raises `ConfigError` as `Caches` does.
    """
    world = Caches(source, environment, now=now)
    settings = world.settings
    world.settings = replace(settings, backends={**settings.backends, **_stand_ins(settings, chaos)})
    return world


class WorldChaos:
    """Has the backends of a world in memory fail, in the words of `Chaos`, which has a network fail.

        def test_quotes_are_answered_without_the_cache(chaos):
            with chaos.down():
                assert client.get("/quotes/AAPL").status_code == 200

    What a fault says begins at once, and ends with its block or with `heal`. The near layers of a chain are in the
    process of whoever asks, and do not fail.
    """

    def __init__(self) -> None:
        self._error: Callable[[str], BackendError] | None = None

    def down(self) -> Fault:
        """Have every operation raise `BackendError`, as a server does that refuses connections."""
        return self._until_it_ends(lambda backend: BackendError(backend, "it is down, as the test wants it"))

    def freeze(self) -> Fault:
        """Have every operation raise `BackendTimeout`, as it does where nothing answers, but at once."""
        return self._until_it_ends(lambda backend: BackendTimeout(backend, "no answer, as the test wants it"))

    def heal(self) -> None:
        """Have all work again. What was stored before is there."""
        self._error = None

    def look(self, backend: str) -> None:
        """Raise what an operation of `backend` raises now."""
        if self._error is not None:
            raise self._error(backend)

    def _until_it_ends(self, error: Callable[[str], BackendError]) -> Fault:
        self._error = error
        return Fault(self.heal)


# -- what stands in


def _stand_ins(settings: Settings, chaos: WorldChaos) -> dict[str, BackendSettings]:
    memory = backend_named("memory")
    near = {
        str(name).lower()
        for backend in settings.backends.values()
        if backend.type == "chain" and backend.options is not None
        for name in backend.options.layers[:-1]
    }
    found: dict[str, BackendSettings] = {}
    for name, backend in settings.backends.items():
        if backend.type in _KEPT:
            continue
        options = backend.options if backend.type == "memory" else None
        if options is None:
            codecs = getattr(backend.options, "codecs", None)
            # so that values have the form that they have there
            given = {} if codecs is None else {"codecs": [codecs[0]]}
            options, _ = checked(memory.Options, given, name)
        on_error = getattr(backend.options, "on_error", "raise")
        is_near = name in near and backend.type == "memory"
        direct = {cache for cache, chosen in settings.caches.items() if chosen.backend == name}
        stand_in = _StandInOptions(memory, options, on_error, chaos, direct if is_near else None)
        found[name] = BackendSettings("memory", _StandIn, stand_in)
    return found


class _StandInOptions:
    """Attributes:
    memory, options: the memory backend, and its options.
    on_error: of the backend that is replaced.
    chaos: what has it fail.
    caches: for which it fails; None: for all.
    """

    def __init__(
        self, memory: type[Backend], options: Any, on_error: Any, chaos: WorldChaos, caches: set[str] | None
    ) -> None:
        self.memory, self.options, self.on_error = memory, options, on_error
        self.chaos, self.caches = chaos, caches


class _StandIn(Backend):
    """A backend in memory, in the place of another."""

    Options: ClassVar[type[Any]] = _StandInOptions

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        chosen: _StandInOptions = self.options
        self._memory = chosen.memory(Opening(opening.name, chosen.options, opening.now, opening.backend))
        self.serializer, self.on_error = self._memory.serializer, chosen.on_error
        self._spaces: dict[str, KeySpace] = {}

    def key_space(self, cache: str) -> KeySpace:
        if cache not in self._spaces:
            space, caches = self._memory.key_space(cache), self.options.caches
            fails = caches is None or cache in caches
            self._spaces[cache] = _FailingSpace(space, self.name, self.options.chaos) if fails else space
        return self._spaces[cache]

    def close(self) -> None:
        self._memory.close()

    def after_fork(self) -> None:
        self._memory.after_fork()


class _FailingSpace(KeySpace):
    """A key space in memory that is asked anew each time, as one far away, and fails when it is told to."""

    def __init__(self, space: KeySpace, backend: str, chaos: WorldChaos) -> None:
        self._inner, self._backend, self._chaos = space, backend, chaos
        self.tickets = space.tickets

    @property
    def _space(self) -> KeySpace:
        self._chaos.look(self._backend)
        return self._inner

    def get(self, key: str) -> Entry | None:
        return self._space.get(key)

    def set(self, key: str, entry: Entry) -> bool:
        return self._space.set(key, entry)

    def update(self, key: str, change: Change) -> Entry | None:
        return self._space.update(key, change)

    def delete(self, key: str) -> bool:
        return self._space.delete(key)

    def clear(self) -> None:
        self._space.clear()

    def fill(self, ticket: Ticket, entry: Entry) -> bool:
        return self._space.fill(ticket, entry)

    def stamps(self, tags: Sequence[str]) -> Stamps:
        return self._space.stamps(tags)

    def invalidate(self, tags: Sequence[str], *how: Any, **soft: Any) -> None:
        self._space.invalidate(tags, *how, **soft)

    def gauges(self) -> Mapping[str, int | float]:
        return self._inner.gauges()
