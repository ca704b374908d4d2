"""Rows of a query on any database that SQLAlchemy knows, streamed from the server, in a transaction that only reads."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic import Field

from llm_os.errors import DataError, NotFoundError, SourceError, did_you_mean
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.datasets.ingest import Ingest, Source, SourceRow
from llm_os.tasks.datasets.options import OwnDataOptions
from llm_os.tasks.preparation.step import choose
from llm_os.tasks.task import Task

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

BATCH = 1000
"""Rows that are fetched together."""
READS = re.compile(r"^(\s|\(|--[^\n]*\n|/\*.*?\*/)*(select|with|values|table)\b", re.IGNORECASE | re.DOTALL)
READ_ONLY = {
    "postgresql": "SET TRANSACTION READ ONLY",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
}
"""Dialect -> what makes a transaction refuse to write; SQLite is opened so."""
STREAMED = {"stream_results": True, "yield_per": BATCH}
WRITES = ("read-only", "readonly", "read only", "not authorized", "data-modifying")
DRIVERS = {"postgresql": "psycopg[binary]", "mysql": "PyMySQL", "mariadb": "PyMySQL", "mssql": "pyodbc"}
DRIVER_NAMES = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}
"""Backend -> the driver that is taken: others send a second statement along with the query, which may end the
transaction that only reads."""


class SqlOptions(OwnDataOptions):
    address: str = Field(min_length=1, examples=["sqlite:////data/reviews.db"])
    """SQLAlchemy URL, what is secret in it put out."""
    secret: str | None = None
    """Path of a file that holds the whole URL, where there is something secret in it."""
    query: str = Field(min_length=1, examples=["SELECT text, label FROM reviews"])
    """What to read: one statement that only reads."""
    test: str | None = None
    """A second query for the test rows; none: some rows of `query` are kept for the test."""


class Sql(Task[SqlOptions]):
    """Not cached: nobody but the database knows whether its rows are still the same."""

    Options = SqlOptions
    optional_inputs = ("tokenizer",)
    output = "dataset"

    def resources(self, options: SqlOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> ResourceSpec:
        choose(options.steps or ())
        for query in (options.query, options.test):
            if query is not None and not READS.match(query):
                raise DataError(
                    f"The query begins with '{query.split(maxsplit=1)[0][:20] if query.split() else ''}'; it may only "
                    "read.",
                    hint="Write SELECT ... (or WITH, VALUES, TABLE).",
                )
        return ResourceSpec(cpus=min(0.25, granted.cpus), memory=768 * 2**20)

    def run(self, context: Context, options: SqlOptions) -> None:
        with connected(options) as (connection, hidden):
            rows = _rows(connection, options.query, "the query", None if options.test is None else "train", hidden)
            if options.test is not None:
                rows = _both(rows, _rows(connection, options.test, "the test query", "test", hidden))
            facts: dict[str, Json] = {"kind": "sql", "address": options.address, "query": options.query}
            facts |= {"test": options.test} if options.test is not None else {}
            Ingest(context, options, Source(options.name or "query", "the query", rows, facts, options.asked)).run()


@contextmanager
def connected(options: SqlOptions) -> Iterator[tuple[Connection, tuple[str, ...]]]:
    """A connection that only reads, and the texts that no message may hold.

    Raises:
        DataError: the address is wrong, or its driver is missing. NotFoundError: no such file.
        SourceError: the database does not answer.
    """
    from sqlalchemy.exc import SQLAlchemyError

    engine, hidden = _engine(options)
    try:
        try:
            connection = engine.connect()
        except (SQLAlchemyError, OSError) as error:
            raise SourceError(
                f"The database {options.address} does not answer: {_said(error, hidden)}.",
                hint="Check host, port, name and password.",
            ) from None  # the chain could hold the password
        with connection:
            command = READ_ONLY.get(engine.dialect.name)
            if command is not None:
                connection.exec_driver_sql(command)
            yield connection, hidden
    finally:
        engine.dispose()


def _engine(options: SqlOptions) -> tuple[Engine, tuple[str, ...]]:
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    address = options.address if options.secret is None else Path(options.secret).read_text(encoding="utf-8")
    try:
        url = make_url(address)
        if url.get_backend_name() == "sqlite":
            return create_engine("sqlite://", creator=_sqlite(url.database)), ()
        wanted = DRIVER_NAMES.get(backend := url.get_backend_name())
        if wanted is not None and wanted != f"{backend}+{url.get_driver_name()}":
            raise DataError(
                f"The driver {url.get_driver_name()} of {backend} cannot keep a query from writing.",
                hint=f"pip install '{DRIVERS[backend]}', and write {wanted}://...",
            )
        values = [str(value) for value in url.query.values()]
        hidden = tuple(text for text in (url.password, quote(url.password or "", safe=""), *values) if text)
        return create_engine(url), hidden
    except DataError:
        raise
    except NoSuchModuleError:
        name = options.address.partition("://")[0]
        raise DataError(
            f"SQLAlchemy knows no database '{name}'.", hint="postgresql+psycopg, mysql+pymysql, sqlite ..."
        ) from None
    except ImportError as error:
        backend = options.address.partition("://")[0].partition("+")[0]
        raise DataError(
            f"The driver of {backend} is not installed (no module '{error.name}').",
            hint=f"pip install '{DRIVERS.get(backend, 'its driver')}', and write "
            f"{DRIVER_NAMES.get(backend, backend + '+DRIVER')}://...",
        ) from None
    except (ArgumentError, ValueError):
        raise DataError(
            f"The address {options.address} cannot be read.",
            hint="It looks like postgresql+psycopg://user:password@host:5432/name; write @ in a password as %40.",
        ) from None


def _sqlite(database: str | None) -> Any:
    """What opens an SQLite file for reading only. Raises NotFoundError: SQLite itself would make an empty one."""
    path = Path(database or ":memory:")
    if not path.is_file():
        raise NotFoundError(f"There is no database file '{path}'.", hint="Check the path: sqlite:///reviews.db.")
    return lambda: sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, check_same_thread=False)


def _rows(
    connection: Connection, query: str, title: str, given: str | None, hidden: tuple[str, ...]
) -> Iterator[SourceRow]:
    from sqlalchemy.exc import SQLAlchemyError

    number = 0
    try:
        result = connection.exec_driver_sql(_plain(query, connection), execution_options=STREAMED)
        columns = list(result.keys())
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise DataError(f"The query gives two columns named '{twice[0]}'.", hint="Rename one: ... AS another.")
        for row in result:
            number += 1
            yield SourceRow(f"Row {number} of {title}", dict(zip(columns, row, strict=True)), given)
    except SQLAlchemyError as error:
        said = _said(error, hidden)
        if any(word in said.lower() for word in WRITES):
            raise DataError(f"{title.capitalize()} would write: {said}.", hint="Only reading is allowed.") from None
        after = f" after row {number}" if number else ""
        raise DataError(f"{title.capitalize()} failed{after}: {said}.", hint=_tables(connection, said)) from None


def _plain(query: str, connection: Connection) -> str:
    """The query as its driver reads it: those of DRIVER_NAMES take a percent sign for a place to put a value."""
    return query.replace("%", "%%") if connection.dialect.name in DRIVER_NAMES else query


def _both(one: Iterator[SourceRow], other: Iterator[SourceRow]) -> Iterator[SourceRow]:
    yield from one
    yield from other


def _said(error: BaseException, hidden: tuple[str, ...]) -> str:
    """The first line of what the driver said, without what is secret."""
    origin = getattr(error, "orig", None) or error
    text = (str(origin).strip().splitlines() or [type(origin).__name__])[0].rstrip(".")
    for secret in hidden:
        text = text.replace(secret, "***")
    return text


def _tables(connection: Connection, said: str) -> str:
    """A hint that names the tables where one was not found."""
    from sqlalchemy import inspect
    from sqlalchemy.exc import SQLAlchemyError

    wanted = re.search(r"no such table: (\S+)|relation \"([^\"]+)\" does not exist|Table '([^']+)' doesn't exist", said)
    if wanted is None:
        return "Try the query in the database's own shell."
    try:
        connection.rollback()
        names = inspect(connection).get_table_names()
    except SQLAlchemyError:
        return "Check the name of the table."
    return did_you_mean(next(name for name in wanted.groups() if name), names)


PLUGIN = Sql()
