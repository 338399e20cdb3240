"""docs/cli.md: its reference is what the commands say of themselves, and its examples print what it shows.

LAYERCACHE_TEST_WRITE=1 pytest tests/cli/test_cli_guide.py    # writes the reference anew
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from operating import run
from pages import commands, is_shown
from serving import serving

from layercache import Caches
from layercache.cli.app import app
from layercache.cli.exits import EXITS, Exit
from layercache.testing import ValkeyServer

PAGE = Path(__file__).parent.parent.parent / "docs" / "cli.md"
SHARED = {
    "--cache": "`-c`: the cache; `default` where it is left out, and all caches of commands that look at several",
    "--url": "or `LAYERCACHE_ADMIN_URL`: where a running service serves its management API, which is asked then",
    "--token": "or `LAYERCACHE_ADMIN_TOKEN`, which others do not see in the list of processes",
    "--settings": "`-s`: the file to read instead of the nearest `settings.toml`",
    "--environment": "`-e`: the environment, instead of `LAYERCACHE_ENV`",
    "--json": "print JSON; what is wrong too: `error`, or `faults` of the settings, on stdout",
}


def reference() -> Iterator[str]:
    yield "| option | meaning |\n|---|---|"
    yield from (f"| `{name}` | {said} |" for name, said in SHARED.items())
    yield "\n| exit code | meaning |\n|---|---|"
    yield from (f"| {code.value} | {said} |" for code, said in EXITS.items())
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        own, shared, arguments = [], [], []
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                arguments.append(parameter)
            elif parameter.opts[0] in SHARED and not (name == "init" and parameter.opts[0] == "--settings"):
                shared.append(parameter.opts[0])
            elif parameter.opts[0] != "--help":
                own.append(parameter)
        words = " ".join(["layercache", name, *(parameter.metavar for parameter in arguments)])
        yield f"\n### {name}\n\n`{words}`: {' '.join((command.help or '').split())}\n"
        if shared:
            required = (
                " (it has to be named)"
                if any(parameter.required for parameter in command.params if parameter.opts[0] == "--cache")
                else ""
            )
            listed = ", ".join(f"`{option}`{required if option == '--cache' else ''}" for option in shared)
            yield f"Shared options: {listed}."
        if own:
            yield "\n| option | default | meaning |\n|---|---|---|"
        for parameter in own:
            names = ", ".join(f"`{option}`" for option in parameter.opts)
            default = "" if parameter.default in {None, False} else f"`{parameter.default}`"
            yield f"| {names} | {default} | {parameter.help} |"


def test_the_reference_is_what_the_commands_say() -> None:
    begin, end = (
        "<!-- the reference, as tests/cli/test_cli_guide.py has it -->\n",
        "\n<!-- end of the reference -->",
    )
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(begin)
    written, after = rest.split(end)
    wanted = "\n".join(reference())
    if os.environ.get("LAYERCACHE_TEST_WRITE"):
        PAGE.write_text(f"{before}{begin}{wanted}{end}{after}", encoding="utf-8")
        return

    assert written == wanted


def test_each_exit_code_has_a_meaning() -> None:
    assert list(EXITS) == list(Exit)


@pytest.fixture
def shop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder with the settings of the page, on a server of its own; and the management API of a service."""
    with ValkeyServer() as server:
        monkeypatch.setenv("LAYERCACHE_BACKENDS__SHARED__URL", server.url)
        monkeypatch.setenv("LAYERCACHE_BACKENDS__SHARED__TIMEOUT", "2s")
        run("init", "--store", "layered", "--prefix", "shop", "--ttl", "5m")
        with Caches(None, "production") as caches, serving(caches) as url:
            stock = caches["default"]
            stock.set("quote:AAPL", {"price": 189.5}, tags=["market"])
            stock.set_many({"quote:MSFT": 411.2, "quote:NVDA": 903.5}, tags=["market"])
            for _ in range(4):
                stock.get("quote:AAPL")
            (folder / "settings.toml").rename(folder / "kept.toml")
            yield folder, url


def test_what_the_page_shows_is_what_is_printed(
    shop: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAYERCACHE_ENV", "production")
    _, url = shop
    shown = 0
    for command, expected in commands(PAGE.read_text(encoding="utf-8")):
        words = shlex.split(command.replace("http://127.0.0.1:8790", url), comments=True)
        assert words[0] == "layercache"
        printed = run(*words[1:]).output.replace(url, "http://127.0.0.1:8790")
        assert is_shown(expected, printed), f"$ {command}\n{printed}"
        shown += 1
    assert shown > 10
