"""How large our functions and files are, beside the code that we look up to: a mirror, not a law.

A function's size is its lines of code: its body without docstring, comments and blanks, and without those of functions
inside it. Run it anywhere: `python benchmarks/sizes.py`.
"""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
SOURCES = ("layercache", "backends")

# files, lines (of code), file median / max, function median / p90 / max, comment and docstring lines for one of code,
# tests : src; counted in the projects' own files, stored snapshots of 2025 and 2026
ANCHORS = """\
golang/groupcache        |  8 |   1,593  (1,035) | 154 /   502 | 4.5 / 14 /  35 | 0.36 | 0.7
sqlalchemy/dogpile.cache | 27 |   6,879  (2,966) |  93 / 1,928 |   3 / 15 /  85 | 1.05 | 0.55
psycopg/psycopg          | 83 | 22,539 (13,977) | 181 / 1,774 |   2 / 14 / 107 | 0.28 | 1.5
python-hyper/h11         | 11 |   2,568  (1,230) | 153 /   659 |   4 / 19 /  45 | 0.84 | 1.1
hynek/stamina            | 10 |   1,512          |  54 /   913 |   3 / 17 /  68 | 0.54 | 1.6
hynek/structlog          | 21 |   7,274          | 245 / 1,249 |   2 / 13 / 102 | 0.85 | 1.3
django core/cache        | 10 |   1,519  (1,049) | 144 /   405 |   3 / 10 /  81 | 0.22 | 2.1
ben-manes/caffeine       | 51 | 20,481 (12,666) | 182 / 4,992 |   1 / 14 / 145 | 0.45 | 3.9"""


class File(NamedTuple):
    """One file: its lines, those of code, those that explain, and the sizes of its functions by where they are."""

    at: str
    lines: int
    code: int
    words: int
    functions: dict[str, int]


def measured(path: Path) -> File:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    held: set[int] = set()
    comments: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        elif token.string.strip() and token.type != tokenize.ENDMARKER:
            held.update(range(token.start[0], token.end[0] + 1))
    docs = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    code = held - docs
    at = str(path.relative_to(ROOT))
    functions = {
        f"{at}:{node.lineno} {node.name}": len(own_lines(node) & code)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return File(at, len(text.splitlines()), len(code), len(docs | comments - held), functions)


def own_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[int]:
    """Return the lines of a function's body, those of functions inside it left out."""
    lines = set(range(function.body[0].lineno, (function.end_lineno or 0) + 1))
    for inner in ast.walk(function):
        if inner is not function and isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
            lines -= set(range(inner.lineno, (inner.end_lineno or 0) + 1))
    return lines


def measured_in(*folders: str) -> list[File]:
    return [measured(path) for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def longest(title: str, sizes: dict[str, int]) -> None:
    print(f"\n{title}")
    for at, size in sorted(sizes.items(), key=lambda each: -each[1])[:10]:
        print(f"{size:6,}  {at}")


def main() -> None:
    files, tests = measured_in(*SOURCES), measured_in("tests")
    functions = {at: size for file in files for at, size in file.functions.items()}
    code = sum(file.code for file in files)
    lines = [file.lines for file in files if file.lines]
    sizes = sorted(functions.values())
    print(
        "project                  | files | lines (code) | file median / max | fn median / p90 / max | doc | tests"
    )
    print(
        f"layercache               | {len(files)} | {sum(lines):,} ({code:,}) | {median(lines):g} / {max(lines):,} | "
        f"{median(sizes):g} / {quantiles(sizes, n=10)[-1]:g} / {sizes[-1]} | "
        f"{sum(file.words for file in files) / code:.2f} | {sum(file.lines for file in tests) / sum(lines):.2f}"
    )
    print(ANCHORS)
    longest("The longest functions, lines of code", functions)
    longest("The longest files, lines", {file.at: file.lines for file in files})


if __name__ == "__main__":
    main()
