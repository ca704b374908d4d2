"""JSON Schemas of what the gateway takes, for its OpenAPI document; checks nothing, knows no network.

What is checked stands in `openai.py`, `responses.py` and `anthropic.py`, and in the engine workers, which this process
must not import: `tests/unit/server/gateway/test_openapi.py` holds both against each other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from llm_os.server.gateway import anthropic, responses

Schema = dict[str, Any]

ANY: Schema = {}
TEXT: Schema = {"type": "string"}
SAID: Schema = {"type": "string", "minLength": 1}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
TRUTH: Schema = {"type": "boolean"}
MODEL: Schema = {
    **SAID,
    "description": "A deployment, or a version that is served (`card@3`); behind a colon, an adapter beside it.",
}
MOST_STOPS, MOST_TEXTS, MOST_PROMPTS, MOST_ANSWERS, MOST_LOGPROBS, MOST_TOOLS = 8, 4096, 256, 16, 20, 128
CHOICES = ("none", "auto", "required")
TOOL_NAME = "[a-zA-Z0-9_-]{1,64}"
NEUTRAL: Mapping[str, tuple[Any, ...]] = {"logit_bias": ({},), "best_of": (1,), "echo": (False,), "suffix": ("",)}
"""Parameters that no engine follows, with the values that ask for nothing."""
OF_CHATS: Mapping[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
}
"""Parameters of chats, with the values that ask for nothing, which completions take."""


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def list_of(items: Schema, **limits: int) -> Schema:
    return {"type": "array", "items": items, **limits}


def any_of(*names: str) -> Schema:
    return {"anyOf": [ref(name) for name in names]}


def object_of(required: Collection[str] = (), **properties: Schema) -> Schema:
    """An object that may hold more."""
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {})}


def _asked(required: Collection[str], **properties: Schema) -> Schema:
    """A request: other names are refused; what is not required may be null."""
    optional = {name: value if name in required else or_null(value) for name, value in properties.items()}
    return {**object_of(required, **optional), "additionalProperties": False}


def or_null(schema: Schema) -> Schema:
    if not schema:
        return schema
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], None]}
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    return {"anyOf": [schema, {"type": "null"}]}


def _known(known: Collection[str], required: Collection[str], **properties: Schema) -> Schema:
    """A request that may hold the names of `known`; what is not described is taken and not followed."""
    return _asked(required, **{name: properties.get(name, ANY) for name in sorted(known | properties.keys())})


def _neutral(values: Mapping[str, tuple[Any, ...]]) -> Mapping[str, Schema]:
    return {name: {"enum": list(given), "description": "Not followed."} for name, given in values.items()}


def one_of(*names: str) -> Schema:
    return {"enum": list(names)}


def _parts(kinds: Collection[str], *others: Schema, **limits: int) -> Schema:
    """A text, or parts that are texts, or one of the others."""
    part = object_of(("type", "text"), type=one_of(*sorted(kinds)), text=TEXT)
    return {"anyOf": [TEXT, list_of({"anyOf": [part, *others]} if others else part, **limits)]}


def _message(roles: Collection[str], content: Schema, *required: str, **more: Schema) -> Schema:
    return object_of(("role", *(required or ("content",))), role=one_of(*roles), content=content, **more)


def _texts(one: Schema = TEXT) -> Schema:
    return {"anyOf": [one, list_of(one, minItems=1, maxItems=MOST_TEXTS)]}


_MOST = {**WHOLE, "minimum": 1, "maximum": 2**63 - 1, "description": "New tokens at most."}
_TEMPERATURE = {**NUMBER, "minimum": 0, "maximum": 2}
_TOP_P = {**NUMBER, "exclusiveMinimum": 0, "maximum": 1}
_STOPS = list_of(SAID, maxItems=MOST_STOPS)
_FOLLOWED = "Followed by the engines openvino, llamacpp and vllm"
_PENALTY = {**NUMBER, "minimum": -2, "maximum": 2, "description": f"{_FOLLOWED}."}
_DRAWN = "Else as the model itself says; followed by the engines torch, openvino, llamacpp and vllm."
_IDS = list_of({**WHOLE, "minimum": 0, "maximum": 2**31 - 1}, minItems=1)
_PROMPTS = {"anyOf": [SAID, _IDS, list_of({"anyOf": [SAID, _IDS]}, minItems=1, maxItems=MOST_PROMPTS)]}
_CONTENT = _parts(("text",), minItems=1)
_CHAT = list_of(any_of("SaidMessage", "AssistantMessage", "CallingMessage", "ToolMessage"), minItems=1)
_SCHEMA: Schema = {"type": "object", "description": "JSON Schema."}
_FORMAT = {
    "anyOf": [
        object_of(("type",), type=one_of("text", "json_object")),
        object_of(
            ("type", "json_schema"), type=one_of("json_schema"), json_schema=object_of(("schema",), schema=_SCHEMA)
        ),
    ],
    "description": f"{_FOLLOWED}; the others take `text` alone.",
}
_FLAT_FORMAT = object_of(("type", "schema"), type=one_of("json_schema"), schema=_SCHEMA)
_NAME = {**TEXT, "pattern": f"^{TOOL_NAME}$"}
_MADE = {**TEXT, "description": "Of a call that was made before."}
_NAMED = object_of(("name",), name=_NAME)
_OF_TOOL: Mapping[str, Schema] = {
    "name": _NAME,
    "description": TEXT,
    "strict": {**TRUTH, "description": "Calls keep the schema; followed by the engine openvino."},
}
_PARAMETERS = {**object_of(("type",), type=one_of("object")), "description": "JSON Schema of an object."}
_FLAT: Mapping[str, Schema] = {**_OF_TOOL, "cache_control": ANY}
_ALONE = {"disable_parallel_tool_use": or_null(TRUTH)}
_CLAUDE_CHOICE = {
    "anyOf": [
        object_of(("type",), type=one_of("auto", "any", "none"), **_ALONE),
        object_of(("type", "name"), type=one_of("tool"), name=_NAME, **_ALONE),
    ],
    "description": "`any` and `tool` are followed by the engine openvino.",
}


def _tools(tool: Schema) -> Schema:
    return {
        **list_of(tool, maxItems=MOST_TOOLS),
        "description": "Functions of the caller's; followed by the engines torch, openvino, llamacpp and vllm.",
    }


def _choice(named: Schema) -> Schema:
    return {
        "anyOf": [one_of(*CHOICES), named],
        "description": "`required` and a named one are followed by the engine openvino.",
    }


_CLAUDE: Mapping[str, Schema] = {
    "messages": list_of(any_of("MessagesUser", "MessagesAssistant"), minItems=1),
    "system": _parts(anthropic.PARTS),
    "tools": _tools(ref("MessagesTool")),
    "tool_choice": _CLAUDE_CHOICE,
}
_UNUSED = {"user": ANY, "metadata": ANY, "store": ANY}
_SAMPLING: Mapping[str, Schema] = {
    "model": MODEL,
    **_UNUSED,
    "stream": {**TRUTH, "description": "Answer with server-sent events, `[DONE]` last."},
    "stream_options": {
        **object_of(include_usage=or_null(TRUTH), include_obfuscation=ANY),
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
    "top_k": {**WHOLE, "minimum": 0, "maximum": 2**31 - 1, "description": f"0: all. {_DRAWN}"},
    "repetition_penalty": {**NUMBER, "minimum": 0.01, "maximum": 2, "description": f"1: none. {_DRAWN}"},
    **_neutral(NEUTRAL),
}
_TOP = {**WHOLE, "minimum": 0, "maximum": MOST_LOGPROBS}

REQUESTS: Mapping[str, Schema] = {
    "ChatRequest": _asked(
        ("model", "messages"),
        **_SAMPLING,
        messages=_CHAT,
        max_completion_tokens=_MOST,
        response_format=_FORMAT,
        logprobs={**TRUTH, "description": "Followed by the engines torch, openvino, llamacpp and vllm."},
        top_logprobs={**_TOP, "description": "With `logprobs`; followed by the engines torch, llamacpp and vllm."},
        tools=_tools(ref("Tool")),
        tool_choice=_choice(object_of(("type", "function"), type=one_of("function"), function=_NAMED)),
        parallel_tool_calls={**TRUTH, "description": "The answer may be several calls.", "default": True},
    ),
    "SaidMessage": _message(("system", "developer", "user"), _CONTENT),
    "AssistantMessage": _message(("assistant",), _CONTENT, tool_calls=or_null(list_of(ref("ToolCall")))),
    "CallingMessage": _message(
        ("assistant",), or_null(_CONTENT), "tool_calls", tool_calls=list_of(ref("ToolCall"), minItems=1)
    ),
    "ToolMessage": _message(
        *(("tool",), _CONTENT, "content", "tool_call_id"),
        tool_call_id=_MADE,
    ),
    "Tool": object_of(
        ("type", "function"),
        type=one_of("function"),
        function=_asked(("name",), **_OF_TOOL, parameters=_PARAMETERS),
    ),
    "ToolCall": object_of(
        ("id", "function"),
        id=TEXT,
        type=one_of("function"),
        function=object_of(
            ("name",), name=_NAME, arguments={**or_null(TEXT), "description": "A JSON object, as text."}
        ),
    ),
    "CompletionRequest": _asked(
        ("model", "prompt"),
        **_SAMPLING,
        **_neutral(OF_CHATS),
        prompt=_PROMPTS,
        logprobs={
            "anyOf": [_TOP, {"enum": [False]}],
            "description": "Followed by the engines torch, openvino, llamacpp and vllm; by openvino 0 alone.",
        },
    ),
    "ResponsesRequest": _known(
        responses.KNOWN | responses.NEUTRAL.keys(),
        ("model", "input"),
        model=MODEL,
        input={"anyOf": [SAID, list_of(any_of("ResponsesMessage", "FunctionCall", "FunctionCallOutput"), minItems=1)]},
        instructions=TEXT,
        max_output_tokens=_MOST,
        stream=TRUTH,
        temperature=_TEMPERATURE,
        top_p=_TOP_P,
        metadata={"type": "object", "additionalProperties": TEXT},
        tools=_tools(ref("ResponsesTool")),
        tool_choice=_choice(object_of(("type", "name"), type=one_of("function"), name=_NAME)),
        parallel_tool_calls=TRUTH,
        text=_asked((), format={**_FORMAT, "anyOf": [_FORMAT["anyOf"][0], _FLAT_FORMAT]}),
        **{name: {"enum": list(values)} for name, values in responses.NEUTRAL.items()},
    ),
    "ResponsesTool": _asked(("type", "name"), type=one_of("function"), **_FLAT, parameters=_PARAMETERS),
    "ResponsesMessage": _message(responses.ROLES, _parts(responses.PARTS), type=one_of("message")),
    "FunctionCall": object_of(
        ("type", "call_id", "name", "arguments"),
        type=one_of("function_call"),
        call_id=TEXT,
        name=_NAME,
        arguments={**TEXT, "description": "A JSON object, as text."},
    ),
    "FunctionCallOutput": object_of(
        ("type", "call_id", "output"),
        type=one_of("function_call_output"),
        call_id=_MADE,
        output=_parts(responses.PARTS),
    ),
    "MessagesRequest": _known(
        anthropic.KNOWN,
        ("model", "messages", "max_tokens"),
        model=MODEL,
        **_CLAUDE,
        max_tokens=_MOST,
        stop_sequences=_STOPS,
        stream=TRUTH,
        temperature=_TEMPERATURE,
        top_p=_TOP_P,
        top_k=_SAMPLING["top_k"],
        output_config=_asked((), format={**_FLAT_FORMAT, "description": _FORMAT["description"]}),
    ),
    "MessagesTool": _asked(("name",), type=one_of("custom"), **_FLAT, input_schema=_PARAMETERS),
    "MessagesUser": _message(("user",), _parts(anthropic.PARTS, ref("ToolResult"))),
    "MessagesAssistant": _message(("assistant",), _parts(anthropic.PARTS, ref("ToolUse"))),
    "ToolUse": object_of(
        ("type", "id", "name", "input"), type=one_of("tool_use"), id=TEXT, name=_NAME, input={"type": "object"}
    ),
    "ToolResult": object_of(
        ("type", "tool_use_id"),
        type=one_of("tool_result"),
        tool_use_id=_MADE,
        content=or_null(_parts(anthropic.PARTS)),
        is_error=or_null(TRUTH),
    ),
    "CountRequest": _known(
        anthropic.COUNTED,
        ("model", "messages"),
        model=MODEL,
        **_CLAUDE,
    ),
    "TokenizeRequest": {
        **_asked(("model",), model=MODEL, **_UNUSED, prompt=TEXT, messages=_CHAT, tools=_tools(ref("Tool"))),
        "oneOf": [
            object_of(("prompt",), prompt=TEXT, messages={"type": "null"}),
            object_of(("messages",), messages=_CHAT, prompt={"type": "null"}),
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
        documents=_texts({"anyOf": [SAID, object_of(("text",), text=SAID)]})["anyOf"][1],
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
