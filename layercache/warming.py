"""Warming with threads and with tasks: rounds once, or again and again.

Rule: nothing here keeps a process alive, or outlives the cache that it warms.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from layercache.core.warming import Item, Round
from layercache.durations import parse_duration, spell_duration
from layercache.errors import CacheClosed, InvalidOption, InvalidTtl
from layercache.inline import run

if TYPE_CHECKING:
    from layercache.face import Cache

__all__ = ["Schedule", "WarmReport", "awarm", "checked_every", "warm"]

log = logging.getLogger("layercache.warming")


@dataclass(frozen=True, slots=True, repr=False)
class WarmReport:
    """What came of warming.

    Attributes:
        loaded: how many keys were loaded.
        kept: how many were there already, fresh, or were being loaded by another host with a stale value to serve.
        failed: what was raised, by key.
        seconds: it took, in all.
        schedule: what keeps the keys warm from now on, where that was asked for.
    """

    loaded: int
    kept: int
    failed: dict[str, Exception]
    seconds: float
    schedule: Schedule | None = field(default=None, compare=False)

    def cancel(self) -> None:
        """End the schedule, if there is one."""
        if self.schedule is not None:
            self.schedule.cancel()

    def __repr__(self) -> str:
        then = "" if self.schedule is None else f", then {self.schedule!r}"
        failed = f"{len(self.failed)} failed"
        if self.failed:
            key, error = next(iter(self.failed.items()))
            failed += f" ({key!r}: {error!r}{', …' if len(self.failed) > 1 else ''})"
        return f"<WarmReport: {self.loaded} loaded, {self.kept} kept, {failed}, {self.seconds:.2f} s{then}>"


def warm(
    cache: Cache[Any],
    items: Sequence[Item],
    concurrency: int,
    every: float | None,
    done: Callable[[], object] | None = None,
) -> WarmReport:
    """Warm `items` with threads, this one among them; then, with `every`, on a daemon thread."""
    _check_concurrency(concurrency)
    began = time.monotonic()
    first = Round(cache._loading, items, done=done)  # noqa: SLF001
    _work(cache, first, min(concurrency, len(items)))
    schedule = None if every is None or not items else _OnThread(cache, items, concurrency, every)
    return _report(first, began, schedule)


async def awarm(
    cache: Cache[Any],
    items: Sequence[Item],
    concurrency: int,
    every: float | None,
    done: Callable[[], object] | None = None,
) -> WarmReport:
    """Warm `items` with tasks; then, with `every`, on a task of the running loop."""
    _check_concurrency(concurrency)
    began = time.monotonic()
    first = Round(cache._loading, items, done=done)  # noqa: SLF001
    await _awork(cache, first, min(concurrency, len(items)))
    schedule = None if every is None or not items else _OnLoop(cache, items, concurrency, every)
    return _report(first, began, schedule)


def checked_every(every: Any) -> float | None:
    """Return the seconds that `refresh_every` means, or raise `InvalidTtl`; None stays."""
    if every is None:
        return None
    seconds = parse_duration(every)
    if not 0 < seconds < math.inf:
        raise InvalidTtl(f"refresh_every is more than 0 seconds and has an end, not {every!r}")
    return seconds


def _check_concurrency(concurrency: Any) -> None:
    if type(concurrency) is not int or concurrency < 1:
        raise InvalidOption(
            f"concurrency is how many keys are loaded at a time, 1 or more; not {concurrency!r}"
        )


def _report(first: Round, began: float, schedule: Schedule | None) -> WarmReport:
    return WarmReport(len(first.loaded), len(first.kept), first.failed, time.monotonic() - began, schedule)


# -- one round


def _work(cache: Cache[Any], round_: Round, workers: int) -> None:
    """Have `workers` threads work on a round, this one among them, until it is over."""
    port = cache._inline  # noqa: SLF001
    broken: list[BaseException] = []

    def work() -> None:
        try:
            run(round_.work(port))
        except BaseException as error:  # such as SystemExit from a loader: for who waits here
            round_.stop()
            broken.append(error)

    # daemons: a loader that hangs must not keep the process from its end
    threads = [
        threading.Thread(target=copy_context().run, args=(work,), name="layercache-warming", daemon=True)
        for _ in range(workers - 1)
    ]
    for thread in threads:
        thread.start()
    try:
        run(round_.work(port))
        for thread in threads:
            thread.join()
    except BaseException:  # Ctrl-C, as a rule: the others finish the key that they are at
        round_.stop()
        raise
    if broken:
        raise broken[0]


async def _awork(cache: Cache[Any], round_: Round, workers: int) -> None:
    """Have `workers` tasks work on a round until it is over."""
    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(round_.work(cache._loop))  # noqa: SLF001


# -- again and again


class Schedule:
    """Keeps keys warm in this process, until `cancel()`, the end of the cache, or that of the process.

    Attributes:
        rounds: how many are over.
        loads: keys that were loaded by them.
        failures: loads that failed.
        is_running: whether there will be another round.
    """

    def __init__(self, cache: Cache[Any], items: Sequence[Item], concurrency: int, every: float) -> None:
        self._cache, self._items, self._every = cache, items, every
        self._workers = min(concurrency, len(items))
        self._failing: set[str] = set()  # keys of which a failure was logged, and no load has worked since
        self._round: Round | None = None
        self.rounds = self.loads = self.failures = 0
        self.is_running = True
        _schedules.add(self)
        cache.schedules.add(self)

    def cancel(self) -> None:
        """End it; from any thread, and as often as you like. Loads that are under way on threads come to their end."""
        self.is_running = False
        self._cache.schedules.discard(self)
        if self._round is not None:
            self._round.stop()
        self._wake()

    def _wake(self) -> None:
        raise NotImplementedError

    def abandon(self) -> None:
        """Be over, as what ran it is not there: in the child of a fork."""
        self.is_running = False
        self._cache.schedules.discard(self)

    def _new_round(self) -> Round:
        self._round = Round(self._cache._loading, self._items, self._every)  # noqa: SLF001
        if not self.is_running:  # cancelled before there was a round that could be stopped
            self._round.stop()
        return self._round

    def _note(self, over: Round) -> None:
        self.rounds += 1
        self.loads += len(over.loaded)
        self.failures += len(over.failed)
        for key, error in over.failed.items():
            if isinstance(error, CacheClosed):
                self.cancel()
            elif key not in self._failing and self.is_running:
                self._failing.add(key)
                log.warning(
                    "keeping %r warm fails; it is tried again every %s", key, self._spelled, exc_info=error
                )
        for key in [*over.loaded, *over.kept]:
            if key in self._failing:
                self._failing.discard(key)
                log.warning("keeping %r warm works again", key)

    @property
    def _spelled(self) -> str:
        return spell_duration(self._every)

    def __repr__(self) -> str:
        state = "" if self.is_running else ", over"
        return f"<Schedule: {len(self._items)} keys every {self._spelled}{state}>"


class _OnThread(Schedule):
    """On one daemon thread, with others beside it while a round has several keys to see to."""

    def __init__(self, cache: Cache[Any], items: Sequence[Item], concurrency: int, every: float) -> None:
        self._cancelled = threading.Event()
        super().__init__(cache, items, concurrency, every)
        self._thread = threading.Thread(target=self._run, name="layercache-warm-schedule", daemon=True)
        self._thread.start()

    def _wake(self) -> None:
        self._cancelled.set()

    def abandon(self) -> None:
        super().abandon()
        self._cancelled = threading.Event()  # the thread may have held its lock

    def _run(self) -> None:
        due = time.monotonic() + self._every
        while self.is_running and not self._cancelled.wait(max(0.0, due - time.monotonic())):
            due = max(
                due + self._every, time.monotonic()
            )  # a round that takes longer leaves none to make up for
            over = self._new_round()
            try:
                _work(self._cache, over, self._workers)
            except (
                BaseException
            ):  # a loader that raises SystemExit: it ends neither the thread nor the process
                log.warning("a round of warming was broken off", exc_info=True)
            self._note(over)


class _OnLoop(Schedule):
    """On a task of the loop that it was begun on, and over with it."""

    def __init__(self, cache: Cache[Any], items: Sequence[Item], concurrency: int, every: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run(), name="layercache-warm-schedule")
        super().__init__(cache, items, concurrency, every)
        self._task.add_done_callback(self._over)

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop is closed, and the task with it
            if _is_running(self._loop):
                self._task.cancel()
            else:
                self._loop.call_soon_threadsafe(self._task.cancel)

    def _over(self, _: object) -> None:
        self.is_running = False
        self._cache.schedules.discard(self)

    async def _run(self) -> None:
        due = self._loop.time() + self._every
        while self.is_running:
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            due = max(due + self._every, self._loop.time())
            over = self._new_round()
            await _awork(self._cache, over, self._workers)
            self._note(over)


def _is_running(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


_schedules: Final[WeakSet[Schedule]] = WeakSet()


def _abandon_all() -> None:
    for schedule in list(_schedules):
        schedule.abandon()


def _cancel_all() -> None:
    for schedule in list(_schedules):
        if isinstance(schedule, _OnThread):
            schedule.cancel()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
atexit.register(_cancel_all)  # so that no thread begins a round while the interpreter goes down
