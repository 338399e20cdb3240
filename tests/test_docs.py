"""Every Python block of the README and the docs runs, with the page's own settings."""

from __future__ import annotations

import re
import runpy
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import layercache

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "backends").glob("*.md")),
]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


@pytest.fixture
def page_module() -> Iterator[ModuleType]:
    """A module for the page's names, so that annotations in its blocks can be resolved."""
    module = ModuleType("page")
    sys.modules["page"] = module
    yield module
    del sys.modules["page"]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_python_of_a_page_runs(
    page: Path, page_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first_settings = next((block for block in blocks(page, "toml") if block.startswith("[default")), None)
    python = blocks(page, "python")
    text = page.read_text(encoding="utf-8")
    begins_with_them = first_settings and text.index(first_settings) < text.index(python[0])
    for number, block in enumerate(python):
        # a page whose settings come after its first block has them from its second block on
        settings = tmp_path / "settings.toml"
        if (
            first_settings
            and not settings.exists()
            and (number or begins_with_them or page.name == "README.md")
        ):
            layercache.close()  # a process reads its settings once
            settings.write_text(first_settings, encoding="utf-8")
        exec(compile(block, f"{page.name}, block {number + 1}", "exec"), vars(page_module))
    layercache.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "toml")], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_settings_of_a_page_are_right(page: Path) -> None:
    for block in blocks(page, "toml"):
        if block.startswith("[default"):
            assert layercache.Caches(tomllib.loads(block))


def test_the_tables_of_the_settings_are_those_of_the_models() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "tables.py"))
    made = script["tables"]()

    filled = set[str]()
    for page in script["PAGES"]:
        text = page.read_text(encoding="utf-8")
        assert script["filled"](text, made) == text, f"`make docs` writes {page.name} anew"
        filled |= set(re.findall(r"<!-- table (\S+) -->", text))

    assert filled == made.keys()
