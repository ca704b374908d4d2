"""Benchmarks are run by hand and seldom: what they take from the package must still be there when they are."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "benchmarks").rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT / "benchmarks")))
def test_the_names_that_a_benchmark_imports_are_there(file: Path) -> None:
    missing = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "llm_os":
            missing += [
                f"{node.module}.{alias.name}" for alias in node.names if not _there(str(node.module), alias.name)
            ]
    assert not missing


def _there(module: str, name: str) -> bool:
    if hasattr(importlib.import_module(module), name):
        return True
    try:
        importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True


def test_there_are_benchmarks() -> None:
    assert len(FILES) > 10
