"""The circuit: whether a server is worth asking, known without asking.

    closed --(it cannot be reached)--> open --(a probe is answered, what is owed delivered)--> closed

Rules:
1. It opens when a connection cannot be made; when an answer does not come in time and nothing that was sent later was
   answered either (one slow answer is no outage); when three connections end without an answer, each of them made after
   the one before had ended; or when the server says that it can serve nobody (`Refusal.is_outage`).
2. While open, calls raise `CircuitOpen` and touch no socket. Nobody who calls pays for the probe: a thread of
   its own asks, at once and then with back-off, at most `_LONGEST` apart.
3. Before it closes, the thread that has probed brings the server up to date (`outages`); nobody else asks it until
   then.
4. One that opens again soon after it closed goes on with the back-off it had, so flapping is met with patience.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from random import uniform
from time import monotonic
from typing import Final

from redis.exceptions import RedisError

from layercache.errors import CircuitOpen
from layercache_redis.outages import Outages
from layercache_redis.wire import ConnectionEnded, NotPrimary, Refusal

__all__ = ["Circuit"]

log = logging.getLogger("layercache.redis")

_RUN: Final = 3
_FIRST: Final = 0.005  # seconds before the first probe, and their growth up to
_LONGEST: Final = 0.5
_CALM: Final = 5.0  # seconds closed after which the back-off starts afresh


class Circuit:
    """The circuit of one server, shared by threads and loops.

    Args:
        backend: its name in the settings.
        place: what is asked, for logs and errors.
        probe: asks the server on the calling thread; raises where it does not answer.
        outages: of the backend, which are told.

    Attributes:
        is_open: read by every call, without a lock.
        openings: how often it opened.
    """

    def __init__(self, backend: str, place: str, probe: Callable[[], object], outages: Outages) -> None:
        self._backend, self._place, self._probe, self._outages = backend, place, probe, outages
        self.openings = 0
        self.reset()

    def reset(self) -> None:
        """Close it as new: in the child of a fork, where no thread of the parent probes."""
        self._lock = threading.Lock()  # guards what follows
        self._ended = threading.Event()  # no more probing
        self.is_open = False
        self._reason = ""
        self._sent = 0.0  # when the latest command was sent that was answered
        self._run = 0
        self._ended_at = 0.0  # when a connection ended last
        self._delay = _FIRST
        self._closed_at = 0.0
        self._prober = 0  # the thread for which it is closed already

    def check(self) -> None:
        """Raise `CircuitOpen` while it is."""
        if self.is_open and self._prober != threading.get_ident():
            raise CircuitOpen(self._backend, f"{self._place} is left alone while it fails: {self._reason}")

    # -- told by the drivers

    def told(self, error: RedisError, sent: float, made: float = 0.0) -> None:
        """What was begun at `sent` failed, over a connection made at `made` if there was one (monotonic seconds)."""
        if isinstance(error, NotPrimary):
            return  # it answers, and sentinels will name another
        if isinstance(error, ConnectionEnded):
            self.ended(made, error)
        else:
            self.failed(sent, error)

    def refused(self, refusal: Refusal) -> None:
        """It answered so."""
        if refusal.is_outage:
            self._open(refusal)

    def answered(self, sent: float) -> None:
        """What was sent at `sent` (monotonic seconds) was answered."""
        self._sent = max(self._sent, sent)
        self._run = 0

    def ended(self, made: float, reason: object) -> None:
        """A connection that was made at `made` (monotonic seconds) ended instead of an answer.

        Those that were there when the last one ended have most likely ended with it.
        """
        if made < self._ended_at:
            return
        self._run, self._ended_at = self._run + 1, monotonic()
        if self._run >= _RUN:
            self._open(reason)

    def failed(self, sent: float, reason: object) -> None:
        """No connection could be made, or no answer came in time, for what was begun at `sent`."""
        if self._sent < sent:
            self._open(reason)

    def end(self) -> None:
        """Stop probing: the backend was closed."""
        self._ended.set()

    def _open(self, reason: object) -> None:
        with self._lock:
            if self.is_open or self._ended.is_set():
                return
            if monotonic() - self._closed_at > _CALM:
                self._delay = _FIRST
            self._reason, self.is_open = str(reason), True
            name = f"layercache probe of {self._place}"
            try:
                threading.Thread(target=self._probe_until_answered, name=name, daemon=True).start()
            except RuntimeError:  # no thread can be had: what nobody would close stays closed
                self.is_open = False
                return
            self.openings += 1
        log.info("circuit of %s opens: %s", self._place, reason)
        self._outages.opened()

    def _probe_until_answered(self) -> None:
        while not self._ended.wait(self._delay * uniform(0.75, 1.0)):  # noqa: S311
            self._delay = min(self._delay * 2, _LONGEST)
            try:
                self._probe()
                self._prober = threading.get_ident()
                self._outages.closing()
            except Exception as error:  # whatever it is, the server is not back
                self._reason = str(error)
                continue
            finally:
                self._prober = 0
            with self._lock:
                self._run, self._closed_at = 0, monotonic()
                self.is_open = False
            log.info("circuit of %s closes", self._place)
            self._outages.closed()
            return
