"""Outages: who is told when the servers of a backend are left alone, and when they are anybody's again.

Rules:
1. An outage begins with the first circuit that opens and ends with the last that closes.
2. Before that one closes, those who listen bring the server up to date; if that fails, it stays open.
"""

from __future__ import annotations

import threading

from layercache.spi import Listener

__all__ = ["Outages"]


class Outages:
    """The outages of one backend.

    Attributes:
        is_on: whether one is under way; read by others without a lock.
    """

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self.reset()

    def reset(self) -> None:
        """None: in the child of a fork, which asks for itself."""
        self._lock = threading.Lock()  # guards _open
        self._open = 0  # circuits
        self.is_on = False

    def subscribe(self, listener: Listener) -> None:
        self._listeners.append(listener)

    # -- for circuits

    def opened(self) -> None:
        """A circuit has opened."""
        with self._lock:
            self._open += 1
            self.is_on = True
        for listener in list(self._listeners):
            listener.outage_began()

    def closing(self) -> None:
        """A circuit is about to close, and its server answers the calling thread; raises `BackendError` where it does
        not after all."""
        if self._open == 1:
            for listener in list(self._listeners):
                listener.outage_ending()

    def closed(self) -> None:
        """A circuit has closed."""
        with self._lock:
            self._open -= 1
            self.is_on = self._open > 0
        if not self.is_on:
            for listener in list(self._listeners):
                listener.outage_ended()
