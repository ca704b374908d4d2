"""The page on own data runs: its code, its command, and every way to name a source that needs no other machine."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import llm_os
from llm_os import session
from llm_os.tasks.datasets.sentic_data import read, select

from .run_page import BLOCK
from .without_kernel import WithoutKernel

PAGE = (Path(__file__).parent.parent.parent / "docs" / "how-to" / "own-data.md").read_text(encoding="utf-8")
STARS = {"positive": "5", "negative": "1"}


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Real rows, and the files of them that the page names."""
    monkeypatch.chdir(tmp_path)
    found = [{"review": str(r["text"]), "stars": STARS[str(r["label"])]} for r in select(read("en"), 2)[0][::160]]
    renamed = [{"text": row["review"], "label": row["stars"]} for row in found]
    for name, part in {"reviews": found, "train": renamed[:70], "test": renamed[70:]}.items():
        with (tmp_path / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(part[0]))
            table.writeheader()
            table.writerows(part)
    (tmp_path / "folder").mkdir()
    shutil.copy(tmp_path / "train.csv", tmp_path / "folder" / "train-00000-of-00001.csv")
    shutil.copy(tmp_path / "test.csv", tmp_path / "folder" / "test.csv")
    for number, row in enumerate(found):
        (tmp_path / "reviews" / row["stars"]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "reviews" / row["stars"] / f"{number}.txt").write_text(row["review"], encoding="utf-8")
    return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WithoutKernel:
    here = WithoutKernel(tmp_path / "jobs", {})
    monkeypatch.setattr(session, "connect", lambda: here)
    return here


def names(rows: list[dict[str, str]]) -> dict[str, Any]:
    """What the blocks take for granted."""
    return {
        "llm_os": llm_os,
        "texts": [row["review"] for row in rows],
        "stars": [row["stars"] for row in rows],
        "reviews": [SimpleNamespace(text=row["review"], stars=row["stars"]) for row in rows],
    }


def test_the_code_of_the_page_runs(
    rows: list[dict[str, str]], place: WithoutKernel, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = [code for language, code in BLOCK.findall(PAGE) if language == "python"]
    assert len(blocks) == PAGE.count("```python") == 2
    known = names(rows)
    for block in blocks:
        exec(compile(block, "own-data.md", "exec"), known)
        train, test = known["train_data"], known["test_data"]
        came = {row["text"] for part in (train, test) for row in part}
        assert len(came & {row["review"] for row in rows}) > 0.9 * len(rows)  # the others were cleaned
        assert (len(train) + len(test), train.labels) == (len(rows), ("1", "5"))
    assert "Classes " in capsys.readouterr().out
    assert [job.task for job in place.jobs].count("datasets/report") == 1


def test_the_command_of_the_page_runs(
    rows: list[dict[str, str]], place: WithoutKernel, capsys: pytest.CaptureFixture[str]
) -> None:
    from llm_os.cli.main import Verbs

    (line,) = re.findall(r"`(llm-os [^`]*)`", PAGE)
    assert Verbs("llm-os").main(shlex.split(line)[1:], standalone_mode=False) == 0
    assert capsys.readouterr().out.startswith(f"reviews: {len(rows)} rows")


LOCAL = [call for call in re.findall(r"`(load_data\([^`]*\))`", PAGE) if re.search(r'"(folder|reviews)/"|csv', call)]
"""Those of files and folders; a hub, a database and what `datasets` saved are tested with the sources."""


@pytest.mark.parametrize("call", LOCAL)
def test_the_sources_of_the_table_load(rows: list[dict[str, str]], place: WithoutKernel, call: str) -> None:
    where = call
    if call == 'load_data("reviews.csv")':  # the column of the labels has no usual name in our file
        where = 'load_data("reviews.csv", label="stars")'
    train, test = eval(where, {"load_data": llm_os.load_data})
    assert len(train) + len(test) == len(rows)
