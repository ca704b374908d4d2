"""Bad input one by one: real rows with one fault each; the message says what, where and why, the hint what to do."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pytest
from pyarrow import parquet
from tests.unit.tasks.datasets.bed import prepare, real_rows

from llm_os.errors import (
    ColumnNotFoundError,
    DataError,
    EmptyDataError,
    EncodingError,
    LLMOSError,
    SingleClassError,
)

ROWS = real_rows(60)
LONG = b"y" * (11 * 2**20)
FILL = "Fill it in, or remove the row."
UTF_8 = "Save the file as UTF-8, for example: iconv -f latin1 -t utf-8 in.csv > out.csv (Chinese: -f gb18030)"
ONE_WAY = "Write all labels in one way: all as texts, or all as numbers."


def as_csv(rows: list[dict[str, Any]], separator: str = ",") -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


def labelled(label: Callable[[int], Any]) -> list[dict[str, Any]]:
    """The rows, each with the label that its number (from 0) gets."""
    return [{**row, "label": label(number)} for number, row in enumerate(ROWS)]


def but(number: int, label: Any, other: Callable[[int], Any] = lambda n: str(ROWS[n]["label"])) -> list[dict[str, Any]]:
    """The rows, one of them with another label."""
    return labelled(lambda n: label if n == number else other(n))


def inserted(line: bytes, after: int, data: bytes) -> bytes:
    """The file with one line more."""
    lines = data.splitlines(keepends=True)
    return b"".join([*lines[:after], line, *lines[after:]])


class Bad(NamedTuple):
    name: str
    content: bytes
    message: str
    hint: str
    kind: type[LLMOSError] = DataError
    options: dict[str, Any] = {}  # noqa: RUF012 - nobody writes to it


NOT_LATIN = b"caf\xe9,positive,movie\n"
AT = as_csv(ROWS[:30])
"""What lies before the bad byte of the file below."""

CASES = {
    # a column that is not there
    "text column": Bad(
        "a.csv",
        as_csv(ROWS),
        "Row 2 of 'a.csv': There is no column 'txt'.",
        "Did you mean 'text'? Known: domain, label, text.",
        ColumnNotFoundError,
        {"text": "txt"},
    ),
    "label column": Bad(
        "a.csv",
        as_csv(ROWS),
        "Row 2 of 'a.csv': There is no column 'stars'.",
        "Known: domain, label, text.",
        ColumnNotFoundError,
        {"label": "stars"},
    ),
    "no usual name": Bad(
        "a.csv",
        as_csv([{"what": row["text"], "verdict": row["label"]} for row in ROWS]),
        "Row 2 of 'a.csv': It is not clear which column holds the text.",
        "Name it: load_data(..., text='...'). Columns: what, verdict.",
        ColumnNotFoundError,
    ),
    "column of one row": Bad(
        "a.jsonl",
        as_lines([*ROWS[:20], {"text": ROWS[20]["text"]}, *ROWS[21:]]),
        "Row 21 of 'a.jsonl' has no column 'label'.",
        "It has: text.",
        ColumnNotFoundError,
    ),
    # labels that are none
    "empty label": Bad("a.csv", as_csv(but(30, "")), "Row 32 of 'a.csv' has no label.", FILL),
    "blank label": Bad("a.csv", as_csv(but(30, "  ")), "Row 32 of 'a.csv' has no label.", FILL),
    "null label": Bad("a.jsonl", as_lines(but(30, None)), "Row 31 of 'a.jsonl' has no label.", FILL),
    "no labels": Bad("a.csv", as_csv(labelled(lambda _: "")), "Row 2 of 'a.csv' has no label.", FILL),
    "NaN": Bad("a.jsonl", as_lines(but(30, math.nan, lambda n: n % 2)), "Row 31 of 'a.jsonl' has no label.", FILL),
    "NaN in parquet": Bad(
        "a.parquet",
        as_parquet(but(30, math.nan, lambda n: float(n % 2))),
        "Row 31 of 'a.parquet' has no label.",
        FILL,
    ),
    "NaN as text": Bad(
        "a.csv", as_csv(but(30, "NaN")), "Row 32 of 'a.csv' has the label 'NaN', which means none.", FILL
    ),
    # labels that cannot be learnt
    "constant": Bad(
        "a.csv",
        as_csv(labelled(lambda _: "positive")),
        "All 60 rows of 'a.csv' have the class 'positive'.",
        "A classifier needs at least two classes; is it the right column?",
        SingleClassError,
    ),
    "numbers, then texts": Bad(
        "a.jsonl",
        as_lines(labelled(lambda n: n % 2 if n < 30 else "positive")),
        "Row 31 of 'a.jsonl': the label 'positive' is a text, that of Row 1 of 'a.jsonl' is a number.",
        ONE_WAY,
    ),
    "texts, then truth values": Bad(
        "a.jsonl",
        as_lines(labelled(lambda n: str(n % 2) if n < 59 else True)),
        "Row 60 of 'a.jsonl': the label 'True' is a truth value, that of Row 1 of 'a.jsonl' is a text.",
        ONE_WAY,
    ),
    "a text among scores": Bad(
        "a.csv",
        as_csv(but(30, "good", lambda n: n / 10)),
        "Row 32 of 'a.csv': the label 'good' is no number.",
        "Leave labels='score' out, or mend it.",
        options={"labels": "score"},
    ),
    "a list for a label": Bad(
        "a.jsonl",
        as_lines(but(30, ["positive"])),
        "Row 31 of 'a.jsonl': column 'label' holds a list, not a text.",
        "Is it the right column?",
    ),
    # bytes that are not UTF-8
    "encoding": Bad(
        "a.csv",
        AT + NOT_LATIN + as_csv(ROWS[30:]).split(b"\n", 1)[1],
        f"Row 32 of 'a.csv' is not UTF-8 (byte {len(AT) + 3}).",
        UTF_8,
        EncodingError,
    ),
    "encoding of the header": Bad(
        "a.csv", b"t\xe9xt,label\n" + b"a,b\n" * 9, "Row 1 of 'a.csv' is not UTF-8 (byte 1).", UTF_8, EncodingError
    ),
    "encoding of JSON": Bad(
        "a.jsonl",
        as_lines(ROWS) + b'{"text": "caf\xe9"}\n',
        f"Row 61 of 'a.jsonl' is not UTF-8 (byte {len(as_lines(ROWS)) + 13}).",
        UTF_8,
        EncodingError,
    ),
    "gb18030": Bad(
        "a.csv",
        "text,label\n房间干净,好\n".encode("gb18030"),
        "Row 2 of 'a.csv' is not UTF-8 (byte 11).",
        UTF_8,
        EncodingError,
    ),
    # files that are not what their names say
    "JSON lines as csv": Bad(
        "a.csv", as_lines(ROWS), "'a.csv' is JSON, whatever its name says.", "Rename it to 'a.jsonl'."
    ),
    "JSON as csv": Bad(
        "a.csv", json.dumps(ROWS).encode(), "'a.csv' is JSON, whatever its name says.", "Rename it to 'a.json'."
    ),
    "csv as JSON lines": Bad(
        "a.jsonl",
        as_csv(ROWS),
        "Row 1 of 'a.jsonl' is not JSON: Expecting value: line 1 column 1 (char 0).",
        "Each line must be one whole JSON object.",
    ),
    "csv as tsv": Bad(
        "a.tsv", as_csv(ROWS), "'a.tsv' has commas between its columns, not tabs.", "Rename it to 'a.csv'."
    ),
    "tsv as csv": Bad(
        "a.csv", as_csv(ROWS, "\t"), "'a.csv' has tabs between its columns, not commas.", "Rename it to 'a.tsv'."
    ),
    "packed tsv as csv": Bad(
        "my.reviews.csv.gz",
        gzip.compress(as_csv(ROWS, "\t")),
        "'my.reviews.csv.gz' has tabs between its columns, not commas.",
        "Rename it to 'my.reviews.tsv.gz'.",
    ),
    "semicolons": Bad(
        "a.csv",
        as_csv(ROWS, ";"),
        "'a.csv' has semicolons between its columns, not commas.",
        "Save it with commas, or load_data(pandas.read_csv(path, sep=';')).",
    ),
    "a web page": Bad(
        "a.csv",
        b"<!DOCTYPE html>\n<html><body>Not found</body></html>\n",
        "'a.csv' is a web page, whatever its name says.",
        "Was it downloaded from the right address?",
    ),
    "packed": Bad(
        "a.csv",
        gzip.compress(as_csv(ROWS)),
        "'a.csv' is a gzip archive, whatever its name says.",
        "Unpack or convert it first.",
    ),
    # rows that do not end, archives that do
    "row too long": Bad(
        "a.csv",
        inserted(LONG + b",positive,movie\n", 31, as_csv(ROWS)),
        "Row 32 of 'a.csv' is longer than 10 MiB.",
        "Is a quote or the end of a line missing? Divide long texts into several rows, or bad_rows='skip'.",
    ),
    "quote too long": Bad(
        "a.csv",
        as_csv(ROWS) + b'"' + (b"y" * 1000 + b"\n") * 11_000 + b'",positive,movie\n',
        "Row 62 of 'a.csv' cannot be read: field larger than field limit (10485760).",
        "A quote is not closed, or a field is too long. Look at the row.",
    ),
    "cut archive": Bad(
        "a.csv.gz",
        gzip.compress(as_csv(ROWS))[:-600],
        "'a.csv.gz' cannot be unpacked: it ends in the middle.",
        "Was it cut off, or renamed? Copy it again.",
    ),
    "cut archive, rows skipped": Bad(
        "a.csv.gz",
        gzip.compress(as_csv(ROWS))[:-600],
        "'a.csv.gz' cannot be unpacked: it ends in the middle.",
        "Was it cut off, or renamed? Copy it again.",
        options={"bad_rows": "skip"},
    ),
    # nothing left
    "all bad": Bad(
        "a.jsonl",
        b"{no\n" * 30,
        "No row of 'a.jsonl' is left: 30 are bad. The first one: Row 1 of 'a.jsonl' is not JSON: "
        "Expecting property name enclosed in double quotes: line 1 column 2 (char 1).",
        "Each line must be one whole JSON object.",
        EmptyDataError,
        {"bad_rows": "skip"},
    ),
    "all without a label": Bad(
        "a.csv",
        as_csv(labelled(lambda _: "")),
        "No row of 'a.csv' is left: 60 are bad. The first one: Row 2 of 'a.csv' has no label.",
        FILL,
        EmptyDataError,
        {"bad_rows": "skip"},
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_wrong_is_said_with_its_place_and_its_cure(tmp_path: Path, case: Bad) -> None:
    path = tmp_path / case.name
    path.write_bytes(case.content)
    with pytest.raises(case.kind) as caught:
        prepare("datasets/table", tmp_path, path=str(path), **case.options)
    assert caught.type is case.kind
    assert (caught.value.message, caught.value.hint) == (case.message, case.hint)
    assert not list(tmp_path.rglob("artifact.json"))


ONE_BAD: dict[str, tuple[str, bytes]] = {
    "no label": ("a.csv", inserted(b"a text,,movie\n", 31, as_csv(ROWS))),
    "NaN": ("a.csv", inserted(b"a text,nan,movie\n", 31, as_csv(ROWS))),
    "another type": ("a.jsonl", inserted(b'{"text": "a text", "label": 1}\n', 31, as_lines(ROWS))),
    "no column": ("a.jsonl", inserted(b'{"text": "a text"}\n', 31, as_lines(ROWS))),
    "fields": ("a.csv", inserted(b"a text,positive,movie,more\n", 31, as_csv(ROWS))),
    "encoding": ("a.csv", inserted(NOT_LATIN, 31, as_csv(ROWS))),
    "too long": ("a.csv", inserted(LONG + b",positive,movie\n", 31, as_csv(ROWS))),
    "no JSON": ("a.jsonl", inserted(b"{no\n", 31, as_lines(ROWS))),
    "no object": ("a.jsonl", inserted(b"[1]\n", 31, as_lines(ROWS))),
    "the first row": ("a.csv", inserted(b"a text,positive,movie,more\n", 1, as_csv(ROWS))),
}


@pytest.mark.parametrize(("name", "content"), ONE_BAD.values(), ids=ONE_BAD)
def test_a_bad_row_is_counted_and_left_out_where_that_was_asked_for(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"^Row \d+ of 'a\.\w+'"):
        prepare("datasets/table", tmp_path, path=str(path))
    done = prepare("datasets/table", tmp_path, path=str(path), bad_rows="skip")
    assert done.texts == {str(row["text"]).strip() for row in ROWS}
    assert done.meta["left_out"] == {"bad rows": 1}
    assert "Left out: 1 bad row." in done.messages


def test_whole_numbers_are_one_class_however_a_column_holds_them(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(as_lines(labelled(lambda n: n % 2 if n < 30 else float(n % 2))))
    done = prepare("datasets/table", tmp_path, path=str(path))
    assert (done.meta["labels"], len(done.train) + len(done.test)) == (["0", "1"], 60)


def test_words_beside_numbers_in_a_file_without_types_are_said_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(as_csv(labelled(lambda n: n % 2 if n < 30 else str(ROWS[n]["label"]))))
    done = prepare("datasets/table", tmp_path, path=str(path))
    assert done.meta["labels"] == ["0", "1", "negative", "positive"]
    said = "Some classes are numbers (0, 1), some are words (negative, positive). Is it meant so?"
    assert said in done.messages
