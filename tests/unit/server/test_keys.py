"""Keys and the one authorisation function."""

import hashlib
from pathlib import Path

import pytest

from llm_os.errors import AuthenticationError, PermissionDeniedError
from llm_os.server import keys
from llm_os.spec.routing import KeyEntry

ENTRIES = keys.by_digest(
    (
        KeyEntry(id="a", sha256=keys.digest("admin-key"), role="admin"),
        KeyEntry(id="u", sha256=keys.digest("user-key"), role="user", deployments=("chat",)),
        KeyEntry(id="m", sha256=keys.digest("monitor-key"), role="monitor"),
    )
)


def test_a_key_is_long_random_and_hashed_by_sha256() -> None:
    first, second = keys.mint(), keys.mint()
    assert first != second
    assert len(first) > 45
    assert keys.digest(first) == hashlib.sha256(first.encode()).hexdigest()


@pytest.mark.parametrize("header", ["Bearer user-key", "bearer   user-key ", "BEARER user-key"])
def test_finds_the_entry_of_a_key(header: str) -> None:
    assert keys.authorise(header, ENTRIES, keys.MAY_INFER).id == "u"


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic user-key", "user-key", "Bearer other", "Bearer \udcff"]
)
def test_no_key_or_a_wrong_one_is_not_authenticated(header: str | None) -> None:
    with pytest.raises(AuthenticationError) as caught:
        keys.authorise(header, ENTRIES, keys.MAY_INFER)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("key", "roles", "allowed"),
    [
        ("admin-key", keys.MAY_MANAGE, True),
        ("user-key", keys.MAY_MANAGE, False),
        ("monitor-key", keys.MAY_MANAGE, False),
        ("admin-key", keys.MAY_WATCH, True),
        ("user-key", keys.MAY_WATCH, False),
        ("monitor-key", keys.MAY_WATCH, True),
        ("admin-key", keys.MAY_INFER, True),
        ("monitor-key", keys.MAY_INFER, False),
    ],
)
def test_roles_decide(key: str, roles: frozenset[str], allowed: bool) -> None:
    if allowed:
        assert keys.authorise(f"Bearer {key}", ENTRIES, roles)
    else:
        with pytest.raises(PermissionDeniedError, match="role"):
            keys.authorise(f"Bearer {key}", ENTRIES, roles)


def test_a_key_with_a_list_may_use_only_its_deployments() -> None:
    admin, user, _ = ENTRIES.values()
    assert keys.may_use(admin, "anything")
    assert keys.may_use(user, "chat")
    assert not keys.may_use(user, "other")


def test_the_admin_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "home" / "admin.key"
    first = keys.ensure_admin_key(path)
    assert keys.ensure_admin_key(path) == first
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["admin.key"]


def test_an_empty_key_file_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "admin.key"
    path.write_text("\n")
    with pytest.raises(AuthenticationError, match="empty"):
        keys.ensure_admin_key(path)
