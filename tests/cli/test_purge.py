"""`layercache purge`: what a clear has left behind goes, and nothing else; others are served meanwhile."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from operating import COMMAND, far, run, write_settings

from layercache import Caches
from layercache.testing import ValkeyCluster, ValkeyServer
from layercache.testing.server import free_port
from layercache_redis.names import Names
from layercache_redis.options import RedisOptions, RedisUrl
from layercache_redis.purge import _Purge, purged

QUOTES = {f"q{number}": {"price": number} for number in range(1000)}


@pytest.fixture
def settings(folder: Path, server: ValkeyServer) -> Path:
    """Two caches on one backend, and one of the same name for another application."""
    backends = {"far": far(server.url), "theirs": far(server.url, prefix="t2")}
    return write_settings(folder, backends, {"quotes": "far", "news": "far"})


def everything(server: ValkeyServer) -> dict[str, Any]:
    """All that is on the server, by name."""
    return {name: server.ask("DUMP", name) for name in server.ask("KEYS", "*")}


def test_what_a_clear_has_left_goes_and_nothing_else(settings: Path, server: ValkeyServer) -> None:
    names = Names("t", "quotes")
    with Caches(settings) as caches, Caches(world(server.url, prefix="t2")) as theirs:
        for cache in (caches["quotes"], caches["news"], theirs["quotes"]):
            cache.set_many(QUOTES)
            cache.clear()
            cache.set("fresh", "news of today")
    for name in (
        names.lease(names.value("q1")),
        names.dictionary(),
        names.dictionary(7),
        names.value("no-frame"),
    ):
        server.ask("SET", name.decode(), "left alone")
    server.ask("RPUSH", "t:quotes:a-list", "left alone")
    before = everything(server)

    done = run("purge", "-c", "quotes")

    assert done.exit_code == 0
    assert done.output == "quotes: 1,003 looked at, 1,000 dropped\n"
    after = everything(server)
    assert before.keys() - after.keys() == {f"t:quotes:{key}" for key in QUOTES}
    assert before.items() >= after.items()
    with Caches(settings) as caches:
        assert caches["quotes"].get("fresh") == "news of today"


def test_without_a_name_all_caches_are_purged_and_json_has_the_counts(
    settings: Path, server: ValkeyServer
) -> None:
    with Caches(settings) as caches:
        for cache in (caches["quotes"], caches["news"]):
            cache.set_many(QUOTES)
            cache.clear()
        caches["news"].set("fresh", 1)

    done = run("purge", "--json")

    told = json.loads(done.output)
    # SCAN names what stays once more when the server's table shrinks meanwhile, as it may when 1 of 1001 is left
    assert told["caches"]["news"].pop("looked_at") >= 1001
    assert told == {
        "origin": str(settings),
        "environment": "development",
        "caches": {"quotes": {"looked_at": 1000, "dropped": 1000}, "news": {"dropped": 1000}},
    }
    assert len(server.ask("KEYS", "t:news:*")) == 1


def test_what_is_valid_stays_when_nothing_was_cleared(settings: Path, server: ValkeyServer) -> None:
    with Caches(settings) as caches:
        caches["quotes"].set_many(QUOTES)

    assert run("purge", "-c", "quotes").output == "quotes: 1,000 looked at, 0 dropped\n"

    with Caches(settings) as caches:
        assert caches["quotes"].get_many(list(QUOTES)) == QUOTES


def test_what_others_clear_and_write_meanwhile_stays(
    settings: Path, server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_at_once = _Purge._run

    with Caches(settings) as caches:
        cache = caches["quotes"]
        cache.set_many(QUOTES)

        def run_late(purge: _Purge, calls: Any) -> list[int]:
            cache.clear()
            cache.set_many(QUOTES)
            return run_at_once(purge, calls)

        monkeypatch.setattr(_Purge, "_run", run_late)
        dropped = sum(dropped for _, dropped in purged("far", options(server.url), "quotes"))

        assert dropped == 0
        assert cache.get_many(list(QUOTES)) == QUOTES


def test_others_have_three_quarters_of_the_time(settings: Path, server: ValkeyServer) -> None:
    rests: list[tuple[float, float]] = []

    def pause(seconds: float) -> None:
        nonlocal began
        rests.append((seconds, time.monotonic() - began))
        began = time.monotonic()

    with Caches(settings) as caches:
        caches["quotes"].set_many(QUOTES)
        caches["quotes"].clear()
    began = time.monotonic()
    steps = list(purged("far", options(server.url), "quotes", pause))

    assert sum(looked_at for looked_at, _ in steps) == sum(dropped for _, dropped in steps) == 1000
    assert max(looked_at for looked_at, _ in steps) < 300
    assert len(rests) == len(steps) - 1
    assert all(0.7 * 3 * worked <= rest <= 3 * worked for rest, worked in rests[1:]), rests


def test_a_server_with_no_memory_left_gets_some_back(settings: Path, server: ValkeyServer) -> None:
    with Caches(settings) as caches:
        caches["quotes"].set_many(QUOTES)
        server.ask("CONFIG", "SET", "maxmemory", "100kb")
        try:
            caches["quotes"].clear()

            done = run("purge", "-c", "quotes")
        finally:
            server.ask("CONFIG", "SET", "maxmemory", "0")

    assert done.output == "quotes: 1,000 looked at, 1,000 dropped\n"


def test_a_chain_has_its_layers_purged(folder: Path, server: ValkeyServer) -> None:
    backends = {"local": {"type": "memory"}, "far": far(server.url)}
    backends["layered"] = {"type": "chain", "layers": ["local", "far"]}
    file = write_settings(folder, backends, {"quotes": "layered", "local": "local"})
    with Caches(file) as caches:
        caches["quotes"].set_many(QUOTES)
        caches["quotes"].clear()

    done = run("purge")

    assert done.output == "quotes: 1,000 looked at, 1,000 dropped\nlocal: 0 looked at, 0 dropped\n"


def test_every_node_of_a_cluster_is_purged(folder: Path) -> None:
    with ValkeyCluster() as cluster:
        file = write_settings(folder, {"far": far(cluster.url)}, {"quotes": "far"})
        with Caches(file) as caches:
            caches["quotes"].set_many(dict(list(QUOTES.items())[:200]))
            caches["quotes"].clear()
            caches["quotes"].set_many({f"fresh{number}": number for number in range(20)})

        done = run("purge")
        left = sorted(key for node in cluster.nodes for key in node.ask("KEYS", "t:quotes:*"))

        assert done.output == "quotes: 220 looked at, 200 dropped\n"
        assert left == sorted(f"t:quotes:fresh{number}" for number in range(20))


def test_a_server_that_is_down_is_told_and_keeps_nobody_waiting(folder: Path, server: ValkeyServer) -> None:
    backends = {"down": far(f"redis://:s3cret@127.0.0.1:{free_port()}/0"), "far": far(server.url)}
    file = write_settings(folder, backends, {"quotes": "down", "news": "far"})
    with Caches(file) as caches:
        caches["news"].set_many(QUOTES)
        caches["news"].clear()

    done = run("purge")
    again = run("purge", "--json")

    assert (done.exit_code, again.exit_code) == (1, 1)
    assert done.stdout == "news: 1,000 looked at, 1,000 dropped\n"
    assert done.stderr.startswith("quotes: backend 'down': ")
    assert "s3cret" not in done.output + again.output
    assert "backend 'down'" in json.loads(again.output)["caches"]["quotes"]["error"]


def test_an_unknown_name_is_wrong_usage_and_nothing_is_purged(settings: Path, server: ValkeyServer) -> None:
    with Caches(settings) as caches:
        caches["quotes"].set("k", 1)
        caches["quotes"].clear()
    before = everything(server)

    done = run("purge", "-c", "quotes", "-c", "nwes")

    assert done.exit_code == 2
    assert "did you mean 'news'" in done.stderr
    assert everything(server) == before


def test_who_looks_sees_how_far_it_is_and_the_output_stays_clean(
    settings: Path, server: ValkeyServer
) -> None:
    with Caches(settings) as caches:
        caches["quotes"].set_many(QUOTES)
    ours, theirs = pty.openpty()

    done = subprocess.run(
        [*COMMAND, "purge", "-c", "quotes"],
        stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"}, check=True,
    )  # fmt: skip
    os.close(theirs)
    shown = os.read(ours, 65_536).decode()
    os.close(ours)

    assert done.stdout == b"quotes: 1,000 looked at, 0 dropped\n"
    assert "looked at" in shown


def world(url: str, **more: Any) -> dict[str, Any]:
    return {"backends": {"far": far(url, **more)}, "caches": {"quotes": {"backend": "far"}}}


def options(url: str) -> RedisOptions:
    return RedisOptions(url=RedisUrl(url), prefix="t", timeout=2.0)
