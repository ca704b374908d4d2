"""The OpenAPI document of the gateway, which `/openapi.json` serves to anybody; must not know requests or keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from llm_os import errors
from llm_os._version import __version__
from llm_os.server import keys
from llm_os.server.gateway.answers import ANSWERS
from llm_os.server.gateway.schemas import REQUESTS
from llm_os.server.gateway.wishes import LONGEST, PRIORITY, TIMEOUT
from llm_os.spec.quotas import Priority

_JSON, _EVENTS, _PLAIN = "application/json", "text/event-stream", "text/plain"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint.

    Attributes:
        answer: name of its schema; empty for plain text.
        asked: name of its body's schema; empty without a body.
        streams: it answers with events when it is asked to.
        roles: of keys that may ask; None: no key is needed.
    """

    method: str
    path: str
    summary: str
    answer: str
    asked: str = ""
    streams: bool = False
    roles: frozenset[str] | None = keys.MAY_INFER


ENDPOINTS = (
    Endpoint("get", "/health", "Whether the gateway answers.", "Health", roles=None),
    Endpoint("get", "/openapi.json", "This document.", "", roles=None),
    Endpoint("get", "/metrics", "Counters for Prometheus.", "", roles=keys.MAY_WATCH),
    Endpoint("get", "/v1/models", "Deployments that the key may use.", "Models"),
    Endpoint("get", "/v1/models/{model}", "One of them, by its name or version.", "Model"),
    Endpoint("post", "/v1/chat/completions", "Answer a chat (OpenAI).", "Chat", "ChatRequest", streams=True),
    Endpoint("post", "/v1/completions", "Go on with texts (OpenAI).", "Completion", "CompletionRequest", streams=True),
    Endpoint("post", "/v1/responses", "Answer a chat (OpenAI's Responses).", "Response", "ResponsesRequest", True),
    Endpoint("post", "/v1/messages", "Answer a chat (Anthropic).", "Message", "MessagesRequest", streams=True),
    Endpoint("post", "/v1/messages/count_tokens", "Count a chat's tokens (Anthropic).", "Count", "CountRequest"),
    Endpoint("post", "/v1/embeddings", "Texts as vectors (OpenAI).", "Embeddings", "EmbeddingsRequest"),
    Endpoint("post", "/v1/rerank", "Documents, the nearest to a query first.", "Ranking", "RerankRequest"),
    Endpoint("post", "/v1/score", "How near texts are to each other.", "Scores", "ScoreRequest"),
    Endpoint("post", "/classify", "Labels of texts.", "Classes", "ClassifyRequest"),
    Endpoint("post", "/tokenize", "A text or a chat as the model reads it.", "Tokens", "TokenizeRequest"),
    Endpoint("post", "/detokenize", "Tokens as a text.", "Text", "DetokenizeRequest"),
)

_ALWAYS: Mapping[type[errors.LLMOSError], str] = {
    errors.PermissionDeniedError: "a foreign Host or Origin; the key's role or its list of deployments",
    errors.InternalError: "a defect of ours",
}
_WITH_KEY: Mapping[type[errors.LLMOSError], str] = {
    errors.AuthenticationError: "no key, or one that nobody knows",
}
_ASKED: Mapping[type[errors.LLMOSError], str] = {
    errors.InvalidInputError: "not JSON, JSON of too many levels, or the wrong endpoint",
    errors.InvalidOptionError: "a wrong parameter, named in `param`",
    errors.NotFoundError: "nothing of that name is served",
    errors.TooLargeError: "the body is over the limit",
    errors.QuotaExceededError: "the key has used what it may for now",
    errors.OverloadedError: "the queue is full",
    errors.UnavailableError: "no replica became ready, or two broke off",
    errors.DeadlineError: f"the time of {TIMEOUT} is over",
}
"""Which refusals there are, and why."""


def listed() -> str:
    """The endpoints in one line, for those who asked for another."""
    paths = {method: [one.path for one in ENDPOINTS if one.method == method] for method in ("get", "post")}
    return "; ".join(f"{method.upper()} {', '.join(found)}" for method, found in paths.items()) + "."


@cache
def page() -> bytes:
    """The document as JSON."""
    return json.dumps(document(), ensure_ascii=False).encode()


def document() -> dict[str, Any]:
    """The document."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "LLM OS gateway",
            "version": __version__,
            "description": "Models that are deployed, in the shapes of OpenAI, Anthropic, Cohere and vLLM.",
        },
        "paths": paths,
        "components": {
            "schemas": {**REQUESTS, **ANSWERS},
            "headers": _headers(),
            "parameters": _wishes(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    said: dict[str, Any] = {"operationId": _name(endpoint), "summary": endpoint.summary}
    parameters: list[Any] = []
    if "{model}" in endpoint.path:
        parameters.append({"name": "model", "in": "path", "required": True, "schema": {"type": "string"}})
    if endpoint.asked:
        parameters += [{"$ref": f"#/components/parameters/{name}"} for name in _wishes()]
        said["requestBody"] = {"required": True, "content": {_JSON: {"schema": _schema(endpoint.asked)}}}
    if parameters:
        said["parameters"] = parameters
    if endpoint.roles is not None:
        said["description"] = f"For keys of the roles {' and '.join(sorted(endpoint.roles))}."
        said["security"] = [{"bearer": []}, {"x-api-key": []}]
    else:
        said["security"] = []
    said["responses"] = {"200": _answer(endpoint), **_refusals(endpoint)}
    return said


def _name(endpoint: Endpoint) -> str:
    words = endpoint.path.removeprefix("/v1").replace("{", "by_").replace("}", "").replace(".", "_")
    return endpoint.method + words.replace("/", "_")


def _schema(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(endpoint: Endpoint) -> dict[str, Any]:
    if endpoint.path == "/openapi.json":
        return {"description": "This document.", "content": {_JSON: {"schema": {"type": "object"}}}}
    if not endpoint.answer:
        return {"description": "Prometheus' text format.", "content": {_PLAIN: {"schema": {"type": "string"}}}}
    content: dict[str, Any] = {_JSON: {"schema": _schema(endpoint.answer)}}
    if endpoint.streams:
        content[_EVENTS] = {"schema": _schema("Event")}
    headers = {"headers": _refs("x-request-id", "x-llm-os-cache", "x-llm-os-engine")} if endpoint.asked else {}
    return {"description": "The answer.", "content": content, **headers}


def _refusals(endpoint: Endpoint) -> dict[str, Any]:
    """By status. An engine may refuse with others: its status and code are passed on."""
    why = dict(_ALWAYS)
    if endpoint.roles is not None:
        why |= _WITH_KEY
    if endpoint.asked:
        why |= _ASKED
    elif "{model}" in endpoint.path:
        why[errors.NotFoundError] = _ASKED[errors.NotFoundError]
    by_status: dict[int, list[str]] = {}
    for error, cause in why.items():
        by_status.setdefault(error.status, []).append(f"`{error.code}`: {cause}")
    told = {str(status): _refusal(endpoint, "; ".join(by_status[status]), status) for status in sorted(by_status)}
    if endpoint.asked:
        told["default"] = _refusal(endpoint, "What the engine refused or failed with, under its own status and code", 0)
    return told


def _refusal(endpoint: Endpoint, why: str, status: int) -> dict[str, Any]:
    shape = "MessagesError" if endpoint.path.startswith("/v1/messages") else "Error"
    names = ["x-request-id"]
    if status in {429, 503}:
        names.append("retry-after")
    return {"description": f"{why}.", "content": {_JSON: {"schema": _schema(shape)}}, "headers": _refs(*names)}


def _refs(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _headers() -> dict[str, Any]:
    return {
        "x-request-id": {
            "description": "Names the request in the gateway's logs; `request-id` says the same.",
            "schema": {"type": "string"},
        },
        "x-llm-os-cache": {
            "description": "Whether the answer was kept from before; of keys with `--cache`, where nothing is drawn.",
            "schema": {"enum": ["hit", "miss"], "type": "string"},
        },
        "x-llm-os-engine": {
            "description": "Whose answer it is, of a deployment with several engines.",
            "schema": {"type": "string"},
        },
        "retry-after": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}},
    }


def _wishes() -> dict[str, Any]:
    return {
        PRIORITY: {
            "name": PRIORITY,
            "in": "header",
            "description": "Whose turn comes first when replicas are busy; as urgent as the key may ask for.",
            "schema": {"enum": [str(one) for one in Priority], "type": "string"},
        },
        TIMEOUT: {
            "name": TIMEOUT,
            "in": "header",
            "description": "Seconds in which the answer must be complete.",
            "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST},
        },
    }
