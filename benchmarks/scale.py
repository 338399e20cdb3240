"""What the log costs a server by how many follow it, and where one server ends: `python benchmarks/scale.py`.

One process writes at a given rate, through a Redis backend, which follows the log as every one does: the first tail.
The others are sockets that a second process drives: each sends what a `Log` sends, when it would send it, and rests as
long after news. That they cost the server what real ones do is checked with real ones, threads of one process.

The server's time is what it says itself (INFO: used_cpu_user and used_cpu_sys, kernel included), less that of as many
tails of a log in which nothing happens; so it does not depend on who else is busy. On loopback it includes handing
what is sent to the other side. The lag is from the end of a write to when a tail has read it; all tails share a CPU
with who writes, so with many of them it is an upper bound. `--short` measures for a fifth of the time.

The model: a write costs the server `write`; an answer with news to one tail `answer`, and `entry` for each entry in
it. A tail that has got an answer rests (`log_gathering`), so there are at most so many answers a second, and the
entries gather. What an entry takes is measured by itself, in answers of one and of a thousand; the other two are fitted
to the runs of 1 to 64 tails, and say what more of them would cost. That is looked at with a thousand.
"""

from __future__ import annotations

import heapq
import math
import multiprocessing
import os
import random
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import hiredis
from far import QUOTE

from layercache import Caches
from layercache.testing import ValkeyCluster, ValkeyServer

TAILS = (1, 4, 16, 64)
REAL = (4, 16)
RATES = (50, 300, 1500)  # writes a second
MANY = ((5, 0.003), (20, 0.003), (100, 0.1))  # rates, and how long news gather, at which the model is checked
SHARDED = ((64, 50), (64, 1000))  # tails and rates at which several streams are looked at
DRIVEN = 250  # tails that one process drives
SECONDS = 1.0 if "--short" in sys.argv else 5.0
GATHERING, COUNT, BLOCK = 0.003, 1000, 1000  # what `Log` does
PREFIX = "scale"
LOG = f"{PREFIX}:%log"

spawned = multiprocessing.get_context("spawn")


class Measured(NamedTuple):
    """What was measured in some seconds.

    Attributes:
        cpu: seconds of the server's time.
        turns: answers to tails.
        lags: seconds.
    """

    tails: int
    seconds: float
    writes: int
    cpu: float
    turns: int
    took: float
    lags: list[float]

    @property
    def cost(self) -> float:
        """Microseconds of the server's time for a write, and all that follows from it."""
        return self.cpu / self.writes * 1e6


# -- tails


class Place(NamedTuple):
    """Where one stream of the log is."""

    port: int
    stream: str


class Tail:
    """A socket that follows one stream as `Log` does."""

    def __init__(self, place: Place) -> None:
        self._stream = place.stream
        self.socket = socket.create_connection(("127.0.0.1", place.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()
        self._replies: list[Any] = []
        self._last = b"$"

    def ask(self) -> None:
        read = ("XREAD", "COUNT", COUNT, "BLOCK", BLOCK, "STREAMS", self._stream, self._last)
        begin = "+" if self._last == b"$" else self._last
        seen = ("XRANGE", self._stream, begin, begin)
        self.socket.sendall(hiredis.pack_command(read) + hiredis.pack_command(seen))

    def asked(self, *words: Any) -> Any:
        self.socket.sendall(hiredis.pack_command(words))
        while (reply := self._reader.gets()) is False:
            self._reader.feed(self.socket.recv(65_536))
        return reply

    def answered(self) -> list[bytes] | None:
        """Return the keys that were news, None while the answer is not complete."""
        self._reader.feed(self.socket.recv(65_536))
        while (reply := self._reader.gets()) is not False:
            self._replies.append(reply)
        if len(self._replies) < 2:
            return None
        news, _ = self._replies
        self._replies.clear()
        entries = news[0][1] if news else []
        if entries:
            self._last = entries[-1][0]
        return [fields[3] for _, fields in entries if len(fields) == 4]


def follow(setting: Setting, count: int, pipe: Any) -> None:
    """Drive the tails of so many processes; say in the end when each of them has read what."""
    tails = [Tail(place) for place in setting.places for _ in range(count)]
    selector = selectors.DefaultSelector()
    for tail in tails:
        selector.register(tail.socket, selectors.EVENT_READ, tail)
        tail.ask()
    selector.register(pipe, selectors.EVENT_READ)
    resting: list[tuple[float, int]] = []
    number = {tail: index for index, tail in enumerate(tails)}
    read: list[tuple[float, list[bytes]]] = []
    pipe.send("ready")
    while True:
        wait = max(0.0, resting[0][0] - time.monotonic()) if resting else None
        for key, _ in selector.select(wait):
            if key.fileobj is pipe:
                pipe.recv()
                pipe.send(read)
                return
            keys = key.data.answered()
            if keys is None:
                continue
            now = time.monotonic()
            read.append((now, keys))
            if keys:
                heapq.heappush(resting, (now + setting.gathering, number[key.data]))
            else:
                key.data.ask()
        now = time.monotonic()
        while resting and resting[0][0] <= now:
            tails[heapq.heappop(resting)[1]].ask()


def follow_really(setting: Setting, count: int, pipe: Any) -> None:
    """Follow by so many backends, each with a log and threads of its own."""
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(setting.opened())["default"].get("key")
        pipe.send("ready")
        pipe.recv()
        pipe.send([])


class Setting(NamedTuple):
    """What all processes have in common: the server, and how they use it.

    Attributes:
        places: of the streams of the log.
        gathering: seconds that tails rest after news.
    """

    url: str
    places: list[Place]
    gathering: float = GATHERING

    def opened(self) -> Caches:
        far = {
            "type": "redis",
            "url": self.url,
            "prefix": PREFIX,
            "timeout": "5s",
            "log_shards": len(self.places),
            "log_gathering": self.gathering,
        }
        return Caches({"backends": {"far": far}, "caches": {"default": {"backend": "far", "ttl": 60}}})


Follow = Callable[[Setting, int, Any], None]


@contextmanager
def following(setting: Setting, count: int, follow: Follow) -> Iterator[Callable[[], list[Any]]]:
    """Have the tails of so many others; yield what ends them and returns what they have read."""
    pipes, processes = [], []
    for first in range(0, count, DRIVEN):
        pipe, end = spawned.Pipe()
        args = (setting, min(DRIVEN, count - first), end)
        processes.append(spawned.Process(target=follow, args=args, daemon=True))
        processes[-1].start()
        pipes.append(pipe)
    for pipe in pipes:
        assert pipe.recv() == "ready"

    def ended() -> list[Any]:
        for pipe in pipes:
            pipe.send("end")
        return [each for pipe in pipes for each in pipe.recv()]

    yield ended
    for process in processes:
        process.join()


# -- measuring


def used(server: ValkeyServer) -> tuple[float, int]:
    """Return the seconds of CPU that the server has used, and how many answers it gave to tails."""
    said = dict(
        line.split(":", 1)
        for line in f"{server.ask('INFO', 'cpu')}\n{server.ask('INFO', 'commandstats')}".splitlines()
        if ":" in line
    )
    turns = said.get("cmdstat_xrange", "calls=0").partition("calls=")[2].partition(",")[0]
    return float(said["used_cpu_user"]) + float(said["used_cpu_sys"]), int(turns)


def written(cache: Any, rate: float, seconds: float) -> list[tuple[float, float]]:
    """Write at random times, so many a second on average; return when each write began and ended."""
    ends: list[tuple[float, float]] = []
    begin = due = time.monotonic()
    while due < begin + seconds:
        due += random.expovariate(rate)
        wait = due - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        began = time.monotonic()
        cache.set(str(len(ends)), QUOTE)
        ends.append((began, time.monotonic()))
    return ends


def measured(
    servers: Sequence[ValkeyServer], setting: Setting, tails: int, rate: float, follow: Follow
) -> list[Measured]:
    """Return what was measured of each server, the busiest first."""
    to_other_cpu()
    with setting.opened() as caches:
        cache: Any = caches["default"]
        deadline = time.monotonic() + 10
        while cache.stats().layers[-1].gauges.get("log_lag", 9) > 1:  # so all streams are followed
            assert time.monotonic() < deadline
            cache.get("key")
        for number in range(20):
            cache.set(f"before {number}", QUOTE)
        with following(setting, tails - 1, follow) as ended:
            time.sleep(0.05)
            before, quiet = [used(server) for server in servers], time.monotonic()
            time.sleep(SECONDS / 2)
            after, quiet = [used(server) for server in servers], time.monotonic() - quiet
            idle = [(end[0] - begin[0]) / quiet for begin, end in zip(before, after, strict=True)]
            before, began = [used(server) for server in servers], time.monotonic()
            ends = written(cache, rate, SECONDS)
            seconds = time.monotonic() - began
            time.sleep(0.02)
            after = [used(server) for server in servers]
            read = ended()
    took = sorted(end - begin for begin, end in ends)
    lags = sorted(
        at - ends[int(key.rpartition(b":")[2])][1]
        for at, keys in read
        for key in keys
        if key.rpartition(b":")[2].isdigit()
    )
    runs = []
    for begin, end, waiting in zip(before, after, idle, strict=True):
        cpu, turns = end[0] - begin[0] - waiting * seconds, end[1] - begin[1]
        runs.append(Measured(tails, seconds, len(ends), cpu, turns, took[len(took) // 2], lags))
    return sorted(runs, key=lambda run: -run.cpu)


def on_one_server(
    tails: int, rate: float, follow: Follow, gathering: float = GATHERING, shards: int = 1
) -> Measured:
    to_server_cpu()
    with ValkeyServer() as server:
        places = [Place(server.port, stream(number)) for number in range(shards)]
        (run,) = measured([server], Setting(server.url, places, gathering), tails, rate, follow)
    return run


def on_a_cluster(tails: int, rate: float, shards: int) -> list[Measured]:
    to_server_cpu()
    with ValkeyCluster() as cluster:
        places = [
            Place(cluster.owner(cluster.slot_of(stream(number))).port, stream(number))
            for number in range(shards)
        ]
        return measured(cluster.nodes, Setting(cluster.url, places), tails, rate, follow)


def stream(number: int) -> str:
    return f"{LOG}:{number}" if number else LOG


CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []


def to_other_cpu() -> None:
    """Leave the last CPU to the server, where the system lets us."""
    if len(CPUS) > 1:
        os.sched_setaffinity(0, {CPUS[0]})


def to_server_cpu() -> None:
    if len(CPUS) > 1:
        os.sched_setaffinity(0, {CPUS[-1]})  # a server that is started now inherits it


# -- the model


class Model(NamedTuple):
    """What things cost the server, in seconds.

    Attributes:
        write: a write, its entry of the log included.
        answer: one with news, to one tail.
        entry: of each entry in an answer.
        cycle: the least time between two answers with news to one tail.
    """

    write: float
    answer: float
    entry: float
    cycle: float

    def answers(self, rate: float, rest: float = 0.0) -> float:
        """Return how many answers with news a tail gets in a second, when it rests so much longer."""
        cycle = self.cycle + rest
        return 1 / (cycle + math.exp(-rate * cycle) / rate)

    def load(self, tails: int, rate: float, rest: float = 0.0) -> float:
        """Return the share of the server's time that so many writes a second take."""
        return rate * self.write + tails * (self.answers(rate, rest) * self.answer + rate * self.entry)

    def limit(self, tails: int, rest: float = 0.0) -> float:
        """Return how many writes a second take all of the server's time."""
        low, high = 1e-3, 1e6
        for _ in range(60):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if self.load(tails, middle, rest) < 1 else (low, middle)
        return low


def fitted(runs: list[Measured], entry: float) -> Model:
    """Fit what a write and an answer take, by least squares of the errors relative to what was measured."""
    sums = [0.0] * 5
    for run in runs:
        cost = run.cpu / run.writes
        turns, rest = run.turns / run.writes / cost, 1 - run.tails * entry / cost
        for index, product in enumerate((1 / cost**2, turns / cost, turns**2, rest / cost, rest * turns)):
            sums[index] += product
    aa, ab, bb, ay, by = sums
    determinant = aa * bb - ab**2
    write, answer = (ay * bb - by * ab) / determinant, (by * aa - ay * ab) / determinant
    busiest = max(run.writes / run.seconds for run in runs)
    cycle = min(
        run.seconds * run.tails / run.turns for run in runs if run.writes / run.seconds > busiest * 0.8
    )
    return Model(write, answer, entry, cycle)


def of_an_entry() -> float:
    """Return the seconds of the server's time that an entry in an answer takes."""
    with ValkeyServer() as server:
        tail = Tail(Place(server.port, LOG))
        for number in range(COUNT):
            tail.asked("XADD", LOG, "*", "n", "0123456789ab", "k", f"default:{number}")
        took = []
        for count in (1, COUNT):
            before, _ = used(server)
            for _ in range(200):
                tail.asked("XREAD", "COUNT", count, "STREAMS", LOG, 0)
            took.append((used(server)[0] - before) / 200)
    return (took[1] - took[0]) / (COUNT - 1)


# -- tables


def main() -> None:
    to_server_cpu()
    entry = of_an_entry()
    runs = [on_one_server(tails, rate, follow) for rate in RATES for tails in TAILS]
    model = fitted(runs, entry)
    print(f"\nOne server, one stream; Python {sys.version.split()[0]}, {SECONDS:g} s each\n")
    print(
        "| tails | writes a second | server µs a write | by the model | of its time | a `set` takes, p50 ms "
        "| entries an answer | lag p50, ms | p99, ms |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for run in runs:
        print_run(run, model)
    for tails in REAL:
        for rate in RATES[1:]:
            print_run(on_one_server(tails, rate, follow_really), model, ", real")
    for rate, gathering in MANY:
        run = on_one_server(1000, rate, follow, gathering)
        print_run(run, model, "" if gathering == GATHERING else f", gathering {gathering * 1000:.0f} ms")
    print(
        f"\nThe model: a write {model.write * 1e6:.1f} µs, an answer {model.answer * 1e6:.1f} µs, an entry in it "
        f"{model.entry * 1e6:.2f} µs; at most {1 / model.cycle:,.0f} answers a second to a tail\n"
    )
    print_limits(model)
    print("\nSeveral streams (`log_shards`)\n")
    print("| servers | tails | writes a second | streams | µs a write: busiest server | all of them |")
    print("|---|---:|---:|---:|---:|---:|")
    for tails, rate in SHARDED:
        for shards in (1, 4):
            print_shards("one", shards, [on_one_server(tails, rate, follow, shards=shards)])
        for shards in (1, 8):
            print_shards("a cluster of 3", shards, on_a_cluster(tails, rate, shards))


def print_limits(model: Model) -> None:
    print("Writes a second that take all of one server's time, by the model\n")
    gathered = (GATHERING, 0.010, 0.025, 0.100)
    heads = [f"entries gather for {each * 1000:.0f} ms" for each in gathered]
    print(f"| processes | an answer to all of them takes, ms | {' | '.join(heads)} |")
    print("|---:|---:|" + "---:|" * len(gathered))
    for tails in (1, 16, 64, 100, 250, 500, 1000):
        limits = [f"{model.limit(tails, each - GATHERING):,.0f}" for each in gathered]
        print(f"| {tails:,} | {tails * model.answer * 1000:.1f} | {' | '.join(limits)} |")


def print_shards(servers: str, shards: int, runs: list[Measured]) -> None:
    busiest, total = runs[0].cost, sum(run.cost for run in runs)
    rate = runs[0].writes / runs[0].seconds
    print(
        f"| {servers} | {runs[0].tails} | {rate:,.0f} | {shards} | {busiest:,.0f} | {total:,.0f} |",
        flush=True,
    )


def print_run(run: Measured, model: Model, kind: str = "") -> None:
    rate = run.writes / run.seconds
    foreseen = (
        model.write + run.turns / run.writes * model.answer + run.tails * model.entry
    ) * 1e6  # by the answers that there were
    lag = "| |"
    if run.lags:
        p50, p99 = (max(run.lags[int(len(run.lags) * part)], 0) * 1000 for part in (0.5, 0.99))
        lag = f" {p50:.2f} | {p99:.2f} |"
    print(
        f"| {run.tails:,}{kind} | {rate:,.0f} | {run.cost:,.0f} | {foreseen:,.0f} | {run.cpu / run.seconds:.0%} "
        f"| {run.took * 1000:.2f} | {run.writes * run.tails / run.turns:.1f} |{lag}",
        flush=True,
    )


if __name__ == "__main__":
    main()
