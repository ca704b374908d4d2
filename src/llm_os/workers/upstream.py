"""The HTTP client of a server that speaks OpenAI's API, behind an engine worker; must not know which server it is.

What the server refuses becomes an error of ours that says who refused, what, and what to do.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from llm_os.errors import (
    DeadlineError,
    InvalidInputError,
    LLMOSError,
    OverloadedError,
    UnavailableError,
    UpstreamError,
)
from llm_os.spec.hosts import is_loopback

LONGEST_LINE = 2**20
"""Bytes of an event that can be read."""
MOST_TOLD = 500
"""Characters of what a server says of its errors that are passed on."""
LONGEST_WAIT = 3600.0
"""Seconds of a server's `retry-after` that are believed."""


class Upstream:
    """See the module. Nothing is tried twice: that is the gateway's to decide.

    Args:
        who: for messages: `llama.cpp`, `https://api.example.com`.
        base: begin of all addresses, without a slash at its end.
        socket: Unix socket that it listens on; None: the address says where it is.
        key: bearer; never part of a message or a log.
        connect: seconds to reach it. silence: seconds without a byte from it, None: any number.
        outside: it is another's server: proxies of the environment are used, but never for a Unix socket or this
            machine's loopback, and redirects are refused by name.
    """

    def __init__(
        self,
        who: str,
        base: str,
        *,
        socket: str | None = None,
        key: str | None = None,
        connect: float = 10.0,
        silence: float | None = None,
        outside: bool = False,
    ) -> None:
        self.who = who
        self.outside = outside
        self._base = base
        self._socket = socket
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._key = key
        self._proxy = _proxy_of(base) if outside and socket is None else None
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=silence)
        self._session: aiohttp.ClientSession | None = None

    def begin(self) -> None:
        """Call it on the server's loop."""
        # A server closes a connection that idles, just when a request is written to it on a busy machine. On a socket
        # of this machine a new one costs a tenth of a millisecond.
        connector: aiohttp.BaseConnector = aiohttp.TCPConnector(limit=0)
        if self._socket:
            connector = aiohttp.UnixConnector(path=self._socket, limit=0, force_close=True)
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            timeout=self._timeout,
            read_bufsize=LONGEST_LINE,
        )

    async def end(self) -> None:
        """Close all connections. May be called twice."""
        if self._session is not None:
            await self._session.close()

    async def healthy(self, path: str) -> bool:
        """Whether it answers there with 200; False also when nobody listens yet."""
        assert self._session is not None  # noqa: S101 - begin comes first
        try:
            async with self._session.get(self._base + path, timeout=aiohttp.ClientTimeout(total=5)) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON of its answer. Raises LLMOSError."""
        async with self._answer(path, body) as answer:
            return _parsed(await answer.read(), self.who)

    async def tell(self, path: str, body: Mapping[str, Any]) -> None:
        """Post what is answered by its status alone. Raises LLMOSError."""
        async with self._answer(path, body) as answer:
            await answer.read()

    async def events(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The events of a stream up to `[DONE]`. Closing it breaks the connection, which ends the server's work.

        Raises LLMOSError: before the first event what it refuses, later when it breaks off or tells an error.
        """
        async with self._answer(path, body) as answer:
            async for line in answer.content:
                field, _, text = line.decode(errors="replace").partition(":")
                if field not in ("data", "error") or not text.strip():
                    continue
                if text.strip() == "[DONE]":
                    return
                event = _parsed(text.encode(), self.who)
                if field == "error" or (isinstance(event, dict) and event.get("error")):
                    told = _error_of(text.encode())
                    raise self._refusal(int(_code(told) or 500), told, {})
                if isinstance(event, dict):
                    yield event
            raise UnavailableError(f"{self.who} broke its answer off.", hint="Ask again in a moment.")

    @asynccontextmanager
    async def _answer(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        assert self._session is not None  # noqa: S101 - begin comes first
        address = self._base + path
        try:
            async with self._session.post(address, json=body, allow_redirects=False, proxy=self._proxy) as answer:
                if answer.status != 200:
                    told = _error_of(await answer.content.read(LONGEST_LINE))
                    raise self._refusal(answer.status, told, answer.headers)
                yield answer  # if it is not read to its end, the connection is closed, not used again
        except aiohttp.ClientSSLError as error:
            raise UpstreamError(
                f"The certificate of {self.who} cannot be trusted: {error.args[-1] if error.args else error}.",
                hint="Name the authority that signed it: SSL_CERT_FILE. It is always checked.",
            ) from error
        except (aiohttp.ServerTimeoutError, TimeoutError) as error:
            raise DeadlineError(
                f"{self.who} did not answer in time.", hint="Ask again, or give it more time."
            ) from error
        except (aiohttp.ClientError, ValueError, OSError) as error:  # ValueError: a line that does not end
            if isinstance(error, LLMOSError):
                raise
            raise UnavailableError(
                f"{self.who} cannot be spoken to: {type(error).__name__}: {self._without_key(str(error))}",
                hint="Is it running, and is the address right? Ask again in a moment.",
            ) from error

    def _without_key(self, text: str) -> str:
        """Some servers tell the key that they do not take."""
        return (text.replace(self._key, "[key]") if self._key else text)[:MOST_TOLD]

    def _refusal(self, status: int, told: Mapping[str, Any], headers: Mapping[str, str]) -> LLMOSError:
        said = self._without_key(str(told.get("message") or "it says nothing more"))
        message = f"{self.who} answered {status}: {said}"
        details = {"upstream_status": status, **({"param": told["param"]} if told.get("param") else {})}
        if isinstance(told.get("code"), str):
            details["upstream_code"] = told["code"]
        if "retry-after" in headers or status in (429, 503):
            details["retry_after"] = _seconds(headers.get("retry-after", ""))
        if _too_long(told):
            return InvalidInputError(
                message, hint="Send fewer or shorter messages.", details={"param": "messages", **details}
            )
        if self.outside and status in _OTHERS:
            return UpstreamError(message, hint=_OTHERS[status], details=details)
        if status == 429:
            return OverloadedError(message, hint="Try again later; its owner sets that limit.", details=details)
        if status in (408, 504):
            return DeadlineError(message, hint="Ask again, or for less.", details=details)
        if status >= 500:
            return UnavailableError(message, hint="Ask again in a moment.", details=details)
        if status in (400, 413, 422):
            return InvalidInputError(message, hint="Change the request.", details=details)
        return UpstreamError(message, hint="Check its address and that it speaks OpenAI's API.", details=details)


_OTHERS: Mapping[int, str] = {
    401: "Its key is missing or wrong: the option `key_file` names the file that holds it.",
    402: "Its account has no credit left.",
    403: "Its key may not do that.",
    404: "Check the address (most end in /v1) and the name of the model there.",
}
"""What a caller of ours cannot mend, the operator can."""


def _proxy_of(address: str) -> str | None:
    """The proxy that the environment names for it. (aiohttp's own way reads passwords of other programs, too.)"""
    parts = urlsplit(address)
    if is_loopback(parts.hostname or "") or proxy_bypass(parts.netloc):
        return None
    return getproxies().get(parts.scheme)


def _too_long(told: Mapping[str, Any]) -> bool:
    return told.get("type") == "exceed_context_size_error" or told.get("code") == "context_length_exceeded"


def _code(told: Mapping[str, Any]) -> int | None:
    code = told.get("code")
    return code if isinstance(code, int) and 400 <= code < 600 else None


def _seconds(text: str) -> float:
    """Of a `retry-after`; 1 where it says none that can be read (a date)."""
    try:
        return min(max(float(text), 1.0), LONGEST_WAIT)
    except ValueError:
        return 1.0


def _error_of(body: bytes) -> dict[str, Any]:
    """What an error's body says: OpenAI's shape, or any other, or a page."""
    try:
        value = json.loads(body)
    except ValueError:
        return {"message": " ".join(body.decode(errors="replace").split())}
    found = value.get("error", value) if isinstance(value, dict) else value
    if isinstance(found, dict):
        return {**found, "message": found.get("message") or found.get("detail")}
    return {"message": str(found)}


def _parsed(text: bytes, who: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UpstreamError(
            f"{who} answered with something that is no JSON.", hint="Check that it speaks OpenAI's API."
        ) from error
