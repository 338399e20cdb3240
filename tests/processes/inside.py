"""What a process can tell of itself, for the tests beside it and the scripts that they run."""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from waiting import PATIENCE, until

from layercache import Cache, Caches


def chain(url: str, prefix: str, **options: Any) -> Caches:
    """A world of memory before Redis, whose connections have the name of its prefix on the server."""
    far = {"type": "redis", "url": url, "prefix": prefix, "timeout": "10s", **options}
    backends = {"near": {"type": "memory"}, "far": far, "both": {"type": "chain", "layers": ["near", "far"]}}
    policy = {"backend": "both", "ttl": 300, "stale_ttl": 300}
    return Caches({"backends": backends, "caches": {"default": policy}})


def far_gauges(cache: Cache[Any]) -> dict[str, Any]:
    return dict(cache.stats().layers[-1].gauges)


def follow(cache: Cache[Any]) -> None:
    """Wait until this process follows the log, and has its stamp: near layers are emptied when that begins."""
    cache.has_key("anything")
    until(lambda: "log_lag" in far_gauges(cache))
    heard = far_gauges(cache)["log_entries"]
    cache.delete("anything")  # makes a stamp where there is none
    until(lambda: far_gauges(cache)["log_entries"] > heard)


def fill(cache: Cache[Any], key: str, value: Any) -> None:
    """Store `value` where a hit finds it near; what the log says meanwhile may drop it."""

    def is_near() -> bool:
        cache.set(key, value)
        return bool(cache.hit(key) == value)

    until(is_near)


def sockets() -> set[str]:
    """The connections over the network that this process has, by inode; loops have sockets of another kind besides."""
    found = set()
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            target = os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115
            if target.startswith("socket:"):
                with socket.socket(fileno=os.dup(int(number))) as copy:
                    if copy.family == socket.AF_INET:
                        found.add(target)
        except OSError:  # it was closed meanwhile, as that of the listing itself
            continue
    return found


def threads() -> list[str]:
    """The names of our threads; those that the system has and Python does not know are counted by `kernel_threads`."""
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("layercache"))


def kernel_threads() -> int:
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208


def connections(url: str, prefix: str, part: str = "") -> set[str]:
    """What the server has of the world with that prefix, by id: of callers, or of a part such as `-log`."""
    with redis.Redis.from_url(url) as client:
        return {each["id"] for each in client.client_list() if each["name"] == f"layercache{part}:{prefix}"}


_LOCKS = (type(threading.Lock()), type(threading.RLock()), threading.Condition, threading.Event)


def locks() -> list[Any]:
    """Every lock that an object or a module of ours has, but the one that a fork itself waits for."""
    owners = [
        *(each for each in gc.get_objects() if type(each).__module__.startswith("layercache")),
        *(module for name, module in list(sys.modules.items()) if name.startswith("layercache")),
    ]
    found: dict[int, Any] = {}
    for owner in owners:
        slots = [name for kind in type(owner).__mro__ for name in getattr(kind, "__slots__", ())]
        kept = {name: value for name, value in getattr(owner, "__dict__", {}).items() if name != "_making"}
        values = [*kept.values(), *(getattr(owner, name, None) for name in slots)]
        for value in values:
            if isinstance(value, _LOCKS):
                lock = value._cond if isinstance(value, threading.Event) else value
                found[id(lock)] = lock
    return list(found.values())


@contextmanager
def all_locks_held() -> Iterator[int]:
    """Another thread has every lock of ours: who meets one that is held lets all go, and tries again."""
    held, release, count = threading.Event(), threading.Event(), [0]

    def hold() -> None:
        while not held.is_set():
            got = []
            for lock in locks():
                if not lock.acquire(timeout=0.05):
                    break
                got.append(lock)
            else:
                count[0] = len(got)
                held.set()
                release.wait()
            for lock in got:
                lock.release()

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(PATIENCE)
    try:
        yield count[0]
    finally:
        release.set()
        thread.join()
