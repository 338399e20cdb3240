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
    "MARK",
    "PURGE",
    "RELEASE",
    "SET",
    "STAMP",
    "SWAP",
    "TOUCH",
    "Script",
    "text_of",
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
STAMP = Script("stamp")
INVALIDATE, MARK = Script("invalidate", "marks"), Script("mark", "marks")
ADD, SWAP = Script("add", "frames"), Script("swap", "frames")
TOUCH, INCREMENT = Script("touch", "frames", "crc"), Script("increment", "frames", "crc")
LEASE, FILL, RELEASE = Script("lease", "frames"), Script("fill", "frames"), Script("release", "frames")

_TEXTS = {script.sha: script.text for script in (
    SET, DELETE, PURGE, STAMP, INVALIDATE, MARK, ADD, SWAP, TOUCH, INCREMENT, LEASE, FILL, RELEASE,
)}  # fmt: skip


def text_of(sha: str | bytes | int) -> str:
    """Return the text of the script that a server knows by `sha`."""
    return _TEXTS[sha.decode() if isinstance(sha, bytes) else str(sha)]
