"""Photograph the dashboard: `python docs/picture.py` writes docs/dashboard.png.

What it shows is examples/stock_api for a minute: two hosts with one worker each, a Valkey, a market that takes 1.2 to
2.4 s, and users who look around. It needs the system's Chromium, as the tests of the dashboard do.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.async_api import async_playwright

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples"))

from stock_api.fleet import fleet, host  # noqa: E402
from stock_api.traffic import browse, lines_to  # noqa: E402

PICTURE = ROOT / "docs" / "dashboard.png"
USERS = 8  # of each host
SECONDS = 70.0
SECONDS_BETWEEN_LOOKS = 0.25


def main() -> None:
    # a host of one worker, as whom a browser asks of several is left to the kernel
    with (
        fleet("1.2-2.4", workers=1) as running,
        TemporaryDirectory() as folder,
        host(Path(folder), running.upstream, running.valkey) as other,
    ):
        asyncio.run(photograph({running.api: running.workers, other.url: other.pids}))


async def photograph(hosts: dict[str, frozenset[int]]) -> None:
    """Have users look around on all `hosts`, and write what the dashboard of the first then shows."""
    first, other = hosts
    async with (
        async_playwright() as playwright,
        lines_to(first, hosts[first], USERS) as lines,
        lines_to(other, hosts[other], USERS) as more,
    ):
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = await browser.new_page(viewport={"width": 1400, "height": 940}, color_scheme="light")
        await page.goto(f"{first}/cache/dashboard?every=1#stock")
        users = [line for each in (*lines.values(), *more.values()) for line in each]
        await browse(users, SECONDS, SECONDS_BETWEEN_LOOKS, lambda: None)
        await page.screenshot(path=PICTURE)
        await browser.close()


if __name__ == "__main__":
    main()
