"""The dashboard in a browser: what it shows and does, by role and name, by keyboard, and in both themes."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest
from asking import READ, WRITE, settings
from serving import serving

from layercache import Caches

pytestmark = pytest.mark.slow

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's own Chromium. Its absence is a failure in CI and skips elsewhere."""
    if BROWSER is None and os.environ.get("CI") != "true":
        pytest.skip("there is no Chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def world() -> Iterator[Caches]:
    with Caches(settings(show_values=True)) as world:
        yield world


@pytest.fixture(scope="module")
def address(world: Caches) -> Iterator[str]:
    with serving(world) as address:
        yield address


@pytest.fixture
def stock(world: Caches) -> Any:
    cache = world["stock"]
    cache.clear()
    cache.set("quote:AAPL", {"price": 189.5, "name": "<img src=x onerror=alert(1)>"}, tags=["market"])
    cache.set_many({f"quote:{number}": number for number in range(150)})
    cache.set("news:<b>1</b>", "x")
    for _ in range(9):
        cache.get("quote:AAPL")
    cache.get("nothing")
    return cache


@pytest.fixture
def page(browser: Any, address: str, stock: Any) -> Iterator[Any]:
    """The page about `stock`, of which nothing may complain."""
    complaints: list[str] = []
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(10_000)
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.extend([request.url] * (not is_own(request.url, address))))
    page.goto(f"{address}/dashboard?every=0.2#stock")
    page.get_by_role("heading", name="stock").wait_for()
    yield page
    page.close()
    assert complaints == []


def is_own(url: str, address: str) -> bool:
    return url.startswith((f"{address}/", "data:"))


def confirm(page: Any, name: str, answer: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=answer).click()
    page.get_by_role("dialog", name=name).wait_for(state="hidden")


def test_it_shows_rates_layers_and_prefixes(page: Any, stock: Any) -> None:
    page.get_by_role("status").get_by_text("healthy").wait_for()
    layers = page.get_by_role("region", name="Layers")
    layers.get_by_role("row", name=re.compile("local")).wait_for()
    for title in ("Hit rate", "Time per load and far read (95 %)", "Memory used here", "Log lag"):
        page.get_by_role("img", name=title).wait_for()
    page.get_by_role("row", name="quote: 151").wait_for()

    all_hits = page.get_by_text(re.compile(r"stock\s+100.0 %"))
    end = time.monotonic() + 10
    while not all_hits.is_visible():
        assert time.monotonic() < end
        stock.get("quote:AAPL")


def test_a_chart_has_a_table(page: Any) -> None:
    chart = page.get_by_role("region", name="Memory used here")

    chart.get_by_text("As a table").click()

    table = chart.get_by_role("region", name="Memory used here as a table")
    table.get_by_role("columnheader", name="local").wait_for()
    assert re.search(r"\d+(\.\d)? kB", table.inner_text())


def test_a_key_is_found_and_explained_with_what_it_holds_as_text(page: Any) -> None:
    page.get_by_label("Prefix", exact=True).fill("news:")
    page.get_by_role("button", name="List").click()
    page.get_by_role("button", name="news:<b>1</b>").click()
    page.get_by_text("would now hit").wait_for()

    page.get_by_label("with its value").check()
    page.get_by_label("Key", exact=True).fill("quote:AAPL")
    page.get_by_role("button", name="Explain").click()

    value = page.get_by_label("Value", exact=True)
    value.get_by_text("onerror=alert(1)").wait_for()
    assert value.locator("img").count() == 0
    row = page.get_by_role("region", name="Layer by layer").get_by_role("row", name=re.compile("local"))
    assert "fresh" in row.inner_text()
    assert "market" in row.inner_text()


def test_more_keys_come_when_asked_for(page: Any) -> None:
    page.get_by_label("Prefix", exact=True).fill("quote:")
    page.get_by_role("button", name="List").click()
    page.get_by_role("button", name="More").click()

    page.get_by_role("button", name="quote:99", exact=True).wait_for()
    assert page.locator("#keys li").count() == 151
    assert page.get_by_role("button", name="More").is_hidden()


def test_a_key_is_deleted_after_a_question(page: Any, stock: Any) -> None:
    page.get_by_label("Key", exact=True).fill("quote:AAPL")
    page.get_by_role("button", name="Explain").click()
    page.get_by_text("would now hit").wait_for()
    page.get_by_role("button", name="Delete…").click()
    confirm(page, "Delete this key?", "Cancel")
    assert "quote:AAPL" in stock

    page.get_by_role("button", name="Delete…").click()
    confirm(page, "Delete this key?", "Delete")

    page.get_by_text("quote:AAPL is gone.").wait_for()
    page.get_by_text("would now load").wait_for()
    assert "quote:AAPL" not in stock


def test_tags_are_invalidated_after_a_question(page: Any, stock: Any) -> None:
    page.get_by_label("Tags").fill("market, us")
    page.get_by_label("softly").check()
    page.get_by_role("button", name="Invalidate…").click()
    confirm(page, "Invalidate market, us?", "Invalidate")
    page.get_by_text("Invalidated market, us softly.").wait_for()
    assert stock.explain("quote:AAPL").would == "serve stale and refresh"


def test_a_cache_is_cleared_by_who_types_its_name(page: Any, stock: Any) -> None:
    page.get_by_role("button", name="Clear the cache…").click()
    dialog = page.get_by_role("dialog", name="Clear stock?")
    yes = dialog.get_by_role("button", name="Clear it")
    assert yes.is_disabled()
    dialog.get_by_label("Type the name of the cache").fill("stok")
    assert yes.is_disabled()
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    assert stock.list_keys().keys

    page.get_by_role("button", name="Clear the cache…").click()
    dialog.get_by_label("Type the name of the cache").fill("stock")
    yes.click()

    page.get_by_text("stock is empty.").wait_for()
    assert stock.list_keys().keys == ()


def test_all_of_it_is_reached_by_keyboard_and_each_control_has_a_name(page: Any) -> None:
    page.get_by_role("button", name="stock").wait_for()
    page.evaluate("document.activeElement.blur()")
    reached: list[str] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        told = page.evaluate(NAME)
        if told == "":
            break
        reached.append(told)

    assert not [told for told in reached if told.startswith("NAMELESS")]
    wanted = [
        *("Skip to the cache", "1 min", "Pause", "Theme", "default", "stock", "As a table", "Prefix", "List"),
        *("Key", "with its value", "Explain", "Tags", "softly", "Invalidate", "Clear the cache", "Warm"),
    ]
    at = 0
    for told in reached:
        at += at < len(wanted) and wanted[at] in told
    assert at == len(wanted), (wanted[at:], reached)


def test_a_cache_is_chosen_by_keyboard_and_keeps_the_focus(page: Any) -> None:
    page.get_by_role("button", name="default").focus()
    page.keyboard.press("Enter")

    page.get_by_role("heading", name="default").wait_for()
    page.locator("[data-cache=default][aria-current=true]:focus").wait_for()
    assert page.url.endswith("#default")


def test_updates_can_be_paused(page: Any, address: str) -> None:
    page.get_by_role("button", name="Pause").click()
    assert page.get_by_role("button", name="Pause").get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="Pause").click()
    with page.expect_request(f"{address}/caches"):
        pass


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_stand_out_in_both_themes(page: Any, scheme: str) -> None:
    """At least 4.5 to 1, as WCAG AA has it, for every text there is."""
    page.get_by_label("Theme").select_option(scheme)
    page.get_by_label("Key", exact=True).fill("quote:AAPL")
    page.get_by_role("button", name="Explain").click()
    page.get_by_text("would now hit").wait_for()

    weak = page.evaluate(CONTRASTS)

    assert weak == []


def test_the_system_decides_on_the_theme_unless_told_otherwise(page: Any) -> None:
    def background() -> str:
        told: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return told

    page.emulate_media(color_scheme="light")
    light = background()
    page.emulate_media(color_scheme="dark")
    assert background() != light
    page.get_by_label("Theme").select_option("light")
    assert background() == light


def test_where_a_token_is_wanted_it_asks_for_one_and_keeps_it_nowhere(browser: Any) -> None:
    with Caches(settings(read_token=READ, write_token=WRITE)) as world, serving(world) as address:
        page = browser.new_page()
        page.goto(f"{address}/dashboard?every=0.2")
        dialog = page.get_by_role("dialog", name="A token is wanted")
        dialog.wait_for()
        dialog.get_by_label("Token").fill("wrong")
        dialog.get_by_role("button", name="Use it").click()
        dialog.wait_for()

        dialog.get_by_label("Token").fill(READ)
        dialog.get_by_role("button", name="Use it").click()
        page.get_by_role("status").get_by_text("healthy").wait_for()
        page.get_by_role("button", name="Warm").click()
        page.get_by_role("alert").get_by_text("only permits to look").wait_for()

        assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
        page.close()


def test_it_says_when_the_api_is_gone_and_when_it_is_back(browser: Any, address: str, stock: Any) -> None:
    page = browser.new_page()
    page.goto(f"{address}/dashboard?every=0.2#stock")
    page.get_by_role("status").get_by_text("healthy").wait_for()

    page.route("**/caches", lambda route: route.abort())
    page.get_by_role("alert").get_by_text("does not answer").wait_for()
    page.unroute("**/caches")

    page.get_by_role("alert").wait_for(state="hidden")
    page.close()


NAME = """
(() => {
  const at = document.activeElement, by = at.getAttribute('aria-labelledby');
  if (at === document.body) return '';
  const labels = at.labels && [...at.labels].map((label) => label.textContent).join(' ');
  const name = at.getAttribute('aria-label') || labels || (by && document.getElementById(by).textContent);
  return (name || at.textContent).trim() || `NAMELESS ${at.outerHTML}`;
})()
"""

CONTRASTS = """
(() => {
  const read = (text) => {
    const made = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d');
    made.fillStyle = text; made.fillRect(0, 0, 1, 1);
    return [...made.getImageData(0, 0, 1, 1).data].map((n) => n / 255);
  };
  const over = (top, below) => top.slice(0, 3).map((n, i) => n * top[3] + below[i] * (1 - top[3]));
  const light = (c) => {
    const [r, g, b] = c.map((n) => n <= 0.04045 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    if (!element) return [1, 1, 1];
    const own = read(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? over(own, [0, 0, 0]) : over(own, behind(element.parentElement));
  };
  const weak = [];
  for (const element of document.querySelectorAll('body *')) {
    const texts = [...element.childNodes].filter((node) => node.nodeType === 3 && node.textContent.trim());
    if (!texts.length || !element.checkVisibility()) continue;
    if (element.matches('script, :disabled, :disabled *, option')) continue;
    const style = getComputedStyle(element), below = behind(element);
    const ink = over(read(element instanceof SVGElement ? style.fill : style.color), below);
    const [a, b] = [light(ink), light(below)].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) weak.push([element.textContent.trim().slice(0, 30), contrast.toFixed(2)]);
  }
  return weak;
})()
"""
