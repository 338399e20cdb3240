"""How long other processes go on with what was invalidated, and what a write pays: `python benchmarks/coherence.py`.

Four processes share a server on loopback, and each keeps values near. In every round one of them fills a key, three
read it until it is near, and the one changes it. Staleness is the time from the end of that call to the *beginning* of
the last read, in any of the three, that still answered with the old value, by the system's monotonic clock, which all
of them share; none where no read that began after the call did. The three read, sleep for 50 µs, and read again: four
processes that spin on two cores would measure the scheduler. What that leaves between two reads is printed with the
table, and is the error of every row. One more table has a reader that never rests, for what Python's lock adds: a
thread that computes gives it up every 5 ms.

The floors do the least there is to do: a dict, and a thread that waits for the news on a plain socket. `--short` makes
a tenth of the rounds.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import hiredis
from far import QUOTE, VOID_AND_LOG
from rounds import print_table, sync_rounds

from layercache import Caches
from layercache.testing import ValkeyServer

OTHERS = 3
ROUNDS = 30 if "--short" in sys.argv else 300
REST = 50e-6  # seconds between two reads
WRITES = 0.002  # seconds between the writes of a process that writes other keys meanwhile
TTL = 600

DELETE_AND_LOG = """
redis.call('UNLINK', KEYS[1], KEYS[2])
return redis.call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'k', KEYS[1])
"""

spawned = multiprocessing.get_context("spawn")


# -- the contestants: each fills, reads, and changes a key in its own way


class Ours:
    """A chain of memory over the server."""

    def __init__(self, port: int, verb: str, prefix: str = "") -> None:
        far = {"type": "redis", "url": f"redis://127.0.0.1:{port}/0", "prefix": prefix or f"ours-{verb}"}
        backends = {
            "near": {"type": "memory"},
            "far": far,
            "layered": {"type": "chain", "layers": ["near", "far"]},
        }
        caches = Caches({"backends": backends, "caches": {"default": {"backend": "layered", "ttl": TTL}}})
        self.close = caches.close
        self.cache: Any = caches["default"]
        self.get: Callable[[str], Any] = self.cache.get
        self._change: Callable[[str], Any] = {
            "delete": self.cache.delete,
            "set": lambda key: self.cache.set(key, "new"),
            "invalidate": lambda key: self.cache.invalidate("tag"),
            "clear": lambda key: self.cache.clear(),
        }[verb]

    def fill(self, key: str) -> None:
        self.cache.set(key, "old", tags=["tag"])

    def change(self, key: str) -> None:
        self._change(key)


class Raw:
    """One connection, by plain socket."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def ask(self, *words: Any) -> Any:
        self.send(*words)
        return self.reply()

    def send(self, *words: Any) -> None:
        self._socket.sendall(hiredis.pack_command(words))

    def reply(self) -> Any:
        while (got := self._reader.gets()) is False:
            received = self._socket.recv(65_536)
            if not received:
                raise EOFError
            self._reader.feed(received)
        return got

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits for news
        self._socket.close()


class Bare:
    """A dict before plain GET, SET and UNLINK, and a thread that is told what to drop."""

    def __init__(self, port: int, verb: str) -> None:
        self._connection, self._news = Raw(port), Raw(port)
        self._near: dict[str, Any] = {}
        self._tell, hear = {"PUBLISH": (self._publish, self._subscribed), "XADD": (self._add, self._read)}[
            verb
        ]
        self._hearing = threading.Thread(target=self._until_closed, args=(hear,), daemon=True)
        self._hearing.start()

    def _until_closed(self, hear: Callable[[], None]) -> None:
        with suppress(OSError, EOFError):
            hear()

    def close(self) -> None:
        for connection in (self._connection, self._news):
            connection.close()
        self._hearing.join()

    def fill(self, key: str) -> None:
        self._connection.ask("SET", key, "old")

    def get(self, key: str) -> Any:
        value = self._near.get(key)
        if value is None:
            found = self._connection.ask("GET", key)
            value = self._near[key] = found and found.decode()
        return value

    def change(self, key: str) -> None:
        self._connection.send("UNLINK", key)
        self._tell(key)
        self._connection.reply()
        self._connection.reply()

    def _publish(self, key: str) -> None:
        self._connection.send("PUBLISH", "bare", key)

    def _subscribed(self) -> None:
        self._news.ask("SUBSCRIBE", "bare")
        while True:
            *_, key = self._news.reply()
            self._near.pop(key.decode(), None)

    def _add(self, key: str) -> None:
        self._connection.send("XADD", "bare", "MAXLEN", "~", 1000, "*", "k", key)

    def _read(self) -> None:
        last = self._news.ask("XADD", "bare", "*", "k", "begin")
        while True:
            ((_, entries),) = self._news.ask("XREAD", "COUNT", 1000, "BLOCK", 0, "STREAMS", "bare", last)
            for last, (_, key) in entries:  # noqa: B007  (where the next read goes on)
                self._near.pop(key.decode(), None)


CONTESTANTS: dict[str, Callable[[int], Any]] = {
    "layercache delete": lambda port: Ours(port, "delete"),
    "layercache set": lambda port: Ours(port, "set"),
    "layercache invalidate(tag)": lambda port: Ours(port, "invalidate"),
    "layercache clear": lambda port: Ours(port, "clear"),
    "floor: a dict, PUBLISH and SUBSCRIBE": lambda port: Bare(port, "PUBLISH"),
    "floor: a dict, XADD and XREAD BLOCK": lambda port: Bare(port, "XADD"),
}
FLOORS = [name for name in CONTESTANTS if name.startswith("floor")]


@contextmanager
def opened(port: int, names: list[str]) -> Iterator[dict[str, Any]]:
    contestants = {name: CONTESTANTS[name](port) for name in names}
    yield contestants
    for contestant in contestants.values():
        contestant.close()


# -- the other processes


def reader(port: int, names: list[str], rest: float, pipe: Any) -> None:
    """Take part in every round: say when what is asked for is near, then when the last stale read began."""
    with opened(port, names) as contestants:
        pipe.send("ready")
        while (asked := pipe.recv()) is not None:
            name, key = asked
            get = contestants[name].get
            while get(key) != "old":
                pass
            pipe.send("near")
            last, reads, began = 0.0, 0, time.monotonic()
            while True:
                now = time.monotonic()
                if get(key) != "old":
                    break
                last, reads = now, reads + 1
                if rest:
                    time.sleep(rest)
            pipe.send((last, (last - began) / max(reads - 1, 1)))


def writer(port: int, names: list[str], pause: float, ended: Any) -> None:
    """Write other keys all the while."""
    number = 0
    with opened(port, names) as contestants:
        while not ended.wait(pause):
            for contestant in contestants.values():
                number += 1
                contestant.fill(f"other:{number % 100}")
                contestant.change(f"other:{number % 100}")


@contextmanager
def readers(port: int, names: list[str], count: int, rest: float) -> Iterator[list[Any]]:
    pipes = []
    with ExitStack() as stack:
        for _ in range(count):
            pipe, end = spawned.Pipe()
            process = spawned.Process(target=reader, args=(port, names, rest, end), daemon=True)
            process.start()
            stack.callback(process.join)
            stack.callback(pipe.send, None)
            pipes.append(pipe)
        for pipe in pipes:
            assert pipe.recv() == "ready"
        yield pipes


# -- staleness


def staleness(
    port: int, names: list[str], others: int = OTHERS, rest: float = REST
) -> dict[str, tuple[list[float], float]]:
    """Return for each contestant the staleness of every round, and the seconds between two reads."""
    found: dict[str, list[float]] = {name: [] for name in names}
    between: dict[str, list[float]] = {name: [] for name in names}
    with opened(port, names) as contestants, readers(port, names, others, rest) as pipes:
        for number in range(ROUNDS + 5):
            for name, contestant in contestants.items():
                key = f"key:{number}"
                contestant.fill(key)
                for pipe in pipes:
                    pipe.send((name, key))
                for pipe in pipes:
                    assert pipe.recv() == "near"
                time.sleep(random.uniform(0.01, 0.02))  # what the fill had to tell is heard by then
                contestant.change(key)
                done = time.monotonic()
                answers = [pipe.recv() for pipe in pipes]
                if number >= 5:  # the first open connections, and load scripts
                    found[name].append(max(0.0, max(last for last, _ in answers) - done))
                    between[name] += [gap for _, gap in answers]
    return {name: (sorted(found[name]), statistics.median(between[name])) for name in names}


def print_staleness(title: str, rows: dict[str, tuple[list[float], float]]) -> None:
    print(f"\n{title}")
    print(f"Python {sys.version.split()[0]}; {ROUNDS} interleaved rounds\n")
    print("| | p50, ms | p99, ms | longest, ms | no stale hit at all | between two reads, µs |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, (seconds, between) in rows.items():
        shown = f"**{name}**" if name.startswith("layercache") else name
        p50, p99, longest = (
            seconds[min(int(len(seconds) * part), len(seconds) - 1)] * 1000 for part in (0.5, 0.99, 1)
        )
        none = sum(each == 0 for each in seconds) / len(seconds)
        print(
            f"| {shown} | {p50:.2f} | {p99:.2f} | {longest:.2f} | {none:.0%} | {between * 1e6:,.0f} |",
            flush=True,
        )


def staleness_tables() -> None:
    several = f"Last stale hit in {OTHERS} other processes"
    with ValkeyServer() as server:
        print_staleness(several, staleness(server.port, list(CONTESTANTS)))
    with ValkeyServer() as server:
        names = ["layercache delete", FLOORS[-1]]
        ended = spawned.Event()
        other = spawned.Process(target=writer, args=(server.port, names, WRITES, ended), daemon=True)
        other.start()
        began = time.monotonic()
        rows = staleness(server.port, names)
        seconds = time.monotonic() - began
        ended.set()
        other.join()
        log = server.ask("XINFO", "STREAM", "ours-delete:%log")
        rate = log[log.index("entries-added") + 1] / seconds
        print_staleness(f"{several}, while others write: {rate:,.0f} entries of the log a second", rows)
    with ValkeyServer() as server:
        names = ["layercache delete", *FLOORS]
        rows = staleness(server.port, names, others=1, rest=0.0)
        print_staleness("Last stale hit in one other process, whose only other thread never rests", rows)


# -- what a write costs


def follower(port: int, prefixes: list[str], pipe: Any) -> None:
    """Follow the logs and keep what is written near, so that there is something to drop."""
    caches = [Ours(port, "delete", prefix).cache for prefix in prefixes]
    for cache in caches:
        cache.get("key")
    pipe.send("ready")
    pipe.recv()


def evalsha(raw: Raw, script: str, *arguments: Any) -> Callable[[], Any]:
    """Return a call of what a write does at least: change a key, void its lease, append to a log."""
    sha = raw.ask("SCRIPT", "LOAD", script)
    return lambda: raw.ask("EVALSHA", sha, 3, "key", "lease", "log", *arguments)


def cost_tables() -> None:
    writes: dict[str, Callable[[], Any]] = {}
    deletes: dict[str, Callable[[], Any]] = {}
    floor = "raw EVALSHA of the same"
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    with ExitStack() as stack:
        for count in (0, 1, OTHERS):
            # who writes and its server on one CPU, who follows on another: else theirs would count as ours
            if cpus:
                os.sched_setaffinity(0, {cpus[-1]})
            server = stack.enter_context(ValkeyServer())
            far = {"type": "redis", "url": server.url, "prefix": "alone"}
            alone: Any = Caches(
                {"backends": {"far": far}, "caches": {"default": {"backend": "far", "ttl": TTL}}}
            )["default"]
            chain = Ours(server.port, "delete", "chained").cache
            if cpus:
                os.sched_setaffinity(0, {cpus[0]})
            for _ in range(count):
                pipe, end = spawned.Pipe()
                process = spawned.Process(
                    target=follower, args=(server.port, ["alone", "chained"], end), daemon=True
                )
                process.start()
                stack.callback(process.join)
                stack.callback(pipe.send, None)
                assert pipe.recv() == "ready"
            raw = Raw(server.port)
            if not count:
                writes[floor] = evalsha(raw, VOID_AND_LOG, b"x" * 1200, TTL * 1000)
                deletes[floor] = evalsha(raw, DELETE_AND_LOG)
            for name, cache in (("no near layer", alone), ("memory before it", chain)):
                row = f"layercache, {name}, {count} others follow"
                writes[row] = lambda cache=cache: cache.set("key", QUOTE)
                deletes[row] = lambda cache=cache: cache.delete("key")
        if cpus:
            os.sched_setaffinity(0, {cpus[-1]})
        number, rounds = (100, 5) if "--short" in sys.argv else (400, 15)
        print_table("`set`, sync, one thread", sync_rounds(writes, number, rounds), floor, "µs", rounds)
        print_table("`delete`, sync, one thread", sync_rounds(deletes, number, rounds), floor, "µs", rounds)
        if cpus:
            os.sched_setaffinity(0, set(cpus))


def main() -> None:
    staleness_tables()
    cost_tables()


if __name__ == "__main__":
    main()
