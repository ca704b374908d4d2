"""The tutorials run word for word, Python and commands, and print lines of the form that they show."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from llm_os.testing.place import Place

from .run_page import BLOCK

pytestmark = [pytest.mark.net, pytest.mark.slow, pytest.mark.timeout(900)]

HERE = Path(__file__).parent
FOLDER = HERE.parent.parent / "docs" / "tutorials"
RUN = ("own-csv", "chinese-reviews")
"""Pages that are small enough to run as they stand."""


@pytest.fixture
def env(place: Place, stock: Callable[[str, Place], None]) -> dict[str, str]:
    """Of a home of its own that has the pages' model, in a terminal of the width that they show."""
    stock("transformer", place)
    return {**place.env, "COLUMNS": "100"}


def form(line: str) -> str:
    """A line without its figures, bars and widths: what is the same on every machine.

    Other processors round otherwise: which side is ahead by a small difference, and how sure that is, may differ.
    """
    line = re.sub(r"(No difference is certain: )?[AB] is (ahead|better) by", "One is better by", line)
    line = re.sub(r"-?\d+(\.\d+)?", "0", line)
    line = re.sub(r"\b0 min 0 s\b", "0 s", re.sub(r"\bp [<=] 0", "p = 0", line))
    return re.sub(r"[\s█▉▊▋▌▍▎▏▁▂▃▄▅▆▇]+", " ", line).strip()


def unseen(page: str, printed: Sequence[str]) -> list[str]:
    """Lines that a page shows and its code, block by block and in that order, did not print."""
    blocks = BLOCK.findall(page)
    followed = [after[1] if after[0] == "text" else "" for _, after in pairwise([*blocks, ("", "")])]
    shown = [text for (language, _), text in zip(blocks, followed, strict=True) if language in {"python", "bash"}]
    assert len(shown) == len(printed) > 0
    missing = []
    for text, output in zip(shown, printed, strict=True):
        lines = iter([form(line) for line in output.splitlines()])
        missing += [line for line in text.splitlines() if form(line) not in lines]
    return missing


@pytest.mark.parametrize("page", RUN)
def test_the_code_of_a_tutorial_prints_what_it_shows(page: str, env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    command = [sys.executable, str(HERE / "run_page.py"), str(FOLDER / f"{page}.md")]
    done = subprocess.run(
        command, env=env, cwd=tmp_path / "work", capture_output=True, text=True, timeout=800, check=False
    )
    assert done.returncode == 0, done.stderr
    printed = [output for _, _, output in json.loads(done.stdout)]
    assert unseen((FOLDER / f"{page}.md").read_text(encoding="utf-8"), printed) == []


def test_a_line_that_is_not_printed_is_found() -> None:
    page = "```python\nrun()\n```\n\n```text\nAccuracy: 0.81\nLoss: 0.4\n```\n"
    assert unseen(page, ["some\nAccuracy: 0.79\nmore\nLoss: 1.5\n"]) == []
    assert unseen(page, ["Loss: 1.5\nAccuracy: 0.79\n"]) == ["Loss: 0.4"]
    assert unseen(page, ["Precision: 0.81\n"]) == ["Accuracy: 0.81", "Loss: 0.4"]


def test_every_tutorial_is_linked_from_both_readmes() -> None:
    for name in ("README.md", "README.zh-CN.md"):
        text = (FOLDER.parent.parent / name).read_text(encoding="utf-8")
        assert [page.name for page in FOLDER.glob("*.md") if f"docs/tutorials/{page.name}" not in text] == []
