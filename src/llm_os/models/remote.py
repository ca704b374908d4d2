"""A model on somebody else's server: its address instead of weights, in one small file; must not know the network."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from llm_os.errors import InvalidInputError, ModelError
from llm_os.spec.base import Json

FILE = "remote.json"
LONGEST = 2048
HINT = "Write remote:https://HOST/v1#MODEL, or with its context: remote:https://HOST/v1#MODEL?context=8192"


@dataclass(frozen=True, slots=True)
class Remote:
    """Where it is.

    Attributes:
        url: begin of the paths of OpenAI's API, without a slash at its end: `https://api.example.com/v1`.
        model: its name there.
        context: tokens that it takes with its answer; 0 where nobody knows.
    """

    url: str
    model: str
    context: int = 0

    @property
    def origin(self) -> str:
        """For messages: scheme and host."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


def parse(text: str) -> Remote:
    """From `https://HOST/v1#MODEL[?context=N]`. Raises InvalidInputError."""
    url, _, fragment = text.partition("#")
    model, _, more = fragment.partition("?context=")
    if more and not (more.isascii() and more.isdigit()):
        raise InvalidInputError(f"'context={more}' is no number of tokens.", hint=HINT)
    return checked(Remote(url.rstrip("/"), model, int(more or 0)))


def checked(remote: Remote) -> Remote:
    """The same. Raises InvalidInputError for an address that is none, is not safe, or holds a secret."""
    shown = remote.url.rpartition("@")[2].partition("?")[0][:200]
    if len(remote.url) > LONGEST or not remote.url.isascii() or not remote.url.isprintable() or " " in remote.url:
        raise InvalidInputError(f"'{shown}' is no address.", hint=HINT)
    try:
        parts = urlsplit(remote.url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidInputError(f"'{shown}' is no address: {error}.", hint=HINT) from error
    if parts.scheme not in ("http", "https") or not host:
        raise InvalidInputError(f"'{shown}' is no http address.", hint=HINT)
    if parts.username is not None or parts.password is not None or parts.query:
        raise InvalidInputError(
            f"The address of '{shown}' holds more than a place: a name, a password or a query.",
            hint="The key goes into a file of mode 0600, which the engine's option `key_file` names.",
        )
    if parts.scheme == "http" and not _is_loopback(host):
        raise InvalidInputError(
            f"'{shown}' is not encrypted: everybody on the way could read the key and the texts.",
            hint="Use https, or reach it by a tunnel that ends on this machine (http://127.0.0.1:PORT/v1).",
        )
    if not remote.model or len(remote.model) > LONGEST or not remote.model.isprintable():
        raise InvalidInputError(f"'{shown}' names no model.", hint=HINT)
    return remote


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def write(remote: Remote, folder: Path) -> None:
    """Lay the file into a folder."""
    data = {"url": remote.url, "model": remote.model, "context": remote.context}
    (folder / FILE).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def read(folder: Path) -> Remote:
    """From a folder, or the file itself. Raises ModelError, InvalidInputError."""
    path = folder / FILE if folder.is_dir() else folder
    try:
        data = json.loads(path.read_bytes())
        if set(data) - {"url", "model", "context"}:
            raise ValueError("it may hold url, model and context only")
        remote = Remote(str(data["url"]).rstrip("/"), str(data["model"]), int(data.get("context") or 0))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{FILE} of '{folder.name}' cannot be read: {error}.", hint=HINT) from error
    return checked(remote)


def facts(folder: Path) -> dict[str, Json]:
    """What `formats.inspect` tells of it."""
    remote = read(folder)
    return {
        "format": "remote",
        "precision": "unknown",
        "task": "text-generation",
        "architecture": "remote",
        "parameters": 0,
        "labels": None,
        "context_length": remote.context,
        "hidden_size": 0,
        "layers": 0,
        "chat_template": True,
        "url": remote.url,
        "model": remote.model,
    }
