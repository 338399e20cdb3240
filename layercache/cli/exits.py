"""What the commands exit with: all that a script has to know."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

__all__ = ["EXITS", "Exit"]


class Exit(IntEnum):
    """The exit codes."""

    DONE = 0
    WRONG = 1
    USAGE = 2
    NOTHING = 3
    UNREACHABLE = 4


EXITS: Final = {
    Exit.DONE: "as asked",
    Exit.WRONG: "something is wrong: with the settings, a store, the service, or what was looked at; or not confirmed",
    Exit.USAGE: "wrong usage: an option, a key, or the name of a cache that there is not",
    Exit.NOTHING: "`get`: there is no such value",
    Exit.UNREACHABLE: "what was meant is in the memory of other processes, and no service was named with `--url`",
}
"""What each means, for the guide."""
