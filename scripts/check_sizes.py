"""Fails when a source file or a function grew beyond what one reads at a sitting; `make check` runs it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ASKS_FOR_A_REASON = 400
"""Lines of a file; above it is listed."""
MOST_FILE_LINES = 600
MOST_FUNCTION_LINES = 60

ROOT = Path(__file__).parents[1]


def source_files(root: Path) -> list[Path]:
    """Python files below `src` that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src/*.py"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    return [root / line for line in listed.stdout.splitlines() if (root / line).exists()]


def long_functions(source: str) -> Iterator[tuple[str, int, int]]:
    """Name, first line and length of each function that is too long."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            length = node.end_lineno - node.lineno + 1
            if length > MOST_FUNCTION_LINES:
                yield node.name, node.lineno, length


def check(root: Path) -> tuple[list[str], list[str]]:
    """What is wrong, and what asks for a reason."""
    wrong, notes = [], []
    for path in source_files(root):
        source = path.read_text(encoding="utf-8")
        lines = len(source.splitlines())
        name = path.relative_to(root)
        if lines > MOST_FILE_LINES:
            wrong.append(f"{name}: {lines} lines, {MOST_FILE_LINES} at most; split it by what its parts know")
        elif lines > ASKS_FOR_A_REASON:
            notes.append(f"{name}: {lines} lines, above {ASKS_FOR_A_REASON}")
        for function, line, length in long_functions(source):
            wrong.append(f"{name}:{line}: {function} has {length} lines, {MOST_FUNCTION_LINES} at most")
    return wrong, notes


def main() -> int:
    wrong, notes = check(ROOT)
    for line in notes:
        print(f"note: {line}")
    for line in wrong:
        print(f"error: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
