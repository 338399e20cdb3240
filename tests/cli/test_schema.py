"""`layercache schema`: what an editor is told of settings.toml agrees with what the check says."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from operating import run

from layercache import ConfigError
from layercache.config import read_settings
from layercache.schema import settings_schema
from layercache.settings import SECTIONS

ROOT = Path(__file__).parent.parent.parent
SCHEMA = settings_schema()
VALIDATOR = jsonschema_rs.Draft7Validator(SCHEMA)
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def faults(text: str) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(tomllib.loads(text))]


def test_it_is_a_schema_of_its_draft() -> None:
    done = run("schema")

    assert done.exit_code == 0
    assert json.loads(done.output) == json.loads(run("schema", "--json").output) == SCHEMA
    assert jsonschema_rs.meta.is_valid(SCHEMA)
    json.dumps(SCHEMA, allow_nan=False)


def test_the_settings_of_the_example_and_of_the_docs_are_right() -> None:
    assert faults((ROOT / "settings.toml").read_text()) == []
    shown = [
        block
        for page in PAGES
        for block in re.findall(r"^```toml\n(\[default.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    ]
    assert len(shown) > 10
    for block in shown:
        assert faults(block) == [], block


@pytest.mark.parametrize("store", ["memory", "redis", "layered"])
def test_what_init_writes_is_right(folder: Path, store: str) -> None:
    run("init", "--store", store)

    assert faults((folder / "settings.toml").read_text()) == []


@pytest.mark.parametrize("text", [
    '[default.backends.local]\ntype = "memory"\nmax_entris = 1',
    '[default.backends.local]\ntype = "memory"\nurl = "redis://h:1/0"',
    '[default.backends.local]\ntype = "mermory"',
    '[default.backends.far]\ntype = "redis"\ncodecs = ["json", "zsdt"]',
    '[default.backends.far]\ntype = "redis"\ncodecs = ["json", { type = "zstd", level = 23 }]',
    '[default.backends.far]\ntype = "redis"\nurl = "http://cache"',
    '[default.caches.default]\ntll = "5m"',
    '[default.caches.default]\nttl = "5 parsecs"',
    '[default.caches.default]\nbackend = "local"\nrefresh = "sometimes"',
    '[default.caches.default]\nbackend = "local"\njitter = 1.5',
    '[default.caches.default.patterns."a:*"]\nmax_key_bytes = 1',
    '[default.caches.default.events]\nsold = { tag = ["a"] }',
    '[default.admin]\ntoken = "x"',
    "[default.cashes.default]",
])  # fmt: skip
def test_what_the_check_refuses_the_schema_does(text: str) -> None:
    with pytest.raises(ConfigError):
        read_settings(tomllib.loads(text))

    assert faults(text)


@pytest.mark.parametrize("text", [
    '[default.caches.stock]\nttl = "1h 30m"\nstale_ttl = "forever"\nwait = 2.5\nnone_ttl = 0',
    '[default.caches.stock.events]\nsold = ["a"]\nbought = { tags = ["b"], soft = true }',
    '[default.caches.stock.patterns."a:*"]\nttl = "250ms"\ntags = ["a"]',
    '[default.backends.far]\ntype = "redis"\nmax_value_bytes = "1.5MB"\ncodecs = ["json", { type = "zstd" }]',
    '[staging.backends.far]\nurl = "rediss+sentinel://h:1/service/0"',
])  # fmt: skip
def test_what_may_be_written_may_be_written(text: str) -> None:
    assert faults(text) == []


def test_each_key_says_what_it_is_for_and_what_it_is_when_left_out() -> None:
    definitions: dict[str, Any] = SCHEMA["definitions"]
    for name, table in definitions.items():
        for key, said in table.get("properties", {}).items():
            assert name == "Environment" or said.get("description"), (name, key)
    stock = definitions["CacheSettings"]["properties"]
    assert (stock["ttl"]["default"], stock["hard_timeout"]["default"]) == ("5m", "forever")
    assert "XFetch" in stock["refresh"]["description"]
    assert definitions["MemoryOptions"]["properties"]["max_bytes"]["default"] == "64MB"
    assert definitions["Environment"]["properties"].keys() == set(SECTIONS)


def test_it_is_written_where_an_editor_finds_it(folder: Path) -> None:
    done, refused = run("schema", "-o", "layercache.schema.json"), run("schema", "-o", "no/where.json")

    assert done.exit_code == 0
    assert '"#:schema ./layercache.schema.json"' in done.output
    assert json.loads((folder / "layercache.schema.json").read_text()) == SCHEMA
    assert refused.exit_code == 1
