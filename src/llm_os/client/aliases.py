"""Names of versions that move, asked of the kernel."""

from __future__ import annotations

from llm_os.client.connection import Connection
from llm_os.client.transport import place
from llm_os.spec import api
from llm_os.spec.models import ModelVersion


def alias_place(card: str, name: str) -> str:
    """The path of `card@name`. Raises NotFoundError for what can be no name."""
    return f"{place('aliases', card, 'model')}/{name}"


def move_alias(connection: Connection, version: ModelVersion, name: str) -> str:
    """Make `card@name` mean this version; returns that name. Raises InvalidInputError for what can be no alias."""
    body = api.MoveAlias(version=version.ref)
    return connection.transport.call("PUT", alias_place(version.card, name), api.Alias, body=body).ref
