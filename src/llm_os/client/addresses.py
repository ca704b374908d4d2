"""Database addresses as `load_data` takes them: what may be shown of one, and what must not. Opens nothing."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import SplitResult, urlsplit, urlunsplit

from llm_os.errors import InvalidInputError

ADDRESS = re.compile(r"^[a-z][a-z0-9+_.-]*://", re.IGNORECASE)
WEB = ("http", "https", "ftp", "s3", "gs", "hf", "file")


def is_address(name: str) -> bool:
    return bool(ADDRESS.match(name))


def absolute(address: str) -> str:
    """A relative SQLite file as an absolute one: the job runs in another folder. Raises InvalidInputError."""
    scheme = address.partition("://")[0].lower()
    if scheme in WEB:
        raise InvalidInputError(
            f"Data is not fetched over {scheme}.", hint="Download the file and give its path, or hub:owner/name."
        )
    if scheme.partition("+")[0] != "sqlite":
        return address
    path, mark, query = address.partition("://")[2].removeprefix("/").partition("?")
    if not path or path == ":memory:" or path.startswith("file:"):
        return address
    return f"{scheme}:///{Path(path).expanduser().absolute()}{mark}{query}"


def shown(address: str) -> str:
    """The address without password and without values of parameters, which may be passwords too."""
    if address.lower().startswith("sqlite"):
        return address.partition("?")[0]
    try:
        parts = urlsplit(address)
        user, at, host = parts.netloc.rpartition("@")
        if at:
            name, colon, _ = user.partition(":")
            host = f"{name}{':***' if colon else ''}@{host}"
        query = re.sub(r"=[^&]*", "=***", parts.query)
        return urlunsplit(SplitResult(parts.scheme, host, parts.path, query, ""))
    except ValueError:
        return f"{address.partition('://')[0]}://***"
