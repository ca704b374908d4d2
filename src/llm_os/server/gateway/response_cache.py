"""Whole answers to deterministic requests, kept for the tenant that asked; knows no HTTP.

An entry belongs to one tenant, one state of a deployment, one path and one body: whatever could change an answer is in
its name, so nothing has to be found and thrown away when it changes. What was used longest ago goes first.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from llm_os.server.gateway.openai import Call
from llm_os.spec.routing import Route

ALWAYS = frozenset({"/tokenize", "/detokenize", "/classify", "/v1/embeddings", "/v1/rerank", "/v1/score"})
"""Paths where nothing is drawn."""
ASIDE = frozenset({"model", "stream", "stream_options", "user", "metadata", "store"})
"""Parameters that change no answer; whether it is a stream, and tells its counts, is said beside."""
COMPLETE = frozenset({"stop", "length"})
"""Why an answer ends that is worth keeping."""
OVERHEAD = 512
"""Bytes that an entry takes beside its answer, about."""
LARGEST = 16
"""An answer of more than one in so many parts of the whole is not kept."""
EVENTS = "text/event-stream"


class Name(NamedTuple):
    """Of an entry."""

    tenant: str
    state: str
    """Of the deployment, see `state_of`."""
    digest: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """An answer as the engine gave it."""

    body: bytes
    content_type: str


def deterministic(path: str, value: Mapping[str, Any]) -> bool:
    """Whether a request is answered alike each time: it is greedy, or nothing is drawn at all."""
    given = value.get("temperature")
    return path in ALWAYS or (type(given) in (int, float) and given == 0)


def state_of(route: Route) -> str:
    """What a deployment is, but for which replicas are ready: another version or other options are another state."""
    return repr([getattr(route, name) for name in Route.model_fields if name not in ("endpoints", "absent")])


def name_of(tenant: str, route: Route, path: str, call: Call) -> Name:
    """The name of the answer to a request."""
    asked = {name: given for name, given in call.value.items() if name not in ASIDE}
    text = json.dumps([path, call.stream, call.hides_usage, asked], sort_keys=True)
    return Name(tenant, state_of(route), hashlib.sha256(text.encode()).digest())


class ResponseCache:
    """See the module.

    Args:
        capacity: bytes; 0 keeps nothing.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[Name, Stored] = OrderedDict()
        self.size = 0

    @property
    def largest(self) -> int:
        """Bytes of the largest answer that is kept."""
        return self._capacity // LARGEST

    def get(self, name: Name) -> Stored | None:
        """The answer, if it is there."""
        found = self._entries.get(name)
        if found is not None:
            self._entries.move_to_end(name)
        return found

    def put(self, name: Name, stored: Stored) -> None:
        """Keep an answer, at the expense of those that were used longest ago. Too large a one is not kept."""
        if len(stored.body) > self.largest:
            return
        self._drop(name)
        self._entries[name] = stored
        self.size += _weight(stored)
        while self.size > self._capacity:
            self._drop(next(iter(self._entries)))

    def forget(self, states: Collection[str], tenants: Collection[str]) -> None:
        """Drop what nobody can ask for any more: of other states of deployments, and of other tenants."""
        for name in [one for one in self._entries if one.state not in states or one.tenant not in tenants]:
            self._drop(name)

    def _drop(self, name: Name) -> None:
        gone = self._entries.pop(name, None)
        if gone is not None:
            self.size -= _weight(gone)


class Recording:
    """An answer on its way to a caller, which is kept once it is complete.

    Args:
        revision, version: of the deployment, that must have given it.
    """

    def __init__(self, cache: ResponseCache, name: Name, revision: int, version: str) -> None:
        self._cache, self._name, self._giver = cache, name, (revision, version)
        self._parts: list[bytes] | None = []
        self._size = 0

    def hear(self, part: bytes) -> None:
        """The next part of it."""
        self._size += len(part)
        if self._size > self._cache.largest:
            self._parts = None
        if self._parts is not None:
            self._parts.append(part)

    def keep(self, content_type: str, revision: int, version: str) -> None:
        """It came to its end, from this revision, and this version: another adapter may have answered than is meant."""
        if self._parts is None or (revision, version) != self._giver:
            return
        body = b"".join(self._parts)
        if complete(body, content_type):
            self._cache.put(self._name, Stored(body, content_type))


def complete(body: bytes, content_type: str) -> bool:
    """Whether an answer is a good one, with every choice at its end."""
    try:
        if content_type == EVENTS:
            lines = [line[5:].strip() for line in body.splitlines() if line.startswith(b"data:")]
            values = [json.loads(line) for line in lines if line != b"[DONE]"]
        else:
            values = [json.loads(body)]
        if not all(isinstance(value, dict) and "error" not in value for value in values):
            return False
        if all("choices" not in value for value in values):  # vectors, classes, tokens
            return content_type != EVENTS
        ends: dict[Any, Any] = {}
        for choice in (choice for value in values for choice in value.get("choices") or ()):
            ends[choice.get("index")] = choice.get("finish_reason") or ends.get(choice.get("index"))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return False  # no answer that is known here
    return bool(ends) and COMPLETE.issuperset(ends.values())


def _weight(stored: Stored) -> int:
    return len(stored.body) + OVERHEAD
