"""`layercache admin`: the management API in a process of its own, for this machine unless there are tokens."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import httpx
from operating import COMMAND, run, write_settings


def test_it_serves_until_it_is_stopped(folder: Path) -> None:
    write_settings(folder, {"local": {"type": "memory"}}, {"default": "local", "stock": "local"})
    words = [*COMMAND, "admin", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        try:
            assert address.startswith("http://127.0.0.1:")
            assert httpx.get(address).text.startswith("<!doctype html>")
            api = address.removesuffix("/dashboard")
            told = httpx.get(f"{api}/caches").json()
            assert [(cache["name"], cache["is_open"]) for cache in told["caches"]] == [
                ("default", True),
                ("stock", True),
            ]
            forwarded = httpx.get(f"{api}/caches", headers={"X-Forwarded-For": "127.0.0.1"})
            assert forwarded.status_code == 403
            httpx.post(f"{api}/caches/stock/clear", headers={"X-Layercache-Admin": "1"})
        finally:
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)

    assert "action='clear' name='stock' outcome='done (200)'" in errors
    assert "Traceback" not in errors


def test_without_tokens_it_listens_to_this_machine_alone(folder: Path) -> None:
    write_settings(folder, {"local": {"type": "memory"}}, {"default": "local"})

    refused = run("admin", "--host", "0.0.0.0")

    assert refused.exit_code == 2
    assert "without a token" in refused.output


def test_faults_of_the_settings_are_printed(folder: Path) -> None:
    file = write_settings(folder, {"local": {"type": "memory"}}, {"default": "local"})
    file.write_text(f'{file.read_text()}\n[default.admin]\nread_token = "short"\n')

    refused = run("admin")

    assert refused.exit_code == 1
    assert "admin.read_token: is too short" in refused.output
