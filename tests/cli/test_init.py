"""`layercache init`: what it writes is right, and nothing that is there is lost."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest
from operating import COMMAND, run

from layercache.config import read_settings


@pytest.mark.parametrize(
    ("store", "backend"), [("memory", "local"), ("redis", "shared"), ("layered", "layered")]
)
def test_what_it_writes_passes_check_in_every_environment(folder: Path, store: str, backend: str) -> None:
    done = run("init", "--store", store, "--prefix", "shop", "--ttl", "90s")

    assert done.exit_code == 0
    assert done.output.startswith("settings.toml written")
    for environment in ("development", "testing", "production"):
        assert run("check", "-e", environment).exit_code == 0
    production = read_settings(None, "production")
    assert production.caches["default"].backend == backend
    assert production.caches["default"].ttl == 90
    assert read_settings(None).caches["default"].backend == "local"


def test_what_it_has_as_comments_is_right_as_well(folder: Path) -> None:
    run("init", "--store", "layered")
    file = folder / "settings.toml"
    lines = file.read_text().splitlines()
    file.write_text(
        "\n".join(line.removeprefix("# ") if line[:3] in {"# [", "# s", "# t"} else line for line in lines)
    )

    assert run("check").exit_code == 0
    settings = read_settings(None)
    assert settings.caches["stock"].ttls == {"quote:*": 15, "news:*": 900}
    assert settings.caches["stock"].stale_ttl == 3600


def test_a_file_that_is_there_stays_unless_it_is_forced(folder: Path) -> None:
    file = folder / "settings.toml"
    file.write_text("# mine\n")

    refused, as_json = run("init"), run("init", "--json")

    assert refused.exit_code == as_json.exit_code == 1
    assert "--force" in refused.output
    assert "--force" in json.loads(as_json.output)["error"]
    assert file.read_text() == "# mine\n"
    assert run("init", "--force").exit_code == 0
    assert "[default.caches.default]" in file.read_text()


def test_what_could_not_be_right_is_not_written(folder: Path) -> None:
    wrong = run("init", "--ttl", "5 parsecs", "--json")

    assert wrong.exit_code == 1
    assert json.loads(wrong.output)["faults"][0]["path"] == "caches.default.ttl"
    assert run("init", "--store", "redis", "--redis", "http://cache").exit_code == 1
    assert not (folder / "settings.toml").exists()


def test_a_password_does_not_get_into_the_file(folder: Path) -> None:
    refused = run("init", "--store", "redis", "--redis", "redis://:hunter2@cache:6379/0")

    assert refused.exit_code == 2
    assert ".secrets.toml" in refused.output
    assert "hunter2" not in refused.output
    assert not (folder / "settings.toml").exists()


def test_at_a_terminal_it_asks(folder: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "init"], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        os.write(ours, b"elsewhere\nlayered\n\nshop\n10m\n")
        told, asked = process.communicate(timeout=20)
    os.close(ours)
    os.close(theirs)

    assert process.returncode == 0, asked
    assert b"none of the three" in asked
    assert told.startswith(b"settings.toml written")
    production = read_settings(None, "production")
    assert production.backends["shared"].options.prefix == "shop"
    assert production.caches["default"].ttl == 600
