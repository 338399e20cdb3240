"""Processes over one server, each with a cache of its own, led by the test."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import redis
from spawned import Process
from worlds import settings

WORKER = Path(__file__).with_name("worker.py")


class Fleet:
    """Processes over one server, and the words by which the test leads their loaders."""

    def __init__(self, server: redis.Redis, url: str, processes: ExitStack) -> None:
        self.server, self.url = server, url
        self.prefix = f"t{uuid4().hex[:12]}"
        self._processes = processes

    def settings(self, kind: str, **policy: Any) -> dict[str, Any]:
        return settings(kind, self.url, self.prefix, **policy)

    def process(self, kind: str, **policy: Any) -> Process:
        made = Process(WORKER, settings=self.settings(kind, **policy), url=self.url, prefix=self.prefix)
        self._processes.callback(made.end)
        return made.ready()

    def say(self, name: str, value: str = "1") -> None:
        self.server.set(f"{self.prefix}-test:{name}", value)

    def unsay(self, name: str) -> None:
        self.server.delete(f"{self.prefix}-test:{name}")

    def count(self, name: str) -> int:
        return int(self.server.get(f"{self.prefix}-test:{name}") or 0)
