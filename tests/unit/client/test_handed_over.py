"""What a script hands over by value: rows in memory, addresses with passwords."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_os.client import addresses, rows, sources, uploads
from llm_os.errors import DataError, EmptyDataError, InvalidInputError, LLMOSError
from llm_os.tasks.datasets import sentic_data

ROWS = [{"text": row["text"], "score": row["score"]} for row in sentic_data.read("en")[:3000]]


def given(source: Any, **options: Any) -> list[Any]:
    return list(rows.rows_of(source, skip=options.get("skip", False)))


def test_frames_tables_data_sets_and_iterables_give_the_same_rows() -> None:
    import datasets
    import pandas
    import polars
    import pyarrow

    table = pyarrow.Table.from_pylist(ROWS)
    made = [pandas.DataFrame(ROWS), polars.DataFrame(ROWS), polars.LazyFrame(ROWS), table, iter(ROWS)]
    for source in [*made, datasets.Dataset(table)]:
        assert given(source) == ROWS, type(source)


def test_missing_values_of_frames_are_missing() -> None:
    import pandas

    assert given(pandas.DataFrame({"text": ["a", None], "label": [1.0, None]})) == [
        {"text": "a", "label": 1.0},
        {"text": None, "label": None},
    ]


def test_pairs_and_texts_are_rows_too() -> None:
    assert given([("a", 1), "b"]) == [{"text": "a", "label": 1}, {"text": "b"}]


def broken() -> Iterator[Any]:
    yield from ROWS[:12]
    raise ZeroDivisionError("division by zero")


WRONG: list[tuple[Any, type[LLMOSError], str]] = [
    ([{"text": "a"}, 7], DataError, "Row 2 of the iterable is an int, not a row."),
    ([("a", "b", "c")], DataError, "Row 1 of the iterable is a tuple of 3, not a row."),
    (broken(), DataError, "The iterable raised ZeroDivisionError after row 12: division by zero."),
    (iter(()), EmptyDataError, "The iterable has no rows."),
    (7, InvalidInputError, "an int is no source of data."),
    ({"text": ["a"]}, InvalidInputError, "One dictionary with text is no list of rows."),
]


@pytest.mark.parametrize(("source", "kind", "words"), WRONG)
def test_says_what_is_wrong_with_what_was_given(source: Any, kind: type[LLMOSError], words: str) -> None:
    with pytest.raises(kind) as caught:
        given(source)
    assert caught.value.message == words


def test_two_columns_of_one_name_are_refused() -> None:
    import pandas

    with pytest.raises(DataError, match="Two columns are named 'text'"):
        given(pandas.DataFrame([["a", "b"]], columns=["text", "text"]))


def test_wrong_rows_are_left_for_the_job_to_count_where_they_may_be_skipped() -> None:
    assert given([{"text": "a"}, 7], skip=True) == [{"text": "a"}, None]


def job(source: Any, home: Path, **options: Any) -> Any:
    return sources.job_for(source, options, {}, None, home)


def test_equal_rows_are_the_same_job_and_nothing_stays(tmp_path: Path) -> None:
    with job(iter(ROWS), tmp_path) as one, job(ROWS, tmp_path) as other:
        assert one.spec == other.spec
        path = Path(str(one.spec.options["path"]))
        assert [json.loads(line) for line in path.read_text().splitlines()] == ROWS
        assert path.stat().st_mode & 0o777 == 0o600
    assert list((tmp_path / "run" / "uploads").iterdir()) == []


def test_the_first_to_leave_takes_nothing_from_the_second(tmp_path: Path) -> None:
    with uploads.rows(tmp_path, ROWS) as (path, _):
        with uploads.rows(tmp_path, ROWS):
            pass
        assert path.exists()
    assert not path.exists()


def test_a_password_is_in_no_job_but_in_a_file_for_its_owner(tmp_path: Path) -> None:
    address = "postgresql+psycopg://me:geheim@db:5432/reviews?sslpassword=geheim"
    with job(address, tmp_path, query="SELECT 1") as found:
        assert "geheim" not in found.spec.model_dump_json() + found.title
        assert found.spec.options["address"] == "postgresql+psycopg://me:***@db:5432/reviews?sslpassword=***"
        secret = Path(str(found.spec.options["secret"]))
        assert (secret.read_text(), secret.stat().st_mode & 0o777) == (address, 0o600)
    assert not secret.exists()


def test_addresses_without_a_secret_are_given_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert addresses.absolute("sqlite:///r.db") == f"sqlite:///{tmp_path}/r.db"
    with job("postgresql://me@db/reviews", tmp_path, query="SELECT 1") as found:
        assert (found.spec.options["secret"], found.spec.options["address"]) == (None, "postgresql://me@db/reviews")


def test_a_database_needs_a_query_and_the_web_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="A database needs a query"), job("sqlite:///r.db", tmp_path):
        pass
    with pytest.raises(InvalidInputError, match="not fetched over https"), job("https://x/a.csv", tmp_path, query="S"):
        pass
