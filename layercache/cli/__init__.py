"""The `layercache` command. Its packages (typer, rich) come with the extra `cli`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command with the arguments of the process."""
    try:
        from layercache.cli.app import app
    except ImportError as error:
        if (error.name or "").split(".")[0] not in {"typer", "rich"}:
            raise
        sys.exit("the layercache command needs typer: pip install 'layercache-framework[cli]'")
    app()
