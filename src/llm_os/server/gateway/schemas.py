"""JSON Schemas of what the gateway takes and answers, for its OpenAPI document; checks nothing, knows no network.

What is checked stands in `openai.py`, `responses.py` and `anthropic.py`, and in the engine workers, which this process
must not import: `tests/unit/server/gateway/test_openapi.py` holds both against each other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from llm_os.server.gateway import anthropic, responses
from llm_os.server.gateway.routes import SERVED_BY

Schema = dict[str, Any]

ANY: Schema = {}
TEXT: Schema = {"type": "string"}
SAID: Schema = {"type": "string", "minLength": 1}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
TRUTH: Schema = {"type": "boolean"}
MODEL: Schema = {**SAID, "description": "A deployment, or a version that is served (`card@3`)."}
MOST_STOPS, MOST_TEXTS, MOST_PROMPTS, MOST_ANSWERS, MOST_LOGPROBS = 8, 4096, 256, 16, 20
NEUTRAL: Mapping[str, Any] = {"logit_bias": {}, "tools": [], "best_of": 1, "echo": False, "suffix": ""}
"""Parameters that no engine follows, with the value that asks for nothing."""


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: Schema, **limits: int) -> Schema:
    return {"type": "array", "items": items, **limits}


def _object(required: Collection[str] = (), **properties: Schema) -> Schema:
    """An object that may hold more."""
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {})}


def _asked(required: Collection[str], **properties: Schema) -> Schema:
    """A request: other names are refused; what is not required may be null."""
    optional = {name: value if name in required else _or_null(value) for name, value in properties.items()}
    return {**_object(required, **optional), "additionalProperties": False}


def _or_null(schema: Schema) -> Schema:
    if not schema:
        return schema
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], None]}
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def _known(known: Collection[str], required: Collection[str], **properties: Schema) -> Schema:
    """A request that may hold the names of `known`; what is not described is taken and not followed."""
    return _asked(required, **{name: properties.get(name, ANY) for name in sorted(known | properties.keys())})


def _parts(kinds: Collection[str]) -> Schema:
    """A text, or parts that are all texts."""
    part = _object(("type", "text"), type={"enum": sorted(kinds)}, text=TEXT)
    return {"anyOf": [TEXT, _list(part)]}


def _message(roles: Collection[str], content: Schema) -> Schema:
    return _object(("role", "content"), role={"enum": list(roles)}, content=content)


def _texts(one: Schema = TEXT) -> Schema:
    return {"anyOf": [one, _list(one, minItems=1, maxItems=MOST_TEXTS)]}


_MOST = {**WHOLE, "minimum": 1, "maximum": 2**63 - 1, "description": "New tokens at most."}
_TEMPERATURE = {**NUMBER, "minimum": 0, "maximum": 2}
_TOP_P = {**NUMBER, "exclusiveMinimum": 0, "maximum": 1}
_STOPS = _list(SAID, maxItems=MOST_STOPS)
_PENALTY = {**NUMBER, "minimum": -2, "maximum": 2, "description": "Followed by the engine openvino."}
_IDS = _list({**WHOLE, "minimum": 0, "maximum": 2**31 - 1}, minItems=1)
_PROMPTS = {"anyOf": [SAID, _IDS, _list({"anyOf": [SAID, _IDS]}, minItems=1, maxItems=MOST_PROMPTS)]}
_CONTENT = {"anyOf": [TEXT, _list(_object(("type", "text"), type={"enum": ["text"]}, text=TEXT), minItems=1)]}
_CHAT = _list(_message(("system", "developer", "user", "assistant"), _CONTENT), minItems=1)
_FORMAT = {
    **_object(("type",), type={"enum": ["text", "json_object", "json_schema"]}, json_schema={"type": "object"}),
    "description": "Followed by the engine openvino; the others take `text` alone.",
}
_UNUSED = {"user": ANY, "metadata": ANY, "store": ANY}
_SAMPLING: Mapping[str, Schema] = {
    "model": MODEL,
    **_UNUSED,
    "stream": {**TRUTH, "description": "Answer with server-sent events, `[DONE]` last."},
    "stream_options": {
        **_object(include_usage=_or_null(TRUTH), include_obfuscation=ANY),
        "additionalProperties": False,
    },
    "max_tokens": _MOST,
    "temperature": _TEMPERATURE,
    "top_p": _TOP_P,
    "seed": {**WHOLE, "minimum": 0, "maximum": 2**63 - 1},
    "stop": {"anyOf": [SAID, _STOPS]},
    "n": {**WHOLE, "minimum": 1, "maximum": MOST_ANSWERS},
    "frequency_penalty": _PENALTY,
    "presence_penalty": _PENALTY,
    **{name: {"enum": [value], "description": "No engine follows it."} for name, value in NEUTRAL.items()},
}
_TOP = {**WHOLE, "minimum": 0, "maximum": MOST_LOGPROBS}

REQUESTS: Mapping[str, Schema] = {
    "ChatRequest": _asked(
        ("model", "messages"),
        **_SAMPLING,
        messages=_CHAT,
        max_completion_tokens=_MOST,
        response_format=_FORMAT,
        logprobs={**TRUTH, "description": "Followed by the engines torch and openvino."},
        top_logprobs={**_TOP, "description": "With `logprobs`; followed by the engine torch."},
    ),
    "CompletionRequest": _asked(
        ("model", "prompt"),
        **_SAMPLING,
        prompt=_PROMPTS,
        logprobs={"anyOf": [_TOP, {"enum": [False]}], "description": "Followed by the engines torch and openvino."},
    ),
    "ResponsesRequest": _known(
        responses.KNOWN | responses.NEUTRAL.keys(),
        ("model", "input"),
        model=MODEL,
        input={"anyOf": [SAID, _list(_ref("ResponsesInput"), minItems=1)]},
        instructions=TEXT,
        max_output_tokens=_MOST,
        stream=TRUTH,
        temperature=_TEMPERATURE,
        top_p=_TOP_P,
        metadata={"type": "object", "additionalProperties": TEXT},
        **{name: {"enum": list(values)} for name, values in responses.NEUTRAL.items()},
    ),
    "ResponsesInput": {
        **_message(responses.ROLES, _parts(responses.PARTS)),
        "properties": {
            **_message(responses.ROLES, _parts(responses.PARTS))["properties"],
            "type": {"enum": ["message"]},
        },
    },
    "MessagesRequest": _known(
        anthropic.KNOWN,
        ("model", "messages", "max_tokens"),
        model=MODEL,
        messages=_list(_message(("user", "assistant"), _parts(anthropic.PARTS)), minItems=1),
        system=_parts(anthropic.PARTS),
        max_tokens=_MOST,
        stop_sequences=_STOPS,
        stream=TRUTH,
        temperature=_TEMPERATURE,
        top_p=_TOP_P,
    ),
    "CountRequest": _known(
        anthropic.COUNTED,
        ("model", "messages"),
        model=MODEL,
        messages=_list(_message(("user", "assistant"), _parts(anthropic.PARTS)), minItems=1),
        system=_parts(anthropic.PARTS),
    ),
    "TokenizeRequest": {
        **_asked(("model",), model=MODEL, **_UNUSED, prompt=TEXT, messages=_CHAT),
        "oneOf": [
            _object(("prompt",), prompt=TEXT, messages={"type": "null"}),
            _object(("messages",), messages=_CHAT, prompt={"type": "null"}),
        ],
    },
    "DetokenizeRequest": _asked(("model", "tokens"), model=MODEL, **_UNUSED, tokens=_IDS),
    "ClassifyRequest": _asked(("model", "input"), model=MODEL, **_UNUSED, input=_texts()),
    "EmbeddingsRequest": _asked(
        ("model", "input"), model=MODEL, **_UNUSED, input=_texts(), encoding_format={"enum": ["float", "base64"]}
    ),
    "RerankRequest": _asked(
        ("model", "query", "documents"),
        model=MODEL,
        **_UNUSED,
        query=SAID,
        documents=_texts({"anyOf": [SAID, _object(("text",), text=SAID)]})["anyOf"][1],
        top_n={**WHOLE, "minimum": 1},
        return_documents={**TRUTH, "default": True},
    ),
    "ScoreRequest": _asked(
        ("model", "text_1", "text_2"),
        model=MODEL,
        **_UNUSED,
        text_1={**_texts(SAID), "description": "One text, or as many as `text_2` has."},
        text_2=_texts(SAID),
    ),
}
"""Bodies, by name."""

_USAGE = _object(("prompt_tokens",), prompt_tokens=WHOLE, completion_tokens=WHOLE, total_tokens=WHOLE)
_ENDING: Mapping[str, Schema] = {"finish_reason": _or_null(TEXT), "stop_reason": _or_null(TEXT)}


def _listed(item: Schema) -> Schema:
    return _object(("model", "data"), object={"enum": ["list"]}, model=TEXT, data=_list(item), usage=_USAGE)


def _generated(kind: str, **choice: Schema) -> Schema:
    one = _object(("index", *choice), index=WHOLE, **choice, logprobs=ANY, **_ENDING)
    return _object(
        ("id", "object", "created", "model", "choices"),
        id=TEXT,
        object={"enum": [kind]},
        created=WHOLE,
        model=TEXT,
        choices=_list(one),
        usage=_USAGE,
    )


def _error(**more: Schema) -> Schema:
    names = ("message", "type", "code", "param", "hint")
    return _object(names, message=TEXT, type=TEXT, code=TEXT, param=_or_null(TEXT), hint=TEXT, **more)


ANSWERS: Mapping[str, Schema] = {
    "Chat": _generated("chat.completion", message=_object(("role", "content"), role=TEXT, content=TEXT)),
    "Completion": _generated("text_completion", text=TEXT),
    "Response": _object(
        ("id", "object", "status", "output", "usage"),
        id=TEXT,
        object={"enum": ["response"]},
        created_at=NUMBER,
        model=TEXT,
        status={"enum": ["completed", "incomplete"]},
        output=_list(
            _object(("type", "role", "content"), type=TEXT, role=TEXT, content=_list(_object(("type", "text"))))
        ),
        usage=_object(("input_tokens", "output_tokens"), input_tokens=WHOLE, output_tokens=WHOLE, total_tokens=WHOLE),
    ),
    "Message": _object(
        ("id", "type", "role", "model", "content", "stop_reason", "usage"),
        id=TEXT,
        type={"enum": ["message"]},
        role=TEXT,
        model=TEXT,
        content=_list(_object(("type", "text"), type=TEXT, text=TEXT)),
        stop_reason={"enum": ["end_turn", "max_tokens", "stop_sequence"]},
        stop_sequence=_or_null(TEXT),
        usage=_object(("input_tokens", "output_tokens"), input_tokens=WHOLE, output_tokens=WHOLE),
    ),
    "Count": _object(("input_tokens",), input_tokens=WHOLE),
    "Tokens": _object(("tokens", "count", "max_model_len"), tokens=_list(WHOLE), count=WHOLE, max_model_len=WHOLE),
    "Text": _object(("prompt",), prompt=TEXT),
    "Classes": _listed(
        _object(
            ("index",),
            index=WHOLE,
            label=TEXT,
            score=NUMBER,
            scores={"type": "object", "additionalProperties": NUMBER},
            labels={**_list(TEXT), "description": "Of a text that may have several."},
            spans={**_list({"type": "object"}), "description": "Of a model that marks parts of texts."},
        )
    ),
    "Embeddings": _listed(
        _object(
            ("index", "embedding"),
            object=TEXT,
            index=WHOLE,
            embedding={"anyOf": [_list(NUMBER), TEXT]},
        )
    ),
    "Ranking": _object(
        ("model", "results"),
        model=TEXT,
        results=_list(
            _object(
                ("index", "relevance_score"),
                index=WHOLE,
                relevance_score=NUMBER,
                document=_object(("text",), text=TEXT),
            )
        ),
        usage=_USAGE,
    ),
    "Scores": _listed(_object(("index", "score"), object=TEXT, index=WHOLE, score=NUMBER)),
    "Model": _object(
        ("id", "object", "created", "owned_by"),
        id=TEXT,
        object={"enum": ["model"]},
        created=WHOLE,
        owned_by=TEXT,
        version=TEXT,
        task={**TEXT, "description": f"Asked at its endpoint: {', '.join(sorted(SERVED_BY))}."},
        engine=TEXT,
        ready={**TRUTH, "description": "It has a replica; else a request waits for one."},
    ),
    "Models": _object(("object", "data"), object={"enum": ["list"]}, data=_list(_ref("Model"))),
    "Event": {**_object(("data",), event=TEXT, data=TEXT), "description": "A server-sent event; `data` is JSON."},
    "Health": _object(("status",), status={"enum": ["ok"]}),
    "Error": _object(("error",), error=_error()),
    "MessagesError": _object(
        ("type", "error", "request_id"), type={"enum": ["error"]}, error=_error(), request_id=TEXT
    ),
}
"""Answers, by name."""
