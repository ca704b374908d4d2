"""HTTP over the kernel's Unix socket: builds requests, parses answers, turns errors back into exceptions."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import httpx2
from pydantic import BaseModel, TypeAdapter

from llm_os.errors import KernelUnavailableError, LLMOSError, NotFoundError, from_dict

T = TypeVar("T")
PATIENCE = 30.0
"""Seconds a call is tried again while the kernel comes back."""
REPEATABLE = frozenset({"GET", "PUT", "DELETE"})
TYPED = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._@:-]*")
"""Everything that has a name is named so; other letters would change the path they are put into."""


def place(collection: str, name: str, what: str) -> str:
    """`/v1/<collection>/<name>` for a name that a person typed.

    Args:
        what: `job`, `model`, ...: for the error.

    Raises:
        NotFoundError: nothing can have that name.
    """
    if not TYPED.fullmatch(name):
        hint = "Names are made of letters, digits, '.', '_' and '-'."
        raise NotFoundError(f"There is no {what} '{name}'.", hint=hint)
    return f"/v1/{collection}/{name}"


class Transport:
    """Calls the management API.

    Args:
        socket: Unix socket of the kernel.
        revive: called when nobody answers; starts the kernel again or raises KernelUnavailableError.
    """

    def __init__(self, socket: Path, revive: Callable[[], None]) -> None:
        self._client = httpx2.Client(
            transport=httpx2.HTTPTransport(uds=str(socket)), base_url="http://localhost", timeout=90.0
        )
        self._revive = revive

    def call(
        self,
        method: str,
        path: str,
        answer: type[T],
        *,
        body: BaseModel | None = None,
        params: Mapping[str, str | int | float] | None = None,
    ) -> T:
        """One call. A kernel that died meanwhile is brought back, and what may be repeated is repeated.

        Raises:
            KernelUnavailableError: no kernel, and none could be started.
            LLMOSError: whatever the kernel answered.
        """
        content = None if body is None else body.model_dump_json()
        headers = {} if content is None else {"content-type": "application/json"}
        until = time.monotonic() + PATIENCE
        while True:
            try:
                reply = self._client.request(method, path, content=content, headers=headers, params=dict(params or {}))
                break
            except httpx2.ConnectError as error:
                self._again(until, error)
            except httpx2.TransportError as error:
                if method not in REPEATABLE:
                    raise KernelUnavailableError(
                        "The kernel went away in the middle of a call.", hint="`llm-os ps` shows whether it was done."
                    ) from error
                self._again(until, error)
        if reply.status_code >= 400:
            raise error_of(reply)
        parsed: T = TypeAdapter(answer).validate_json(reply.content)
        return parsed

    def _again(self, until: float, error: Exception) -> None:
        if time.monotonic() > until:
            raise KernelUnavailableError("The kernel does not answer.", hint="See `llm-os doctor`.") from error
        self._revive()
        time.sleep(0.1)

    def close(self) -> None:
        self._client.close()


def error_of(reply: httpx2.Response) -> LLMOSError:
    """The exception that an error answer tells of, of the kernel or of the gateway."""
    try:
        data = reply.json()["error"]
    except (ValueError, KeyError, TypeError):
        return LLMOSError(f"An answer that cannot be read (status {reply.status_code}): {reply.text[:200]}")
    return from_dict(data)
