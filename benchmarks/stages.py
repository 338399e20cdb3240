"""What the stages of a codec cost to write and to read, and in bytes: `python benchmarks/stages.py`.

A quote goes through a whole pipeline and comes back as it was. A stage after `json` costs what its row takes beyond
that of `json` alone. No server takes part.
"""

from __future__ import annotations

import time
from typing import Any

from far import QUOTE
from rounds import print_table, statement_rounds

from layercache.codecs.encrypt import EncryptOptions, EncryptStage
from layercache.codecs.gzip import GzipOptions, GzipStage
from layercache.codecs.json import JsonOptions, JsonStage
from layercache.codecs.normal import NormalForm
from layercache.codecs.pickle import PickleOptions, PickleStage
from layercache.codecs.pipeline import Pipeline
from layercache.codecs.seals import SealKey
from layercache.codecs.sign import SignOptions, SignStage
from layercache.codecs.zstd import ZstdOptions, ZstdStage
from layercache.entry import MISSING, Entry
from layercache.spi import Stage

KEYS = [SealKey.parsed("2026-11:0123456789abcdefghijklmnopqrstuvwxyz")]
KEY = b"bench:quote:005930.KS"
JSON = JsonStage(JsonOptions())
PIPELINES: dict[str, list[Stage]] = {
    "json": [JSON],
    "json + zstd": [JSON, ZstdStage(ZstdOptions())],
    "json + gzip": [JSON, GzipStage(GzipOptions())],
    "json + sign": [JSON, SignStage(SignOptions(), KEYS)],
    "json + encrypt": [JSON, EncryptStage(EncryptOptions(), KEYS)],
    "pickle + sign": [PickleStage(PickleOptions()), SignStage(SignOptions(), KEYS)],
}


def main() -> None:
    began = time.time()
    writes: dict[str, tuple[str, dict[str, Any]]] = {}
    reads: dict[str, tuple[str, dict[str, Any]]] = {}
    sizes = {}
    for name, stages in PIPELINES.items():
        pipeline = Pipeline(stages, 1 << 20)
        payload, _ = NormalForm(pipeline.serializer).encode(QUOTE)
        entry = Entry(payload, MISSING, began, began + 60, began + 60, (("*", 7),))
        frame = pipeline.encode(entry, KEY)
        assert pipeline.serializer.loads(pipeline.decode(frame, KEY).payload or b"") == QUOTE
        names = {"pipeline": pipeline, "entry": entry, "frame": frame, "key": KEY}
        writes[f"layercache, {name}"] = ("pipeline.encode(entry, key)", names)
        reads[f"layercache, {name}"] = ("pipeline.decode(frame, key)", names)
        sizes[name] = len(payload), len(frame)
    floor = "layercache, json"
    print_table("A frame, of the normal form of a quote", statement_rounds(writes, 2_000), floor, "µs")
    print_table("A frame, back to the normal form", statement_rounds(reads, 2_000), floor, "µs")
    print("\nBytes of a quote\n\n| | normal form | frame |\n|---|---:|---:|")
    for name, (normal, framed) in sizes.items():
        print(f"| **layercache, {name}** | {normal:,} | {framed:,} |")


if __name__ == "__main__":
    main()
