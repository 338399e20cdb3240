"""Deliveries: what the layers of a chain are owed is brought to them, in the background.

Rules:
1. A store with a circuit says when an outage ends, and is given what it is owed before anybody reads it again
   (`hearing`). Here is what it is owed otherwise: as it refused a write, answered too late once, or knows nothing of
   circuits.
2. It is tried until it succeeds, with back-off; a store that fails holds up no other.
3. What cannot be brought when the chain is closed is said in the log.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from layercache.core.outbox import Outbox
from layercache.errors import BackendError
from layercache.inline import InlinePort, run
from layercache.spi import KeySpace

__all__ = ["Deliveries"]

log = logging.getLogger("layercache.chain")

_FIRST: Final = 0.005  # seconds before the first attempt, and their growth up to
_LONGEST: Final = 0.5


class Deliveries:
    """Has what is owed delivered, by a thread that runs while anything is; all caches of one chain together."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._port = InlinePort(now)
        self._outboxes: list[tuple[Outbox, KeySpace]] = []
        self.after_fork()

    def after_fork(self) -> None:
        """The thread is the parent's."""
        self._lock = threading.Lock()  # guards _thread
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, outbox: Outbox, space: KeySpace) -> None:
        """Have what will be in `outbox` brought to `space`."""
        self._outboxes.append((outbox, space))

    def noticed(self) -> None:
        """Something is owed; waits for nothing."""
        with self._lock:  # the thread looks whether all is delivered under it, before it ends
            if self._thread is None and not self._ended.is_set():
                thread = threading.Thread(target=self._deliver, name="layercache deliveries", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # no thread can be had; the next that is owed tries again
                    return
                self._thread = thread

    def end(self) -> None:
        """Nobody has the chain any more; waits for nothing."""
        self._ended.set()

    def close(self) -> None:
        """Try once more, and say what is left; closing it twice is harmless."""
        if self._ended.is_set():
            return
        self.end()
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._try()
        left = sum(len(outbox) for outbox, _ in self._outboxes)
        if left:
            log.warning("%d invalidations were not delivered: others may serve what they were about", left)

    def _deliver(self) -> None:
        pause = _FIRST
        while not self._ended.wait(pause):
            pause = _FIRST if self._try() else min(pause * 2, _LONGEST)
            with self._lock:
                if all(outbox.is_empty for outbox, _ in self._outboxes):
                    self._thread = None
                    return

    def _try(self) -> bool:
        """Return whether all was delivered."""
        done = True
        for outbox, space in self._outboxes:
            if not outbox.is_empty:
                try:
                    run(outbox.deliver(self._port, space))
                except BackendError:
                    done = False
                except Exception:  # of one store: the others are given what they are owed all the same
                    log.exception("what is owed could not be delivered")
                    done = False
        return done
