"""Names of versions: `card@production`."""

from __future__ import annotations

from sqlalchemy import Connection

from llm_os.store.tables import aliases


def apply(connection: Connection) -> None:
    """Create the table, which a database of today's first schema has already."""
    aliases.create(connection, checkfirst=True)
