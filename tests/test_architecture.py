"""Who may import whom, and what an import costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FRAMEWORK = ROOT / "layercache"
NO_IO = {
    "asyncio", "concurrent", "http", "multiprocessing", "os", "pathlib", "queue", "random", "redis", "secrets",
    "select", "signal", "socket", "ssl", "subprocess", "sys", "threading", "time", "urllib",
}  # fmt: skip


def imports(file: Path, *, run: bool = True) -> Iterator[str]:
    """Yield the modules that `file` imports, those under TYPE_CHECKING left out when `run`."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if run and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for part in node.body
        for inner in ast.walk(part)
    }
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            yield node.module or ""


def modules(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("file", modules(FRAMEWORK / "core"), ids=lambda file: file.name)
def test_the_core_imports_no_io_and_no_concurrency(file: Path) -> None:
    used = {module.split(".")[0] for module in imports(file)}

    assert not used & NO_IO


@pytest.mark.parametrize("file", modules(FRAMEWORK / "core"), ids=lambda file: file.name)
def test_the_core_stands_on_nothing_but_entries_and_the_spi(file: Path) -> None:
    ours = {module for module in imports(file) if module.startswith("layercache")}

    allowed = re.compile(r"layercache\.(core\.\w+|codecs\.normal|durations|entry|errors|keys|spi)")
    assert not {module for module in ours if not allowed.fullmatch(module)}


def test_the_framework_imports_no_backend() -> None:
    for file in modules(FRAMEWORK):
        assert not [module for module in imports(file, run=False) if module.startswith("layercache_")], file


@pytest.mark.parametrize(
    "backend", sorted((ROOT / "backends").glob("layercache_*")), ids=lambda path: path.name
)
def test_a_backend_imports_the_spi_and_public_parts_and_no_other_backend(backend: Path) -> None:
    allowed = re.compile(
        r"layercache\.(spi|entry|errors|keys|options|sizes|registry|inline|loop|codecs\.(pipeline|frame|normal|dictionaries)|core\.(layer|outbox|port|changes|tickets))"
        rf"|{backend.name}(\.\w+)*"
    )
    for file in modules(backend):
        ours = {module for module in imports(file, run=False) if module.startswith("layercache")}
        assert not {module for module in ours if not allowed.fullmatch(module)}, file


def test_nothing_but_themselves_imports_the_command_line_the_management_api_or_the_testing_tools() -> None:
    for file in [*modules(FRAMEWORK), *modules(ROOT / "backends")]:
        inside = file.relative_to(ROOT).parts[1]
        for module in imports(file, run=False):
            for part, users in {"admin": {"admin", "cli"}, "cli": {"cli"}, "testing": {"testing"}}.items():
                assert inside in users or not module.startswith(f"layercache.{part}"), file


def test_modules_do_not_import_each_other_in_circles() -> None:
    names = {}
    for file in modules(FRAMEWORK):
        parts = file.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts).removesuffix(".__init__")] = file
    needs = {name: {module for module in at_import(file) if module in names} for name, file in names.items()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way, name])
        if name not in done:
            for needed in needs[name]:
                visit(needed, (*way, name))
            done.add(name)

    for name in names:
        visit(name, ())


def at_import(file: Path) -> Iterator[str]:
    """Yield the modules that are imported when `file` itself is, not in its functions."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def python(script: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *flags, "-c", script], capture_output=True, text=True, check=True)


FRAMEWORKS = {
    "redis",
    "hiredis",
    "fastapi",
    "starlette",
    "uvicorn",
    "prometheus_client",
    "django",
    "cryptography",
    "typer",
    "rich",
    "pytest",
}


def loaded(script: str) -> set[str]:
    printed = python(f"{script}\nimport sys; print(*sorted(sys.modules))").stdout
    return {name.split(".")[0] for name in printed.split()}


def test_importing_layercache_loads_neither_drivers_nor_frameworks_nor_what_settings_need() -> None:
    modules = loaded("import layercache; from layercache import get_cache, cache, cached, configure, Caches")

    assert not modules & (FRAMEWORKS | {"dynaconf", "pydantic", "orjson", "zstandard", "asyncio"})


def test_a_memory_cache_loads_neither_drivers_nor_frameworks() -> None:
    modules = loaded(
        "from layercache import Caches\n"
        "Caches({'backends': {'m': {'type': 'memory'}}, 'caches': {'default': {'backend': 'm'}}})"
        "['default'].set('k', 1)"
    )

    # dynaconf itself imports Django wherever it is installed
    assert not modules & FRAMEWORKS - (loaded("import dynaconf") & {"django"})


def test_importing_layercache_costs_at_most_a_quarter_of_importing_dynaconf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `-X importtime` shows it, both compiled beforehand; the least disturbed of some turns each."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path))
    python("import layercache, dynaconf")

    def cost(module: str) -> int:
        report = python(f"import {module}", "-X", "importtime").stderr
        lines = [line for line in report.splitlines() if re.search(rf"\| {module}$", line)]
        return int(lines[-1].split("|")[1])

    pairs: list[tuple[int, int]] = []
    for _ in range(25):  # the machine does other things as well, and that adds to the shorter one more
        pairs.append((cost("layercache"), cost("dynaconf")))
        ours, theirs = (min(costs) for costs in zip(*pairs, strict=True))
        if ours <= 0.25 * theirs:
            break
    assert ours <= 0.25 * theirs, pairs
