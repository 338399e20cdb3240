"""`layercache train-dictionary`: lets the values of a cache take less, by what they have in common."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from layercache.cli.world import AsJson, Environment, SettingsFile, backend_of, named, print_json, world
from layercache.errors import CacheError
from layercache.spi import Trained

__all__ = ["train_dictionary"]

Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the cache.")]
Samples = Annotated[
    int, typer.Option("--samples", min=1, help="How many of its values to train from, at most.")
]


def train_dictionary(
    name: Name,
    samples: Samples = 2000,
    settings: SettingsFile = None,
    environment: Environment = None,
    as_json: AsJson = False,
) -> None:
    """Train a dictionary from the values of a cache and compress new ones with it; exits 1 where that cannot be.

    Every process takes it up within seconds. What was written before stays readable.
    """
    with world(settings, environment, as_json) as caches:
        cache = named(caches, name)
        read = caches.settings
        said = {"origin": read.origin, "environment": read.environment, "cache": cache}
        try:
            trained = backend_of(caches, cache).train_dictionary(cache, samples)
        except CacheError as error:
            if as_json:
                print_json(said | {"error": str(error)})
            else:
                typer.echo(str(error), err=True)
            raise typer.Exit(1) from None
    if as_json:
        print_json({**said, "dictionary": trained._asdict()})
    else:
        _print(cache, trained)


def _print(cache: str, trained: Trained) -> None:
    typer.echo(
        f"{cache}: dictionary {trained.id} of {trained.size:,} bytes, from {trained.samples:,} samples; "
        "new values are compressed with it"
    )
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right")
    for what, size in (
        ("the samples, as they are", trained.payload_bytes),
        ("compressed without it", trained.without),
        ("compressed with it", trained.with_dictionary),
    ):
        table.add_row(what, f"{size:,} bytes", f"{size / trained.payload_bytes:.0%}")
    console = Console(highlight=False)
    with console.capture() as printed:
        console.print(table)
    for line in printed.get().splitlines():
        typer.echo(line.rstrip())
