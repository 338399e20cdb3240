"""The ways of docs/architecture.md, followed: each step is really taken, in that order, and no file is left out."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from waiting import until

from layercache import Cache, Caches
from layercache.testing.server import ValkeyServer

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
SOURCES = {
    f"{source}/": f"{folder}/"
    for source, folder in (
        (ROOT / "layercache", "layercache"),
        *((path, path.name) for path in sorted((ROOT / "backends").glob("layercache_*"))),
    )
}

INSIDE_MEMORY = re.compile(r"layercache_memory/(storage|deadlines|curve|record|policies/\w+)\.py")
"""Left out of the page: which of them are entered depends on what is in the memory."""

Step = tuple[str, str]


class Followed:
    """Records which functions of ours are entered, thread by thread."""

    def __init__(self) -> None:
        self.steps: dict[str, list[Step]] = {}
        self.is_on = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if not self.is_on or event != "call":
            return
        code = frame.f_code
        for source, folder in SOURCES.items():
            if code.co_filename.startswith(source):
                name = re.sub(r"\.<locals>\.<\w+>", "", code.co_qualname).split(".<locals>.")[-1]
                file = folder + code.co_filename.removeprefix(source)
                self.steps.setdefault(threading.current_thread().name, []).append((file, name))

    def while_doing(self, act: Callable[[], Any]) -> None:
        self.steps.clear()
        self.is_on = True
        try:
            act()
        finally:
            self.is_on = False

    def on_threads(self, beginning: str) -> list[Step]:
        return [
            step for name, steps in list(self.steps.items()) if name.startswith(beginning) for step in steps
        ]

    def has_gone(self, title: str, threads: str) -> bool:
        taken = self.on_threads(threads)
        return next_step(title, taken) is None and files(title) <= {file for file, _ in taken}


@pytest.fixture
def followed() -> Iterator[Followed]:
    followed = Followed()
    threading.setprofile(followed)
    sys.setprofile(followed)
    yield followed
    sys.setprofile(None)
    threading.setprofile(None)


class World:
    """Two services over one server of their own, each with a memory layer."""

    def __init__(self, server: ValkeyServer) -> None:
        settings = {
            "backends": {
                "local": {"type": "memory"},
                "shared": {"type": "redis", "url": server.url, "prefix": "ways"},
                "layered": {"type": "chain", "layers": ["local", "shared"]},
            },
            "caches": {"default": {"backend": "layered", "ttl": 60}},
        }
        self.server = server
        self.caches = Caches(settings), Caches(settings)
        self.here: Cache[Any] = self.caches[0]["default"]
        self.there: Cache[Any] = self.caches[1]["default"]
        self.far = self.here._layer.space.layers()[1]
        for cache in (self.here, self.there):  # scripts are known, connections made, the log followed
            cache.set("warm", {"price": 1}, tags=["t"])
            cache.get_or_set("loaded", lambda: 1, tags=["t"])
            cache.invalidate("t")
            until(lambda cache=cache: cache._layer.space._trust.until > 0)  # type: ignore[misc]
            know_the_stamp(cache._layer.space.layers()[1].space)


@pytest.fixture
def world(followed: Followed) -> Iterator[World]:
    with ValkeyServer() as server:
        world = World(server)
        yield world
        for caches in world.caches:
            caches.close()


def know_the_stamp(far: Any) -> None:
    """Have the cache's stamp be known, so that no way depends on whether it has to be asked for."""
    until(lambda: far.stamps([]) and far._commands.known.own() is not None)


def section(title: str) -> tuple[list[Step], set[str]]:
    """Return the steps of the way of that title, and the files that are asked on it."""
    (text,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    steps = re.findall(r"^\d+\. `([\w/]+\.py)` `([\w.]+)`", text, re.MULTILINE)
    (asked,) = re.findall(r"^Asked on the way: (.*?)\.$", text, re.MULTILINE | re.DOTALL)
    assert steps
    return steps, set(re.findall(r"`([\w/]+\.py)`", asked))


def files(title: str) -> set[str]:
    steps, asked = section(title)
    return {file for file, _ in steps} | asked


def next_step(title: str, taken: list[Step]) -> Step | None:
    """Return the first step of the way that was not taken, or not after those before it; None at its end."""
    left = iter(taken)
    return next((step for step in section(title)[0] if step not in left), None)


def check(title: str, taken: list[Step]) -> None:
    entered = {file for file, _ in taken if not INSIDE_MEMORY.match(file)}
    assert next_step(title, taken) is None, "it is not taken, or not after those before it"
    unnamed, passed_by = entered - files(title), files(title) - entered
    assert not unnamed, f"they are entered, and not named: {', '.join(sorted(unnamed))}"
    assert not passed_by, f"they are named, and not entered: {', '.join(sorted(passed_by))}"


def test_the_table_counts_what_the_ways_name() -> None:
    rows = re.findall(r"^\| ([A-Z][^|]+) \| (\d+) \| (\d+) \| [\d ]*\|$", PAGE, re.MULTILINE)

    assert len(rows) == PAGE.count("Asked on the way: ")
    for title, steps, asked in rows:
        decide = {file for file, _ in section(title)[0]}
        assert (int(steps), int(asked)) == (len(decide), len(files(title) - decide)), title


def test_a_hit_that_is_near(world: World, followed: Followed) -> None:
    world.here.set("k", {"prices": [1, 2]})

    followed.while_doing(lambda: world.here.get("k"))

    check("A hit that is near", followed.on_threads("MainThread"))


def test_a_hit_that_is_far_on_a_redis_backend_alone(world: World, followed: Followed) -> None:
    settings = {
        "backends": {"shared": {"type": "redis", "url": world.server.url}},
        "caches": {"default": {"backend": "shared"}},
    }
    with Caches(settings) as caches:
        cache = caches["default"]
        cache.set("k", {"price": 1})
        know_the_stamp(cache._layer.space)

        followed.while_doing(lambda: cache.get("k"))

    check("A hit that is far, on a Redis backend alone", followed.on_threads("MainThread"))


def test_a_hit_that_is_far(world: World, followed: Followed) -> None:
    world.there.set("k", {"price": 1})

    followed.while_doing(lambda: world.here.get("k"))

    check("A hit that is far", followed.on_threads("MainThread"))


def test_a_load(world: World, followed: Followed) -> None:
    followed.while_doing(lambda: world.here.get_or_set("k", lambda: {"price": 1}))

    check("A load", followed.on_threads("MainThread"))


def test_an_invalidation(world: World, followed: Followed) -> None:
    there = "An invalidation, in another process"
    world.here.set("k", 1, tags=["t"])
    world.there.get("k")

    def invalidated() -> None:
        world.here.invalidate("t")
        until(lambda: followed.has_gone(there, "layercache log"))

    followed.while_doing(invalidated)

    check("An invalidation, here", followed.on_threads("MainThread"))
    check(there, followed.on_threads("layercache log"))


def test_an_outage_and_the_recovery_from_it(
    world: World, followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    world.server.kill()

    followed.while_doing(lambda: world.here.get("k"))
    check("An outage begins", followed.on_threads("MainThread"))

    followed.while_doing(lambda: world.here.set("k", 1))
    check("A write in an outage", followed.on_threads("MainThread"))

    def recovered() -> None:
        world.server.start()
        until(lambda: followed.has_gone("The recovery", "layercache probe"), within=20)

    followed.while_doing(recovered)
    check("The recovery", followed.on_threads("layercache probe"))
