"""Programs of users, each in an interpreter of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["Program", "Start"]

HERE = Path(__file__).parent

_FORKS = (
    "ignore:This process:DeprecationWarning"  # of Python 3.12 and later, to whoever forks and has threads
)

Start = Callable[..., "Program"]


class Program:
    """A program of a user's: its own interpreter, in which every warning is an error."""

    def __init__(self, *arguments: str, **variables: str) -> None:
        path = os.pathsep.join([str(HERE), str(HERE.parent)])
        self._process = subprocess.Popen(
            [sys.executable, "-X", "dev", "-W", "error", "-W", _FORKS, *arguments],
            env={**os.environ, "PYTHONPATH": path, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def ended(self, within: float = 60.0) -> tuple[int, str, str]:
        """What it ended with, by itself: its code, and what it said on standard output and standard error."""
        said, complained = self._process.communicate(timeout=within)
        return self._process.returncode, said, complained
