"""What the book of more and less memory costs, and how right it is: `python benchmarks/curve.py [--traces FOLDER]`.

Costs are those of the same statements with and without `miss_ratio_curve`, in turns. Then real access traces (see
`hitratio.py`) are replayed through `get_or_set` with room for 1 % and 5 % of a trace's distinct keys (100 entries at
least), and what the curve says of a quarter, half, once, twice and ten times that room is held against an exact LRU
cache of that size. Without the traces that part says so.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import sys
from pathlib import Path
from typing import Any

from hitratio import exact_lru, traces
from rounds import print_table, statement_rounds

from layercache import Caches

SHARES = (0.01, 0.05)
LEAST_ENTRIES = 100
MULTIPLES = (0.25, 0.5, 1.0, 2.0, 10.0)
BURST = 1000


def cache_of(entries: int, *, curve: bool) -> Any:
    memory = {"type": "memory", "max_entries": entries, "max_bytes": "4GB", "miss_ratio_curve": curve}
    return Caches({"backends": {"m": memory}, "caches": {"default": {"backend": "m", "ttl": "forever"}}})[
        "default"
    ]


def costs() -> None:
    draw = random.Random(1)
    popular = [f"key:{int(10_000 ** draw.random())}" for _ in range(BURST)]
    hits: dict[str, tuple[str, dict[str, Any]]] = {}
    misses: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, curve in (("without", False), ("with the curve", True)):
        cache = cache_of(10_000, curve=curve)
        for number in range(10_000):
            cache.set(f"key:{number}", "value")
        hits[f"{BURST:,} hits, {name}"] = (
            "for key in keys: cache.get(key)",
            {"cache": cache, "keys": popular},
        )
        cache = cache_of(10_000, curve=curve)
        new = (f"new:{number}" for number in itertools.count()).__next__
        for _ in range(20_000):
            cache.get_or_set(new(), "value")
        misses[f"a miss, loaded and stored in place of another, {name}"] = (
            "cache.get_or_set(new(), 'value')",
            {"cache": cache, "new": new},
        )
    print_table(
        "Hits on keys as popular as keys are", statement_rounds(hits, 200), f"{BURST:,} hits, without"
    )
    floor = "a miss, loaded and stored in place of another, without"
    print_table("Misses, of 10,000 entries", statement_rounds(misses, 5_000), floor)


def accuracy(folder: Path) -> None:
    if not (folder / "manifest.json").is_file():
        print("no traces there; name their folder with --traces")
        return
    heads = " | ".join(f"× {multiple:g}: said, exact" for multiple in MULTIPLES)
    print(f"\n| trace | entries | keys looked at | {heads} |\n|---|---:|---:|" + "---:|" * len(MULTIPLES))
    errors: dict[float, list[float]] = {multiple: [] for multiple in MULTIPLES}
    for trace, _, keys in traces(folder):
        distinct = len(set(keys))
        for entries in sorted({max(LEAST_ENTRIES, int(distinct * share)) for share in SHARES}):
            cache = cache_of(entries, curve=True)
            load = cache.get_or_set
            for key in keys:
                load(key, "value")
            curve = cache.stats().layers[0].curve
            sketch = cache._layer.space._storage.curve
            row = []
            for multiple in MULTIPLES:
                exact = exact_lru(keys, int(entries * multiple))
                errors[multiple].append(abs(curve.at(multiple) - exact))
                row.append(f"{curve.at(multiple):.3f}, {exact:.3f}")
            share = sketch._threshold / (1 << 24)
            print(f"| {trace} | {entries:,} | {share:.1%} | {' | '.join(row)} |", flush=True)
    means = " | ".join(f"**{sum(each) / len(each):.4f}**" for each in errors.values())
    medians = " | ".join(f"{sorted(each)[len(each) // 2]:.4f}" for each in errors.values())
    most = " | ".join(f"{max(each):.4f}" for each in errors.values())
    print(
        f"| **mean error** | | | {means} |\n| median error | | | {medians} |\n| greatest error | | | {most} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--traces", type=Path, default=Path(__file__).parent.parent.parent / "shared" / "traces"
    )
    folder: Path = parser.parse_args().traces
    costs()
    accuracy(folder)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # the sample is chosen by hashes of keys
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    main()
