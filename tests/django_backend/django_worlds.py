"""Worlds of layercache for Django: a cache `site` that carries any value, and one of JSON."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import layercache


def tables(kind: str, url: str) -> dict[str, Any]:
    far = {
        "type": "redis", "url": url, "prefix": f"django-{uuid4().hex[:8]}", "timeout": "10s",
        "codecs": ["pickle", "zstd", "sign"], "seal_keys": ["a:0123456789abcdefghijklmnopqrstuvwxyz"],
    }  # fmt: skip
    backends: dict[str, Any] = {
        "memory": {"type": "memory", "codecs": ["pickle"], "max_entry_bytes": "64KB"},
        "json": {"type": "memory"},
        "redis": far,
        "chain": {"type": "chain", "layers": ["memory", "redis"]},
    }
    return {
        "backends": backends,
        "caches": {"site": {"backend": kind, "ttl": 90}, "json": {"backend": "json"}},
    }


async def shut(world: layercache.Caches) -> None:
    """Close what belongs to the running loop, and leave the world open for others."""
    if "redis" in world._backends:
        await world.backend("redis")._parts.aio.aclose()
