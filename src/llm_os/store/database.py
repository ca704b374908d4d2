"""Connects to SQLite (or Postgres), migrates forward, and gives transactions. Decides nothing."""

from __future__ import annotations

import importlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, insert, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import StaticPool

from llm_os.errors import ConflictError, DiskFullError
from llm_os.store import tables

MIGRATIONS = ("m0001_initial", "m0002_aliases")


class Database:
    """One writer. A transaction is short and never open while anything is awaited.

    Args:
        url: SQLAlchemy URL. `sqlite://` is a database in memory that lives as long as this object.
    """

    fence: Callable[[Connection], None] | None = None
    """Called first in each transaction; raises where this object's owner must not write any more."""

    def __init__(self, url: str) -> None:
        self.engine = make_engine(url)
        self.version = 0
        """Moves with every transaction of this object: as long as it stands still, so does the state."""
        self._migrate()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """All or nothing; durable when it returns.

        Raises:
            DiskFullError: nothing was written.
            StaleError: the fence is closed; nothing was written.
        """
        self.version += 1
        try:
            with self.engine.begin() as connection:
                if self.fence is not None:
                    self.fence(connection)
                yield connection
        except OperationalError as error:
            if "full" in str(error.orig):
                raise DiskFullError("The disk of the state database is full.") from error
            raise

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A consistent view; nothing can be written."""
        with self.engine.connect().execution_options(begin="BEGIN") as connection:
            yield connection

    def close(self) -> None:
        self.engine.dispose()

    def _migrate(self) -> None:
        with self.engine.begin() as connection:
            tables.meta.create(connection, checkfirst=True)
            row = connection.execute(select(tables.meta.c.value).where(tables.meta.c.name == "schema")).first()
            version = int(row[0]) if row else 0
            if version > len(MIGRATIONS):
                raise ConflictError(
                    f"The state database has schema {version}, this LLM OS knows {len(MIGRATIONS)}.",
                    hint="Install the newer LLM OS that wrote it, or set LLM_OS_HOME to another folder.",
                )
            for name in MIGRATIONS[version:]:
                importlib.import_module(f"llm_os.store.migrations.{name}").apply(connection)
            if row is None:
                connection.execute(insert(tables.meta).values(name="schema", value=len(MIGRATIONS)))
            elif version < len(MIGRATIONS):
                connection.execute(
                    update(tables.meta).where(tables.meta.c.name == "schema").values(value=len(MIGRATIONS))
                )


def make_engine(url: str) -> Engine:
    """An engine whose transactions begin when we say so; for SQLite durable at each commit."""
    if not url.startswith("sqlite"):
        return create_engine(url)
    memory = url in {"sqlite://", "sqlite:///:memory:"}
    extra: dict[str, Any] = {"poolclass": StaticPool} if memory else {}
    engine = create_engine(url, connect_args={"check_same_thread": False, "timeout": 30}, **extra)

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # we begin transactions ourselves, below
        if not memory:
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN IMMEDIATE"))

    return engine
