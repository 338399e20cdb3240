"""docs/tutorial.md is followed as it stands: its files are saved, its commands typed in their order, in one shell."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pages import commands, is_shown, saved

PAGE = Path(__file__).parent.parent / "docs" / "tutorial.md"
NOBODY = "redis://127.0.0.1:1/0"  # as where no server listens, whatever there is on this machine

# A service in the background is ready when it answers. Each command ends with a line of its own.
READY = "curl -s -o /dev/null --retry 9 --retry-connrefused http://127.0.0.1:8000/docs"
END = "== end of a command ==\n"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl"),
]


def test_the_tutorial_works_as_it_is_written(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    files = saved(text)
    assert files.keys() == {"settings.toml", "app.py"}
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    shown = list(commands(text))

    printed = typed([command for command, _ in shown], tmp_path)

    for (command, expected), output in zip(shown, printed, strict=True):
        assert is_shown(expected, output), f"$ {command}\n{output}"


def typed(lines: list[str], folder: Path) -> list[str]:
    """Run the lines in one shell and return what each printed."""
    port = _free_port()
    steps = "".join(f"{line}\n{READY if line.endswith('&') else ''}\nprintf '{END}'\n" for line in lines)
    script = "trap 'kill $(jobs -p) 2>/dev/null' EXIT\n" + steps.replace(":8000", f":{port}")
    done = subprocess.run(
        ["bash", "-m", "-c", script],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "UVICORN_PORT": str(port),
            "LAYERCACHE_BACKENDS__SHARED__URL": NOBODY,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    *printed, rest = done.stdout.split(END)
    assert rest == ""
    return printed


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
