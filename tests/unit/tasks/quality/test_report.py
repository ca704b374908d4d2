"""The task as a whole: slices, every kind of data, sampling that is said, pictures, refusals, and the text of it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from llm_os import plugins
from llm_os.client.quality_text import bar, written
from llm_os.errors import DataError
from llm_os.spec.resources import Capacity
from llm_os.tasks.context import Stopped

from .bed import described, prepared, real

GRANTED = Capacity(cpus=2, memory=2**33)
MESSAGES = [{"role": "user", "content": "what is it"}, {"role": "assistant", "content": "a test"}]
KINDS: dict[str, tuple[list[str] | None, dict[str, Any]]] = {
    "classification": (["negative", "positive"], {"label": "positive"}),
    "score": (None, {"label": 0.5}),
    "multi-label": (["a", "b"], {"labels": ["a"]}),
    "tokens": (["B", "O"], {"tokens": ["we", "go"], "tags": ["O", "B"]}),
    "text": (None, {}),
    "pairs": (None, {"other": "quite the same", "score": 0.9}),
    "chat": (None, {"messages": MESSAGES}),
    "preference": (None, {"prompt": MESSAGES[:1], "chosen": "a good answer", "rejected": "no"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_data_of_every_kind_is_described(tmp_path: Path, kind: str) -> None:
    labels, columns = KINDS[kind]
    rows = [{"text": row["text"], **columns} for row in real("en", 30)]
    bed = described(tmp_path, {"train": rows, "test": rows[:4]}, {"kind": kind, "labels": labels})
    assert (bed.quality.kind, bed.quality.rows) == (kind, 34)
    assert bed.quality.copies.leaking > 0
    assert (bed.quality.score is not None) == (kind == "score")
    assert bool(bed.quality.classes) == (labels is not None)
    assert written(bed.quality).startswith("planted: 34 rows (train 30, test 4)")


def test_a_slice_is_described_by_its_own_rows(tmp_path: Path) -> None:
    rows = real("en", 60)
    rows[25]["text"] = "mail jane.doe@example.org"
    bed = described(tmp_path, {"train": rows, "test": real("zh", 10)}, split="train", start=20, stop=30)
    assert (bed.quality.rows, bed.quality.start) == (10, 20)
    assert sum(bed.quality.classes["train"].values()) == 10
    assert [sample.at.row for sample in bed.quality.personal.samples] == [5]
    assert written(bed.quality).startswith("planted: 10 of 60 rows of the split 'train'")


def test_rows_beyond_the_limit_are_sampled_and_it_is_said(tmp_path: Path) -> None:
    bed = described(tmp_path, {"train": real("en", 500)}, most=100, most_labels=170)
    assert bed.quality.sampled == {"languages": 100, "texts": 100, "personal": 100, "labels": 167}
    assert bed.quality.languages is not None
    assert bed.quality.languages.looked_at == bed.quality.personal.looked_at == bed.quality.copies.compared == 100
    assert bed.quality.doubts is not None
    assert bed.quality.doubts.looked_at == 167
    assert sum(bed.quality.classes["train"].values()) == 500
    assert "Not all rows were looked at for: languages 100, texts 100" in written(bed.quality)


def test_the_report_is_the_result_and_progress_is_told(tmp_path: Path) -> None:
    bed = described(tmp_path, {"train": real("en", 200)}, pictures=True)
    result = next(report for report in bed.reports if report.kind == "result")
    assert result.values["quality"]["rows"] == 200  # type: ignore[index,call-overload]
    stages = {str(report.values.get("stage")) for report in bed.reports if report.kind == "progress"}
    assert {"reading", "comparing texts", "judging the labels", "drawing"} <= stages


@pytest.mark.parametrize("language", ["en", "zh"])
def test_pictures_are_small_and_of_the_size_of_a_page(tmp_path: Path, language: str) -> None:
    rows = real(language, 300)
    for row in rows:
        row["label"] = {"positive": "正面", "negative": "负面"}[row["label"]]
    bed = described(
        tmp_path, {"train": rows}, {"language": language, "labels": ["负面", "正面"]}, labels=False, pictures=True
    )
    assert {path.name for path in bed.output.glob("*.png")} == {
        "report.png",
        "classes.png",
        "lengths.png",
        "languages.png",
    }
    for path in bed.output.glob("*.png"):
        content = path.read_bytes()
        width, height = struct.unpack(">2I", content[16:24])
        assert 500 < width < 1200
        assert 200 < height < 1500
        assert len(content) < 100_000


def test_what_cannot_be_described_is_refused_with_a_cure(tmp_path: Path) -> None:
    task = plugins.load("task", "datasets/report")
    data = prepared(tmp_path / "data", {"train": real("en", 4)})
    with pytest.raises(DataError, match="There is no split 'trian'") as caught:
        task.resources(task.Options(split="trian"), {"data": data.facts}, GRANTED)
    assert "train" in caught.value.hint
    model = data.facts.model_copy(update={"kind": "model"})
    with pytest.raises(DataError, match="not a data set"):
        task.resources(task.Options(), {"data": model}, GRANTED)
    with pytest.raises(DataError, match="no row to describe"):
        described(tmp_path / "none", {"train": real("en", 4)}, split="train", start=4)


def test_a_report_stops_when_it_is_asked_to(tmp_path: Path) -> None:
    from llm_os.tasks.context import Context

    folders = {name: tmp_path / name for name in ("output", "checkpoints", "scratch")}
    for folder in folders.values():
        folder.mkdir()
    context = Context(inputs={"data": prepared(tmp_path / "data", {"train": real("en", 50)})}, **folders)
    context.request_stop()
    task = plugins.load("task", "datasets/report")
    with pytest.raises(Stopped):
        task.run(context, task.Options())


def test_bars_are_exact_to_an_eighth() -> None:
    assert [bar(share, 2).rstrip() for share in (0, 1 / 16, 0.5, 1)] == ["", "▏", "█", "██"]
