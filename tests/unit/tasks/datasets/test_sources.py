"""Folders, packed files, databases: real rows come back as they were written; what is wrong is said."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import sqlite3
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import ipc, parquet
from tests.unit.tasks.datasets.bed import Done, prepare, real_rows

from llm_os.errors import DataError, EmptyDataError, EncodingError, LeakError, LLMOSError, NotFoundError

ROWS = real_rows(60)
TEXTS = {str(row["text"]).strip() for row in ROWS}


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def zstd(data: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


@pytest.mark.parametrize("ending", PACKERS)
@pytest.mark.parametrize(("name", "write"), [("a.csv", as_csv), ("a.jsonl", as_lines)])
def test_reads_packed_files(tmp_path: Path, ending: str, name: str, write: Any) -> None:
    path = tmp_path / (name + ending)
    path.write_bytes(PACKERS[ending](write(ROWS)))
    assert prepare("datasets/table", tmp_path, path=str(path)).texts == TEXTS


@pytest.mark.parametrize("ending", PACKERS)
def test_a_packed_file_that_was_cut_off_is_named(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.csv{ending}"
    whole = PACKERS[ending](as_csv(ROWS))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=rf"^'a.csv{ending}' cannot be unpacked: it ends in the middle."):
        prepare("datasets/table", tmp_path, path=str(path))


def test_one_bad_row_is_left_out_and_counted_where_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(as_csv(ROWS) + b"caf\xe9,positive,x\nx,positive,x,x\n" + b"y" * (11 * 2**20) + b",positive,x\n")
    done = prepare("datasets/table", tmp_path, path=str(path), bad_rows="skip")
    assert done.texts == TEXTS
    assert done.meta["left_out"] == {"bad rows": 3}
    assert "Left out: 3 bad rows." in done.messages


def test_a_row_that_is_too_long_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(as_lines(ROWS) + b'{"text": "' + b"y" * (11 * 2**20) + b'"}\n')
    with pytest.raises(DataError, match=r"^Row 61 of 'a.jsonl' is longer than 10 MiB."):
        prepare("datasets/table", tmp_path, path=str(path))


def columns() -> pyarrow.Table:
    return pyarrow.Table.from_pylist(ROWS)


def test_reads_parquet_and_both_forms_of_arrow(tmp_path: Path) -> None:
    parquet.write_table(columns(), tmp_path / "a.parquet")
    with ipc.new_file(tmp_path / "b.arrow", columns().schema) as file:
        file.write_table(columns())
    with ipc.new_stream(tmp_path / "c.arrow", columns().schema) as stream:
        stream.write_table(columns())
    for name in ("a.parquet", "b.arrow", "c.arrow"):
        assert prepare("datasets/table", tmp_path, path=str(tmp_path / name)).texts == TEXTS


@pytest.mark.parametrize("name", ["a.parquet", "b.arrow", "c.arrow"])
def test_columns_that_were_cut_off_are_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.parquet":
        parquet.write_table(columns(), path)
    else:
        with (ipc.new_file if name == "b.arrow" else ipc.new_stream)(path, columns().schema) as file:
            file.write_table(columns())
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(DataError, match=rf"^'{name}' cannot be read as (parquet|Arrow) after row 0: "):
        prepare("datasets/table", tmp_path, path=str(path))


def workbook() -> bytes:
    import zipfile

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return file.getvalue()


NAMES: list[tuple[str, bytes, type[LLMOSError], str]] = [
    ("a.parquet", as_csv(ROWS), DataError, "'a.parquet' is no parquet file, whatever its name says."),
    ("a.arrow", as_csv(ROWS), DataError, "'a.arrow' is no arrow file, whatever its name says."),
    ("a.csv", b"PAR1" + bytes(40), DataError, "'a.csv' is a parquet file, whatever its name says."),
    ("a.csv", workbook(), DataError, "'a.csv' is an Excel workbook, whatever its name says."),
    ("a.xlsx", workbook(), DataError, "'a.xlsx' is no file of data by its name, but an Excel workbook."),
    ("a.csv", b"%PDF-1.7\n...", DataError, "'a.csv' is a PDF, whatever its name says."),
    ("a.csv.gz", as_csv(ROWS), DataError, "'a.csv.gz' cannot be unpacked: Not a gzipped file (b'te')."),
    ("a.csv", as_csv(ROWS).decode().encode("utf-16"), EncodingError, "'a.csv' is UTF-16, not UTF-8."),
    ("a.parquet.gz", gzip.compress(b"x"), DataError, "'a.parquet.gz' is packed twice: parquet files"),
]


@pytest.mark.parametrize(("name", "content", "kind", "words"), NAMES, ids=range(len(NAMES)))
def test_a_file_that_is_not_what_its_name_says_is_named(
    tmp_path: Path, name: str, content: bytes, kind: type[LLMOSError], words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(kind) as caught:
        prepare("datasets/table", tmp_path, path=str(tmp_path / name))
    assert caught.value.message.startswith(words)
    assert caught.value.hint


def by_class(folder: Path, rows: list[dict[str, Any]]) -> None:
    for number, row in enumerate(rows):
        (folder / row["label"]).mkdir(parents=True, exist_ok=True)
        (folder / row["label"] / f"{number}.txt").write_text(row["text"])


def test_reads_texts_in_a_folder_for_each_class(tmp_path: Path) -> None:
    by_class(tmp_path / "reviews", ROWS)
    done = prepare("datasets/folder", tmp_path, path=str(tmp_path / "reviews"))
    assert done.texts == TEXTS
    assert done.meta["labels"] == ["negative", "positive"]
    assert {(row["text"], row["label"]) for row in done.train} <= {(r["text"].strip(), r["label"]) for r in ROWS}


def test_folders_named_train_and_test_are_the_split(tmp_path: Path) -> None:
    by_class(tmp_path / "r" / "train", ROWS[:40])
    by_class(tmp_path / "r" / "test", ROWS[40:])
    (tmp_path / "r" / "README.txt").write_text("not a row")
    done = prepare("datasets/folder", tmp_path, path=str(tmp_path / "r"))
    assert {row["text"] for row in done.test} == {row["text"].strip() for row in ROWS[40:]}
    assert len(done.train) == 40
    assert done.meta["split"]["by"] == "makers"


def test_texts_in_no_class_are_for_language_models(tmp_path: Path) -> None:
    for number, row in enumerate(ROWS):
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / f"{number}.txt").write_text(row["text"])
    done = prepare("datasets/folder", tmp_path, path=str(tmp_path / "texts"))
    assert (done.meta["kind"], done.texts) == ("text", TEXTS)


def test_data_files_in_splits_are_read_as_the_hub_reads_them(tmp_path: Path) -> None:
    (tmp_path / "d" / "data").mkdir(parents=True)
    for name, part in {
        "train-00000-of-00002": ROWS[:20],
        "train-00001-of-00002": ROWS[20:40],
        "test": ROWS[40:],
    }.items():
        parquet.write_table(pyarrow.Table.from_pylist(part), tmp_path / "d" / "data" / f"{name}.parquet")
    done = prepare("datasets/folder", tmp_path, path=str(tmp_path / "d"))
    assert (len(done.train), len(done.test)) == (40, 20)


def saved(folder: Path) -> Path:
    import datasets

    names = datasets.ClassLabel(names=["negative", "positive"])
    features = datasets.Features({"text": datasets.Value("string"), "label": names})

    def part(rows: list[dict[str, Any]]) -> Any:
        return datasets.Dataset.from_list([{k: r[k] for k in ("text", "label")} for r in rows], features=features)

    splits = {"train": part(ROWS[:30]), "validation": part(ROWS[30:40]), "test": part(ROWS[40:])}
    datasets.DatasetDict(splits).save_to_disk(folder / "both")
    part(ROWS).save_to_disk(folder / "one")
    return folder


def test_reads_what_datasets_saved_with_the_names_of_its_classes(tmp_path: Path) -> None:
    saved(tmp_path)
    one = prepare("datasets/folder", tmp_path, path=str(tmp_path / "one"))
    assert (one.texts, one.meta["labels"]) == (TEXTS, ["negative", "positive"])
    both = prepare("datasets/folder", tmp_path, path=str(tmp_path / "both"))
    assert {row["text"] for row in both.test} == {row["text"].strip() for row in ROWS[40:]}
    assert any("Left out: split 'validation'." in message for message in both.messages)
    other = prepare("datasets/folder", tmp_path, path=str(tmp_path / "both"), test_split="validation")
    assert {row["text"] for row in other.test} == {row["text"].strip() for row in ROWS[30:40]}


def test_says_what_is_wrong_with_a_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(EmptyDataError, match=r"^'empty' has no files\."):
        prepare("datasets/folder", tmp_path, path=str(tmp_path / "empty"))
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"^'pictures' has no file of data or text, only 1 \.png\."):
        prepare("datasets/folder", tmp_path, path=str(tmp_path / "pictures"))
    by_class(tmp_path / "bytes", ROWS)
    (tmp_path / "bytes" / "positive" / "bad.txt").write_bytes(b"caf\xe9")
    with pytest.raises(EncodingError, match=r"^'positive/bad.txt' is not UTF-8 \(byte 3\)\."):
        prepare("datasets/folder", tmp_path, path=str(tmp_path / "bytes"))
    by_class(tmp_path / "leaks" / "train", ROWS)
    by_class(tmp_path / "leaks" / "test", ROWS[:6])
    with pytest.raises(LeakError, match="6 training rows have an equal"):
        prepare("datasets/folder", tmp_path, path=str(tmp_path / "leaks"))
    done = prepare("datasets/folder", tmp_path, path=str(tmp_path / "leaks"), leaks="drop")
    assert (len(done.train), len(done.test)) == (54, 6)


@pytest.fixture
def database(tmp_path: Path) -> str:
    with sqlite3.connect(tmp_path / "r.db") as connection:
        connection.execute("CREATE TABLE reviews (text TEXT, label TEXT, domain TEXT)")
        connection.executemany("INSERT INTO reviews VALUES (:text, :label, :domain)", ROWS)
    connection.close()
    return f"sqlite:///{tmp_path}/r.db"


def test_reads_a_query(tmp_path: Path, database: str) -> None:
    done: Done = prepare("datasets/sql", tmp_path, address=database, query="SELECT text, label FROM reviews")
    assert done.texts == TEXTS


QUERIES: list[tuple[str, str, str]] = [
    ("SELECT * FROM review", "The query failed: no such table: review.", "Did you mean 'reviews'?"),
    ("SELECT FROM", 'The query failed: near "FROM": syntax error.', "shell"),
    ("SELECT text, label, text FROM reviews", "The query gives two columns named 'text'.", "AS"),
    ("DELETE FROM reviews", "The query begins with 'DELETE'; it may only read.", "SELECT"),
    (
        "WITH x AS (SELECT 1) DELETE FROM reviews",
        "The query would write: attempt to write",
        "Only",
    ),
    ("SELECT text AS t, label AS l FROM reviews", "Row 1 of the query: It is not clear which column", "Columns: t, l"),
]


@pytest.mark.parametrize(("query", "words", "hint"), QUERIES)
def test_says_what_is_wrong_with_a_query(tmp_path: Path, database: str, query: str, words: str, hint: str) -> None:
    with pytest.raises(DataError) as caught:
        prepare("datasets/sql", tmp_path, address=database, query=query)
    assert caught.value.message.startswith(words)
    assert hint in caught.value.hint
    with sqlite3.connect(database.removeprefix("sqlite:///")) as connection:
        assert connection.execute("SELECT count(*) FROM reviews").fetchone() == (60,)
    connection.close()


ADDRESSES: list[tuple[str, type[LLMOSError], str]] = [
    ("sqlite:////nowhere/r.db", NotFoundError, "There is no database file '/nowhere/r.db'."),
    ("nonsense://u:geheim@h/d", DataError, "SQLAlchemy knows no database 'nonsense'."),
    (
        "postgresql+psycopg2://u:geheim@h/d",
        DataError,
        "The driver psycopg2 of postgresql cannot keep a query from writing.",
    ),
    ("postgresql://u:geheim@h:port/d", DataError, "The address postgresql://u:***@h:port/d cannot be read."),
]


@pytest.mark.parametrize(("address", "kind", "words"), ADDRESSES)
def test_says_what_is_wrong_with_an_address_and_never_the_password(
    tmp_path: Path, address: str, kind: type[LLMOSError], words: str
) -> None:
    (tmp_path / "secret").write_text(address)
    shown = address.replace("geheim", "***")
    with pytest.raises(kind) as caught:
        prepare("datasets/sql", tmp_path, address=shown, secret=str(tmp_path / "secret"), query="SELECT 1")
    assert caught.value.message.startswith(words)
    assert "geheim" not in repr(caught.value.to_dict())
    assert caught.value.__cause__ is None
