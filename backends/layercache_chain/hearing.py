"""What the layers before a farther one do about its news, and how long they may be relied on.

Rules:
1. What changed there is dropped in the layers before it, and not filled from before the change: tickets first.
2. They may be relied on until the time that every farther layer has confirmed which tells what others do; for ever
   where none does.
3. A farther layer that is left alone in an outage has no say in it, if what is near is to be served then.
4. Before an outage ends the layer is given what it is owed, and what was kept near meanwhile is forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from threading import Lock

from layercache.core.layer import Layer
from layercache.core.outbox import Owed
from layercache.core.port import Port
from layercache.entry import CACHE_TAG
from layercache.inline import run
from layercache.spi import Near

__all__ = ["Hearing", "Trust"]


class Trust:
    """How long the nearer layers of one cache may be relied on.

    Args:
        near: what answers hits by itself, and has to know.
        serves: whether what is near is served in an outage.

    Attributes:
        until: wall-clock seconds.
    """

    def __init__(self, near: Near | None, *, serves: bool) -> None:
        self._near, self._serves = near, serves
        self._lock = Lock()  # guards what follows: several threads weigh
        self._hearings: list[Hearing] = []
        self.until = math.inf

    def follow(self, hearing: Hearing) -> None:
        """Have a say in it for a farther layer, if that tells what others do."""
        with self._lock:
            self._hearings.append(hearing)
        if not hearing.subscribe():
            with self._lock:
                self._hearings.remove(hearing)
        self.weigh()

    def weigh(self) -> None:
        """Something has changed of what it depends on."""
        with self._lock:
            says = [
                hearing.confirmed_until
                for hearing in self._hearings
                if not (self._serves and hearing.layer.space.is_out)
            ]
            self.until = min(says, default=math.inf)
            if self._near is not None:
                self._near.trusted_until = self.until

    def after_fork(self) -> None:
        """Nothing is confirmed: the log that was followed is the parent's."""
        self._lock = Lock()
        for hearing in self._hearings:
            hearing.confirmed_until = -math.inf
        self.weigh()


class Hearing:
    """What is heard of one farther layer: a `Listener`.

    It runs on threads of the farther layer's own and calls the sync side of the nearer ones, which never block.

    Args:
        layer: the farther one.
        nearer: those before it.

    Attributes:
        confirmed_until: wall-clock seconds until which all that others did there is known.
    """

    def __init__(self, layer: Layer, nearer: Sequence[Layer], trust: Trust, port: Port) -> None:
        self.layer, self._nearer, self._trust, self._port = layer, nearer, trust, port
        self.confirmed_until = -math.inf

    def subscribe(self) -> bool:
        return self.layer.space.subscribe(self)

    # -- news, in the order in which things were done

    def written(self, key: str) -> None:
        for layer in self._nearer:
            with layer.tickets.writing((key,)):
                layer.space.delete(key)

    def invalidated(self, tag: str, stamp: int, soft: bool) -> None:
        for layer in self._nearer:
            layer.tickets.void_tags((tag,))
            layer.space.invalidate((tag,), soft)

    def restamped(self, tag: str, stamp: int) -> None:
        """What is near is as right as it was. The first write of a cache makes its stamp, which is such news."""

    def retrained(self) -> None:
        """What is near is not compressed."""

    def lost_track(self) -> None:
        for layer in self._nearer:
            layer.tickets.void_tags((CACHE_TAG,))
            with layer.tickets.clearing():
                layer.space.clear()

    def lost_writes(self) -> None:
        """What is far is of the past, and nobody knows what of it: all of it has to go."""
        if self.layer.outbox is not None:
            self.layer.outbox.owe(Owed(tags=(CACHE_TAG,)))

    def confirmed(self, until: float) -> None:
        self.confirmed_until = until
        self._trust.weigh()

    # -- outages

    def outage_began(self) -> None:
        self._trust.weigh()

    def outage_ending(self) -> None:
        """It answers this thread, and nobody else yet."""
        if self.layer.outbox is not None:
            run(self.layer.outbox.deliver(self._port, self.layer.space))
        self.lost_track()

    def outage_ended(self) -> None:
        self.layer.health.answers()
        self._trust.weigh()
