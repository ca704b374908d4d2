"""The wheel holds all that the package needs, and nothing of the tests."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "llm_os"
UNWANTED = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "*.pyc")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """Built from a copy, because building writes into the tree."""
    tree = tmp_path_factory.mktemp("tree")
    shutil.copytree(ROOT / "src", tree / "src", ignore=UNWANTED)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(out)]
    done = subprocess.run([*command, str(tree)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = out.glob("*.whl")
    return zipfile.Path(file)


def names(wheel: zipfile.Path) -> set[str]:
    return set(wheel.root.namelist())


def test_holds_every_file_of_the_package(wheel: zipfile.Path) -> None:
    wanted = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }
    assert "llm_os/py.typed" in wanted
    assert not wanted - names(wheel)


def test_holds_nothing_else(wheel: zipfile.Path) -> None:
    assert {name.split("/")[0].partition("-")[0] for name in names(wheel)} == {"llm_os"}


def test_is_made_for_any_platform_and_brings_the_command(wheel: zipfile.Path) -> None:
    assert wheel.root.filename is not None
    assert wheel.root.filename.endswith("-py3-none-any.whl")
    (entry_points,) = (name for name in names(wheel) if name.endswith("entry_points.txt"))
    assert "llm-os = llm_os.cli.main:main" in wheel.root.read(entry_points).decode()
