"""Shell completion: it is printed, installed, and completes commands and caches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from operating import write_settings
from typer.testing import CliRunner

from layercache.cli.app import app


def completed(words: str, number: int) -> list[str]:
    environ = {"_LAYERCACHE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(number)}
    return CliRunner().invoke(app, env=environ, prog_name="layercache").output.split()


def test_it_completes_commands_and_the_caches_of_the_settings(folder: Path) -> None:
    write_settings(folder, {"local": {"type": "memory"}}, {"default": "local", "stock": "local"})

    assert completed("layercache inv", 1) == ["invalidate"]
    assert completed("layercache get k --cache s", 4) == ["stock"]

    (folder / "settings.toml").write_text("no toml")
    assert completed("layercache get k --cache s", 4) == []


def test_it_is_printed_and_installed_for_the_shell(folder: Path) -> None:
    printed = (
        CliRunner().invoke(app, env={"_LAYERCACHE_COMPLETE": "source_bash"}, prog_name="layercache").output
    )
    # which shell it is for, typer sees in the processes above, unless it is told not to look
    environ = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", "HOME": str(folder)}
    words = [
        sys.executable,
        "-c",
        "import sys; sys.argv[0] = 'layercache'; from layercache.cli import main; main()",
    ]
    done = subprocess.run(
        [*words, "--install-completion", "bash"], env=environ, capture_output=True, text=True, check=True
    )

    assert "_LAYERCACHE_COMPLETE=complete_bash" in printed
    assert "bash completion installed" in done.stdout
    assert (folder / ".bash_completions" / "layercache.sh").read_text().strip() == printed.strip()
