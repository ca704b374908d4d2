"""The shipped data is what its card says, on every machine."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from llm_os import plugins
from llm_os.errors import DataError
from llm_os.tasks.context import Context
from llm_os.tasks.preparation.near import normal_form

ROOT = Path(__file__).parents[4]
Shipped = Callable[[str], Path]


def prepare(root: Path, **options: Any) -> dict[str, Any]:
    for name in ("output", "checkpoints", "scratch"):
        (root / name).mkdir(parents=True)
    context = Context(inputs={}, output=root / "output", checkpoints=root / "checkpoints", scratch=root / "scratch")
    task = plugins.load("task", "datasets/sentic_data")
    task.run(context, task.Options.model_validate(options))
    return told(root)


def told(root: Path) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads((root / "output" / "artifact.json").read_text())["meta"]
    return meta


def rows(root: Path, split: str) -> list[dict[str, Any]]:
    lines = (root / "output" / split / "rows.jsonl").read_bytes().split(b"\n")
    return [json.loads(line) for line in lines if line]


def test_english_has_15759_texts_in_two_classes(shipped: Shipped) -> None:
    meta = told(shipped("en"))
    train, test = meta["splits"]["train"], meta["splits"]["test"]
    assert train["rows"] + test["rows"] == 15_759
    assert {name: train["classes"][name] + test["classes"][name] for name in meta["labels"]} == {
        "negative": 7_301,
        "positive": 8_458,
    }
    assert all(abs(row["score"]) >= 1 for split in ("train", "test") for row in rows(shipped("en"), split))


def test_less_clear_ratings_are_taken_where_that_is_asked_for(tmp_path: Path) -> None:
    meta = prepare(tmp_path, least=0.5, limit=2000)
    scores = [abs(row["score"]) for split in ("train", "test") for row in rows(tmp_path, split)]
    assert 0.5 <= min(scores) < 1
    assert sum(0.5 <= score < 1 for score in scores) > 100
    assert meta["labels"] == ["negative", "positive"]


def test_weak_ratings_are_for_training_only_and_leave_the_test_as_it_is(tmp_path: Path, shipped: Shipped) -> None:
    plain, more = told(shipped("en")), prepare(tmp_path, weak=0.2)
    assert more["splits"]["test"] == plain["splits"]["test"]
    before, after = (rows(root, "train") for root in (shipped("en"), tmp_path))
    added = [row for row in after if abs(row["score"]) < 1]
    assert {row["id"] for row in before} == {row["id"] for row in after} - {row["id"] for row in added}
    assert 5_000 < len(added) == len(after) - len(before)
    assert min(abs(row["score"]) for row in added) >= 0.2
    assert more["left_out"]["training rows like a test row"] >= 1
    forms = {normal_form(row["text"]) for row in rows(tmp_path, "test")}
    assert not forms & {normal_form(row["text"]) for row in added}


@pytest.mark.parametrize("options", [{"labels": 3}, {"language": "zh"}, {"labels": "score"}, {"least": 0.5}])
def test_weak_is_refused_where_it_adds_nothing(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"weak=0\.6 adds no rows"):
        prepare(tmp_path, weak=0.6, **options)


def test_the_split_is_the_same_on_every_machine(shipped: Shipped) -> None:
    meta = told(shipped("en"))
    assert meta["splits"]["train"]["fingerprint"] == (
        "sha256:903c951cb6af5f2e7a206e8991fdb6d74a921ba5ea0c4d556b9cf42b33a740bd"
    )
    assert meta["splits"]["test"]["fingerprint"] == (
        "sha256:e40516c9e689d9fefad3c5a3b4f426100af10073313838710ccef99bc268ddc4"
    )


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_text_is_on_both_sides_and_classes_are_in_proportion(shipped: Shipped, language: str) -> None:
    meta = told(shipped(language))
    train, test = ({normal_form(row["text"]) for row in rows(shipped(language), split)} for split in ("train", "test"))
    assert train.isdisjoint(test)
    for name in meta["labels"]:
        held = meta["splits"]["test"]["classes"][name]
        whole = held + meta["splits"]["train"]["classes"][name]
        assert abs(held - 0.2 * whole) <= 2


def test_chinese_has_17360_lines_without_duplicates(shipped: Shipped) -> None:
    meta = told(shipped("zh"))
    both = [*rows(shipped("zh"), "train"), *rows(shipped("zh"), "test")]
    assert meta["splits"]["train"]["duplicates"] == meta["splits"]["test"]["duplicates"] == 0
    assert len({normal_form(row["text"]) for row in both}) == len(both)
    assert len(both) == 17_360


def test_three_classes_and_scores(tmp_path: Path) -> None:
    assert prepare(tmp_path / "three", labels=3)["labels"] == ["negative", "neutral", "positive"]
    scores = prepare(tmp_path / "score", labels="score")
    assert scores["labels"] is None
    assert scores["task"] == "regression"


def test_chinese_has_no_ratings(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two classes and no ratings"):
        prepare(tmp_path, language="zh", labels=3)


def test_a_limit_takes_so_many_in_proportion(tmp_path: Path) -> None:
    meta = prepare(tmp_path, limit=500)
    assert abs(meta["splits"]["train"]["rows"] + meta["splits"]["test"]["rows"] - 500) <= 2


def test_any_row_is_found_by_its_offset(tmp_path: Path) -> None:
    prepare(tmp_path, limit=100)
    folder = tmp_path / "output" / "test"
    data, index = (folder / "rows.jsonl").read_bytes(), (folder / "rows.idx").read_bytes()
    offsets = struct.unpack(f"<{len(index) // 8}Q", index)
    assert offsets[-1] == len(data)
    found = [json.loads(data[a:b]) for a, b in pairwise(offsets)]
    assert found == rows(tmp_path, "test")


def test_the_card_in_the_documents_is_the_one_that_ships() -> None:
    shipped = ROOT / "src" / "llm_os" / "tasks" / "datasets" / "data" / "CARD.md"
    assert (ROOT / "docs" / "reference" / "data-card-sentic_data.md").read_text() == shipped.read_text()
