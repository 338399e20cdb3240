"""The scripts: each a file of this folder, with the prelude in front, and what else it needs.

A function that a script does not need costs it a tenth of a microsecond, in which the server serves nobody else.
"""

from __future__ import annotations

from hashlib import sha1
from pathlib import Path

__all__ = [
    "ADD",
    "DELETE",
    "FILL",
    "INCREMENT",
    "INVALIDATE",
    "LEASE",
    "PURGE",
    "SET",
    "STAMP",
    "SWAP",
    "TOUCH",
    "Script",
]

_FOLDER = Path(__file__).parent


class Script:
    """A script by its text, and by the digest that a server knows it by."""

    def __init__(self, name: str, *before: str) -> None:
        files = ("prelude", *before, name)
        parts = [_FOLDER.joinpath(f"{file}.lua").read_text(encoding="utf-8") for file in files]
        self.name, self.text = name, "".join(parts)
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()


SET, DELETE, PURGE = Script("set"), Script("delete"), Script("purge")
STAMP, INVALIDATE = Script("stamp"), Script("invalidate")
ADD, SWAP = Script("add", "frames"), Script("swap", "frames")
TOUCH, INCREMENT = Script("touch", "frames", "crc"), Script("increment", "frames", "crc")
LEASE, FILL = Script("lease", "frames"), Script("fill", "frames")
