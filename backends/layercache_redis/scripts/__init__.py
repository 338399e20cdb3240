"""The scripts: each a file of this folder, with the prelude in front."""

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

    def __init__(self, name: str) -> None:
        parts = [_FOLDER.joinpath(f"{part}.lua").read_text(encoding="utf-8") for part in ("prelude", name)]
        self.name, self.text = name, "".join(parts)
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()


ADD, DELETE, FILL, INCREMENT = Script("add"), Script("delete"), Script("fill"), Script("increment")
INVALIDATE, LEASE, PURGE, SET = Script("invalidate"), Script("lease"), Script("purge"), Script("set")
STAMP, SWAP, TOUCH = Script("stamp"), Script("swap"), Script("touch")
