"""Every way to divide real rows keeps its promise: groups whole, the newest last, each row tested once, no leak."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.tasks.datasets.bed import Done, prepare, real_rows

from llm_os import plugins
from llm_os.errors import ColumnNotFoundError, DataError, LeakError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.tasks.context import Context, InputFolder

ROWS = real_rows(80)


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_what_is_of_one_group_stays_on_one_side(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [{**row, "author": f"a{number % 12}"} for number, row in enumerate(ROWS)])
    done = prepare("datasets/table", tmp_path, path=path, split="grouped", group="author")
    authors = [{row["author"] for row in side} for side in (done.train, done.test)]
    assert authors[0].isdisjoint(authors[1])
    assert len(authors[0] | authors[1]) == 12
    assert 8 <= len(done.test) <= 24
    with pytest.raises(DataError, match="split='grouped' needs a column"):
        prepare("datasets/table", tmp_path, path=path, split="grouped")
    with pytest.raises(ColumnNotFoundError, match="has no 'writer'"):
        prepare("datasets/table", tmp_path, path=path, split="grouped", group="writer")


def test_the_newest_rows_are_the_test(tmp_path: Path) -> None:
    days = [f"2026-{1 + number * 7 % 12:02}-{1 + number * 5 % 28:02}" for number in range(len(ROWS))]
    path = written(tmp_path / "a.jsonl", [{**row, "at": day} for row, day in zip(ROWS, days, strict=True)])
    done = prepare("datasets/table", tmp_path, path=path, split="time", time="at")
    assert max(row["at"] for row in done.train) < min(row["at"] for row in done.test)
    assert done.texts == {row["text"] for row in ROWS}
    broken = written(tmp_path / "b.jsonl", [{**row, "at": "last spring"} for row in ROWS])
    with pytest.raises(DataError, match="'last spring' is no time"):
        prepare("datasets/table", tmp_path, path=broken, split="time", time="at")


def test_a_given_test_file_is_kept_and_shared_texts_are_refused_or_dropped(tmp_path: Path) -> None:
    train, test = written(tmp_path / "train.jsonl", ROWS[:60]), written(tmp_path / "test.jsonl", ROWS[50:])
    with pytest.raises(LeakError, match="10 training rows have an equal or nearly equal text in the test"):
        prepare("datasets/table", tmp_path, path=train, test=test)
    dropped = prepare("datasets/table", tmp_path, path=train, test=test, leaks="drop")
    assert {row["text"] for row in dropped.train} == {row["text"] for row in ROWS[:50]}
    kept = prepare("datasets/table", tmp_path, path=train, test=test, leaks="keep")
    for done, count in ((dropped, 50), (kept, 60)):
        assert len(done.train) == count
        assert {row["text"] for row in done.test} == {row["text"] for row in ROWS[50:]}


def fold(root: Path, data: InputFolder, number: int, **options: Any) -> Done:
    folder = root / f"fold-{number}-{len(options)}"
    for name in ("output", "checkpoints", "scratch"):
        (folder / name).mkdir(parents=True)
    places = {name: folder / name for name in ("output", "checkpoints", "scratch")}
    task = plugins.load("task", "datasets/fold")
    task.run(Context(inputs={"data": data}, **places), task.Options(folds=4, fold=number, **options))
    return Done(folder / "output", [])


def test_each_row_is_tested_in_one_fold_and_classes_are_in_proportion(tmp_path: Path) -> None:
    made = prepare("datasets/table", tmp_path, path=written(tmp_path / "a.jsonl", ROWS))
    meta = {"digest": "sha256:" + "1" * 64, "kind": "dataset", "size": 1, "meta": made.meta}
    data = InputFolder(next(tmp_path.glob("run-*/output")), ArtifactFacts.model_validate(meta))
    folds = [fold(tmp_path, data, number) for number in range(4)]
    tested = [row["text"] for done in folds for row in done.test]
    assert sorted(tested) == sorted(row["text"] for row in ROWS)
    share = sum(row["label"] == "positive" for row in ROWS) / len(ROWS)
    for done in folds:
        assert done.texts == {row["text"] for row in ROWS}
        assert abs(sum(row["label"] == "positive" for row in done.test) / len(done.test) - share) < 0.1
    only = fold(tmp_path, data, 0, rows="train")
    assert only.texts == {row["text"] for row in made.train}
