"""What is installed is looked for once, and found when it is installed later."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from pathlib import Path
from unittest.mock import Mock

import pytest

from layercache import registry
from layercache.config import read_settings
from layercache.errors import UnknownBackend
from layercache.registry import backend_named

TABLES = {
    "backends": {
        "near": {"type": "memory", "eviction": "lru"},
        "far": {"type": "redis", "codecs": ["json", "zstd"]},
        "both": {"type": "chain", "layers": ["near", "far"]},
    },
    "caches": {"default": {"backend": "both"}},
}


def test_what_is_installed_is_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = Mock(wraps=entry_points)
    monkeypatch.setattr(registry, "entry_points", look)
    monkeypatch.syspath_prepend(tmp_path)

    for _ in range(2):
        read_settings(TABLES)

    look.assert_called_once_with()


def test_what_is_installed_while_the_process_runs_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnknownBackend):
        backend_named("late")

    (tmp_path / "late.py").write_text("from layercache_null import NullBackend\n")
    info = tmp_path / "late-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[layercache.backends]\nlate = late:NullBackend\n")

    assert backend_named("late").__module__ == "layercache_null"
    del sys.modules["late"]
