"""Planted wrong labels of real texts are found, most of them among the first; what cannot be judged is left alone."""

from __future__ import annotations

import random
from pathlib import Path

import numpy
import pytest

from llm_os.spec.quality import RowRef
from llm_os.tasks.datasets.sentic_data import read, select
from llm_os.tasks.quality.labels import MOST_CHARACTERS, READ, Sheet, confident

from .bed import described, real


@pytest.mark.parametrize(("language", "among_flagged", "at_twice"), [("en", 0.5, 0.45), ("zh", 0.5, 0.5)])
def test_planted_wrong_labels_are_found(tmp_path: Path, language: str, among_flagged: float, at_twice: float) -> None:
    rows = real(language, 1600)
    wrong = set(random.Random(1).sample(range(len(rows)), 80))
    for number in wrong:
        rows[number]["label"] = {"positive": "negative", "negative": "positive"}[rows[number]["label"]]
    bed = described(tmp_path, {"train": rows}, {"language": language}, suspicious=10_000)
    doubts = bed.quality.doubts
    assert doubts is not None
    flagged = [doubt.at.row for doubt in doubts.rows]
    assert len(flagged) == doubts.count < 0.2 * len(rows)
    assert len(wrong & set(flagged)) >= among_flagged * len(wrong)
    assert len(wrong & set(flagged[: 2 * len(wrong)])) >= at_twice * len(wrong), "four times what chance would find"
    assert all(doubt.label != doubt.likely and doubt.margin < 0 for doubt in doubts.rows)
    assert [doubt.margin for doubt in doubts.rows] == sorted(doubt.margin for doubt in doubts.rows)
    assert any(sentence.startswith(f"Doubtful labels: {doubts.count:,}") for sentence in bed.sentences)


def test_planted_wrong_labels_of_three_classes_are_found(tmp_path: Path) -> None:
    names = ["negative", "neutral", "positive"]
    rows = [dict(row) for row in select(read("en"), 3)[0]][::10]
    wrong = set(random.Random(3).sample(range(len(rows)), len(rows) // 20))
    for number in wrong:
        rows[number]["label"] = names[(names.index(str(rows[number]["label"])) + 1 + number % 2) % 3]
    bed = described(tmp_path, {"train": rows}, {"labels": names}, suspicious=10_000)
    doubts = bed.quality.doubts
    assert doubts is not None
    first = {doubt.at.row for doubt in doubts.rows[: 2 * len(wrong)]}
    assert len(first & wrong) >= 0.2 * len(wrong), "twice what chance would find"
    assert {doubt.likely for doubt in doubts.rows} == set(names)
    finding = next(finding for finding in bed.quality.findings if finding.check == "labels")
    assert doubts.agreement < 0.7
    assert finding.severity == "note"
    assert "which is little to go by" in finding.sentence


def test_a_row_is_doubtful_where_it_passes_the_bar_of_another_class() -> None:
    chances = numpy.asarray([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.15, 0.85], [0.45, 0.55]])
    given = numpy.asarray([0, 0, 0, 1, 1, 0])
    likely, margin, doubtful = confident(chances, given)
    assert doubtful.tolist() == [False, False, True, False, False, False], "0.55 is below the bar of class 1, 0.825"
    assert (likely[2], round(float(margin[2]), 2)) == (1, -0.8)


def test_planted_wrong_labels_of_several_are_found(tmp_path: Path) -> None:
    domains = {"movie": ["movie"], "amazon": ["product"]}
    rows = [
        {"text": row["text"], "labels": [row["label"], *domains.get(str(row.get("domain")), [])]}
        for row in real("en", 1000)
    ]
    wrong = random.Random(2).sample(range(len(rows)), 40)
    for number in wrong:
        old, new = ("positive", "negative") if "positive" in rows[number]["labels"] else ("negative", "positive")
        rows[number]["labels"] = [new if name == old else name for name in rows[number]["labels"]]
    names = sorted({name for row in rows for name in row["labels"]})
    bed = described(tmp_path, {"train": rows}, {"kind": "multi-label", "labels": names}, suspicious=10_000)
    doubts = bed.quality.doubts
    assert doubts is not None
    found = {doubt.at.row for doubt in doubts.rows if doubt.label.removeprefix("not ") in ("positive", "negative")}
    assert len(found & set(wrong)) >= 0.4 * len(wrong)
    assert {doubt.likely.removeprefix("not ") for doubt in doubts.rows} <= set(names)


def test_scores_far_from_what_their_text_says_are_doubtful(tmp_path: Path) -> None:
    rows = [{"text": row["text"], "label": 2.0 if row["label"] == "positive" else -2.0} for row in real("en", 1500)]
    for number in range(0, 1500, 100):
        rows[number]["label"] = 40.0
    bed = described(tmp_path, {"train": rows}, {"kind": "score", "labels": None})
    doubts = bed.quality.doubts
    assert doubts is not None
    assert {doubt.at.row for doubt in doubts.rows[:15]} == set(range(0, 1500, 100))
    assert bed.quality.score is not None
    assert bed.quality.score.max == 40


def test_a_wrong_tag_of_a_token_is_doubtful(tmp_path: Path) -> None:
    cities = ["Paris", "London", "Berlin", "Madrid"]
    rows = [
        {
            "tokens": ["we", "went", "to", cities[i % 4], "by", "train", "number", str(i)],
            "tags": ["O"] * 3 + ["B-LOC"] + ["O"] * 4,
        }
        for i in range(80)
    ]
    rows[7]["tags"] = ["O"] * 8
    doubts = described(tmp_path, {"train": rows}, {"kind": "tokens", "labels": ["B-LOC", "O"]}).quality.doubts
    assert doubts is not None
    first = doubts.rows[0]
    assert (first.at.row, first.label, first.likely, first.excerpt) == (7, "O", "B-LOC", "token 3: Madrid")


def test_too_few_rows_for_an_opinion_give_none(tmp_path: Path) -> None:
    assert described(tmp_path / "a", {"train": real("en", 12)}).quality.doubts is None
    assert described(tmp_path / "b", {"train": real("en", 100)}, labels=False).quality.doubts is None
    assert (
        described(tmp_path / "c", {"train": real("en", 100)}, {"kind": "text", "labels": None}).quality.doubts is None
    )


def test_long_texts_are_read_in_part_and_only_so_many_of_them() -> None:
    sheet = Sheet()
    while not sheet.full:
        sheet.add(RowRef(split="train", row=sheet.rows), "word " * 10_000, "x", "", "unit")
    assert sheet.rows == -(-MOST_CHARACTERS // READ)
    assert {len(text) for text in sheet.texts} == {READ}
