"""The rules and the dashboard that ship name what is really measured."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from layercache import Caches
from layercache.integrations.prometheus import exposition

HERE = Path(__file__).parent
FOLDER = HERE.parent.parent / "docs" / "operations"
RULES = FOLDER / "alerts.yml"
DASHBOARD = FOLDER / "grafana.json"
OF_THE_SCRAPE = {"job", "instance"}
PAGE = FOLDER.parent / "operations.md"

Labels = Mapping[str, set[str]]


@pytest.fixture(scope="module")
def measured() -> Labels:
    """The names that a service with all there is exposes, and the labels of each."""
    settings = {
        "backends": {
            "m": {"type": "memory", "miss_ratio_curve": True},
            "far": {"type": "redis", "url": "redis://127.0.0.1:1"},
            "chain": {"type": "chain", "layers": ["m", "far"]},
        },
        "caches": {"stock": {"backend": "chain"}},
    }
    with Caches(settings) as world:
        world["stock"].get_or_set("k", lambda: 1)
        world["stock"].get("k")
        text, _ = exposition(world)
    found: dict[str, set[str]] = {
        "layercache_log_lag_seconds": {"layer"}
    }  # left out until it was confirmed once
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def expressions() -> Iterator[str]:
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for chosen in json.loads(DASHBOARD.read_text(encoding="utf-8"))["templating"]["list"]:
        if chosen["type"] == "query":
            yield chosen["query"]
    rules = RULES.read_text(encoding="utf-8")
    expr = re.findall(r"^ +expr: (?:\|\n((?: {10,}.*\n)+)|(.+)\n)", rules, re.MULTILINE)
    assert len(expr) == rules.count("expr:")
    yield from (block or line for block, line in expr)


@pytest.mark.parametrize("expression", list(expressions()))
def test_each_metric_that_is_named_is_measured_with_these_labels(expression: str, measured: Labels) -> None:
    names = re.findall(r"\b(layercache_\w+)(?:\{([^}]*)\})?", expression)
    recorded = set(re.findall(r"layercache:\w+:\w+", expression))

    assert names or recorded
    labels: set[str] = set()
    for name, matchers in names:
        assert name in measured, name
        labels |= measured[name]
        assert set(re.findall(r"(\w+)=", matchers)) <= measured[name] | OF_THE_SCRAPE
    for by in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
        assert set(by.split(", ")) <= labels | OF_THE_SCRAPE
    for name in recorded:
        assert f"record: {name}" in RULES.read_text(encoding="utf-8")


def test_each_alert_is_explained() -> None:
    page = PAGE.read_text(encoding="utf-8")

    alerts = re.findall(r"- alert: (\w+)", RULES.read_text(encoding="utf-8"))
    assert len(alerts) > 5
    for alert in alerts:
        assert f"`{alert}`" in page


def test_every_metric_is_in_the_table_of_the_page(measured: Labels) -> None:
    page = PAGE.read_text(encoding="utf-8")

    for name in measured:
        assert f"`{re.sub('_(bucket|count|sum)$', '', name)}`" in page, name


@pytest.mark.skipif(
    shutil.which("promtool") is None and os.environ.get("CI") != "true", reason="there is no promtool"
)
@pytest.mark.parametrize("words", [("check", RULES), ("test", HERE / "alerts.test.yml")])
def test_promtool_finds_nothing_wrong(words: tuple[str, Path]) -> None:
    what, file = words
    run = subprocess.run(["promtool", what, "rules", str(file)], capture_output=True, text=True, timeout=60)

    assert run.returncode == 0, run.stdout + run.stderr
