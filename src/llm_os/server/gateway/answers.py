"""JSON Schemas of what the gateway answers, for its OpenAPI document; builds no answer, knows no network."""

from __future__ import annotations

from collections.abc import Mapping

from llm_os.server.gateway.routes import SERVED_BY
from llm_os.server.gateway.schemas import (
    ANY,
    NUMBER,
    TEXT,
    TRUTH,
    WHOLE,
    Schema,
    any_of,
    list_of,
    object_of,
    one_of,
    or_null,
    ref,
)

_USAGE = object_of(
    ("prompt_tokens",),
    prompt_tokens=WHOLE,
    completion_tokens=WHOLE,
    total_tokens=WHOLE,
    prompt_tokens_details={
        **object_of(("cached_tokens",), cached_tokens=WHOLE),
        "description": "Where the engine tells what it had in its cache: torch, llamacpp, vllm, and remote servers.",
    },
)
_ENDING: Mapping[str, Schema] = {
    "finish_reason": {**or_null(TEXT), "description": "`stop`, `length`, or of a chat `tool_calls`."},
    "stop_reason": {**or_null(TEXT), "description": "The stop text that was met."},
}


def _listed(item: Schema) -> Schema:
    return object_of(("model", "data"), object={"enum": ["list"]}, model=TEXT, data=list_of(item), usage=_USAGE)


def _generated(kind: str, **choice: Schema) -> Schema:
    one = object_of(("index", *choice), index=WHOLE, **choice, logprobs=ANY, **_ENDING)
    return object_of(
        ("id", "object", "created", "model", "choices"),
        id=TEXT,
        object={"enum": [kind]},
        created=WHOLE,
        model=TEXT,
        choices=list_of(one),
        usage=_USAGE,
    )


def _error(**more: Schema) -> Schema:
    names = ("message", "type", "code", "param", "hint")
    return object_of(names, message=TEXT, type=TEXT, code=TEXT, param=or_null(TEXT), hint=TEXT, **more)


ANSWERS: Mapping[str, Schema] = {
    "Chat": _generated("chat.completion", message=ref("ChatAnswer")),
    "ChatAnswer": object_of(
        ("role", "content"), role=TEXT, content=or_null(TEXT), tool_calls=list_of(ref("ToolCall"), minItems=1)
    ),
    "Completion": _generated("text_completion", text=TEXT),
    "Response": object_of(
        ("id", "object", "status", "output", "usage"),
        id=TEXT,
        object={"enum": ["response"]},
        created_at=NUMBER,
        model=TEXT,
        status={"enum": ["completed", "incomplete"]},
        output=list_of(any_of("ResponsesMessage", "FunctionCall")),
        usage=object_of(("input_tokens", "output_tokens"), input_tokens=WHOLE, output_tokens=WHOLE, total_tokens=WHOLE),
    ),
    "Message": object_of(
        ("id", "type", "role", "model", "content", "stop_reason", "usage"),
        id=TEXT,
        type={"enum": ["message"]},
        role=TEXT,
        model=TEXT,
        content=list_of({"anyOf": [object_of(("type", "text"), type=one_of("text"), text=TEXT), ref("ToolUse")]}),
        stop_reason=one_of("end_turn", "max_tokens", "stop_sequence", "tool_use"),
        stop_sequence=or_null(TEXT),
        usage=object_of(("input_tokens", "output_tokens"), input_tokens=WHOLE, output_tokens=WHOLE),
    ),
    "Count": object_of(("input_tokens",), input_tokens=WHOLE),
    "Tokens": object_of(("tokens", "count", "max_model_len"), tokens=list_of(WHOLE), count=WHOLE, max_model_len=WHOLE),
    "Text": object_of(("prompt",), prompt=TEXT),
    "Classes": _listed(
        object_of(
            ("index",),
            index=WHOLE,
            label=TEXT,
            score=NUMBER,
            scores={"type": "object", "additionalProperties": NUMBER},
            labels={**list_of(TEXT), "description": "Of a text that may have several."},
            spans={**list_of({"type": "object"}), "description": "Of a model that marks parts of texts."},
        )
    ),
    "Embeddings": _listed(
        object_of(
            ("index", "embedding"),
            object=TEXT,
            index=WHOLE,
            embedding={"anyOf": [list_of(NUMBER), TEXT]},
        )
    ),
    "Ranking": object_of(
        ("model", "results"),
        model=TEXT,
        results=list_of(
            object_of(
                ("index", "relevance_score"),
                index=WHOLE,
                relevance_score=NUMBER,
                document=object_of(("text",), text=TEXT),
            )
        ),
        usage=_USAGE,
    ),
    "Scores": _listed(object_of(("index", "score"), object=TEXT, index=WHOLE, score=NUMBER)),
    "Model": object_of(
        ("id", "object", "created", "owned_by"),
        id=TEXT,
        object={"enum": ["model"]},
        created=WHOLE,
        owned_by=TEXT,
        version=TEXT,
        parent={**TEXT, "description": "Of an adapter: the model that it stands beside."},
        task={**TEXT, "description": f"Asked at its endpoint: {', '.join(sorted(SERVED_BY))}."},
        engine=TEXT,
        ready={**TRUTH, "description": "It has a replica; else a request waits for one."},
        generation={
            "type": "object",
            "description": "What holds for a request that does not say, as the model has it.",
        },
    ),
    "Models": object_of(("object", "data"), object={"enum": ["list"]}, data=list_of(ref("Model"))),
    "Event": {**object_of(("data",), event=TEXT, data=TEXT), "description": "A server-sent event; `data` is JSON."},
    "Health": object_of(("status",), status={"enum": ["ok"]}),
    "Error": object_of(("error",), error=_error()),
    "MessagesError": object_of(
        ("type", "error", "request_id"), type={"enum": ["error"]}, error=_error(), request_id=TEXT
    ),
}
"""Answers, by name."""
