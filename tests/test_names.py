"""What is public: each module says so in its `__all__`, and nobody uses of it what is not there."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from test_architecture import MODULES

# What makes a module's own: its log and its type variables, which have the names that everybody gives them.
OWN = {"getLogger", "ParamSpec", "TypeVar"}
TREES = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in MODULES.items()}
Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def defined(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """Yield the names that a module defines at its top, with what defines them; of overloads the last."""
    for node in tree.body:
        if isinstance(node, Documented):
            if "overload" not in map(ast.unparse, node.decorator_list):
                yield node.name, node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((target.id, node) for target in targets if isinstance(target, ast.Name))


def exported(tree: ast.Module) -> list[str]:
    return next((ast.literal_eval(node.value) for name, node in defined(tree) if name == "__all__"), [])


def is_own(node: ast.stmt) -> bool:
    value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    return isinstance(value, ast.Call) and ast.unparse(value.func).split(".")[-1] in OWN


@pytest.mark.parametrize("name", TREES)
def test_a_module_says_in_its_first_line_what_it_is_for(name: str) -> None:
    assert ast.get_docstring(TREES[name])


@pytest.mark.parametrize("name", TREES)
def test_what_is_not_in_all_begins_with_an_underscore(name: str) -> None:
    tree = TREES[name]

    public = {found for found, node in defined(tree) if not found.startswith("_") and not is_own(node)}

    assert public <= set(exported(tree))


@pytest.mark.parametrize("name", TREES)
def test_nobody_imports_from_a_module_what_it_does_not_export(name: str) -> None:
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom) and node.module in TREES:
            for alias in node.names:
                is_module = f"{node.module}.{alias.name}" in TREES
                assert is_module or alias.name in {*exported(TREES[node.module]), "__version__"}, node.module


@pytest.mark.parametrize("name", TREES)
def test_what_is_exported_is_documented(name: str) -> None:
    """A method as well, unless one of its name is elsewhere, or its twin is: what it promises is the same then."""
    exports = exported(TREES[name])
    for found, node in defined(TREES[name]):
        if found in exports and isinstance(node, Documented):
            assert ast.get_docstring(node), found
            for method in methods(node) if isinstance(node, ast.ClassDef) else ():
                assert {method, method.removeprefix("a")} & PROMISED, f"{found}.{method}"


def methods(node: ast.ClassDef, *, with_docstring: bool = False) -> Iterator[str]:
    """Yield the names of the public methods of a class; those of tests are facts, and say all."""
    for method in node.body:
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
            is_public = not method.name.startswith(("_", "test_"))
            if is_public and (ast.get_docstring(method) or not with_docstring):
                yield method.name


PROMISED = {
    method
    for tree in TREES.values()
    for node in ast.walk(tree)
    if isinstance(node, ast.ClassDef)
    for method in methods(node, with_docstring=True)
}
