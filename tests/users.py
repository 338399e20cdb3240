"""Users of a cache who go on until the test has seen enough: threads, and tasks of a loop on a thread more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from typing import Self

__all__ = ["Users"]


class Users:
    """Threads, then tasks, numbered from 0; a context manager that starts them, and ends and joins them.

    What each does is said in `in_a_thread` and `in_a_task`, both of which return when `ended` is set.
    """

    def __init__(self, *, threads: int, tasks: int) -> None:
        self.ended = threading.Event()
        self._threads = [
            threading.Thread(target=self.in_a_thread, args=(number,)) for number in range(threads)
        ]
        numbers = range(threads, threads + tasks)
        self._threads.append(threading.Thread(target=lambda: asyncio.run(self._all_tasks(numbers))))

    def in_a_thread(self, number: int) -> None:
        raise NotImplementedError

    async def in_a_task(self, number: int) -> None:
        raise NotImplementedError

    async def _all_tasks(self, numbers: Iterable[int]) -> None:
        await asyncio.gather(*map(self.in_a_task, numbers))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.ended.set()
        for thread in self._threads:
            thread.join()
