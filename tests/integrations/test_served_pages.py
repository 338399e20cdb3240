"""Responses in a cache as clients meet them: two uvicorn processes, real HTTP, a real server behind both."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from sites import did
from waiting import until

from layercache.testing.server import free_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def processes(server_url, tmp_path_factory):
    """A client of each of two processes."""
    log = tmp_path_factory.mktemp("served") / "log"
    with ExitStack() as stack:
        clients = []
        environment = {**os.environ, "SERVER_URL": server_url, "PREFIX": f"t{uuid4().hex[:12]}"}
        for _ in range(2):
            port = free_port()
            words = [
                sys.executable,
                "-m",
                "uvicorn",
                "served:app",
                "--port",
                str(port),
                "--log-level",
                "warning",
            ]
            output = stack.enter_context(log.open("ab"))
            process = subprocess.Popen(
                words, cwd=Path(__file__).parent, env=environment, stdout=output, stderr=output
            )
            stack.callback(process.wait, 10)
            stack.callback(process.terminate)
            url, host = f"http://127.0.0.1:{port}", {"Host": "shop"}  # one site, whichever process answers
            clients.append(stack.enter_context(httpx.Client(base_url=url, headers=host, trust_env=False)))
        for client in clients:
            answers(client, log)
        yield clients
    assert not log.read_text()


def answers(client, log):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            client.get("/done")
        except httpx.TransportError:
            time.sleep(0.02)
        else:
            return
    pytest.fail(log.read_text())


def test_a_page_is_made_once_among_processes_and_looks_the_same_from_each(processes):
    with ThreadPoolExecutor(8) as threads:
        pages = list(threads.map(lambda number: processes[number % 2].get("/slow"), range(8)))

    assert sum(client.get("/done").json()["made"] for client in processes) == 1
    assert {page.text for page in pages} == {"made"}
    assert len({page.headers["etag"] for page in pages}) == 1
    assert sorted(map(did, pages)).count("stored") == 1
    for client in processes:
        assert client.get("/slow", headers={"If-None-Match": pages[0].headers["etag"]}).status_code == 304
        head = client.head("/slow")
        assert (head.headers["content-length"], head.content, did(head)) == ("4", b"", "hit")


def test_a_stream_without_end_reaches_each_client_as_it_comes_and_ends_with_it(processes):
    client = processes[0]
    before = client.get("/done").json()["streams_ended"]

    for _ in range(2):
        with client.stream("GET", "/ticks") as response:
            assert next(response.iter_text()).startswith("data: tick")

    until(lambda: client.get("/done").json()["streams_ended"] == before + 2)
