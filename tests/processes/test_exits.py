"""Programs that end with everything open: at once, by themselves, and without a word."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from inside import chain, connections, follow, threads
from programs import Start
from waiting import until

ENDING = str(Path(__file__).with_name("ending.py"))

# what a program ends with, and the last line that it leaves on standard error
WAYS: dict[str, tuple[int, str]] = {
    "returns": (0, ""),
    "raises": (1, "LookupError: of the program's own"),
    "is terminated": (-signal.SIGTERM, ""),
    "goes on": (0, ""),
}


@pytest.fixture(scope="module")
def programs(start: Start, server_url: str, prefix: str) -> Any:
    return {way: start(ENDING, way, server_url, prefix) for way in WAYS}


@pytest.mark.parametrize("way", WAYS)
def test_a_program_ends_clean_with_everything_open(
    programs: Any, way: str, server_url: str, prefix: str
) -> None:
    code, said, complained = programs[way].ended()

    expected, last = WAYS[way]
    assert code == expected, complained
    if last:  # the program's own traceback and nothing after it
        assert complained.startswith("Traceback")
        assert complained.rstrip().endswith(last)
        assert complained.count("Traceback") == 1
    else:
        assert complained == ""
    assert said == ("all was well\n" * 2 if way == "goes on" else "")
    until(lambda: not connections(server_url, f"{prefix}-{way}"))


def test_where_no_thread_can_be_had_all_is_done_without(
    server_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the interpreter is about to end: Python 3.12 and later begin none once the main thread has ended."""
    before = threads()
    with monkeypatch.context() as patch, chain(server_url, f"{prefix}-threadless") as world:

        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't create new thread at interpreter shutdown")

        patch.setattr(threading.Thread, "start", refuse)
        cache = world["default"]
        cache.set("k", 1)
        assert cache.get("k") == 1
        assert cache.get_or_set("limited", threading.get_ident, hard_timeout=5) == threading.get_ident()
        cache.set("stale", 1, 0.001)
        until(lambda: cache.get("stale") is None)
        assert cache.get_or_set("stale", lambda: 2) == 1  # to be refreshed by whoever can
        assert cache.stats().refreshes == 0
        assert len(cache._flights) == 0
        assert not Counter(threads()) - Counter(before)

        patch.undo()
        follow(cache)  # whoever asks next begins to
        assert cache.get_or_set("stale", lambda: 2) == 1
        until(lambda: cache.get("stale") == 2)
