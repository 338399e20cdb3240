"""What an entry in memory takes besides key and value, and what is given back: `python benchmarks/memory.py`."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

from hits import optional

from layercache import Caches

SIZES = (10_000, 100_000)


def ours(eviction: str, entries: int) -> Any:
    memory = {"type": "memory", "max_entries": entries, "max_bytes": "4GB", "eviction": eviction}
    return Caches({"backends": {"m": memory}, "caches": {"default": {"backend": "m", "ttl": "1h"}}})[
        "default"
    ]


def measure(
    entries: int, make: Callable[[], Any], store: Callable[[Any, str, str], object]
) -> tuple[float, float]:
    """Return bytes per entry after twice as many insertions as entries fit, and bytes per entry left after clear."""
    keys = [f"key:{number:07d}" for number in range(2 * entries)]
    values = ["x" * 50 + str(number) for number in range(2 * entries)]
    cache = make()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for key, value in zip(keys, values, strict=True):
        store(cache, key, value)
    gc.collect()
    taken = (tracemalloc.get_traced_memory()[0] - before) / entries
    cache.clear()
    gc.collect()
    left = (tracemalloc.get_traced_memory()[0] - before) / entries
    tracemalloc.stop()
    return taken, left


def contestants(entries: int) -> dict[str, tuple[Callable[[], Any], Callable[[Any, str, str], object]]]:
    def assign(cache: Any, key: str, value: str) -> None:
        cache[key] = value

    def store(cache: Any, key: str, value: str) -> None:
        cache.set(key, value)

    made: dict[str, tuple[Callable[[], Any], Callable[[Any, str, str], object]]] = {
        f"**layercache, {eviction}**": (lambda eviction=eviction: ours(eviction, entries), store)
        for eviction in ("lazy-tinylfu", "s3-fifo", "lru")
    }
    if cachetools := optional("cachetools"):
        made["cachetools TTL"] = (lambda: cachetools.TTLCache(entries, 3600), assign)
    if theine := optional("theine"):
        made["theine (its Python part)"] = (lambda: theine.Cache(entries), store)
    return made


def main() -> None:
    print(
        "Bytes an entry takes besides key and value (made beforehand), by tracemalloc; caches filled twice over"
    )
    print()
    print("| | " + " | ".join(f"{size:,} entries | after clear" for size in SIZES) + " |")
    print("|---|" + "---:|---:|" * len(SIZES))
    for name in contestants(SIZES[0]):
        parts = [part for size in SIZES for part in measure(size, *contestants(size)[name])]
        print(f"| {name} | " + " | ".join(f"{part:.0f}" for part in parts) + " |")


if __name__ == "__main__":
    main()
