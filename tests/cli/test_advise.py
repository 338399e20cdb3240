"""`layercache advise`: what a running service says of its caches."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from admin.asking import READ
from operating import run, write_settings
from serving import serving

from layercache import Caches

SETTINGS = {
    "backends": {
        "local": {"type": "memory", "max_entries": 100, "eviction": "lru", "miss_ratio_curve": True}
    },
    "caches": {"stock": {"backend": "local"}},
    "admin": {"read_token": READ},
}


@pytest.fixture
def service() -> Iterator[str]:
    """A service whose cache is too small for what goes round in it."""
    with Caches(SETTINGS) as world, serving(world) as address:
        for number in range(3000):
            world["stock"].get_or_set(f"quote:{number % 150}", lambda: 1)
        yield address


@pytest.fixture
def token(folder: Path) -> None:
    file = write_settings(folder, {"local": {"type": "memory"}}, {"default": "local"})
    file.write_text(f'{file.read_text()}\n[default.admin]\nread_token = "{READ}"\n')


@pytest.mark.usefixtures("token")
def test_it_says_what_would_help_and_what_to_do(service: str) -> None:
    said = run("advise", "--url", service)

    assert said.exit_code == 0
    assert said.output.startswith("memory     local  twice")
    assert "twice the memory (100 entries now) would answer 95.0 % more of the reads" in said.output
    assert "do: raise max_entries" in said.output
    told = json.loads(run("advise", "--url", service, "--json").output)
    assert [each["kind"] for each in told["advice"]] == ["memory", "never hit"]


@pytest.mark.usefixtures("token")
def test_a_token_that_is_given_is_sent_instead_of_that_of_the_settings(service: str) -> None:
    assert run("advise", "--url", service, "--token", READ[::-1] + "x").exit_code == 1


def test_where_the_service_refuses_or_is_not_there_it_says_so(folder: Path, service: str) -> None:
    write_settings(folder, {"local": {"type": "memory"}}, {"default": "local"})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"

    refused, absent = run("advise", "--url", service), run("advise", "--url", nobody, "--json")

    assert (refused.exit_code, absent.exit_code) == (1, 1)
    assert "refuses: " in refused.output
    assert "does not answer" in json.loads(absent.output)["error"]
    assert run("advise", "--url", "localhost:8790").exit_code == 2
