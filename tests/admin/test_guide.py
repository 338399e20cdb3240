"""Every `curl` of docs/admin.md is run, in its order, and answers what the page says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from pages import commands, is_shown
from serving import serving

from layercache import Caches

PAGE = Path(__file__).parent.parent.parent / "docs" / "admin.md"
SETTINGS = {
    "backends": {"local": {"type": "memory"}},
    "caches": {"stock": {"backend": "local", "ttl": "5m", "stale_ttl": "1h"}},
}


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_what_the_page_shows_is_what_is_answered() -> None:
    shown = list(commands(PAGE.read_text(encoding="utf-8")))
    assert len(shown) > 10

    with Caches(SETTINGS) as world, serving(world) as address:
        fill(world)
        for command, expected in shown:
            assert command.startswith("curl ")
            words = ["bash", "-c", command.replace("http://127.0.0.1:8790", address)]
            run = subprocess.run(words, capture_output=True, text=True, timeout=30)
            assert run.returncode == 0, run.stderr
            assert is_shown(expected, run.stdout), f"{command}\n{run.stdout}"


def fill(world: Caches) -> None:
    stock = world["stock"]
    stock.set("quote:AAPL", {"price": 189.5}, tags=["market"])
    stock.set_many({"quote:MSFT": 1, "quote:NVDA": 2, "news:AAPL": "..."})
    for _ in range(3):
        stock.get("quote:AAPL")
    stock.get("quote:TSLA")
