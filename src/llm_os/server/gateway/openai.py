"""The shapes of OpenAI's API: what requests and lists look like; must not know the network or keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_os.errors import InvalidInputError, InvalidOptionError
from llm_os.spec.base import DEEPEST, from_json, half_characters, too_deep
from llm_os.spec.routing import Route

_MOST_ANSWERS = 16


@dataclass(frozen=True, slots=True)
class Call:
    """What the gateway needs of a request's body; the rest is the engine's business.

    Attributes:
        most: new tokens at most, where the request says so.
        body: what the engine gets: a stream is always asked for its token counts.
        hides_usage: the caller did not ask for them, so the event that holds them alone is not passed on.
        value: the body as it was sent.
        answers: how many are asked for, of all prompts together.
    """

    model: str
    stream: bool
    body: bytes
    most: int | None = None
    hides_usage: bool = False
    value: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def answers(self) -> int:
        n, prompts = self.value.get("n"), self.value.get("prompt")
        several = len(prompts) if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int) else 1
        return several * (n if isinstance(n, int) and 0 < n <= _MOST_ANSWERS else 1)


def _wrong(param: str, message: str, hint: str) -> InvalidOptionError:
    return InvalidOptionError(message, hint=hint, details={"param": param})


def json_object(body: bytes) -> dict[str, Any]:
    """The object in a body. Raises InvalidInputError."""
    try:
        value = from_json(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(
            f"The body is not JSON: {error}.", hint='Send a JSON object, such as {"model": "NAME", ...}.'
        ) from error
    if not isinstance(value, dict):
        raise InvalidInputError(
            f"The body is a JSON {type(value).__name__}, not an object.", hint='Send {"model": "NAME", ...}.'
        )
    if too_deep(body, value):
        raise InvalidInputError(f"The body is more than {DEEPEST} lists and objects deep.", hint="Send a flatter one.")
    if half_characters(body, value):
        raise InvalidInputError(
            "The body holds half a character (an escaped surrogate without its partner).",
            hint="Cut texts between characters, and send them as UTF-8.",
        )
    return value


def any_call(body: bytes) -> Call:
    """Check that a request names its model; the engine checks the rest. Raises InvalidInputError."""
    return _call(json_object(body), body)


def _call(value: dict[str, Any], body: bytes) -> Call:
    model = value.get("model")
    if not isinstance(model, str) or not model:
        raise _wrong("model", "'model' must be a text.", "Give a name that GET /v1/models lists.")
    stream = value.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise _wrong("stream", "'stream' must be true or false.", "Leave it out for one whole answer.")
    most = value.get("max_completion_tokens") or value.get("max_tokens")
    most = most if isinstance(most, int) and most > 0 else None
    options = value.get("stream_options") or {}
    if not stream or not isinstance(options, dict) or options.get("include_usage"):
        return Call(model, bool(stream), body, most, value=value)
    plain = body.lstrip()
    if "stream_options" not in value and plain.startswith(b"{") and b"\0" not in plain:  # UTF-8 without a mark
        asking = b'{"stream_options":{"include_usage":true},' + plain[1:]
    else:
        asking = json.dumps({**value, "stream_options": {**options, "include_usage": True}}).encode()
    return Call(model, True, asking, most, hides_usage=True, value=value)


def chat_call(body: bytes) -> Call:
    """Check a chat request. Raises InvalidInputError that names the wrong parameter."""
    value = json_object(body)
    call = _call(value, body)
    messages = value.get("messages")
    hint = 'Send "messages": [{"role": "user", "content": "..."}].'
    if not isinstance(messages, list) or not messages:
        raise _wrong("messages", "'messages' must be a list with at least one message.", hint)
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _wrong(f"messages[{index}]", f"Message {index} is not an object with a 'role'.", hint)
        if not isinstance(message.get("content"), str | list | None):
            raise _wrong(f"messages[{index}].content", f"The content of message {index} is not a text.", hint)
    return call


def completion_call(body: bytes) -> Call:
    """Check a completion request. Raises InvalidInputError that names the wrong parameter."""
    value = json_object(body)
    if not isinstance(value.get("prompt"), str | list) or not value["prompt"]:
        raise _wrong("prompt", "'prompt' must be a text, or a list of texts.", 'Send "prompt": "...".')
    return _call(value, body)


def classify_call(body: bytes) -> Call:
    """Check a classification request. Raises InvalidInputError that names the wrong parameter."""
    value = json_object(body)
    call = _call(value, body)
    texts = value.get("input")
    if isinstance(texts, str):
        return call
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise _wrong("input", "'input' must be a text or a list of texts.", 'Send "input": ["first", "second"].')
    return call


def model_object(route: Route) -> dict[str, Any]:
    """A deployment as an item of `GET /v1/models`; what OpenAI does not know stands beside."""
    return {
        "id": route.deployment,
        "object": "model",
        "created": int(route.created_at),
        "owned_by": "llm-os",
        "version": route.version,
        "task": route.task,
        "engine": route.engine,
        "ready": bool(route.endpoints),
        "generation": dict(route.generation),
    }


def adapter_objects(route: Route) -> list[dict[str, Any]]:
    """A deployment's adapters as further items, each with its model as `parent`."""
    return [
        {
            **model_object(route),
            "id": f"{route.deployment}:{one.name}",
            "version": one.version,
            "parent": route.deployment,
            "ready": any(endpoint.adapters.get(one.name) == one.version for endpoint in route.endpoints),
        }
        for one in route.adapters
    ]


def model_list(routes: list[Route]) -> dict[str, Any]:
    """`GET /v1/models`."""
    return {
        "object": "list",
        "data": [one for route in routes for one in (model_object(route), *adapter_objects(route))],
    }
