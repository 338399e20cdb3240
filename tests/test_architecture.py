"""Who may import whom, and what an import costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FRAMEWORK = ROOT / "layercache"
NO_IO = {
    "asyncio", "concurrent", "http", "multiprocessing", "os", "pathlib", "queue", "random", "redis", "secrets",
    "select", "signal", "socket", "ssl", "subprocess", "sys", "threading", "time", "urllib",
}  # fmt: skip


# What each layer holds, and what it may import besides itself: layers, or single modules of one.
LAYERS = {
    "values": (
        "_version codecs.dictionaries codecs.seals core.tickets durations entry errors keys sights sizes templates",
        "",
    ),
    "spi": ("spi", "values"),
    "codecs": ("codecs codecs.frame codecs.normal codecs.pipeline", "values spi"),
    "options": ("options registry", "values spi codecs"),
    "stages": (
        "codecs.encrypt codecs.gzip codecs.json codecs.pickle codecs.sign codecs.zstd",
        "values spi options",
    ),
    "core": ("core.*", "values spi codecs.normal"),
    "ports": ("inline loop", "values spi core"),
    "settings": ("config events reading schema seeds settings sources", "values spi options core.policy"),
    "face": (
        "alerts arguments caches callables decorator default face hits warming windows",
        "values spi codecs.normal core ports settings",
    ),
    "readings": ("advising metrics", "values spi core face"),
    "public": ("layercache", "values spi core face settings"),
    "integrations": ("integrations.*", "values core.context core.policy core.times face readings"),
    "testing": ("testing.*", "values spi options core.flights core.port settings face"),
    "admin": ("admin.*", "values spi options core settings face readings public"),
    "cli": ("cli.*", "values spi core settings face public admin"),
    "layercache_null": ("", "values spi options"),
    "layercache_memory": ("", "values spi options"),
    "layercache_chain": ("", "values spi options ports core.layer core.outbox core.port"),
    "layercache_redis": ("", "values spi options ports codecs core.changes"),
}


# Who know each other by type: a cache hands out decorators, which open caches; a layer has leases, which look at it;
# a middleware starts visits, which ask it what is stored.
ACQUAINTED = [
    "alerts caches callables decorator default face warming windows",
    "core.layer core.leases",
    "integrations.asgi.middleware integrations.asgi.visit",
]


def modules(*folders: Path) -> dict[str, Path]:
    """Return the files in `folders` by the names they are imported by."""
    found = {}
    for folder in folders:
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts).removeprefix("backends.").removesuffix(".__init__")] = file
    assert found
    return found


MODULES = modules(FRAMEWORK, ROOT / "backends")


def imports(file: Path, *, run: bool = False) -> Iterator[str]:
    """Yield the modules that `file` imports; when `run`, only those that are imported when it is itself."""
    waiting: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            named = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module or "" for name in named)
        elif run and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
        elif not (run and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            waiting += ast.iter_child_nodes(node)


@pytest.mark.parametrize("name", modules(FRAMEWORK / "core"))
def test_the_core_imports_no_io_and_no_concurrency(name: str) -> None:
    used = {module.split(".")[0] for module in imports(MODULES[name])}

    assert not used & NO_IO


@pytest.mark.parametrize("name", MODULES)
def test_a_module_has_its_place_in_one_layer_and_imports_only_what_that_may(name: str) -> None:
    """Imports in functions and under TYPE_CHECKING count as well."""
    layer = layer_of(name)
    allowed = {layer, *LAYERS[layer][1].split()}

    for needed in imports(MODULES[name]):
        if needed in MODULES:
            assert {layer_of(needed), needed.removeprefix("layercache.")} & allowed, (
                f"{layer} imports {needed}"
            )


def layer_of(name: str) -> str:
    if name.startswith("layercache_"):
        return name.split(".", 1)[0]
    inner = name.removeprefix("layercache.")
    for spelled in (inner, f"{inner.split('.', 1)[0]}.*"):
        for layer, (held, _) in LAYERS.items():
            if spelled in held.split():
                return layer
    pytest.fail(f"{name} is in no layer: put it into the table")


def test_the_table_of_layers_names_nothing_twice_and_nothing_that_is_not_there() -> None:
    held = [module for modules, _ in LAYERS.values() for module in modules.split()]
    there = {name.removeprefix("layercache.") for name in MODULES}

    assert sorted(held) == sorted(set(held))
    assert {module.removesuffix(".*") for module in held} <= there
    assert {used for _, allowed in LAYERS.values() for used in allowed.split()} <= there | set(LAYERS)


def test_layers_do_not_use_each_other_in_circles() -> None:
    """The table lists a layer after those that it uses."""
    above: list[str] = []
    for layer, (_, allowed) in LAYERS.items():
        used = {part if part in LAYERS else layer_of(f"layercache.{part}") for part in allowed.split()}
        assert used <= set(above), layer
        above.append(layer)


def test_modules_do_not_import_each_other_in_circles() -> None:
    TopologicalSorter(needs(run=True)).prepare()


def test_in_functions_and_by_type_as_well_only_acquaintances_import_each_other_in_circles() -> None:
    TopologicalSorter(needs(*ACQUAINTED)).prepare()


@pytest.mark.parametrize("group", ACQUAINTED)
def test_acquaintances_are_called_so_only_as_long_as_they_are(group: str) -> None:
    with pytest.raises(CycleError):
        TopologicalSorter(needs(*(other for other in ACQUAINTED if other != group))).prepare()


def needs(*groups: str, run: bool = False) -> dict[str, set[str]]:
    """Return what each module imports, those of a group taken for one."""
    taken_for = {f"layercache.{name}": group for group in groups for name in group.split()}
    found: dict[str, set[str]] = {}
    for name, file in MODULES.items():
        this = taken_for.get(name, name)
        met = {taken_for.get(module, module) for module in imports(file, run=run) if module in MODULES}
        found[this] = found.get(this, set()) | met - {this}
    return found


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
