"""Own files: the good ones are read, each bad one is named with row and cure."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from llm_os import plugins
from llm_os.errors import (
    ColumnNotFoundError,
    DataError,
    EmptyDataError,
    EncodingError,
    LLMOSError,
    NotFoundError,
    SingleClassError,
)
from llm_os.spec.attempts import Report
from llm_os.tasks.context import Context

GOOD = "text,label\n" + "".join(f"text number {i},{'good' if i % 2 else 'bad'}\n" for i in range(40))


def prepare(root: Path, path: Path, **options: Any) -> tuple[dict[str, Any], list[str]]:
    """The written meta, and the messages."""
    reports: list[Report] = []
    for name in ("output", "checkpoints", "scratch"):
        (root / name).mkdir(parents=True)
    context = Context(
        inputs={},
        output=root / "output",
        checkpoints=root / "checkpoints",
        scratch=root / "scratch",
        on_report=reports.append,
    )
    task = plugins.load("task", "datasets/table")
    task.run(context, task.Options.model_validate({"path": str(path), **options}))
    meta = json.loads((root / "output" / "artifact.json").read_text())["meta"]
    return meta, [str(report.values["text"]) for report in reports if report.kind == "message"]


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", GOOD),
        ("a.tsv", GOOD.replace(",", "\t")),
        ("bom.csv", "\ufeff" + GOOD),
        ("a.jsonl", "".join(json.dumps({"text": f"t {i}", "label": i % 2}) + "\n" for i in range(40))),
        ("quoted.csv", GOOD.replace("text number 3,", '"text, number\n3",')),
    ],
)
def test_reads_the_formats_it_promises(tmp_path: Path, name: str, content: str) -> None:
    meta, messages = prepare(tmp_path, written(tmp_path, name, content))
    assert meta["splits"]["train"]["rows"] == 32
    assert meta["splits"]["test"]["classes"] == dict.fromkeys(meta["labels"], 4)
    assert all("are alike, as from a template" in message for message in messages)


FAULTS: list[tuple[str, str | bytes, dict[str, Any], type[LLMOSError], str]] = [
    ("empty.csv", "", {}, EmptyDataError, "is empty"),
    ("header.csv", "text,label\n", {}, EmptyDataError, "no row with a text"),
    ("col.csv", GOOD, {"text": "txt"}, ColumnNotFoundError, "Did you mean 'text'"),
    ("which.csv", GOOD.replace("text,label", "a,b", 1), {}, ColumnNotFoundError, "Columns: a, b"),
    ("one.csv", GOOD.replace("bad", "good"), {}, SingleClassError, "have the class 'good'"),
    ("bytes.csv", GOOD.encode() + b"caf\xe9,good\n", {}, EncodingError, "Row 42 of 'bytes.csv' is not UTF-8"),
    ("wide.csv", GOOD + "a,b,c\n", {}, DataError, "Row 42 of 'wide.csv' has 3 fields, the header has 2"),
    ("quote.csv", GOOD + '"open,good\n', {}, DataError, "cannot be read"),
    ("twice.csv", GOOD.replace("text,label", "text,text", 1), {}, DataError, "two columns named 'text'"),
    ("unnamed.csv", GOOD.replace("text,label", ",label", 1), {}, DataError, "Column 1 .* has no name"),
    ("bad.jsonl", '{"text": "a", "label": "b"}\n{"text"\n', {}, DataError, "Row 2 of 'bad.jsonl' is not JSON"),
    ("list.jsonl", '[1, 2]\n{"text": "a", "label": "b"}\n', {}, DataError, "is a list, not an object"),
    ("nolabel.csv", GOOD + "a text,\n", {}, DataError, "Row 42 of 'nolabel.csv' has no label"),
    ("rare.csv", GOOD + "a text,odd\n", {}, DataError, "class 'odd' has one row only"),
    ("ids.csv", "text,label\n" + "".join(f"t {i},{i}\n" for i in range(50)), {}, DataError, "50 different labels"),
    ("score.csv", GOOD, {"labels": "score"}, DataError, "the label 'bad' is no number"),
    ("three.csv", GOOD, {"labels": 3}, DataError, "labels=3, but there are 2 classes"),
    ("gz.csv", b"\x1f\x8b" + b"x" * 30, {}, DataError, "is a gzip archive"),
    ("parquet.csv", b"PAR1" + b"x" * 30, {}, DataError, "is a parquet file"),
    ("notes.docx", GOOD, {}, DataError, "no file of data by its name"),
    ("gaps.csv", GOOD + ",good\n" * 50, {}, DataError, "texts in column 'text' are empty"),
]


@pytest.mark.parametrize(("name", "content", "options", "kind", "words"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_says_what_is_wrong_with_a_file(
    tmp_path: Path, name: str, content: str | bytes, options: dict[str, Any], kind: type[LLMOSError], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        prepare(tmp_path, written(tmp_path, name, content), **options)
    assert caught.value.hint
    assert not (tmp_path / "output" / "artifact.json").exists()


def test_a_zip_named_csv_is_called_what_it_is(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.csv", "w") as archive:
        archive.writestr("a.txt", "text")
    with pytest.raises(DataError, match="is a zip archive"):
        prepare(tmp_path, tmp_path / "a.csv")


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="There is no file"):
        prepare(tmp_path, tmp_path / "none.csv")


def test_a_file_that_changed_since_submission_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="was changed since"):
        prepare(tmp_path, written(tmp_path, "a.csv", GOOD), content="0" * 64)


def test_rows_without_a_text_are_counted_and_left_out(tmp_path: Path) -> None:
    meta, messages = prepare(tmp_path, written(tmp_path, "a.csv", GOOD + ",good\n,bad\n"))
    assert "Left out: 2 rows without a text." in messages
    assert meta["left_out"] == {"rows without a text": 2}
    assert meta["splits"]["train"]["rows"] + meta["splits"]["test"]["rows"] == 40


def test_equal_texts_stay_on_one_side(tmp_path: Path) -> None:
    doubled = GOOD + GOOD.split("\n", 1)[1].upper().replace("GOOD", "good").replace("BAD", "bad")
    prepare(tmp_path, written(tmp_path, "a.csv", doubled))
    sides = [
        {
            json.loads(line)["text"].lower()
            for line in (tmp_path / "output" / split / "rows.jsonl").read_text().split("\n")
            if line
        }
        for split in ("train", "test")
    ]
    assert sides[0].isdisjoint(sides[1])


def test_columns_without_a_value_are_remembered(tmp_path: Path) -> None:
    rows = [{"text": f"text number {i}", "label": i % 2, "none": None, "some": i or None} for i in range(40)]
    path = written(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert prepare(tmp_path / "json", path)[0]["empty_columns"] == ["none"]
    path = written(
        tmp_path,
        "a.csv",
        GOOD.replace("text,label", "text,label,blank").replace("\n", ",\n").replace("blank,", "blank"),
    )
    assert prepare(tmp_path / "csv", path)[0]["empty_columns"] == ["blank"]
