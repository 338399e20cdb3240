"""Workers that a process forks, as pre-forking servers do, and that it talks with."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["Worker"]


class Worker:
    """A child, as its parent sees it."""

    def __init__(self, work: Callable[[Callable[[Any], None], Callable[[], None]], None]) -> None:
        self._answers, answer = os.pipe()
        hears, self._tells = os.pipe()
        self.id = os.fork()
        if self.id == 0:
            os.close(self._answers)
            os.close(self._tells)  # so that the read ends if the parent does
            work(lambda said: _write(answer, said), lambda: _read(hears))
            sys.exit(0)  # as gunicorn's do: the interpreter ends with everything open
        os.close(answer)
        os.close(hears)

    def said(self) -> Any:
        said = b""
        while not said.endswith(b"\n"):
            read = os.read(self._answers, 1)
            assert read, f"worker {self.id} has ended"
            said += read
        return json.loads(said)

    def tell(self) -> None:
        os.write(self._tells, b"!")

    def ended(self) -> int:
        _, status = os.waitpid(self.id, 0)
        os.close(self._answers)
        os.close(self._tells)
        return os.waitstatus_to_exitcode(status)


def _write(pipe: int, said: Any) -> None:
    os.write(pipe, json.dumps(said).encode() + b"\n")


def _read(pipe: int) -> None:
    assert os.read(pipe, 1), "the parent has ended"
