"""`layercache warm`: what it loads, what it says, and when it exits 1."""

from __future__ import annotations

import gc
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from operating import COMMAND, far, run, write_settings

import layercache
from layercache.testing import ValkeyServer

SHOP = """
from layercache import cached

@cached("quote:{symbol}", warm=["A", ("B",), {"symbol": "C"}])
def quote(symbol: str) -> str:
    if symbol == "B":
        raise LookupError("no such symbol")
    return symbol

@cached("page:{number}", warm=range(3))
async def page(number: int) -> int:
    return number

@cached("other")
def other() -> int:
    raise AssertionError

class Service:
    @cached("method:{symbol}", warm=["A"])
    def quote(self, symbol: str) -> str:
        return symbol

service = Service()
app = object()
"""


@pytest.fixture
def shop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module in the working folder, of a name that was never imported."""
    name = f"shop_{uuid4().hex}"
    (folder / f"{name}.py").write_text(SHOP, encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    gc.collect()  # functions that other tests have decorated
    yield name
    sys.modules.pop(name, None)


def lines(text: str) -> list[str]:
    """The lines, without what the time took."""
    return [re.sub(r"\d+\.\d\d s", "… s", line) for line in text.splitlines()]


def test_all_that_the_module_lists_is_loaded_and_told(shop: str) -> None:
    done = run("warm", f"{shop}:app")

    assert lines(done.stdout) == [
        f"{shop}.quote: 2 loaded, 0 already there, 1 failed, … s",
        f"{shop}.page: 3 loaded, 0 already there, 0 failed, … s",
    ]
    assert done.stderr == f"{shop}.quote: quote:B: LookupError: no such symbol\n"
    assert done.exit_code == 1


def test_one_function_may_be_meant_and_what_is_there_is_kept(
    shop: str, folder: Path, server: ValkeyServer
) -> None:
    write_settings(folder, {"far": far(server.url)}, {"default": "far"})

    first, again = run("warm", f"{shop}:page"), run("warm", f"{shop}:page", "--concurrency", "1")

    assert (first.exit_code, again.exit_code) == (0, 0)
    assert lines(first.output) == [f"{shop}.page: 3 loaded, 0 already there, 0 failed, … s"]
    assert lines(again.output) == [f"{shop}.page: 0 loaded, 3 already there, 0 failed, … s"]
    assert sorted(server.ask("KEYS", "t:default:*")) == [f"t:default:page:{number}" for number in range(3)]


def test_a_method_is_warmed_where_it_is_bound(shop: str) -> None:
    bound, unbound = run("warm", f"{shop}:service.quote"), run("warm", f"{shop}:Service.quote")

    assert lines(bound.output) == [f"{shop}.Service.quote: 1 loaded, 0 already there, 0 failed, … s"]
    assert unbound.exit_code == 2
    assert "bound to an object" in unbound.stderr


def test_json_has_the_same(shop: str) -> None:
    done = run("warm", shop, "--json")

    functions: Any = json.loads(done.stdout)["functions"]
    assert [functions[f"{shop}.{name}"].pop("seconds") >= 0 for name in ("quote", "page")] == [True, True]
    failed = {"quote:B": "LookupError: no such symbol"}
    assert functions == {
        f"{shop}.quote": {"loaded": 2, "kept": 0, "failed": failed},
        f"{shop}.page": {"loaded": 3, "kept": 0, "failed": {}},
    }
    assert done.stderr == ""
    assert done.exit_code == 1


def test_other_settings_may_be_named(shop: str, folder: Path) -> None:
    write_settings(folder, {"local": {"type": "memory"}}, {"default": "local"})
    other = folder / "other.toml"
    other.write_text('[default.backends.none]\ntype = "null"\n[default.caches.default]\nbackend = "none"\n')

    done = run("warm", f"{shop}:page", "--settings", str(other))

    assert done.exit_code == 0
    assert layercache.get_cache() is not None
    wrong = run("warm", f"{shop}:page", "--settings", str(folder / "nowhere.toml"))
    assert (wrong.exit_code, wrong.stdout) == (1, "")


def test_a_cache_that_settings_do_not_define_is_told(shop: str, folder: Path) -> None:
    with (folder / f"{shop}.py").open("a", encoding="utf-8") as module:
        module.write('\n@cached("k", cache="stokc", warm=[()])\ndef lost() -> int:\n    return 1\n')
    write_settings(folder, {"local": {"type": "memory"}}, {"stock": "local"})

    done = run("warm", f"{shop}:lost")

    assert done.exit_code == 1
    assert "no cache named 'stokc'" in done.stderr


@pytest.mark.parametrize(
    ("app", "message"),
    [
        ("no_such_module:app", "no module named 'no_such_module'"),
        ("{shop}:nothing", "has no attribute 'nothing'"),
        ("{shop}:other", "there is nothing to warm"),
        (":", "is not of the form"),
        (".relative", "is not of the form"),
    ],
)
def test_what_is_not_there_is_wrong_usage(shop: str, app: str, message: str) -> None:
    done = run("warm", app.replace("{shop}", shop))

    assert done.exit_code == 2
    assert message in " ".join(re.sub("[│╭╮╰╯─]", " ", done.stderr).split())


@pytest.mark.parametrize(
    ("code", "raised"), [("import no_such_library", ModuleNotFoundError), ("int('x')", ValueError)]
)
def test_an_import_that_fails_inside_is_not_taken_for_that(
    shop: str, folder: Path, code: str, raised: type[Exception]
) -> None:
    (folder / f"{shop}.py").write_text(code, encoding="utf-8")

    done = run("warm", shop)

    assert isinstance(done.exception, raised)


def test_who_looks_sees_how_far_it_is_and_the_output_stays_clean(shop: str) -> None:
    ours, theirs = pty.openpty()

    done = subprocess.run(
        [*COMMAND, "warm", f"{shop}:page"],
        stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"}, check=True,
    )  # fmt: skip
    os.close(theirs)
    shown = os.read(ours, 65_536).decode()
    os.close(ours)

    assert lines(done.stdout.decode()) == [f"{shop}.page: 3 loaded, 0 already there, 0 failed, … s"]
    assert "3/3" in shown
