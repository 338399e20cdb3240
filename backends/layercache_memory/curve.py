"""What the hit rate would be with less memory, and with more.

SHARDS (Waldspurger, Park, Garthwaite & Ahmad, "Efficient MRC Construction with SHARDS", FAST 2015), of fixed size: of
the keys whose hash is below a threshold it keeps the order in which they were used last. How many others were used
since then, divided by the share of keys that is looked at, is how large an LRU cache has to be to have the key still.

What is different here, as a hit must not pay for it:

- *Hits are seen late.* A record counts its hits itself; here we look how many those of the sample had since we looked
  last, which is every few misses. So the order is exact from one look to the next; between two it is taken that reads
  came at random, each key's as often as it was read: its first the earlier, and its last the later, the more there
  were.
- *Order beyond what is asked for is forgotten.* Keys that only more than ten times the memory would have kept are let
  go, the oldest first; until there are as many, the threshold is lowered instead, as in the paper.
- *A ttl is no matter of memory.* Who finds that an entry's time was over, or that it was deleted or invalidated,
  misses whatever the memory; how long it had been over is counted by the beginnings of keys.
- *What is known exactly is not estimated.* The hits and the misses there were are counted. Those of the sample are
  brought to these sums: of misses in proportion, of hits by the shortest distance, as they differ by the hottest keys.

Entries are taken to be of one size, and the memory there is to be as many of them as fit now.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from math import exp, inf, log, log2
from typing import Final

from layercache.spi import Curve, Lapse
from layercache_memory.record import Home, Record

__all__ = ["MULTIPLES", "CurveSketch"]

MULTIPLES: Final = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0)

_HASHES: Final = 1 << 24
_MOST: Final = 4096  # keys that are known
_DEPTH: Final = 1.2 * MULTIPLES[-1]  # times the memory there is, that these reach back at least
_LOWERED: Final = 0.95
_EVENTS: Final = 8  # misses and new entries of the sample between two looks, or a sixty-fourth of its entries
_STEPS: Final = 8  # buckets of distances for each doubling
_BUCKETS: Final = 32 * _STEPS
_GAPS: Final = tuple(
    -log(1.0 - (number + 0.5) / 8) for number in range(8)
)  # eighths of times until something happens
_EXACT: Final = 12
_RATIO: Final = 1.3
_REMEMBERED: Final = 100_000.0  # reads of the sample: then each counts half
_MOST_PREFIXES: Final = 256
_LONGEST_PREFIX: Final = 80

_Place = tuple[Home, str]


class _Prefix:
    """The reads of keys that begin alike; overdue by doublings of milliseconds."""

    __slots__ = ("home", "lapses", "life", "name", "overdue", "reads")

    def __init__(self, home: Home, name: str) -> None:
        self.home, self.name = home, name
        self.reads = self.lapses = self.life = 0.0
        self.overdue = [0.0] * 40

    def lapsed(self, life: float, late: float) -> None:
        self.lapses += 1
        self.life = life
        self.overdue[min(int(log2(1.0 + max(late, 0.0) * 1000.0)), 39)] += 1

    def scale(self, by: float) -> None:
        self.reads *= by
        self.lapses *= by
        self.overdue = [count * by for count in self.overdue]

    def late(self, part: float) -> float:
        """Return the seconds within which this part of those who came late did."""
        wanted = part * self.lapses
        for doubling, count in enumerate(self.overdue):
            if count >= wanted:
                lower, upper = (1 << doubling) - 1, (2 << doubling) - 1
                return (lower + (upper - lower) * (wanted / count if count else 0.0)) / 1000.0
            wanted -= count
        return inf


class _Seen:
    """A key of the sample.

    Attributes:
        at: when it was used last, in `CurveSketch._order`.
        record: what is here of it; None where it has left.
        hits: of the record, that were looked at.
        uses: that are still to be counted.
        dead_at, life: of what has left; -inf where it was dropped before its time, for another reason than room.
    """

    __slots__ = ("at", "dead_at", "hash", "hits", "life", "place", "prefix", "record", "uses")

    def __init__(self, place: _Place, hash_: int, prefix: _Prefix) -> None:
        self.place, self.hash, self.prefix = place, hash_, prefix
        self.at = self.hits = self.uses = 0
        self.record: Record | None = None
        self.dead_at = self.life = -inf


class CurveSketch:
    """The sketch of one backend. Every method is called under its lock.

    Args:
        now: the clock of the records' times.
        capacity: says for how many entries there is room.
        room: how many these may be, as far as that is known beforehand.
        hash_: of a key; whole numbers that spread evenly.

    Attributes:
        looked: reads that counted a hit of a record which its key space does not report.
    """

    def __init__(
        self,
        now: Callable[[], float],
        capacity: Callable[[], float],
        room: int,
        hash_: Callable[[str], int] = hash,
    ) -> None:
        self._now, self._capacity, self._room, self._hash = now, capacity, room, hash_
        self.looked = 0
        self._read_before = 0  # hits of all records until the latest halving, or the beginning
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        # at once what it would have to be before long
        self._threshold = min(_HASHES, int(_HASHES * _MOST / _DEPTH / self._room))
        self._seen: dict[_Place, _Seen] = {}
        self._here: dict[_Place, _Seen] = {}  # those with a record
        self._late: list[_Seen] = []  # those that left with uses to be counted
        self._order: list[int] = []  # when each was used last, ascending
        self._by_turn: dict[int, _Seen] = {}
        self._turn = 0
        self._events = self._missed = 0  # since the last look
        self._hits = self._misses = 0.0  # of all keys, before the latest halving
        self._misses_since = 0
        self._near = [0.0] * _BUCKETS  # by distance, of reads that were hits
        self._far = [0.0] * _BUCKETS  # that were misses, for want of room
        self._cold = 0.0  # that were misses, whatever the room
        self._prefixes: dict[_Place, _Prefix] = {}

    # -- what happens

    def missed(self, home: Home, key: str) -> None:
        """Nothing was found. (Of several keys that are loaded together, twice: they are looked for once more then.)"""
        self._misses_since += 1
        if self._hash(key) % _HASHES >= self._threshold:
            return
        place = (home, key)
        self._events += 1
        seen = self._seen.get(place)
        if seen is None:
            self._cold += 1
            self._prefix_of(place).reads += 1
            return
        seen.prefix.reads += 1
        now = self._now()
        if seen.dead_at <= now:
            self._cold += 1
            if seen.dead_at > -inf:
                seen.prefix.lapsed(seen.life, now - seen.dead_at)
        else:
            self._missed += 1
            self._far[self._bucket(self._distance(seen))] += 1
        seen.dead_at = -inf  # the next one in a row misses it for want of a store
        self._move(seen)

    def stored(self, record: Record) -> None:
        """A record is new here."""
        hash_ = self._hash(record.key) % _HASHES
        if hash_ >= self._threshold:
            return
        place = (record.origin.home, record.key)
        seen = self._seen.get(place)
        if seen is None:
            seen = self._seen[place] = _Seen(place, hash_, self._prefix_of(place))
            self._append(seen)
            if len(self._seen) > _MOST:
                self._make_room()
                if hash_ >= self._threshold:
                    return
        else:
            self._move(seen)
        seen.record, seen.hits = record, 0
        self._here[place] = seen
        self._events += 1
        if self._events >= max(_EVENTS, len(self._here) >> 6):
            self.look()

    def left(self, record: Record, *, evicted: bool) -> None:
        """A record is gone."""
        if self._hash(record.key) % _HASHES >= self._threshold:
            return
        seen = self._here.pop((record.origin.home, record.key), None)
        if seen is None:
            return
        seen.record = None
        seen.uses += record.hits - seen.hits
        if seen.uses:
            self._late.append(seen)
        over = record.dead_at <= self._now()
        seen.dead_at = record.dead_at if evicted or over else -inf
        seen.life = record.origin.life

    # -- the sample

    def _prefix_of(self, place: _Place) -> _Prefix:
        home, key = place
        head, colon, _ = key.partition(":")
        name = head[:_LONGEST_PREFIX] + colon if colon else ""
        if (home, name) not in self._prefixes and len(self._prefixes) >= _MOST_PREFIXES:
            name = ""  # all the others
        found = self._prefixes.get((home, name))
        if found is None:
            found = self._prefixes[home, name] = _Prefix(home, name)
        return found

    def _make_room(self) -> None:
        """Let the oldest go, where those that are left reach back far enough, else lower the threshold."""
        share = self._threshold / _HASHES
        if _MOST / share >= _DEPTH * self._capacity():
            self._forget(self._by_turn[self._order[0]])
            return
        self._threshold = int(self._threshold * _LOWERED)
        for seen in [seen for seen in self._seen.values() if seen.hash >= self._threshold]:
            del self._seen[seen.place], self._by_turn[seen.at]
            self._here.pop(seen.place, None)
        self._order = sorted(self._by_turn)
        self._scale(self._threshold / _HASHES / share)

    def _forget(self, seen: _Seen) -> None:
        del self._seen[seen.place], self._by_turn[seen.at]
        self._here.pop(seen.place, None)
        del self._order[bisect_left(self._order, seen.at)]

    def _scale(self, by: float) -> None:
        self._near = [count * by for count in self._near]
        self._far = [count * by for count in self._far]
        self._cold *= by
        for prefix in self._prefixes.values():
            prefix.scale(by)

    # -- the order

    def _append(self, seen: _Seen) -> None:
        self._turn += 1
        seen.at = self._turn
        self._order.append(self._turn)
        self._by_turn[self._turn] = seen

    def _move(self, seen: _Seen) -> None:
        del self._order[bisect_left(self._order, seen.at)], self._by_turn[seen.at]
        self._append(seen)

    def _distance(self, seen: _Seen) -> int:
        return len(self._order) - 1 - bisect_left(self._order, seen.at)

    def _bucket(self, distance: float) -> int:
        whole = distance * _HASHES / self._threshold
        return min(int(_STEPS * log2(1.0 + whole)), _BUCKETS - 1)

    def look(self) -> None:
        """Count the hits since the last look."""
        used: list[_Seen] = []
        for seen in self._here.values():
            assert seen.record is not None
            new = seen.record.hits - seen.hits
            if new:
                seen.hits += new
                seen.uses += new
            if seen.uses:
                used.append(seen)
        late = dict.fromkeys(self._late)
        used += [each for each in late if each.record is None and self._seen.get(each.place) is each]
        self._late.clear()
        if used:
            self._count(used)
        self._events = self._missed = 0

    def _count(self, used: list[_Seen]) -> None:
        used.sort(key=_uses, reverse=True)
        near, bucket = self._near, self._bucket
        for seen in used:
            near[bucket(self._distance(seen))] += 1
            self._move(seen)
        if used[0].uses > 1:
            self._count_repeated(used)
        for seen in used:
            seen.prefix.reads += seen.uses
            seen.uses = 0
        for at, seen in zip(self._order[-len(used) :], reversed(used), strict=True):
            seen.at, self._by_turn[at] = at, seen

    def _count_repeated(self, used: list[_Seen]) -> None:
        """Count the reads of each key but its first: between two of them each other one was read or not, as likely as
        it is read often."""
        alike: dict[
            int, list[int]
        ] = {}  # by about how often they were read: how many, and their reads but the first
        for seen in used:
            uses = seen.uses
            if uses > _EXACT:
                uses = int(_RATIO ** round(log(uses, _RATIO)))
            group = alike.setdefault(uses, [0, 0])
            group[0] += 1
            group[1] += seen.uses - 1
        others = [(uses, group[0]) for uses, group in alike.items()]
        others.append((1, self._missed))
        for uses, (_, repeated) in alike.items():
            if not repeated:
                continue
            for gap in _GAPS:
                part = min(gap / uses, 1.0)  # of the time between two looks
                distance = sum([number * (1.0 - exp(-each * part)) for each, number in others])
                itself = 1.0 - exp(-uses * part)
                self._near[self._bucket(distance - itself)] += repeated / len(_GAPS)

    # -- the curve

    def curve(self, home: Home, read: int) -> Curve | None:
        """Return the curve of the backend, with the lapses of one key space; None before the first read.

        Args:
            read: the hits of all records without a lock, those that are gone included.
        """
        self.look()
        read += self.looked
        hits, misses = self._hits + read - self._read_before, self._misses + self._misses_since
        share, entries = self._threshold / _HASHES, self._capacity()
        near, far = sum(self._near), sum(self._far) + self._cold
        if hits + misses <= 0:
            return None
        grown = misses * share / far if far else 0.0
        lacking = hits * share - near
        points: list[tuple[float, float]] = []
        for multiple in MULTIPLES:
            found = max(lacking + _below(self._near, multiple * entries), 0.0)
            found = min(found, hits * share) + grown * _below(self._far, multiple * entries)
            points.append((multiple, min(found / ((hits + misses) * share), 1.0)))
        made = Curve(tuple(points), int(entries), int(hits + misses), int(near + far), self._lapses(home))
        if near + far > _REMEMBERED:
            self._hits, self._misses = hits / 2, misses / 2
            self._read_before, self._misses_since = read, 0
            self._scale(0.5)
        return made

    def _lapses(self, home: Home) -> tuple[Lapse, ...]:
        share = self._threshold / _HASHES
        found = [prefix for prefix in self._prefixes.values() if prefix.home is home and prefix.lapses >= 1]
        found.sort(key=lambda prefix: -prefix.lapses)
        return tuple(
            Lapse(
                each.name, each.life, each.reads / share, each.lapses / share, each.late(0.5), each.late(0.9)
            )
            for each in found
        )


def _uses(seen: _Seen) -> int:
    return seen.uses


def _below(counts: list[float], distance: float) -> float:
    """Return how many had less than this distance; in its bucket they are taken to lie evenly."""
    at = _STEPS * log2(1.0 + distance)
    whole = min(int(at), _BUCKETS - 1)
    return sum(counts[:whole]) + counts[whole] * min(at - whole, 1.0)
