"""Mutation testing of the core and the memory backend: what can be broken there without a test seeing it.

    python tests/mutants.py --sample 20 layercache/core/tickets.py

makes 20 mutants of each named file (of all in `TESTS`, when none is named), the same ones for the same `--seed`; runs
the file's tests on each until one fails, and shows those that survive. No file is touched: a fork of this process,
which has imported what is not ours, imports the mutant in its place. cosmic-ray makes the mutants; CONTRIBUTING.md says
how to get it. A survivor is a fact that no test states, code that does nothing, or a change that changes nothing.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

import pytest

ROOT = Path(__file__).parent.parent
LONGEST = 3.0  # times what the tests take as it is: a mutant that takes longer waits for ever

_LOADS = ("tests/core/test_loading.py", "tests/core/test_ports.py")
_FACES = ("tests/faces", "tests/test_decorator.py")
_MEMORY = ("tests/test_memory.py", "tests/core/test_tickets.py")
_POLICIES = ("tests/test_policies.py", "tests/test_memory.py")
TESTS = {
    "layercache/core/tickets.py": ("tests/core/test_tickets.py",),
    "layercache/core/outbox.py": ("tests/core/test_outages.py",),
    "layercache/core/flights.py": _LOADS,
    "layercache/core/holding.py": ("tests/core/test_holding.py", *_LOADS),
    "layercache/core/leading.py": _LOADS,
    "layercache/core/loading.py": _LOADS,
    "layercache/core/leases.py": ("tests/core",),
    "layercache/core/layer.py": ("tests/core", *_FACES),
    "layercache/core/context.py": (
        "tests/core/test_what_loaders_want.py",
        *_LOADS,
        "tests/test_decorator.py",
    ),
    "layercache/core/policy.py": (*_FACES, *_LOADS, "tests/settings"),
    "layercache/core/verbs.py": (*_FACES, "tests/core/test_tickets.py"),
    "layercache/core/changes.py": _FACES,
    "layercache/core/times.py": ("tests/core/test_counted.py", "tests/test_windows.py"),
    "layercache/core/stats.py": ("tests/core/test_counted.py", "tests/test_windows.py", *_FACES),
    "layercache/core/warming.py": ("tests/test_warming.py",),
    "layercache/core/explaining.py": ("tests/test_explain.py",),
    "backends/layercache_memory/space.py": _MEMORY,
    "backends/layercache_memory/storage.py": _MEMORY,
    "backends/layercache_memory/deadlines.py": _MEMORY,
    "backends/layercache_memory/curve.py": ("tests/test_curve.py",),
    "backends/layercache_memory/policies/lazy_tinylfu.py": _POLICIES,
    "backends/layercache_memory/policies/lru.py": _POLICIES,
    "backends/layercache_memory/policies/s3_fifo.py": _POLICIES,
    "backends/layercache_memory/policies/sketch.py": _POLICIES,
    "backends/layercache_memory/policies/ghosts.py": _POLICIES,
}
"""By file, the tests that are to see what is wrong with it: those that take seconds together."""

SLOW = (
    "redis",
    "of_a_process",
    "two_processes",
    "each_other",
    "any_order",
    "every_order",
    "to_all_while",
    "strands_nobody",
    "leaves_nothing_either",
    "nobody_boards",
    "memory_back",
    "ever_exceeded",
    "eight_threads",
    "the_index_holds",
    "Exact",
)
QUICK = " and ".join(f"not {name}" for name in SLOW)
"""Which of them: none that takes seconds by itself, or wants a server."""


def what_runs(source: str) -> str:
    """Return the tree of `source` without annotations, which are never run, and where `X | None` has most mutants."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
    return ast.dump(tree)


def mutants(source: str, most: int, chance: random.Random) -> list[str]:
    """Return at most so many mutants of `source`; each compiles, and what runs of it differs from all others."""
    mutating, plugins = (importlib.import_module(f"cosmic_ray.{name}") for name in ("mutating", "plugins"))
    parsing = importlib.import_module("cosmic_ray.ast")
    nodes = list(parsing.ast_nodes(parsing.get_ast(source)))
    operators = {
        name: plugins.get_operator(name)()
        for name in sorted(plugins.operator_names())
        if not name.endswith(("VariableInserter", "VariableReplacer"))  # which have to be told of variables
    }
    places = [
        (operator, number)
        for operator in operators.values()
        for number in range(sum(len(list(operator.mutation_positions(node))) for node in nodes))
    ]
    chance.shuffle(places)
    found = {what_runs(source): source}
    for operator, number in places:
        if len(found) > most:
            break
        mutant = mutating.mutate_code(source, operator, number)
        try:
            found.setdefault(what_runs(mutant), mutant)
        except SyntaxError:
            continue
    return list(found.values())[1:]


def survives(file: Path, mutant: str, tests: Sequence[str], seconds: float) -> bool:
    """Whether all `tests` pass within `seconds` where `file` is `mutant`."""
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        os._exit(_passes(file, mutant, tests))
    end = time.monotonic() + seconds
    over, status = os.waitpid(child, os.WNOHANG)
    while not over and time.monotonic() < end:
        time.sleep(0.02)
        over, status = os.waitpid(child, os.WNOHANG)
    if not over:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return bool(over) and status == 0


def _passes(file: Path, mutant: str, tests: Sequence[str]) -> int:
    get_code = SourceFileLoader.get_code

    def mutated(loader: SourceFileLoader, name: str) -> CodeType | None:
        if Path(loader.path).resolve() == file:
            return compile(mutant, loader.path, "exec")
        return get_code(loader, name)

    SourceFileLoader.get_code = mutated  # type: ignore[method-assign]
    return _pytest("-x", "-m", "not slow", "-k", QUICK, *tests)


def _pytest(*arguments: str) -> int:
    """Run pytest without a word; `plain`, as the rewriting of asserts would import our modules itself."""
    sys.stdout.flush()
    nowhere, told = os.open(os.devnull, os.O_WRONLY), os.dup(1)
    os.dup2(nowhere, 1)
    try:
        return int(pytest.main(["-q", "--assert=plain", "-p", "no:cacheprovider", *arguments]))
    finally:
        os.dup2(told, 1)


def warm() -> None:
    """Import what the tests do, and forget what is ours of it."""
    _pytest("--collect-only", "tests/core", "tests/faces")
    for name, module in list(sys.modules.items()):
        origin = Path(getattr(module, "__file__", None) or "/")
        if name != "__main__" and origin.is_relative_to(ROOT) and not origin.is_relative_to(ROOT / ".venv"):
            del sys.modules[name]


def main() -> None:
    parser = argparse.ArgumentParser(description="Look for what can be broken without a test seeing it.")
    parser.add_argument("files", nargs="*", default=list(TESTS))
    parser.add_argument("--sample", type=int, default=20, help="mutants of each file")
    parser.add_argument("--seed", type=int, default=8)
    chosen = parser.parse_args()
    os.chdir(ROOT)
    warm()
    for name in chosen.files:
        look(name, chosen.sample, random.Random(chosen.seed))


def look(name: str, most: int, chance: random.Random) -> None:
    """Try the mutants of one file; say which survive, and how many were tried."""
    file, tests = ROOT / name, TESTS[name]
    source = file.read_text()
    began = time.monotonic()
    if not survives(file, source, tests, 600.0):
        raise SystemExit(f"the tests of {name} fail as it is")
    seconds = 10.0 + LONGEST * (time.monotonic() - began)
    sample = mutants(source, most, chance)
    survivors = 0
    for mutant in sample:
        if survives(file, mutant, tests, seconds):
            survivors += 1
            lines = difflib.unified_diff(source.splitlines(), mutant.splitlines(), n=1, lineterm="")
            print("\n".join(list(lines)[2:]), flush=True)  # noqa: T201
    print(f"{name}: {survivors} of {len(sample)} survive", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
