"""`lazy-tinylfu`: keeps what was asked for more often, and learns on misses alone how much recency counts.

W-TinyLFU's idea (Einziger, Friedman & Manes 2017: a new key enters the main region only if it was asked for
more often than who would have to go) on FIFO queues, so that a hit only raises the record's own counter:

- *Window*: a FIFO that every new key enters. Its oldest record is the *candidate* for the main region.
- *Main*: a clock (Corbató 1968). Records that were hit go round again; who was not is the *victim*. The
  hand passes at most 16 records a turn, because an unbounded one could walk the whole cache under the lock.
- *Sketch*: how often keys were asked for. Misses are noted at once, hits only when a queue hands the record
  out.
- *Ghosts*: who lost lately. A key that comes back shows what would have been right: if it is of the very
  last 2 % to lose, one entry more of room on its side would have kept it, so that side gains one; and a
  candidate that comes back makes admission easier, a victim that comes back makes it harder, by at most one
  point of frequency either way.

Where bytes decide, a candidate has to beat the sum of all victims that would have to go for it.
"""

from __future__ import annotations

from typing import Final

from layercache_memory.policies.base import GONE, Policy, RecordQueue
from layercache_memory.policies.ghosts import CANDIDATE, VICTIM, Ghosts
from layercache_memory.policies.sketch import Sketch
from layercache_memory.record import Record

__all__ = ["LazyTinyLfu"]

_WINDOW: Final = 1
_MAIN: Final = 2
_FIRST_SHARE: Final = 0.20  # of the window among all entries, to begin with
_LEAST_SHARE: Final = 0.02
_MOST_SHARE: Final = 0.95
_SHADOW: Final = 0.02  # of the entries: losses so young that one entry more of room would have kept the key
_BIAS_STEP: Final = 0.1
_MOST_BIAS: Final = 1.0
_SCAN: Final = 16  # most records that the hand passes for one victim
_MOST_VICTIMS: Final = 16  # more than these are not given up for one candidate


class LazyTinyLfu(Policy):
    """Attributes:
    share: of the window among all entries, 0.02 to 0.95; moved by regret.
    bias: what a candidate's frequency is helped by, -1.0 to 1.0; moved by regret.
    """

    def __init__(self) -> None:
        self._window, self._main = RecordQueue(_WINDOW), RecordQueue(_MAIN)
        self._sketch, self._ghosts = Sketch(), Ghosts()
        self.share, self.bias = _FIRST_SHARE, 0.0

    def admit(self, record: Record, *, full: bool) -> None:
        window, main = self._window, self._main
        entries = window.living + main.living + 1
        hash_ = hash(record.key)
        if entries > self._sketch.capacity:
            self._sketch.fit(entries)
        if full:
            if entries > self._ghosts.horizon:
                self._ghosts.fit(entries + entries // 8)
            back = self._ghosts.returned(hash_)
            if back is not None:
                self._learn(*back, entries)
        self._sketch.note(hash_)
        record.seen = record.hits
        window.push(record)
        if not full and window.living > 1 and window.living > round(self.share * entries) and window.head():
            main.push(window.pop())  # still filling up: no contest

    def make_room(self, entries: int, units: int, now: float) -> list[Record]:
        out: list[Record] = []
        while entries > 0 or units > 0:
            lost = self._contest(units, now)
            if not lost:
                break
            for record in lost:
                entries -= 1
                units -= record.units
            out += lost
        return out

    def remove(self, record: Record) -> None:
        if record.queue is GONE:
            return
        queue = self._window if record.queue == _WINDOW else self._main
        queue.leave(record)

    def resized(self, record: Record, more: int) -> None:
        (self._window if record.queue == _WINDOW else self._main).units += more

    def clear(self) -> None:
        self._window.clear()
        self._main.clear()
        self._sketch.clear()
        self._ghosts.clear()
        self.share, self.bias = _FIRST_SHARE, 0.0

    # -- who goes

    def _contest(self, units: int, now: float) -> list[Record]:
        """Give up the candidate or its victims; `units` is what has to be freed, 0 or less where one entry will do."""
        window, main, sketch = self._window, self._main, self._sketch
        target = max(1, round(self.share * (window.living + main.living)))
        candidate = window.head()
        if candidate is None or (main.living and self._window_is_under(units, target)):
            return [self._taken(now)] if main.living else []
        window.pop()
        if window.living > target and window.head():
            main.push(window.pop())  # the window's share was lowered: it shrinks by one entry a contest
        if candidate.dead_at <= now:
            return [candidate]  # who is dead loses, and leaves no ghost: nobody will come back for it
        hash_ = hash(candidate.key)
        if candidate.hits > candidate.seen:
            # hits soon after the insertion are correlated: they count once
            candidate.seen = candidate.hits
            sketch.note(hash_)
        strength = sketch.estimate(hash_) + self.bias
        victims = self._beaten(strength, units, now) if main.living else []
        if not victims:
            self._ghosts.lost(hash_, CANDIDATE)
            return [candidate]
        for victim in victims:
            if victim.dead_at > now:
                self._ghosts.lost(hash(victim.key), VICTIM)
        main.push(candidate)
        return victims

    def _window_is_under(self, units: int, target: int) -> bool:
        """Say whether the window has less than its share: of the bytes where they are wanting, else of the entries."""
        window = self._window
        if units > 0:
            return window.units < self.share * (window.units + self._main.units)
        return window.living < target

    def _beaten(self, strength: float, units: int, now: float) -> list[Record]:
        """Take out the victims that are weaker together than a candidate; none where all that had to go are not."""
        victim = self._at_the_hand(now)
        if victim.units >= units:
            weaker = victim.dead_at <= now or strength > self._sketch.estimate(hash(victim.key))
            return [self._main.pop()] if weaker else []
        victims: list[Record] = []
        freed = 0
        while freed < units and self._main.living and len(victims) < _MOST_VICTIMS:
            victim = self._at_the_hand(now)
            if victim.dead_at > now:
                strength -= self._sketch.estimate(hash(victim.key))
            if strength <= 0:
                break
            freed += victim.units
            victims.append(self._main.pop())
        if freed >= units:
            return victims
        for victim in reversed(victims):  # they stay, where they were
            self._main.push_back(victim)
        return []

    def _taken(self, now: float) -> Record:
        self._at_the_hand(now)
        return self._main.pop()

    def _at_the_hand(self, now: float) -> Record:
        """Return the record that main's clock points to; those that were hit have gone round again."""
        main = self._main
        record = main.head()
        assert record is not None
        for _ in range(_SCAN):
            fresh = record.hits - record.seen
            if fresh <= 0 or record.dead_at <= now:
                break
            record.seen = record.hits - (min(fresh, 3) - 1)
            self._sketch.note(hash(record.key))
            main.rotate()
            record = main.head()
            assert record is not None
        return record

    # -- what a miss teaches

    def _learn(self, side: int, since: int, entries: int) -> None:
        """A key came back that had lost on `side`, `since` losses ago."""
        young = since <= max(1.0, entries * _SHADOW)
        if side == CANDIDATE:
            self.bias = min(_MOST_BIAS, self.bias + _BIAS_STEP)
            if young:
                self.share = min(_MOST_SHARE, self.share + 1 / entries)
        else:
            self.bias = max(-_MOST_BIAS, self.bias - _BIAS_STEP)
            if young:
                self.share = max(_LEAST_SHARE, self.share - 1 / entries)
