"""Serves a model that another server has, by OpenAI's API over the network; must not know which server it is.

Servers differ in what they take: newer models of OpenAI's know `max_completion_tokens` only, and no `temperature` but
1. What a server refuses by name is said in the other way, or left out where it would change nothing, and remembered.
What a caller asked for and the server cannot do stays a refusal that names it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from llm_os.errors import InvalidInputError
from llm_os.models.remote import Remote, read
from llm_os.spec.attempts import AttemptSpec, ServeCall
from llm_os.workers.backend import Backend, Piece
from llm_os.workers.bridge import CHAT, Bridge
from llm_os.workers.requests import ChatRequest
from llm_os.workers.serving import main
from llm_os.workers.upstream import Upstream

LONGEST_KEY = 16 * 1024
LIMITS = ("max_tokens", "max_completion_tokens")
"""Names of the most new tokens of a chat. Servers know the first, newer ones the second too, or alone."""
USUAL = {"temperature": 1.0, "top_p": 1.0}
"""What OpenAI's API does where these are left out."""
UNKNOWN_CODES = frozenset({"unsupported_parameter", "unsupported_value", "unknown_parameter"})
UNKNOWN = re.compile(r"not support|unsupported|unrecognized|unknown|not permitted|extra (inputs|fields)", re.IGNORECASE)
CUT_SHORT = re.compile(r"(output|token) limit was reached|could not finish the message", re.IGNORECASE)
"""A model that thinks before it answers says so of an answer of one token: it works."""


class RemoteBackend(Bridge):
    """A bridge to somebody else's server.

    Args:
        limit: one of `LIMITS`, or `auto`: the first, and the second where the server refuses it.
    """

    def __init__(self, upstream: Upstream, remote: Remote, *, most: int, limit: str) -> None:
        super().__init__(upstream, model=remote.model, most=most)
        self._fixed = limit != "auto"
        self._limit = limit if self._fixed else LIMITS[0]
        self._left_out: frozenset[str] = frozenset()

    def asked(self, request: ChatRequest, path: str) -> dict[str, Any]:
        body = super().asked(request, path)
        if path == CHAT and "max_tokens" in body:
            body[self._limit] = body.pop("max_tokens")
        return {name: value for name, value in body.items() if name not in self._left_out or value != USUAL[name]}

    async def first_token(self) -> None:
        hello = ChatRequest(messages=({"role": "user", "content": "Hi"},), max_tokens=1)
        try:
            async with aclosing(self.chat(hello)) as pieces:
                async for _ in pieces:
                    pass
        except InvalidInputError as refusal:
            if CUT_SHORT.search(refusal.message) is None:
                raise

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:
        refused: set[str] = set()
        while True:
            limit, left_out, begun = self._limit, self._left_out, False
            try:
                async with aclosing(super().chat(request)) as pieces:
                    async for piece in pieces:
                        begun = True
                        yield piece
                return
            except InvalidInputError as refusal:
                name = None if begun else self._refused(refusal, request, limit, left_out)
                if name is None or name in refused:
                    raise
                refused.add(name)
                if name in LIMITS:
                    self._limit = LIMITS[1 - LIMITS.index(name)]
                else:
                    self._left_out |= {name}

    def _refused(
        self, refusal: InvalidInputError, request: ChatRequest, limit: str, left_out: frozenset[str]
    ) -> str | None:
        """The parameter of this request that the server does not know and that need not be sent so; None: none."""
        code, named = refusal.details.get("upstream_code"), refusal.details.get("param")
        if code not in UNKNOWN_CODES and UNKNOWN.search(refusal.message) is None:
            return None
        sent = [name for name, usual in USUAL.items() if getattr(request, name) == usual and name not in left_out]
        if request.prompt is None and request.max_tokens and not self._fixed:
            sent.append(limit)
        return next((name for name in sent if named == name or (named is None and _said(name, refusal.message))), None)


def _said(name: str, message: str) -> bool:
    """Whether the message tells of this parameter; of two, the first one is the one that is refused."""
    found = [one for one in re.findall(r"[a-z_]+", message) if one in (*LIMITS, *USUAL)]
    return bool(found) and found[0] == name


def read_key(path: Path) -> str:
    """The key in a file that nobody but this user can read. Raises InvalidInputError, which never shows the key."""
    hint = "Write the key alone into it, and `chmod 600` it."
    if not path.is_absolute():
        raise InvalidInputError(f"key_file '{path}' is no absolute path.", hint="Name it from the root: /home/...")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InvalidInputError(f"key_file '{path}' cannot be opened: {error.strerror}.", hint=hint) from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise InvalidInputError(f"key_file '{path}' is no file.", hint=hint)
    with os.fdopen(descriptor, "rb") as file:
        if found.st_mode & 0o077 or found.st_uid != os.getuid():
            mode = stat.S_IMODE(found.st_mode)
            raise InvalidInputError(
                f"key_file '{path}' can be read by others (mode {mode:04o}), or is another user's.", hint=hint
            )
        text = file.read(LONGEST_KEY + 1)
    try:
        key = text.decode("ascii").strip()
    except UnicodeDecodeError:
        key = ""
    if not key or len(text) > LONGEST_KEY or not key.isprintable() or " " in key:
        raise InvalidInputError(f"key_file '{path}' holds no key.", hint=hint)
    return key


def load(call: ServeCall, _: AttemptSpec) -> Backend:
    """Read where the model is, and the key. Raises ModelError, InvalidInputError."""
    options = dict[str, Any](call.options)
    remote = read(Path(call.model.path))
    given = options.get("key_file")
    upstream = Upstream(
        remote.origin,
        remote.url,
        key=read_key(Path(given)) if given else None,
        silence=float(options["timeout"]),
        outside=True,
    )
    return RemoteBackend(upstream, remote, most=int(options["max_requests"]), limit=str(options["limit_parameter"]))


if __name__ == "__main__":
    main(load)
