"""Names of versions that move, asked of the kernel. Must not know how followers are compared with PyTorch."""

from __future__ import annotations

from llm_os.client.connection import Connection
from llm_os.client.references import ensure_for_move
from llm_os.client.transport import place
from llm_os.spec import api
from llm_os.spec.models import ModelVersion


def alias_place(card: str, name: str) -> str:
    """The path of `card@name`. Raises NotFoundError for what can be no name."""
    return f"{place('aliases', card, 'model')}/{name}"


def move_alias(connection: Connection, card: str, name: str, version: ModelVersion, *, check: bool = True) -> api.Alias:
    """Make `card@name` mean this version, once there is what the engines of its followers are compared with.

    Args:
        check: have that made, where a deployment that is compared follows the alias; where it cannot be made, say so.

    Raises:
        InvalidInputError: it can be no alias, or the version is one of another card.
        Anything that `ensure_for_move` raises; the alias then means what it meant.
    """
    path = alias_place(card, name)
    if check and version.card == card:  # else the kernel refuses it
        found = connection.transport.call("GET", "/v1/aliases", list[api.Alias], params={"card": card})
        followers = [follower for alias in found if alias.name == name for follower in alias.followers]
        ensure_for_move(connection, version, followers)
    return connection.transport.call("PUT", path, api.Alias, body=api.MoveAlias(version=version.ref))
