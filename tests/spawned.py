"""Processes that a test leads: one line of JSON each way, an act with its arguments and what came of it.

The test has a `Process`; the program that runs there ends in `obey`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Process", "obey"]


class Process:
    """A process that runs the program at `program`, which says "ready" when it has begun."""

    def __init__(self, program: Path, **arguments: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(program), json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        )

    def ready(self) -> Process:
        assert self.answer() == "ready"
        return self

    def tell(self, act: str, **options: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([act, options]) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process has ended"
        return json.loads(line)

    def __call__(self, act: str, **options: Any) -> Any:
        self.tell(act, **options)
        return self.answer()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.communicate()
            assert self._process.returncode == 0
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                stream.close()


def obey(made: Callable[..., Any]) -> None:
    """Do what the test tells on standard input, by the methods of what `made` returns, and answer what they return."""
    obeying = made(**json.loads(sys.argv[1]))
    print(json.dumps("ready"), flush=True)  # noqa: T201
    for line in sys.stdin:
        act, options = json.loads(line)
        print(json.dumps(getattr(obeying, act)(**options)), flush=True)  # noqa: T201
