"""A folder of its own for each test, with the settings files that it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

PLAIN = """
[default.backends.local]
type = "memory"
[default.backends.shared]
type = "redis"
codecs = ["json", "zstd"]
[default.backends.layered]
type = "chain"
layers = ["local", "shared"]
[default.caches.default]
backend = "local"
ttl = "5m"
[default.caches.stock]
ttls = { "quote:*" = "15s", "News:*" = "15m" }
[production.caches.default]
backend = "layered"
"""


class Folder:
    """The working folder of a test."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, text: str, name: str = "settings.toml") -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """An empty working folder."""
    path = tmp_path / "work"
    path.mkdir()
    monkeypatch.chdir(path)
    return Folder(path)


@pytest.fixture
def plain(folder: Folder) -> Folder:
    """A working folder with the settings that most tests begin with."""
    folder.write(PLAIN)
    return folder
