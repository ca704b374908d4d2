"""Serves a model that another server has, by OpenAI's API over the network; must not know which server it is."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from llm_os.errors import InvalidInputError
from llm_os.models.remote import Remote, read
from llm_os.spec.attempts import AttemptSpec, ServeCall
from llm_os.workers.backend import Backend
from llm_os.workers.bridge import Bridge
from llm_os.workers.requests import ChatRequest
from llm_os.workers.serving import main
from llm_os.workers.upstream import Upstream

LONGEST_KEY = 16 * 1024


class RemoteBackend(Bridge):
    """A bridge to somebody else's server."""

    def __init__(self, upstream: Upstream, remote: Remote, *, most: int, limit: str) -> None:
        super().__init__(upstream, model=remote.model, most=most)
        self._limit = limit

    def asked(self, request: ChatRequest, path: str) -> dict[str, Any]:
        body = super().asked(request, path)
        if path == "/chat/completions" and "max_tokens" in body:
            body[self._limit] = body.pop("max_tokens")
        return body


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
