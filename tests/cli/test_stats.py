"""`layercache stats` and `top`: what a service counts, or what the stores know."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from operating import COMMAND, far, layers, run, write_settings
from serving import serving

from layercache import Caches
from layercache.testing import ValkeyServer
from layercache.testing.server import free_port


@pytest.fixture
def settings(folder: Path, server: ValkeyServer) -> Path:
    return write_settings(
        folder, layers(server.url), {"default": "layered", "quotes": "far", "near": "local"}
    )


@pytest.fixture
def service(settings: Path) -> Iterator[str]:
    with Caches(settings) as caches, serving(caches) as url:
        quotes = caches["default"]
        quotes.get("other")
        quotes.set("k", 1)
        for _ in range(3):
            quotes.get("k")
        quotes.get_or_set("loaded", lambda: 2)
        yield url


def test_what_a_service_counts_is_shown_in_its_windows(service: str) -> None:
    done, told = run("stats", "--url", service), json.loads(run("stats", "--url", service, "--json").output)

    assert done.exit_code == 0
    lines = [line.split() for line in done.output.splitlines()]
    assert lines[0] == ["default"]
    assert lines[1] == ["all", "1m", "5m", "1h"]
    assert ["hits", "3"] in [line[:2] for line in lines]
    assert ["loads", "1"] in [line[:2] for line in lines]
    assert {"local", "far"} <= {line[0] for line in lines if line}
    assert list(told["caches"]) == ["default"]  # those that it uses, and the question opens none
    assert told["caches"]["default"]["total"]["hits"] == 3


def test_without_a_service_it_says_what_the_stores_know(settings: Path, server: ValkeyServer) -> None:
    with Caches(settings) as caches:
        caches["quotes"].set_many({f"q{number}": "x" * 1000 for number in range(50)})
        caches["default"].set("k", 1)
        server.ask("SET", "t:%lease:{t:quotes:q1}", "somebody")

        done, told = run("stats"), json.loads(run("stats", "--json").output)

    assert done.exit_code == 0
    assert "--url" in done.output
    rows = {line.split()[0]: line.split() for line in done.output.splitlines() if "(redis)" in line}
    assert rows["quotes"][1:4] == ["far", "(redis)", "50"]
    assert [line.split()[:2] for line in done.output.splitlines() if line.startswith("near")] == [
        ["near", "none:"]
    ]
    quotes = told["stores"]["quotes"]["far"]
    assert (quotes["entries"], quotes["leases"], quotes["looked_at"]) == (50, 1, 1.0)
    assert 50 * 100 < quotes["bytes"] < 50 * 2000
    assert told["stores"]["default"]["far"]["entries"] == 1
    assert quotes["log_length"] > 0
    assert 0 <= quotes["log_age"] < 60


def test_a_store_that_does_not_answer_is_told(folder: Path) -> None:
    write_settings(folder, {"far": far(f"redis://127.0.0.1:{free_port()}/0")}, {"default": "far"})

    done, as_json, once = run("stats"), run("stats", "--json"), run("top", "--once")

    assert done.exit_code == as_json.exit_code == once.exit_code == 1
    assert "backend 'far'" in done.output
    assert "backend 'far'" in json.loads(as_json.output)["stores"]["default"]["far"]["error"]


def test_where_all_is_in_memory_there_is_nothing_to_see(folder: Path) -> None:
    write_settings(folder, {"local": {"type": "memory"}}, {"default": "local"})

    for words in (("stats",), ("top", "--once")):
        done = run(*words)
        assert done.exit_code == 4
        assert "--url" in done.stderr
    assert run("stats", "-c", "nobody").exit_code == 2


def test_top_has_a_row_for_each_layer(service: str) -> None:
    done = run("top", "--once", "--url", service)
    told = json.loads(run("top", "--once", "--url", service, "--json", "--window", "5m").output)

    assert done.exit_code == 0
    head, *rows = [line for line in done.output.splitlines()[1:] if line]
    assert head.split()[:3] == ["cache", "hit", "rate"]
    assert {"circuit", "bytes"} <= set(head.split())
    assert [row.split()[0] for row in rows] == ["default", "local", "far"]
    assert "closed" in rows[2].split()
    assert told["window"] == "5m"
    assert told["caches"]["default"]["loads"] == 0  # the window begins with the first question


def test_an_open_circuit_is_seen(settings: Path, server: ValkeyServer) -> None:
    text = settings.read_text().replace(server.url, f"redis://127.0.0.1:{free_port()}/0")
    settings.write_text(text)
    with Caches(settings) as caches, serving(caches) as url:
        caches["default"].get("k")

        done = run("top", "--once", "--url", url)

    assert "open" in next(line for line in done.output.splitlines() if "far" in line).split()


def test_top_of_the_stores(settings: Path) -> None:
    with Caches(settings) as caches:
        caches["quotes"].set("k", 1)

        done = run("top", "--once", "--json", "-c", "quotes")

    assert json.loads(done.output)["stores"]["quotes"]["far"]["entries"] == 1


def test_top_ends_at_q_and_leaves_the_terminal_as_it_was(service: str) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 80))
    before = termios.tcgetattr(theirs)
    words = [*COMMAND, "top", "--url", service, "--interval", "60"]
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE) as process:
        shown = b""
        while b"far" not in shown:
            shown += os.read(ours, 1 << 16)
        os.write(ours, b"q")
        _, errors = process.communicate(timeout=20)
    assert termios.tcgetattr(theirs) == before
    os.close(theirs)
    os.close(ours)

    assert (process.returncode, errors) == (0, b"")
    assert b"q or Ctrl-C ends" in shown
    assert b"default" in shown


def test_top_prints_a_line_for_each_look_until_it_is_stopped(service: str) -> None:
    words = [*COMMAND, "top", "--url", service, "--interval", "0.2", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        looks = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)

    assert all("default" in look["caches"] for look in looks)
    assert errors == b""
    assert process.returncode == 0
