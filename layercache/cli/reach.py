"""Where a command reaches a cache: in the stores, through a world of its own, or in a running service.

A command is a process like any other: what it changes in a shared store, the others hear of by the log, and drop it
from their near layers. What they have in their memory alone is reached through their management API only.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Protocol

from layercache.admin.models import Explained
from layercache.caches import Caches
from layercache.cli.options import Call, Where
from layercache.cli.service import Service
from layercache.cli.world import far_layers, named, not_reached, telling, world
from layercache.entry import MISSING
from layercache.errors import BackendError, CacheError

__all__ = ["Reached", "reach"]


class Reached(Protocol):
    """One cache, wherever it is. Raises `CacheError`."""

    name: str

    def explain(self, key: str, *, value: bool = False) -> dict[str, Any]:
        """Return what the management API answers to this; with `value`, that is there only where there is one."""
        ...

    def delete(self, key: str) -> bool: ...

    def invalidate(self, tags: list[str], *, soft: bool) -> None: ...

    def clear(self) -> None: ...


@contextmanager
def reach(cache: str, where: Where, call: Call) -> Generator[Reached, None, None]:
    """Reach a cache, or say why that cannot be and exit."""
    if where.url is not None:
        with telling(call.as_json), Service(where.url, where.token) as service:
            yield _There(service, cache)
        return
    with world(call) as caches:
        name = named(caches, cache)
        if not far_layers(caches, name):
            not_reached(caches, [name], call.as_json)
        yield _Here(caches, name)


class _Here:
    def __init__(self, caches: Caches, name: str) -> None:
        self.name = name
        self._cache = caches[name]

    def explain(self, key: str, *, value: bool = False) -> dict[str, Any]:
        found = self._cache.explain(key, value=value)
        said = Explained.of(found).model_dump(mode="json", exclude={"value", "value_note"})
        if value and found.value is not MISSING:
            said["value"] = found.value
        return said

    def delete(self, key: str) -> bool:
        with self._done_or_said():
            return self._cache.delete(key, strict=True)

    def invalidate(self, tags: list[str], *, soft: bool) -> None:
        with self._done_or_said():
            self._cache.invalidate(*tags, soft=soft, strict=True)

    def clear(self) -> None:
        with self._done_or_said():
            self._cache.clear(strict=True)

    @contextmanager
    def _done_or_said(self) -> Generator[None, None, None]:
        try:
            yield
        except BackendError as error:
            failing = [layer.name for layer in self._cache.layer_stats() if layer.degraded] or [error.backend]
            # a service would bring it there later; this process ends
            raise CacheError(
                f"backend {', '.join(map(repr, failing))} was not reached, and may be as it was: do it again when it "
                "answers"
            ) from error


class _There:
    def __init__(self, service: Service, name: str) -> None:
        self.name = name
        self._service = service

    def explain(self, key: str, *, value: bool = False) -> dict[str, Any]:
        said = self._service.explain(self.name, key, value=value)
        there = said.pop("value", None)
        note = said.pop("value_note", None)
        if value and note is None:
            said["value"] = there
        elif value and any(layer["state"] in {"fresh", "stale"} for layer in said["layers"]):
            raise CacheError(str(note))
        return said

    def delete(self, key: str) -> bool:
        return self._service.delete(self.name, key)

    def invalidate(self, tags: list[str], *, soft: bool) -> None:
        self._service.invalidate(self.name, tags, soft=soft)

    def clear(self) -> None:
        self._service.clear(self.name)
