"""Who may be asking over loopback TCP: refuses DNS rebinding and foreign web pages; knows header texts only."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit

from llm_os.errors import PermissionDeniedError
from llm_os.spec.hosts import is_loopback


@lru_cache(maxsize=256)
def _is_here(netloc: str) -> bool:
    try:
        return is_loopback(urlsplit(f"//{netloc}").hostname or "")
    except ValueError:
        return False


def refuse_foreign(host: str | None, origin: str | None, *, check_host: bool = True) -> None:
    """Raise PermissionDeniedError unless `Host` names loopback and `Origin`, if sent, is a loopback page.

    A page that rebinds its own name to 127.0.0.1 still sends that name as `Host`; a page of another site sends its
    `Origin`. Neither may reach the API with a browser's help.
    """
    if check_host and not _is_here(host or ""):
        raise PermissionDeniedError(
            f"The Host header {host!r} is not an address of this machine's loopback.",
            hint="Ask 127.0.0.1 or localhost; for other machines use an SSH tunnel.",
        )
    if origin is not None:
        try:
            origin_host = urlsplit(origin).hostname or ""
        except ValueError:
            origin_host = ""
        if not is_loopback(origin_host):
            raise PermissionDeniedError(
                f"Requests from the page origin {origin!r} are refused.",
                hint="Call the API from a program, not from a page.",
            )
