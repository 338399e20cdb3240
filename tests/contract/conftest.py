"""A third party's distribution, as pip would have left it: one module, and its entry point."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TOY = '''
"""A third party's backend: one file, one entry point."""

from threading import RLock

from layercache.options import Count, NormalCodec, options, stages
from layercache.spi import Backend, KeySpace


@options
class ToyOptions:
    shelves: Count
    codecs: NormalCodec = stages("json")


class ToySpace(KeySpace):
    def __init__(self, now):
        self.now, self.lock, self.shelf = now, RLock(), {}

    def get(self, key):
        entry = self.shelf.get(key)
        return entry if entry is not None and entry.left(self.now()) > 0 else None

    def set(self, key, entry):
        with self.lock:
            self.shelf[key] = entry
        return True

    def update(self, key, change):
        with self.lock:
            changed = change(self.get(key))
            if changed is not None:
                self.set(key, changed)
            return changed

    def delete(self, key):
        with self.lock:
            found = self.get(key)
            self.shelf.pop(key, None)
        return found is not None

    def clear(self):
        with self.lock:
            self.shelf.clear()


class ToyBackend(Backend):
    Options = ToyOptions

    def __init__(self, opening):
        super().__init__(opening)
        self.serializer = self.options.codecs[0].open()
        self.spaces = {}

    def key_space(self, cache):
        return self.spaces.setdefault(cache, ToySpace(self.now))
'''


@pytest.fixture
def toy_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    info = tmp_path / "toy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[layercache.backends]\ntoy = toy:ToyBackend\n")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("toy", None)
