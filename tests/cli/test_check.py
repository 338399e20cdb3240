"""`layercache check`: the settings in force, or every fault."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from layercache.cli.app import app

SETTINGS = """
[default.backends.local]
type = "memory"
max_bytes = "64MB"

[default.backends.shared]
type = "redis"
url = "redis://app:in-the-url@cache.internal:6380/2"
codecs = ["json", { type = "zstd", level = 6 }]

[default.caches.default]
backend = "local"
ttl = "5m"

[default.caches.stock]
ttls = { "quote:*" = 15 }

[production.caches.default]
backend = "shared"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.toml").write_text(SETTINGS, encoding="utf-8")
    (tmp_path / ".secrets.toml").write_text(
        '[default.backends.shared]\npassword = "in-the-secrets"\n', encoding="utf-8"
    )
    return tmp_path / "settings.toml"


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def test_it_prints_what_is_in_force_as_toml_with_secrets_masked(file: Path) -> None:
    done = run("check")

    assert done.exit_code == 0
    assert done.output.startswith(f"# {file}, environment 'development'\n")
    printed = tomllib.loads(done.output)
    assert printed["backends"]["local"]["max_bytes"] == "64MB"
    assert printed["backends"]["local"]["max_entries"] == 10_000
    assert printed["backends"]["shared"]["codecs"][1]["level"] == 6
    assert printed["caches"]["stock"] == {
        "backend": "local",
        "ttl": "5m",
        "ttls": {"quote:*": "15s"},
        "stale_ttl": "0s",
        "jitter": 0.0,
        "refresh": "background",
        "early_beta": 1.0,
        "retry_after": "5s",
        "wait": "30s",
        "lease_ttl": "30s",
        "soft_timeout": "forever",
        "hard_timeout": "forever",
        "tags": [],
        "max_key_bytes": 1024,
        "isolation": "copy",
    }
    assert "in-the-url" not in done.output
    assert "in-the-secrets" not in done.output
    assert printed["backends"]["shared"]["password"] == "**********"


def test_it_looks_at_another_environment_or_file(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "settings.toml"
    other.parent.mkdir()
    other.write_text(
        '[default.backends.n]\ntype = "null"\n[default.caches.default]\nbackend = "n"\n', encoding="utf-8"
    )

    production = run("check", "-e", "production")
    elsewhere = run("check", "--settings", str(other))

    assert tomllib.loads(production.output)["caches"]["stock"]["backend"] == "shared"
    assert list(tomllib.loads(elsewhere.output)["backends"]) == ["n"]


def test_variables_count(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERCACHE_ENV", "production")
    monkeypatch.setenv("LAYERCACHE_CACHES__STOCK__TTL", "10")

    printed = tomllib.loads(run("check").output)

    assert printed["caches"]["stock"]["ttl"] == "10s"


def test_every_fault_is_printed_and_the_exit_code_is_1(file: Path) -> None:
    file.write_text(SETTINGS.replace("ttl =", "tll =").replace('"64MB"', "-1"), encoding="utf-8")

    done = run("check")

    assert done.exit_code == 1
    assert done.stdout == ""
    assert "caches.default.tll: unknown key; did you mean 'ttl'" in done.stderr
    assert "backends.local.max_bytes" in done.stderr


def test_an_environment_that_is_not_there_is_a_fault(file: Path) -> None:
    done = run("check", "-e", "prod")

    assert done.exit_code == 1
    assert "production" in done.stderr


def test_json_for_programs(file: Path) -> None:
    right = json.loads(run("check", "--json").output)
    wrong = run("check", "--json", "-e", "prod")

    assert right["environment"] == "development"
    assert right["caches"]["stock"]["ttl"] == "5m"
    assert wrong.exit_code == 1
    assert json.loads(wrong.output)["faults"][0].keys() == {"path", "message"}


def test_wrong_usage_is_2() -> None:
    assert run("check", "--nonsense").exit_code == 2
    assert run("--version").output.startswith("layercache 0.")
