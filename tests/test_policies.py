"""What the eviction policies choose, on one recorded mixture: popular keys, scans of keys that never come back, a loop.

The numbers are what was measured with `benchmarks/hitratio.py`'s tables as they are; who changes a policy runs both.
The sketch hashes keys, so they differ by a few hits from process to process: the seeds 0 to 3 gave 24,169 to 24,248 for
lazy-tinylfu, 24,171 to 24,197 for s3-fifo, and 17,685 for lru.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from layercache import Caches

ENTRIES, REQUESTS = 400, 39_000
KEYS = [f"quote:{number}" for number in range(4000)]
WEIGHTS = [1 / (number + 1) for number in range(4000)]


def requests() -> Iterator[str]:
    chance = random.Random(8)
    for part in range(30):
        yield from chance.choices(KEYS, WEIGHTS, k=800)
        yield from (f"report:{number}" for number in range(part * 200, part * 200 + 200))
        yield from (f"loop:{number % 150}" for number in range(300))


@pytest.mark.parametrize(
    ("eviction", "hits", "off"), [("lazy-tinylfu", 24_205, 120), ("s3-fifo", 24_185, 80), ("lru", 17_685, 0)]
)
def test_a_policy_keeps_what_it_kept_when_it_was_measured(eviction: str, hits: int, off: int) -> None:
    backend = {"type": "memory", "max_entries": ENTRIES, "eviction": eviction}
    with Caches({"backends": {"m": backend}, "caches": {"default": {"backend": "m"}}}) as caches:
        cache = caches["default"]
        asked = found = 0
        for key in requests():
            asked += 1
            if cache.get(key) is not None:
                found += 1
            else:
                cache.set(key, "v")

    assert asked == REQUESTS
    assert abs(found - hits) <= off, found
