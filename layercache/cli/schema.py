"""`layercache schema`: what an editor has to know to complete and check settings.toml."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from layercache.cli.exits import Exit
from layercache.cli.options import AsJson
from layercache.cli.printing import print_json
from layercache.cli.world import stop
from layercache.schema import settings_schema

__all__ = ["schema"]

_Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="The file to write, which is replaced; stdout if left out."),
]


def schema(output: _Output = None, as_json: AsJson = False) -> None:
    """Print the JSON Schema of settings.toml, with the backends and stages that are installed here.

    For taplo, and so for Even Better TOML in VS Code, the first line of settings.toml names it:
    #:schema ./layercache.schema.json
    """
    text = json.dumps(settings_schema(), indent=None if as_json and output is None else 2, ensure_ascii=False)
    if output is None:
        typer.echo(text)
        return
    try:
        output.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        stop(f"{output} cannot be written: {error.strerror}", as_json, Exit.WRONG, file=str(output))
    if as_json:
        print_json({"file": str(output)})
    else:
        typer.echo(f'{output} written; have settings.toml begin with "#:schema ./{output.name}"')
