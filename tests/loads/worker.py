"""One process of a fleet, for the tests beside it: does what it is told on standard input, a line each, and answers.

Every line is JSON, an act with its arguments; so is every answer. Loaders wait on the server for a word of the test,
which so decides what comes before what.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import redis
from spawned import obey

from layercache import Caches


class Worker:
    def __init__(self, settings: dict[str, Any], url: str, prefix: str) -> None:
        self.cache = Caches(settings)["default"]
        self.server = redis.Redis.from_url(url, decode_responses=True)
        self.prefix = prefix
        self.under_way: list[threading.Thread] = []
        self.results: list[Any] = []

    def at(self, name: str) -> str:
        return f"{self.prefix}-test:{name}"

    def load(self) -> Any:
        """Say that a load began, wait for the word to end it, and return what the source says by its beginning."""
        value = self.server.get(self.at("source"))
        self.server.incr(self.at("loads"))
        self.wait_for("end")
        return value

    def wait_for(self, name: str) -> None:
        while not self.server.exists(self.at(name)):
            time.sleep(0.001)  # another process's word: the only way to learn of it is to ask

    def herd(self, threads: int, tasks: int, **options: Any) -> list[Any]:
        """Have so many threads and tasks ask for the key at the same time; return what they got."""
        results: list[Any] = []

        def thread() -> None:
            self.server.incr(self.at("arrived"))
            results.append(self.cache.get_or_set("k", self.load, **options))

        async def task() -> None:
            self.server.incr(self.at("arrived"))
            results.append(await self.cache.aget_or_set("k", self.load, **options))

        async def all_tasks() -> None:
            await asyncio.gather(*(task() for _ in range(tasks)))

        started = [threading.Thread(target=thread) for _ in range(threads)]
        for each in started:
            each.start()
        asyncio.run(all_tasks())
        for each in started:
            each.join()
        return results

    def begin(self, **options: Any) -> None:
        """Ask for the key on a thread, and go on."""
        thread = threading.Thread(
            target=lambda: self.results.append(self.cache.get_or_set("k", self.load, **options)), daemon=True
        )
        thread.start()
        self.under_way.append(thread)

    def result(self) -> Any:
        self.under_way.pop().join()
        return self.results.pop()

    def get_or_set(self, **options: Any) -> Any:
        return self.cache.get_or_set("k", self.load, **options)

    def get(self) -> Any:
        return self.cache.get("k")

    def stats(self) -> dict[str, Any]:
        return self.cache.stats().as_dict()

    def left(self) -> list[int]:
        """How many flights and tickets there are."""
        layers = [self.cache._layer, *self.cache._layer.space.layers()]
        return [len(self.cache._flights), sum(len(layer.tickets) for layer in layers)]


if __name__ == "__main__":
    obey(Worker)
