"""Processes that fork: the parent opens and uses its caches, and its children use them at once, each with its own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from programs import Start

from layercache.testing import ValkeyServer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

HERE = Path(__file__).parent


def told(start: Start, script: str, *arguments: str) -> Any:
    code, said, complained = start(str(HERE / script), *arguments).ended()
    assert complained == ""
    assert code == 0
    return json.loads(said)


@pytest.fixture(scope="module")
def prefork(start: Start, server_url: str, prefix: str) -> Any:
    return told(start, "prefork.py", server_url, prefix)


@pytest.fixture(scope="module")
def outage(start: Start) -> Any:
    with ValkeyServer() as server:
        assert server._process is not None
        return told(start, "outage.py", server.url, "forked-in-an-outage", str(server._process.pid))


@pytest.fixture(scope="module")
def on_loops(start: Start, server_url: str, prefix: str) -> Any:
    return told(start, "pooling.py", "loops", server_url, prefix)


class TestPreFork:
    """As gunicorn does with `preload_app`: four workers, while threads of the parent load and exchange."""

    def test_children_have_nothing_of_the_parents(self, prefork: Any) -> None:
        for child in prefork["at once"]:
            assert child["inherited"] == 0  # connections
            assert child["threads"] == ["1"]
            assert child["near is empty"]
            assert child["flights"] == 0
        assert prefork["parent"]["hit"] == "the parent's"

    def test_each_is_a_node_of_its_own(self, prefork: Any) -> None:
        nodes = {prefork["parent"]["node"], *(child["node"] for child in prefork["at once"])}

        assert len(nodes) == 5

    def test_children_use_their_caches_at_once(self, prefork: Any) -> None:
        for child in prefork["at once"]:
            assert child["far"] == "the parent's"
            assert child["on loops"] == [True, True]

    def test_a_load_that_a_thread_of_the_parent_is_at_stays_the_parents(self, prefork: Any) -> None:
        assert [child["under way"] for child in prefork["at once"]] == ["left to the parent"] * 4
        assert prefork["parent"]["loads"] == 1

    def test_children_load_a_key_once_for_all(self, prefork: Any) -> None:
        assert [child["value"] for child in prefork["loaded"]] == ["loaded"] * 4
        assert sum(child["loads"] for child in prefork["loaded"]) == 1

    def test_each_child_follows_the_log_by_itself(self, prefork: Any) -> None:
        # that they heard of the parent's write, and the parent of theirs, they have waited for
        for child in prefork["heard"]:
            assert child["log"] == ["layercache log"]
            assert child["sockets"] == 2  # the log's, and one for callers

    def test_the_parent_goes_on_as_if_nothing_had_happened(self, prefork: Any) -> None:
        parent = prefork["parent"]

        assert parent["near"] == "the parent's"
        assert parent["errors"] == [0, 0]
        assert parent["openings"] == 0
        assert parent["losses"] == 0
        assert parent["lost"] == 0  # connections
        assert parent["threads"] == ["layercache log"]

    def test_the_server_sees_the_end_of_what_the_parent_closes(self, prefork: Any) -> None:
        """Children that had a copy of its sockets would keep them open as long as they live."""
        assert prefork["parent"]["gone"] >= 2

    def test_children_end_clean_with_everything_open(self, prefork: Any) -> None:
        assert prefork["codes"] == [0, 0, 0, 0]

    def test_no_lock_that_a_thread_of_the_parent_has_holds_up_a_child(self, prefork: Any) -> None:
        assert prefork["locks"]["count"] > 15
        assert prefork["locks"]["found"] == ["v", 1, 2, True, 3]
        assert prefork["locks"]["code"] == 0


class TestOutage:
    """Forked while the server is frozen and a thread of the parent probes it."""

    def test_children_have_no_thread_and_no_connection_of_the_parents(self, outage: Any) -> None:
        for child in outage["in it"]:
            assert child["inherited"] == 0  # the probe's among them
            assert child["threads"] == []

    def test_what_the_parent_owes_it_delivers_itself(self, outage: Any) -> None:
        assert [child["owes"] for child in outage["in it"]] == [False, False]
        assert outage["deleted"] is None

    def test_children_find_out_for_themselves_and_do_without(self, outage: Any) -> None:
        for child in outage["in it"]:
            assert child["open at first"] == 0
            assert child["without it"] is None
            assert child["loaded"]
            assert child["then"] == 1
        assert outage["hit"] == "v"  # the parent's, from near

    def test_all_are_served_when_it_is_back(self, outage: Any) -> None:
        # that they were, they have waited for
        assert outage["after it"] == [0, 0]
        assert outage["codes"] == [0, 0]


class TestFromARunningLoop:
    """A `ProcessPoolExecutor` that forks, as `run_in_executor` uses it, on asyncio's loop and then on uvloop's."""

    def test_children_have_nothing_of_the_parents_and_loops_of_their_own(self, on_loops: Any) -> None:
        for report in on_loops:
            for number, child in enumerate(report["children"]):
                assert child["inherited"] == 0
                assert child["empty"]
                assert child["sync"] == "v"
                assert child["on loops"] == [["v", number], ["v", number]]

    def test_the_loop_of_the_parent_goes_on_on_its_connections(self, on_loops: Any) -> None:
        for report in on_loops:
            assert report["errors"] == [0, 0]
            assert report["openings"] == 0
            assert report["of a child"] == [0, 1]
