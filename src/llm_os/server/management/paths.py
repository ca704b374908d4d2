"""Which requests name files of this machine: those are taken over the socket only; knows no route."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import Depends, Request

from llm_os.errors import PermissionDeniedError
from llm_os.server.management.door import OVER_SOCKET
from llm_os.spec.base import Json

_FETCHED = ("package:", "hub:")
"""Sources that come from a registry; of the others, what looks like a path is one."""

_PATHS = ("path", "key_file")
"""Options that name a file of this machine; what stands in a key file is sent to the server that it is for."""


def _is_local(source: str) -> bool:
    if source.startswith(_FETCHED):
        return False
    return "/" in source or "\\" in source or source.startswith(("file:", "~", "."))


def name_a_path(options: Mapping[str, Json]) -> bool:
    """Whether options, at any depth, hold a path, or a `source` that is a file of this machine."""
    for name, value in options.items():
        if name in _PATHS and value is not None:
            return True
        if name == "source" and isinstance(value, str) and _is_local(value):
            return True
        children = value if isinstance(value, list) else [value]
        if any(name_a_path(child) for child in children if isinstance(child, Mapping)):
            return True
    return False


class PathGuard:
    """Whether this request may name paths; made for each request."""

    def __init__(self, request: Request) -> None:
        self.over_socket = bool(request.scope.get(OVER_SOCKET, False))

    def require_socket(self) -> None:
        """Raise PermissionDeniedError unless the request came over the Unix socket."""
        if not self.over_socket:
            raise PermissionDeniedError(
                "Paths are taken only over the socket.",
                hint="Run the command as the same user on the machine of the kernel, without LLM_OS_URL.",
            )

    def check(self, options: Mapping[str, Json]) -> None:
        """Raise PermissionDeniedError when `options` name a path and the request came over TCP."""
        if name_a_path(options):
            self.require_socket()


Paths = Annotated[PathGuard, Depends(PathGuard)]
