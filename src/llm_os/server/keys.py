"""Keys, roles and the one authorisation function of management API and gateway; must not know HTTP frameworks or SQL.

A key is a secret text; everybody but its owner stores its sha256 only. A key is looked up by that hash, which nobody
can steer: how long it takes says nothing of the keys that are known.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from llm_os.errors import AuthenticationError, PermissionDeniedError
from llm_os.spec.routing import KeyEntry

ADMIN = "admin"
USER = "user"
MONITOR = "monitor"

MAY_INFER = frozenset({ADMIN, USER})
"""Roles that may ask models."""
MAY_WATCH = frozenset({ADMIN, MONITOR})
"""Roles that may read metrics."""
MAY_MANAGE = frozenset({ADMIN})
"""Roles that may use the management API."""

_HOW_TO_SEND = "Send the header 'Authorization: Bearer KEY'"


def mint() -> str:
    """A new key with 256 random bits, such as `sk-llmos-7Yx...`."""
    return "sk-llmos-" + secrets.token_urlsafe(32)


def digest(key: str) -> str:
    """What is stored of a key: its sha256, hexadecimal."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def admin_entry(key: str) -> KeyEntry:
    """The entry of the home's own key."""
    return KeyEntry(id="admin", sha256=digest(key), role=ADMIN)


def ensure_admin_key(path: Path) -> str:
    """The key in `path` (mode 0600), made at first use. Two processes that race get the same key.

    Raises:
        AuthenticationError: the file is there and empty.
    """
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(mint() + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # another process was first; its key counts
        finally:
            draft.unlink()
    key = path.read_text(encoding="ascii").strip()
    if not key:
        raise AuthenticationError(
            f"The key file {path} is empty.", hint="Delete it and start the kernel again; a new key is made."
        )
    return key


def bearer(header: str | None) -> str:
    """The key in an `Authorization` header. Raises AuthenticationError when there is none."""
    if not header:
        raise AuthenticationError("No key was sent.", hint=_HOW_TO_SEND + ".")
    scheme, _, key = header.strip().partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise AuthenticationError("The Authorization header is not a bearer key.", hint=_HOW_TO_SEND + ".")
    return key.strip()


def by_digest(entries: Iterable[KeyEntry]) -> Mapping[str, KeyEntry]:
    """Entries as `authorise` looks them up."""
    return {entry.sha256: entry for entry in entries}


def authorise(header: str | None, known: Mapping[str, KeyEntry], roles: frozenset[str]) -> KeyEntry:
    """The entry of the key in `header`, if its role is one of `roles`.

    Args:
        known: entries by digest.

    Raises:
        AuthenticationError: no key, or one that nobody knows.
        PermissionDeniedError: the key's role does not allow it.
    """
    found = known.get(digest(bearer(header)))
    if found is None:
        raise AuthenticationError(
            "This key is not known.",
            hint="Use the key of `admin.key` in the home folder, or the one that was shown at the deployment.",
        )
    if found.role not in roles:
        raise PermissionDeniedError(
            f"A key with the role '{found.role}' may not do this.",
            hint="It needs the role " + " or ".join(f"'{role}'" for role in sorted(roles)) + ".",
        )
    return found


def may_use(entry: KeyEntry, deployment: str) -> bool:
    """Whether the key may ask this deployment, as far as its list of deployments goes."""
    return entry.deployments is None or deployment in entry.deployments
