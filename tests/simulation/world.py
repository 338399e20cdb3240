"""Time, chance and the order of things: tasks that take turns as a seed decides.

Everything that a task does is between two pauses; at each, the seed chooses who goes next. Time is a clock that passes
a little with every turn, more by chance, and to the next one that wakes where nobody else can go on. So a seed is a
schedule: the same one runs the same way again.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from math import inf
from random import Random
from types import coroutine
from typing import Any

from layercache.testing import Clock
from layercache.testing.stepping import Ready

__all__ = ["Over", "Task", "World"]

_TURN = 0.0001  # seconds, so that no two things happen at the same time
_MOST = 50_000  # turns, in which every schedule ends


class Over(BaseException):
    """The world is at its end, and who still waits is let go."""


class Task:
    """Attributes:
    owner: the node that it belongs to, if any: it dies with it.
    wakes: when it goes on, unless it is ready before.
    failed: whether something that it asked of the server did not succeed.
    """

    __slots__ = ("context", "coroutine", "failed", "name", "owner", "ready", "wakes")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], name: str, owner: object) -> None:
        self.coroutine, self.name, self.owner = coroutine, name, owner
        self.ready: Ready | None = None
        self.wakes = 0.0
        self.context = copy_context()  # what one sets, no other sees
        self.failed = False


class World:
    """Attributes:
    chance: of all that is left to it.
    clock: the true time, which nobody's clock need show.
    task: whose turn it is.
    """

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.clock = Clock()
        self.began = self.clock.now
        self.waiting: list[Task] = []
        self.task: Task | None = None
        self.is_over = False
        self.turns = 0

    @property
    def time(self) -> float:
        """Seconds since the beginning."""
        return self.clock.now - self.began

    def start(self, coroutine: Coroutine[Any, Any, Any], name: str, owner: object = None) -> Task:
        task = Task(coroutine, name, owner)
        self.waiting.append(task)
        return task

    def forget(self, owner: object) -> None:
        """What belongs to `owner` does nothing more: it has crashed."""
        for task in [task for task in self.waiting if task.owner is owner]:
            self.waiting.remove(task)
            self._end(task)

    @coroutine
    def pause(self, ready: Ready | None = None) -> Generator[tuple[float, Ready | None], None, None]:
        """Let others go on; no turn is offered until `ready()`."""
        if self.is_over:
            raise Over
        yield 0.0 if ready is None else inf, ready

    @coroutine
    def sleep(
        self, seconds: float, or_once: Ready | None = None
    ) -> Generator[tuple[float, Ready | None], None, None]:
        if self.is_over:
            raise Over
        yield self.clock.now + seconds, or_once

    def turn(self) -> None:
        """Have somebody take a turn."""
        self.turns += 1
        assert self.turns < _MOST, "it goes on for ever"
        self.clock.now = now = self.clock.now + _TURN
        if self.chance.random() < 0.02:
            self.clock.now = now = now + self.chance.random() * 0.1
        ready = [
            task for task in self.waiting if task.wakes <= now or (task.ready is not None and task.ready())
        ]
        if not ready:
            wakes = min(task.wakes for task in self.waiting)
            assert wakes < inf, f"deadlock: {[task.name for task in self.waiting]}"
            self.clock.now = wakes
            return
        task = ready[int(self.chance.random() * len(ready))]
        self.waiting.remove(task)
        before, self.task = self.task, task
        try:
            task.wakes, task.ready = task.context.run(task.coroutine.send, None)
        except (StopIteration, Over):
            return
        finally:
            self.task = before
        self.waiting.append(task)

    def until(self, claim: Callable[[], bool]) -> None:
        """Have others take turns until `claim` is true; also for who cannot pause, as plain functions."""
        while not claim():
            self.turn()

    def end(self) -> None:
        """Let everybody go."""
        self.is_over = True
        for task in self.waiting:
            self._end(task)
        self.waiting.clear()

    def _end(self, task: Task) -> None:
        was, self.is_over = self.is_over, True
        try:
            task.context.run(task.coroutine.throw, Over())
        except (StopIteration, Over):
            return
        finally:
            self.is_over = was
        raise AssertionError(f"{task.name} paused at its end")
