"""Keys that people make for people and programs: made, listed, revoked. Of a key only its sha256 is kept."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

from sqlalchemy import Connection

from llm_os.errors import ConflictError, LLMOSError, NotFoundError, did_you_mean
from llm_os.kernel.state import State
from llm_os.spec.api import CreatedKey, CreateKey, KeyInfo
from llm_os.spec.base import new_id
from llm_os.spec.events import EventKind
from llm_os.spec.routing import KeyEntry
from llm_os.store import rows

OWNER = "people"
"""Owner of keys that no deployment brought with it."""


def mint_key() -> tuple[str, str]:
    """(key, its sha256 in hexadecimal). 256 bits from the system."""
    key = "llmos-" + secrets.token_urlsafe(32)
    return key, hashlib.sha256(key.encode()).hexdigest()


class Keys:
    """See the module.

    Args:
        publish: tells the gateway; raises LLMOSError where it cannot.
    """

    def __init__(self, state: State, publish: Callable[[], None]) -> None:
        self._state = state
        self._publish = publish

    def create(self, request: CreateKey) -> CreatedKey:
        """Make a key. The gateway knows it before its owner does.

        Raises:
            ConflictError: there is one of this name.
            DiskFullError: the gateway could not be told; there is no such key then.
        """
        key, sha256 = mint_key()
        with self._state.database.transaction() as tx:
            if any(entry.name == request.name for entry in rows.list_keys(tx)):
                raise ConflictError(
                    f"There is a key '{request.name}' already.",
                    hint=f"Choose another name, or end it: llm-os keys revoke {request.name}",
                )
            now = self._state.clock.now()
            entry = KeyEntry(
                id=new_id("key", self._state.random),
                sha256=sha256,
                role=request.role,
                tenant=request.tenant,
                deployments=request.deployments,
                name=request.name,
                created_at=now,
                quota=request.quota,
            )
            rows.add_key(tx, entry, OWNER)
            message = f"A key '{request.name}' with the role {request.role} for the tenant {request.tenant}."
            rows.add_event(tx, now, EventKind.KEY_CREATED, request.name, message)
        try:
            self._publish()
        except LLMOSError:
            with self._state.database.transaction() as tx:
                rows.drop_key(tx, entry.id)
            raise
        self._state.pulse.beat()
        return CreatedKey(info=_info(entry), key=key)

    def list(self) -> list[KeyInfo]:
        """Keys that people made, oldest first."""
        with self._state.database.reading() as tx:
            return sorted((_info(entry) for entry in _made(tx)), key=lambda info: (info.created_at, info.name))

    def revoke(self, name: str) -> KeyInfo:
        """End a key, by its name or id. Requests under way go on.

        Raises:
            NotFoundError: there is none.
            DiskFullError: the gateway could not be told yet; it is told as soon as there is room.
        """
        with self._state.database.transaction() as tx:
            made = _made(tx)
            found = next((entry for entry in made if name in {entry.name, entry.id}), None)
            if found is None:
                raise NotFoundError(
                    f"There is no key '{name}'.", hint=did_you_mean(name, [str(entry.name) for entry in made])
                )
            rows.drop_key(tx, found.id)
            message = f"The key '{found.name}' ({found.id}) opens nothing any more."
            rows.add_event(tx, self._state.clock.now(), EventKind.KEY_REVOKED, str(found.name), message)
        self._publish()
        self._state.pulse.beat()
        return _info(found)


def _made(tx: Connection) -> list[KeyEntry]:
    return [entry for entry in rows.list_keys(tx) if entry.name is not None]


def _info(entry: KeyEntry) -> KeyInfo:
    return KeyInfo(
        id=entry.id,
        name=str(entry.name),
        role=entry.role,
        tenant=entry.tenant,
        deployments=entry.deployments,
        created_at=entry.created_at,
        quota=entry.quota,
    )
