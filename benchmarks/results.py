"""Runs every benchmark and keeps what they print in RESULTS.md: `python benchmarks/results.py [SCRIPT ...]`.

Each runs by itself, one after the other, on an otherwise idle machine. What stands in RESULTS.md before the line `MARK`
is written by hand, from what follows it, and stays; with names of scripts only their sections are made anew. One that
fails, or takes longer than `LONGEST`, has its section say so, and the exit code; the others run all the same.
"""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from layercache.testing.server import server_binary

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "RESULTS.md"
MARK = "<!-- From here on written by results.py. -->"
LONGEST = 600.0  # seconds that one script may take
SCRIPTS = {
    "hits": "A hit in memory",
    "memory": "What an entry in memory takes",
    "hitratio": "Which policy keeps the right entries",
    "curve": "The curve of more and less memory",
    "misses": "What a miss costs besides the load",
    "herd": "Many who ask for one key at once",
    "far": "A verb against a server",
    "stages": "A stage of a codec",
    "outage": "A server that is gone, or hangs",
    "coherence": "How long others go on with what was invalidated",
    "scale": "Where one server ends",
    "metrics": "What being seen costs",
    "responses": "A whole response",
    "django_cache": "Django's verbs",
}


def ran(script: str) -> tuple[str, bool]:
    """Return what a script prints, which is shown as it comes, and whether it came to its end."""
    print(f"\n== {script}", flush=True)
    began = time.monotonic()
    lines: list[str] = []
    command = [sys.executable, "-u", f"{script}.py"]
    # a session of its own, so that the servers and processes that it has started end with it
    with subprocess.Popen(
        command, cwd=FOLDER, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        late = threading.Timer(LONGEST, os.killpg, (process.pid, signal.SIGKILL))
        late.start()
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                lines.append(line)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            late.cancel()
    minutes = (time.monotonic() - began) / 60
    ended = "" if process.returncode == 0 else f"\n**It failed, with exit code {process.returncode}.**\n"
    return f"{''.join(lines).strip()}\n{ended}\n({minutes:.1f} minutes)\n", process.returncode == 0


def method(script: str) -> str:
    """Return the docstring of a script, without its first `how to run it`, as Markdown."""
    (text,) = re.findall(r'\A"""(.*?)"""', (FOLDER / f"{script}.py").read_text(encoding="utf-8"), re.DOTALL)
    return re.sub(r":\s`python [^`]*`", "", text, count=1).strip()


def machine() -> str:
    """Return what all of it was measured on and with, as Markdown."""
    try:
        cpu = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))[0]
    except (OSError, IndexError):
        cpu = platform.processor() or platform.machine()
    server = subprocess.run([server_binary(), "--version"], capture_output=True, text=True, check=True).stdout
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=FOLDER, capture_output=True, text=True, check=False
    ).stdout.strip()
    named = re.findall(r"^([\w.-]+)==", (FOLDER / "peers.txt").read_text(encoding="utf-8"), re.MULTILINE)
    peers = [f"{name} {installed(name)}" for name in [*named, "redis", "hiredis", "orjson", "zstandard"]]
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit}: {os.cpu_count()} cores ({cpu}), {platform.system()}, "
        f"{platform.python_implementation()} {platform.python_version()}, {' '.join(server.split()[:3])}; "
        f"layercache {installed('layercache-framework')}, {', '.join(peers)}.\n"
    )


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def main() -> int:
    wanted = sys.argv[1:] or list(SCRIPTS)
    unknown = set(wanted) - set(SCRIPTS)
    if unknown:
        print(f"no benchmark is named {', '.join(sorted(unknown))}; there are {', '.join(SCRIPTS)}")
        return 2
    by_hand, _, before = (
        RESULTS.read_text(encoding="utf-8").partition(MARK) if RESULTS.exists() else ("", "", "")
    )
    sections = dict(re.findall(r"^<!-- (\w+) -->\n(.*?)(?=^<!-- |\Z)", before, re.MULTILINE | re.DOTALL))
    failed = []
    for script in wanted:
        printed, is_whole = ran(script)
        sections[script] = f"## {SCRIPTS[script]}\n\n{method(script)}\n\n{machine()}\n{printed}\n"
        failed += [] if is_whole else [script]
        made = "".join(f"<!-- {name} -->\n{sections[name]}" for name in SCRIPTS if name in sections)
        RESULTS.write_text(f"{by_hand.strip()}\n\n{MARK}\n\n{made.strip()}\n", encoding="utf-8")
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
