"""The size check sees what is too long."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def check_sizes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_sizes", ROOT / "scripts" / "check_sizes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def body(lines: int) -> str:
    return "".join(f"    x = {n}\n" for n in range(lines))


def test_finds_long_functions_also_inside_others(check_sizes: ModuleType) -> None:
    assert list(check_sizes.long_functions("def short():\n" + body(59))) == []
    assert list(check_sizes.long_functions("\nasync def long():\n" + body(60))) == [("long", 2, 61)]
    nested = "class A:\n  def f(self):\n" + body(60)
    assert list(check_sizes.long_functions(nested)) == [("f", 2, 61)]


def test_lists_long_files_and_refuses_very_long_ones(check_sizes: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    for name, lines in (("fine", 400), ("long", 401), ("huge", 601)):
        (tmp_path / "src" / f"{name}.py").write_text("x = 1\n" * lines)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    wrong, notes = check_sizes.check(tmp_path)
    assert [line.split(":")[0] for line in wrong] == ["src/huge.py"]
    assert [line.split(":")[0] for line in notes] == ["src/long.py"]
