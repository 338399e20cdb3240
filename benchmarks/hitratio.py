"""Which policy keeps the right entries: `python benchmarks/hitratio.py [--traces FOLDER]`.

Replays real access traces against the memory backend itself, through `get` and `set`, with room for 0.1, 1
and 10 % of a trace's distinct keys (50 entries at least). What counts is the hit ratio as a share of
Belady's optimum (1966: drop what is needed farthest in the future), which no policy can know; the mean
gives every family of traces the same weight. Traces of more than 250,000 requests are sampled by a hash of
the key. The folder holds `manifest.json` and zstd-compressed little-endian 64-bit key ids; without it this
says so and ends.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import sys
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import zstandard

from layercache import Caches

SHARES = (0.001, 0.01, 0.1)
LEAST_ENTRIES = 50
SAMPLE = 250_000
POLICIES = ("lazy-tinylfu", "s3-fifo", "lru")
Replay = Callable[[list[str], int], float]


def traces(folder: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Yield name, family and keys of each trace."""
    for trace in json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["traces"]:
        ids = array("Q")
        ids.frombytes(zstandard.ZstdDecompressor().decompress((folder / trace["file"]).read_bytes()))
        if sys.byteorder == "big":
            ids.byteswap()
        kept = ids if len(ids) <= SAMPLE else [each for each in ids if sampled(each, SAMPLE / len(ids))]
        yield trace["name"], trace["family"], [f"k{each}" for each in kept]


def sampled(key: int, share: float) -> bool:
    """Keep this share of the keys, the same ones always (Fibonacci hashing)."""
    return (key * 0x9E37_79B9_7F4A_7C15 & (1 << 64) - 1) >> 32 < share * (1 << 32)


def optimum(keys: list[str], entries: int) -> float:
    """Return the hit ratio of Belady's policy."""
    following, last = [0] * len(keys), dict[str, int]()
    for at in range(len(keys) - 1, -1, -1):
        following[at] = last.get(keys[at], len(keys) + at)
        last[keys[at]] = at
    kept: dict[str, int] = {}
    farthest: list[tuple[int, str]] = []
    hits = 0
    for at, key in enumerate(keys):
        if key in kept:
            hits += 1
        elif len(kept) >= entries:
            while kept.get(farthest[0][1]) != -farthest[0][0]:
                heapq.heappop(farthest)  # of an earlier use
            del kept[heapq.heappop(farthest)[1]]
        kept[key] = following[at]
        heapq.heappush(farthest, (-following[at], key))
    return hits / len(keys)


def exact_lru(keys: list[str], entries: int) -> float:
    kept: OrderedDict[str, None] = OrderedDict()
    hits = 0
    for key in keys:
        if key in kept:
            hits += 1
            kept.move_to_end(key)
        else:
            if len(kept) >= entries:
                kept.popitem(last=False)
            kept[key] = None
    return hits / len(keys)


def ours(eviction: str) -> Replay:
    def replay(keys: list[str], entries: int) -> float:
        memory = {"type": "memory", "max_entries": entries, "max_bytes": "4GB", "eviction": eviction}
        cache: Any = Caches(
            {"backends": {"m": memory}, "caches": {"default": {"backend": "m", "ttl": "forever"}}}
        )["default"]
        get, put = cache.get, cache.set
        for key in keys:
            if get(key) is None:
                put(key, "value")
        assert cache.stats().layers[0].entries <= entries
        ratio: float = cache.stats().hit_rate
        return ratio

    return replay


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--traces", type=Path, default=Path(__file__).parent.parent.parent / "shared" / "traces"
    )
    folder: Path = parser.parse_args().traces
    if not (folder / "manifest.json").is_file():
        print("no traces there; name their folder with --traces")
        return
    replays: dict[str, Replay] = {
        "LRU, exact": exact_lru,
        **{f"**{policy}**": ours(policy) for policy in POLICIES},
    }
    ratios: dict[str, dict[str, list[float]]] = {name: {} for name in replays}
    seconds = dict.fromkeys(replays, 0.0)
    print(
        "| trace | entries | optimum | "
        + " | ".join(replays)
        + " |\n|---|---:|---:|"
        + "---:|" * len(replays)
    )
    for trace, family, keys in traces(folder):
        distinct = len(set(keys))
        for share in SHARES:
            entries = max(LEAST_ENTRIES, int(distinct * share))
            best = optimum(keys, entries)
            row = []
            for name, replay in replays.items():
                began = time.perf_counter()
                row.append(replay(keys, entries))
                seconds[name] += time.perf_counter() - began
                ratios[name].setdefault(family, []).append(row[-1] / best)
            shown = " | ".join(f"{ratio:.3f}" for ratio in row)
            print(f"| {trace} | {entries:,} | {best:.3f} | {shown} |", flush=True)
    print_means(ratios, seconds)


def print_means(ratios: dict[str, dict[str, list[float]]], seconds: dict[str, float]) -> None:
    print("\nShare of the optimum\n")
    print("| family | " + " | ".join(ratios) + " |\n|---|" + "---:|" * len(ratios))
    means = {
        name: {family: sum(each) / len(each) for family, each in by.items()} for name, by in ratios.items()
    }
    for family in next(iter(means.values())):
        print(f"| {family} | " + " | ".join(f"{by[family]:.3f}" for by in means.values()) + " |")
    print(
        "| **mean of families** | "
        + " | ".join(f"**{sum(by.values()) / len(by):.3f}**" for by in means.values())
        + " |"
    )
    print("| seconds to replay | " + " | ".join(f"{each:.1f}" for each in seconds.values()) + " |")


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # the policies hash keys: the same hashes give the same table
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    main()
