"""The source `sql` on a real Postgres server: reads, streams, and never writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from tests.unit.tasks.datasets.bed import prepare, real_rows

from llm_os.errors import DataError, SourceError

ROWS = real_rows(60)
TEXTS = {str(row["text"]).strip() for row in ROWS}


@pytest.fixture
def reviews(postgres: str) -> Iterator[str]:
    """The server's address; it has a table of reviews."""
    engine = create_engine(postgres)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE reviews (text TEXT, label TEXT, domain TEXT)"))
        connection.execute(text("INSERT INTO reviews VALUES (:text, :label, :domain)"), ROWS)
    try:
        yield postgres
    finally:
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE reviews"))
        engine.dispose()


def counted(address: str) -> int:
    engine = create_engine(address)
    with engine.connect() as connection:
        found = int(connection.execute(text("SELECT count(*) FROM reviews")).scalar_one())
    engine.dispose()
    return found


def test_reads_a_query(tmp_path: Path, reviews: str) -> None:
    done = prepare("datasets/sql", tmp_path, address=reviews, query="SELECT text, label FROM reviews")
    assert done.texts == TEXTS
    assert counted(reviews) == len(ROWS)


def test_a_percent_sign_is_no_placeholder(tmp_path: Path, reviews: str) -> None:
    query = "SELECT text || '%s' || (7 % 4) AS text, label FROM reviews WHERE text LIKE '%e%'"
    done = prepare("datasets/sql", tmp_path, address=reviews, query=query)
    assert done.texts == {f"{one}%s3" for one in TEXTS if "e" in one}


def test_rows_come_in_parts(tmp_path: Path, reviews: str) -> None:
    """The text of row 7,000 cannot be cast: what came before it was read already, and the error names the row."""
    query = (
        "SELECT 'text ' || n AS text, CASE WHEN n = 7000 THEN ('x' || n)::int ELSE n % 2 END AS label "
        "FROM generate_series(1, 10000) n"
    )
    with pytest.raises(DataError, match=r"^The query failed after row \d{4}: invalid input syntax for type integer"):
        prepare("datasets/sql", tmp_path, address=reviews, query=query)


@pytest.mark.parametrize(
    ("query", "words", "hint"),
    [
        ("SELECT * FROM review", 'The query failed: relation "review" does not exist', "Did you mean 'reviews'?"),
        ("SELECT FROM WHERE", "The query failed: syntax error", "shell"),
        (
            "WITH gone AS (DELETE FROM reviews RETURNING *) SELECT text, label FROM gone",
            "The query would write: DECLARE CURSOR must not contain data-modifying statements",
            "Only reading",
        ),
        (
            "SELECT 1; COMMIT; DELETE FROM reviews",
            "The query failed: cannot insert multiple commands",
            "shell",
        ),
    ],
)
def test_says_what_is_wrong_with_a_query(tmp_path: Path, reviews: str, query: str, words: str, hint: str) -> None:
    with pytest.raises(DataError) as caught:
        prepare("datasets/sql", tmp_path, address=reviews, query=query)
    assert caught.value.message.startswith(words)
    assert hint in caught.value.hint
    assert counted(reviews) == len(ROWS)


def test_a_server_that_is_not_there_is_said_without_the_password(tmp_path: Path) -> None:
    address = f"postgresql+psycopg://me:geheim@/postgres?host={tmp_path}"
    (tmp_path / "secret").write_text(address)
    shown = address.replace("geheim", "***")
    with pytest.raises(SourceError) as caught:
        prepare("datasets/sql", tmp_path, address=shown, secret=str(tmp_path / "secret"), query="SELECT 1")
    assert "does not answer" in caught.value.message
    assert "geheim" not in repr(caught.value.to_dict())
