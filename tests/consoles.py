"""What a page shows of a terminal, in its blocks ```console: commands after `$ `, each with what it prints."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["commands", "is_shown"]

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command of the page with the output that follows it, in their order."""
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
