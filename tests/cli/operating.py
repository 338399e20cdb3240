"""The command line as an operator uses it: settings in a file, one command, what it prints and its exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from layercache.cli.app import app

COMMAND = [sys.executable, "-c", "from layercache.cli import main; main()"]
"""The command as a process of its own."""


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def write_settings(
    folder: Path,
    backends: Mapping[str, Mapping[str, Any]],
    caches: Mapping[str, str],
    environment: str = "default",
) -> Path:
    """Write the settings file anew: backends, and caches by the names of their backends."""
    tables = {f"backends.{name}": options for name, options in backends.items()}
    tables |= {f"caches.{name}": {"backend": backend, "ttl": 300} for name, backend in caches.items()}
    file = folder / "settings.toml"
    with file.open("w", encoding="utf-8") as settings:
        for path, options in tables.items():
            print(f"[{environment}.{path}]", file=settings)
            for key, value in options.items():
                print(f"{key} = {json.dumps(value)}", file=settings)
    return file


def far(url: str, **options: Any) -> dict[str, Any]:
    """Options of a Redis backend that compresses."""
    return {
        "type": "redis",
        "url": url,
        "prefix": "t",
        "codecs": ["json", "zstd"],
        "timeout": "2s",
        **options,
    }


def layers(url: str) -> dict[str, dict[str, Any]]:
    """Backends: a far one, a near one, and the two layered."""
    chain = {"type": "chain", "layers": ["local", "far"]}
    return {"far": far(url), "local": {"type": "memory"}, "layered": chain}


def asked(answers: str, *words: str) -> Result:
    """As `run`, with what is typed when the command asks."""
    return CliRunner().invoke(app, words, input=answers)
