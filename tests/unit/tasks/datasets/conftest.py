"""The shipped data as it is prepared without options: once a run, for all tests that only read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llm_os import plugins
from llm_os.tasks.context import Context


@pytest.fixture(scope="session")
def shipped(once: Callable[[str, Callable[[Path], None]], Path]) -> Callable[[str], Path]:
    """The folder of a language; its artifact lies in `output`. Do not write into it."""

    def folder(language: str) -> Path:
        def make(root: Path) -> None:
            paths = {name: root / name for name in ("output", "checkpoints", "scratch")}
            for path in paths.values():
                path.mkdir()
            task = plugins.load("task", "datasets/sentic_data")
            task.run(Context(inputs={}, **paths), task.Options(language=language))

        return once(f"sentic-{language}", make)

    return folder
