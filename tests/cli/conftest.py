"""A folder of its own for each command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from layercache.testing import ValkeyServer


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, in which settings are found."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def process() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def server(process: ValkeyServer) -> ValkeyServer:
    """A server of the module's own, with nothing on it."""
    process.ask("FLUSHALL")
    process.ask("SCRIPT", "FLUSH")
    return process
