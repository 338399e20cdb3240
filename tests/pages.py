"""What a page has its reader do: files to save, and commands to type, each with what it prints."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["commands", "is_shown", "saved"]

FILE = re.compile(r"Save this as `(.+?)`.*\n\n```\w+\n((?s:.*?))^```$", re.MULTILINE)
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def saved(text: str) -> dict[str, str]:
    """Return the files that the page says to save, by name."""
    return dict(FILE.findall(text))


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command after `$ ` in a block ```console, with the output that follows it, in their order."""
    for block in BLOCK.findall(text):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            yield command, expected


def is_shown(expected: str, printed: str) -> bool:
    """Say whether the page shows what was printed.

    In the page `...` is any text and a number with a fraction any such number; how much blank there is does not count.
    """
    parts = [re.escape(part) for part in expected.strip().split("...")]
    parts = [re.sub(r"(?:\\ )+", r"\\ +", re.sub(r"\d+\\\.\d+", "[0-9.e-]+", part)) for part in parts]
    lines = "\n".join(line.rstrip() for line in printed.splitlines())
    return re.fullmatch("(?s:.*)".join(parts), lines.strip()) is not None
