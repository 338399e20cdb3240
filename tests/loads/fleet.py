"""Processes over one server, each with a cache of its own, led by the test."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import redis
from worlds import settings

WORKER = Path(__file__).with_name("worker.py")


class Process:
    """A process with a cache of its own."""

    def __init__(self, **arguments: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER), json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.answer() == "ready"

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


class Fleet:
    """Processes over one server, and the words by which the test leads their loaders."""

    def __init__(self, server: redis.Redis, url: str, processes: ExitStack) -> None:
        self.server, self.url = server, url
        self.prefix = f"t{uuid4().hex[:12]}"
        self._processes = processes

    def settings(self, kind: str, **policy: Any) -> dict[str, Any]:
        return settings(kind, self.url, self.prefix, **policy)

    def process(self, kind: str, **policy: Any) -> Process:
        made = Process(settings=self.settings(kind, **policy), url=self.url, prefix=self.prefix)
        self._processes.callback(made.end)
        return made

    def say(self, name: str, value: str = "1") -> None:
        self.server.set(f"{self.prefix}-test:{name}", value)

    def unsay(self, name: str) -> None:
        self.server.delete(f"{self.prefix}-test:{name}")

    def count(self, name: str) -> int:
        return int(self.server.get(f"{self.prefix}-test:{name}") or 0)
