"""Pools whose processes are begun anew, and programs that are run: nothing of ours comes along but what is opened."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import subprocess
from pathlib import Path
from typing import Any

import pytest
from inside import chain, follow, sockets
from programs import Start

HERE = Path(__file__).parent
METHODS = [method for method in ("spawn", "forkserver") if method in multiprocessing.get_all_start_methods()]


@pytest.fixture(scope="module")
def pools(start: Start, server_url: str, prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    settings = tmp_path_factory.mktemp("pools") / "settings.toml"
    settings.write_text(
        f"""
        [default.backends.near]
        type = "memory"
        [default.backends.far]
        type = "redis"
        url = "{server_url}"
        timeout = "2s"
        [default.backends.both]
        type = "chain"
        layers = ["near", "far"]
        [default.caches.default]
        backend = "both"
        """,
        encoding="utf-8",
    )
    return {
        method: start(
            str(HERE / "pooling.py"),
            method,
            LAYERCACHE_SETTINGS=str(settings),
            LAYERCACHE_BACKENDS__FAR__PREFIX=f"{prefix}-{method}",
        )
        for method in METHODS
    }


@pytest.mark.parametrize("method", METHODS)
def test_a_cached_function_goes_to_a_pool_and_its_values_are_shared(pools: Any, method: str) -> None:
    code, said, complained = pools[method].ended()
    assert complained == ""
    assert code == 0
    told = json.loads(said)

    assert told["found"][0] == told["found"][2] == told["mine"]  # the parent loaded it
    assert told["found"][1] == told["found"][3] != told["mine"]


def test_a_program_that_is_run_has_none_of_our_connections(server_url: str, prefix: str) -> None:
    """Not even where its parent closes nothing before."""
    with chain(server_url, prefix) as world, asyncio.Runner() as runner:
        follow(world["default"])
        runner.run(world["default"].aget("k"))
        assert len(sockets()) >= 3  # the log's, a thread's, the loop's

        listing = "for each in /proc/self/fd/*; do readlink $each; done"
        ran = subprocess.run(
            ["sh", "-c", listing], close_fds=False, stdout=subprocess.PIPE, text=True, check=False
        )

        has = set(ran.stdout.split())
        assert has
        assert not has & sockets()
