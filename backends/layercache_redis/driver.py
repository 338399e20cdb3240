"""What both drivers share: what belongs to one server, and which failures there are.

A failure is one of three, all errors of redis-py: `TimeoutError`, no answer in time; `ConnectionEnded`, a connection
that had been made is gone; any other `ConnectionError`, none could be made. What each means for the server is for its
`Circuit` to say, what for the caller for `translated`.

An operation has one deadline, `timeout` after it began, whatever it takes: a connection, a sentinel's word, several
round trips.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from struct import Struct
from threading import Event
from time import monotonic
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from layercache.errors import BackendError, BackendTimeout
from layercache_redis.circuit import Circuit
from layercache_redis.options import Place, RedisOptions
from layercache_redis.outages import Outages
from layercache_redis.wire import ConnectionEnded, Greeting

__all__ = ["Servers", "before", "forget_unsent", "no_answer", "translated", "unreachable"]

_AT_ONCE = Struct("ii").pack(1, 0)


class Servers:
    """What is known of each server that a backend has to do with, for all threads and loops.

    Args:
        backend: its name in the settings.
        probe: asks the server at a place, on the calling thread; raises where it does not answer.
    """

    def __init__(self, backend: str, options: RedisOptions, probe: Callable[[Place], object]) -> None:
        self.backend, self.options = backend, options
        self._probe = probe
        self._circuits: dict[Place, Circuit] = {}
        self.outages = Outages()
        self.ended = Event()

    def circuit(self, place: Place) -> Circuit:
        """Return the circuit of a server; sentinels vouch for one service, which has one wherever it is."""
        if self.options.url.is_sentinel:
            place = self.options.places()[0]
        found = self._circuits.get(place)
        if found is None:
            named = self.options.url.service if self.options.url.is_sentinel else str(place)
            made = Circuit(self.backend, named, lambda: self._probe(place), self.outages)
            found = self._circuits.setdefault(place, made)
        return found

    def doubt(self, began: float, error: RedisError) -> None:
        """What began at `began` failed on its way to a server, which sentinels may not even have named."""
        if self.options.url.is_sentinel and not isinstance(
            error, ConnectionEnded
        ):  # which was told as it ended
            self.circuit(self.options.places()[0]).told(error, began)

    def greeting(self, *, sentinel: bool = False, part: str = "") -> Greeting:
        """Return what is said first; `part` distinguishes connections of other uses in CLIENT LIST."""
        return Greeting(self.options, f"layercache{part}:{self.options.client_name()}", sentinel)

    def gauges(self) -> dict[str, int]:
        circuits = list(self._circuits.values())
        return {
            "circuits_open": sum(circuit.is_open for circuit in circuits),
            "circuit_openings": sum(circuit.openings for circuit in circuits),
        }

    def end(self) -> None:
        """The backend was closed: nobody waits for anything any more."""
        self.ended.set()
        for circuit in list(self._circuits.values()):
            circuit.end()

    def after_fork(self) -> None:
        self.ended = Event()
        self.outages.reset()
        for circuit in self._circuits.values():
            circuit.reset()


def before(deadline: float) -> float:
    """Return by when a sentinel has to answer: one that hangs leaves time for the next."""
    return monotonic() + max((deadline - monotonic()) / 2, 0.001)


def forget_unsent(connection: Any) -> None:
    """See to it that what a socket has not sent yet is not sent any more once it is closed.

    Else the system goes on trying for minutes, and a write that its caller was told of as failed may be executed long
    after others.
    """
    with suppress(OSError):  # it is gone already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)


def unreachable(place: Place, error: OSError) -> RedisError:
    """Return what a failure to connect is."""
    if isinstance(error, TimeoutError):
        return RedisTimeoutError(f"no connection to {place} in time")
    return RedisConnectionError(f"no connection to {place}: {error}")


def no_answer(place: Place) -> RedisTimeoutError:
    """Return the error of the driver for a server that was silent for as long as it may be."""
    return RedisTimeoutError(f"{place} did not answer in time")


def translated(backend: str, error: RedisError) -> BackendError:
    """Return the error of ours for a driver's; addresses are in it, passwords never are."""
    if isinstance(error, RedisTimeoutError):
        return BackendTimeout(backend, str(error))
    failure = BackendError(backend, f"{type(error).__name__}: {error}")
    failure.in_doubt = isinstance(error, ConnectionEnded)  # else it was refused, or never sent
    return failure
