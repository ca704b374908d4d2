"""The first schema."""

from __future__ import annotations

from sqlalchemy import Connection

from llm_os.store.tables import metadata


def apply(connection: Connection) -> None:
    """Create every table of version 1."""
    metadata.create_all(connection)
