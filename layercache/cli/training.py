"""`layercache train-dictionary`: lets the values of a cache take less, by what they have in common."""

from __future__ import annotations

from typing import Annotated

import typer

from layercache.cli.exits import Exit
from layercache.cli.options import Call, OneCache
from layercache.cli.printing import print_json, print_parts, table
from layercache.cli.world import backend_of, named, stop, world
from layercache.errors import CacheError
from layercache.spi import Trained

__all__ = ["train_dictionary"]

_Samples = Annotated[
    int, typer.Option("--samples", min=1, help="How many of its values to train from, at most.")
]


def train_dictionary(name: OneCache, samples: _Samples = 2000, *, call: Call) -> None:
    """Train a dictionary from the values of a cache and compress new ones with it; exits 1 where that cannot be.

    Every process takes it up within seconds. What was written before stays readable.
    """
    with world(call) as caches:
        cache = named(caches, name)
        read = caches.settings
        said = {"origin": read.origin, "environment": read.environment, "cache": cache}
        try:
            trained = backend_of(caches, cache).train_dictionary(cache, samples)
        except CacheError as error:
            stop(str(error), call.as_json, Exit.WRONG, **said)
    if call.as_json:
        print_json({**said, "dictionary": trained._asdict()})
    else:
        _print(cache, trained)


def _print(cache: str, trained: Trained) -> None:
    typer.echo(
        f"{cache}: dictionary {trained.id} of {trained.size:,} bytes, from {trained.samples:,} samples; "
        "new values are compressed with it"
    )
    sizes = table("what", "bytes", "share", right=("bytes", "share"), is_headed=False)
    for what, size in (
        ("the samples, as they are", trained.payload_bytes),
        ("compressed without it", trained.without),
        ("compressed with it", trained.with_dictionary),
    ):
        sizes.add_row(what, f"{size:,} bytes", f"{size / trained.payload_bytes:.0%}")
    print_parts([sizes])
