"""Languages, lengths, columns and faults of texts: planted ones are found, real texts are not maligned."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))
from tiny import tiny_model

from .bed import Bed, described, prepared, real


def test_rows_of_another_language_are_counted_and_named(tmp_path: Path) -> None:
    rows = real("en", 400)
    foreign = [
        "Der Film war leider viel zu lang und die Schauspieler wirkten müde.",
        "Nous avons beaucoup aimé ce livre, il est drôle et très bien écrit.",
        *(row["text"] for row in real("zh", 8)),
    ]
    rows += [{"text": text, "label": "positive"} for text in foreign]
    bed = described(tmp_path, {"train": rows}, labels=False)
    languages = bed.quality.languages
    assert languages is not None
    assert (languages.counts["zh"], languages.counts["de"], languages.counts["fr"]) == (8, 1, 1)
    assert next(iter(languages.counts)) == "en"
    assert languages.counts["en"] + languages.counts.get("unknown", 0) >= 398
    assert {at.row for at in languages.others} >= {400, 401}
    assert any("Another language than 'en'" in sentence for sentence in bed.sentences)


def test_data_that_is_called_by_another_language_is_a_warning(tmp_path: Path) -> None:
    bed = described(tmp_path, {"train": real("zh", 200)}, {"language": "en"}, labels=False)
    assert "The data is called 'en', but most texts are 'zh'." in bed.sentences
    assert bed.quality.languages is not None
    assert bed.quality.languages.counts["zh"] >= 196


def test_lengths_are_counted_in_characters_and_words_of_the_language(tmp_path: Path) -> None:
    lengths = described(tmp_path / "a", {"train": [{"text": "It isn't good!", "label": "x"}] * 3}).quality.lengths
    assert (lengths["characters"].max, lengths["words"].max) == (14, 3)
    chinese = described(tmp_path / "b", {"train": [{"text": "这本书很好看。", "label": "x"}]}).quality.lengths
    assert chinese["characters"].max == 7
    assert 3 <= chinese["words"].max <= 5
    real_ones = described(tmp_path / "c", {"train": real("en", 500)}, labels=False).quality.lengths["words"]
    assert sum(real_ones.counts) == 500
    assert len(real_ones.edges) == len(real_ones.counts) + 1
    assert real_ones.min <= real_ones.p25 <= real_ones.p50 <= real_ones.p95 <= real_ones.max <= real_ones.edges[-1]


def test_tokens_are_those_of_the_model_that_is_named(tmp_path: Path) -> None:
    rows = [{"text": "good film", "label": "positive"}] * 5 + [{"text": "very " * 40, "label": "negative"}]
    inputs = {"data": prepared(tmp_path / "data", {"train": rows}), "model": tiny_model(tmp_path / "model")}
    bed = Bed(tmp_path / "run", inputs, model_name="tiny@1", pictures=False)
    assert (bed.quality.lengths["tokens"].min, bed.quality.lengths["tokens"].max) == (4, 42)
    assert (bed.quality.context_length, bed.quality.too_long) == (32, 1)
    assert "More than the 32 tokens that tiny@1 reads: 1 row; the rest of a text is cut off." in bed.sentences


def test_empty_and_constant_columns_are_named(tmp_path: Path) -> None:
    rows = [{**row, "source": "shop", "note": " ", "number": i} for i, row in enumerate(real("en", 50))]
    bed = described(tmp_path, {"train": rows}, {"empty_columns": ["remark"]})
    assert "Columns without a value: 'remark', 'note'." in bed.sentences
    assert "Column 'source' is 'shop' in all rows." in bed.sentences
    columns = {column.name: column for column in bed.quality.columns}
    assert (columns["number"].filled, columns["number"].distinct, columns["number"].constant) == (50, 50, None)
    assert columns["note"].filled == 0


FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("classification", {"text": "a <b>fine</b> film", "label": "positive"}, "HTML"),
    ("classification", {"text": "fish &amp; chips", "label": "positive"}, "HTML"),
    ("classification", {"text": "a caf\u00c3\u00a9 in town", "label": "positive"}, "Broken encoding"),
    ("classification", {"text": "it\u00e2\u20ac\u2122s good", "label": "positive"}, "Broken encoding"),
    ("classification", {"text": "a\x07bell", "label": "positive"}, "Control characters"),
    ("classification", {"text": "ok", "label": "positive"}, "Fewer than 3 characters"),
    ("multi-label", {"text": "a long film", "labels": []}, "No label"),
    ("tokens", {"tokens": ["a", "b"], "tags": ["O", "I-LOC"]}, "Tags out of order"),
    ("pairs", {"text": "one side", "other": "one side"}, "The same text on both sides"),
    (
        "chat",
        {"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": "y"}]},
        "Two messages of one role in a row",
    ),
    (
        "chat",
        {"messages": [{"role": "user", "content": " "}, {"role": "assistant", "content": "yes"}]},
        "An empty message",
    ),
]
SOUND: dict[str, dict[str, Any]] = {
    "classification": {"text": "3 < 4 & 5 > 2, says the café <owner>", "label": "negative"},
    "multi-label": {"text": "an even longer film", "labels": ["x"]},
    "tokens": {"tokens": ["c", "d", "e"], "tags": ["B-LOC", "I-LOC", "O"]},
    "pairs": {"text": "one side", "other": "the other side", "score": 0.5},
    "chat": {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hello to you"}]},
}


@pytest.mark.parametrize(("kind", "row", "name"), FAULTS)
def test_faults_are_named_and_sound_rows_are_not(tmp_path: Path, kind: str, row: dict[str, Any], name: str) -> None:
    labels = {"classification": ["negative", "positive"], "multi-label": ["x"], "tokens": ["B-LOC", "I-LOC", "O"]}
    bed = described(tmp_path, {"train": [SOUND[kind], row]}, {"kind": kind, "labels": labels.get(kind)})
    assert [(fault.name.startswith(name), fault.rows) for fault in bed.quality.faults] == [(True, 1)]
    assert [at.row for at in bed.quality.faults[0].examples] == [1]
    assert f"{bed.quality.faults[0].name}: 1 row." in bed.sentences


def test_a_preference_for_length_is_named(tmp_path: Path) -> None:
    rows = [
        {"prompt": [{"role": "user", "content": f"question {i}"}], "chosen": "a long answer" * 3, "rejected": f"no {i}"}
        for i in range(30)
    ]
    bed = described(tmp_path, {"train": rows}, {"kind": "preference", "labels": None})
    assert "The chosen answer is the longer one: 30 rows." in bed.sentences


def test_uneven_rare_and_drifting_classes_are_named(tmp_path: Path) -> None:
    rows = real("en", 400)
    few = [row for row in rows if row["label"] == "positive"][:5] + [row for row in rows if row["label"] == "negative"]
    bed = described(
        tmp_path, {"train": few, "test": rows[:100]}, {"labels": ["negative", "neutral", "positive"]}, labels=False
    )
    said = "\n".join(bed.sentences)
    assert "'train' has no row of 'neutral'." in said
    assert "Classes of 'train' with fewer than 10 rows: 'positive' (5)." in said
    assert "Classes of 'train' are uneven: 'negative' has 40 times the rows of 'positive'." in said
    assert "'negative' is 97.6 % of 'train' and 50.0 % of 'test'." in said
