"""What engine workers are asked, checked, and how errors look on the wire; must not know an engine or the network.

The shapes are OpenAI's. A parameter that an engine would have to ignore is refused by name, so that nobody believes
that it had an effect.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llm_os.errors import InvalidInputError, InvalidOptionError, LLMOSError
from llm_os.models.settings import LARGEST, NONE, GenerationSettings
from llm_os.spec.base import DEEPEST, half_characters, too_deep
from llm_os.workers.conversation import Message, messages_of
from llm_os.workers.refusals import wrong as wrong
from llm_os.workers.schemas import vetted
from llm_os.workers.tools import FORCING, Tool, offer

MOST_STOPS = 8
MOST_TEXTS = 4096
MOST_CHOICES = 16
"""Answers to one prompt (`n`)."""
MOST_LOGPROBS = 20
"""Alternatives to a token that are told."""
MOST_TOLD = 250_000
"""Probabilities in an answer."""
LONG_ANSWER = 8192
"""Tokens that an answer may have where the request sets no bound."""
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0, 0.0),
    "presence_penalty": (0, 0.0),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
}
"""Parameters of OpenAI's that not every engine follows, with the values that ask for nothing."""
FOLLOWED_BY: Mapping[str, str] = {
    "logprobs": "torch, openvino, llamacpp or vllm",
    "top_logprobs": "torch, llamacpp or vllm",
    "response_format": "openvino, llamacpp or vllm",
    "frequency_penalty": "openvino, llamacpp or vllm",
    "presence_penalty": "openvino, llamacpp or vllm",
    "tools": "torch, openvino, llamacpp or vllm",
    "tool_choice": FORCING,
    "top_k": "torch, openvino, llamacpp or vllm",
    "repetition_penalty": "torch, openvino, llamacpp or vllm",
}
"""Parameters that some engines follow (`Backend.follows`) -> which, for the hints of those that do not."""
UNUSED = frozenset({"model", "user", "metadata", "store"})
"""Parameters that never change an answer."""
SAMPLING = frozenset({"stream", "stream_options", "max_tokens", "temperature", "top_p", "seed", "stop", "n"})
KNOWN = SAMPLING | {"messages", "max_completion_tokens"}
KNOWN_OF_COMPLETIONS = SAMPLING | {"prompt"}
COMPLETION = 16
"""New tokens of a completion that names no number, as OpenAI has it."""
ONLY_OF_CHATS = frozenset({"response_format", "top_logprobs", "tools", "tool_choice"})
MOST_PROMPTS = 256
COLD = 1e-4
"""A lower temperature is greedy: engines divide by it."""
_TYPES = {422: "invalid_request_error", 429: "rate_limit_error", 503: "service_unavailable_error"}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request for text that was found right.

    Attributes:
        messages: what was said so far (`conversation.Message`), put into the model's template; none where there is a
            prompt.
        prompt: a text, or token ids, that the model goes on with as they are.
        max_tokens: most new tokens; None: as many as the context has room for.
        temperature: 0 is greedy.
        stop: texts that end the answer and are not part of it.
        usage: send the token counts at the end of a stream.
        n: answers to it.
        logprobs: alternatives to each token that are told with the token's own probability; None: nothing is told.
        schema: JSON Schema that the answer is held to, as JSON; None: any text.
        frequency_penalty, presence_penalty: as OpenAI defines them; 0 is none.
        top_k: likeliest tokens that are drawn from; 0: all.
        repetition_penalty: see `models.settings`; 1 is none.
        tools: what the model may call; none with `tool_choice` none, one with a named one.
        must_call: the answer is a call, and its arguments keep their schema.
        parallel_calls: the answer may be more than one call.
        adapter: name of the adapter that answers; empty: the model alone.
    """

    messages: tuple[Message, ...] = ()
    prompt: str | tuple[int, ...] | None = None
    stream: bool = False
    usage: bool = False
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    logprobs: int | None = None
    schema: str | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    tools: tuple[Tool, ...] = ()
    must_call: bool = False
    parallel_calls: bool = True
    adapter: str = ""


def adapter_of(value: Mapping[str, Any]) -> str:
    """What a request names behind the model's name and a colon; empty: the model alone."""
    model = value.get("model")
    return model.partition(":")[2] if isinstance(model, str) else ""


def error_body(error: LLMOSError) -> dict[str, Any]:
    """`{"error": {...}}` as OpenAI's clients read it, with our hint and details beside."""
    kind = "invalid_request_error" if error.status < 429 else "api_error"
    return {
        "error": {
            "message": error.message,
            "type": _TYPES.get(error.status, kind),
            "param": error.details.get("param"),
            "code": error.code,
            "hint": error.hint,
            "details": error.details,
        }
    }


def json_object(body: bytes) -> dict[str, Any]:
    """The object in a body. Raises InvalidInputError."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"The body is not JSON: {error}.", hint="Send a JSON object.") from error
    if not isinstance(value, dict):
        raise InvalidInputError(f"The body is a JSON {type(value).__name__}, not an object.", hint="Send an object.")
    if too_deep(body, value):
        raise InvalidInputError(f"The body is more than {DEEPEST} lists and objects deep.", hint="Send a flatter one.")
    if half_characters(body, value):
        raise InvalidInputError(
            "The body holds half a character (an escaped surrogate without its partner).",
            hint="Cut texts between characters, and send them as UTF-8.",
        )
    return value


def chat_request(
    body: bytes, engine: str, follows: frozenset[str] = frozenset(), usual: GenerationSettings = NONE
) -> ChatRequest:
    """Read a chat request. Raises InvalidInputError that names the wrong parameter and the engine.

    Args:
        follows: parameters that this engine follows and others do not.
        usual: how the model wants to be asked where the request does not say.
    """
    value = json_object(body)
    _only(value, KNOWN | follows | ({"tool_choice", "parallel_tool_calls"} if "tools" in follows else set()), engine)
    asked = replace(_sampling(value, usual), messages=messages_of(value.get("messages")), schema=_schema(value))
    asked = asked if asked.max_tokens is not None else replace(asked, max_tokens=usual.max_new_tokens)
    asked = _with_tools(asked, value, engine, follows)
    if not _boolean(value, "logprobs"):
        if value.get("top_logprobs"):
            raise wrong("top_logprobs", "'top_logprobs' needs 'logprobs': true.", "Send both.")
        return asked
    asked = replace(asked, logprobs=_integer(value, "top_logprobs", least=0, most=MOST_LOGPROBS) or 0)
    _told_within(asked, 1)
    return asked


def _with_tools(asked: ChatRequest, value: Mapping[str, Any], engine: str, follows: frozenset[str]) -> ChatRequest:
    """The request with what it offers. Raises InvalidOptionError."""
    if "tools" not in follows:
        return asked
    found = offer(value, engine, follows)
    for name in ("response_format", "logprobs"):
        if found.tools and value.get(name) and (name != "response_format" or asked.schema is not None):
            message = f"'{name}' and 'tools' do not go together: a call is neither text nor told by tokens."
            raise wrong(name, message, "Leave one of them out, or send 'tool_choice': 'none'.")
    return replace(asked, tools=found.tools, must_call=found.must_call, parallel_calls=found.parallel)


def _told_within(asked: ChatRequest, prompts: int) -> None:
    """Refuse an answer whose probabilities would fill the memory. Raises InvalidOptionError."""
    if asked.logprobs is None:
        return
    told = asked.n * prompts * (asked.max_tokens or LONG_ANSWER) * (1 + asked.logprobs)
    if told > MOST_TOLD:
        raise wrong("logprobs", f"Up to {told} probabilities would be told, {MOST_TOLD} at most.", "Set 'max_tokens'.")


def completion_request(
    body: bytes, engine: str, follows: frozenset[str] = frozenset(), usual: GenerationSettings = NONE
) -> tuple[ChatRequest, ...]:
    """Read a completion request, one for each of its prompts. Raises InvalidInputError as `chat_request` does."""
    value = json_object(body)
    _only(value, KNOWN_OF_COMPLETIONS | (follows - ONLY_OF_CHATS), engine)
    asked = _sampling(value, usual)
    if value.get("logprobs") is not False:
        asked = replace(asked, logprobs=_integer(value, "logprobs", least=0, most=MOST_LOGPROBS))
    if asked.logprobs and "top_logprobs" not in follows:
        hint = "It tells the probability of the token itself: 'logprobs': 0. The engine torch or llamacpp tells others."
        raise wrong("logprobs", f"The engine {engine} tells no other tokens' probabilities.", hint)
    asked = asked if asked.max_tokens is not None else replace(asked, max_tokens=COMPLETION)
    prompts = _prompts(value.get("prompt"))
    if asked.stream and len(prompts) > 1:
        raise wrong("prompt", f"A stream answers one prompt, these are {len(prompts)}.", "Leave 'stream' out.")
    if asked.n * len(prompts) > MOST_PROMPTS:
        raise wrong("n", f"{asked.n} answers to {len(prompts)} prompts are over {MOST_PROMPTS}.", "Ask in parts.")
    _told_within(asked, len(prompts))
    return tuple(replace(asked, prompt=prompt) for prompt in prompts)


def _only(value: Mapping[str, Any], known: frozenset[str], engine: str) -> None:
    for name, given in value.items():
        neutral = any(type(given) is type(nothing) and given == nothing for nothing in NEUTRAL.get(name, ()))
        if name in known or name in UNUSED or given is None or neutral:
            continue
        raise _unfollowed(name, engine, f"Leave it out. It follows: {', '.join(sorted(known))}.")


def _unfollowed(name: str, engine: str, hint: str) -> InvalidOptionError:
    could = f"{name} is followed by the engine {FOLLOWED_BY[name]}. " if name in FOLLOWED_BY else ""
    return wrong(name, f"The engine {engine} does not follow '{name}'.", could + hint)


def _sampling(value: Mapping[str, Any], usual: GenerationSettings) -> ChatRequest:
    """What chats and completions have in common.

    A request for the likeliest tokens gets just those: the model's own penalty belongs to drawing, and evaluations and
    comparisons know none.
    """
    options = value.get("stream_options") or {}
    if not isinstance(options, dict) or set(options) - {"include_usage", "include_obfuscation"}:
        raise wrong("stream_options", "'stream_options' may hold 'include_usage' only.", "Leave it out.")
    warm = 1.0 if usual.temperature is None else usual.temperature
    temperature = _number(value, "temperature", warm, lambda x: 0 <= x <= 2, "between 0 and 2")
    drawn = usual if temperature >= COLD else NONE
    penalty, likeliest = drawn.repetition_penalty or 1.0, _integer(value, "top_k", least=0, most=LARGEST)
    limit = "max_completion_tokens" if value.get("max_completion_tokens") is not None else "max_tokens"
    return ChatRequest(
        adapter=adapter_of(value),
        stream=_boolean(value, "stream"),
        usage=_boolean(options, "include_usage"),
        max_tokens=_integer(value, limit, least=1),
        temperature=temperature if temperature >= COLD else 0.0,
        top_p=_number(value, "top_p", drawn.top_p or 1.0, lambda x: 0 < x <= 1, "above 0 and at most 1"),
        seed=_integer(value, "seed", least=0),
        stop=_stops(value.get("stop")),
        n=_integer(value, "n", least=1, most=MOST_CHOICES) or 1,
        frequency_penalty=_number(value, "frequency_penalty", 0.0, _fair, "between -2 and 2"),
        presence_penalty=_number(value, "presence_penalty", 0.0, _fair, "between -2 and 2"),
        top_k=(drawn.top_k or 0) if likeliest is None else likeliest,
        repetition_penalty=_number(value, "repetition_penalty", penalty, _penalty, "between 0.01 and 2"),
    )


def _fair(penalty: float) -> bool:
    return -2 <= penalty <= 2


def _penalty(penalty: float) -> bool:
    """Logits are divided by it: what a much smaller one leaves is no number, and would end the engine."""
    return 0.01 <= penalty <= 2


def _schema(value: Mapping[str, Any]) -> str | None:
    """What `response_format` holds the answer to, as JSON Schema. Raises InvalidOptionError."""
    given = value.get("response_format")
    if given is None:
        return None
    kind = given.get("type") if isinstance(given, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return '{"type": "object"}'
    form = given.get("json_schema") if kind == "json_schema" else None
    schema = form.get("schema") if isinstance(form, dict) else None
    if not isinstance(schema, dict):
        raise wrong(
            "response_format",
            "'response_format' must be text, json_object, or json_schema with a schema.",
            'Send {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object", ...}}}.',
        )
    return vetted(schema)


def _prompts(given: Any) -> list[str | tuple[int, ...]]:
    """A text, token ids, or a list of either."""
    several = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
    if len(several) > MOST_PROMPTS:
        raise wrong("prompt", f"'prompt' holds {len(several)} prompts, {MOST_PROMPTS} at most.", "Send them in parts.")
    prompts: list[str | tuple[int, ...]] = []
    for one in several:
        if not (isinstance(one, str) and one) and not _are_ids(one):
            raise wrong("prompt", "'prompt' must be a text, token ids, or a list of them.", 'Send "prompt": "...".')
        prompts.append(one if isinstance(one, str) else tuple(one))
    return prompts


def _are_ids(given: Any) -> bool:
    return (
        isinstance(given, list)
        and bool(given)
        and all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 2**31 for one in given)
    )


def tokenize_request(body: bytes, engine: str, follows: frozenset[str] = frozenset()) -> ChatRequest:
    """A text as it is (`prompt`), or messages in the model's template, with tools. Raises InvalidInputError."""
    value = json_object(body)
    _only(value, frozenset({"prompt", "messages"}) | (follows & {"tools"}), engine)
    if (value.get("prompt") is None) == (value.get("messages") is None):
        raise wrong("prompt", "Give either 'prompt' or 'messages'.", 'Send "prompt": "...".')
    if value.get("messages") is not None:
        return _with_tools(ChatRequest(messages=messages_of(value["messages"])), value, engine, follows)
    if not isinstance(value["prompt"], str):
        raise wrong("prompt", "'prompt' must be a text.", 'Send "prompt": "...".')
    return ChatRequest(prompt=value["prompt"])


def detokenize_request(body: bytes, engine: str) -> tuple[int, ...]:
    """Token ids. Raises InvalidInputError."""
    value = json_object(body)
    _only(value, frozenset({"tokens"}), engine)
    if not _are_ids(value.get("tokens")):
        raise wrong("tokens", "'tokens' must be a list of token ids.", 'Send "tokens": [1, 2, 3].')
    return tuple(value["tokens"])


def _boolean(value: Mapping[str, Any], name: str) -> bool:
    given = value.get(name)
    if given is not None and not isinstance(given, bool):
        raise wrong(name, f"'{name}' must be true or false.", "Leave it out for false.")
    return bool(given)


def _integer(value: Mapping[str, Any], name: str, *, least: int, most: int = 2**63 - 1) -> int | None:
    given = value.get(name)
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int) or not least <= given <= most:
        range_ = f"{least} or more" if most == 2**63 - 1 else f"from {least} to {most}"
        raise wrong(name, f"'{name}' must be a whole number, {range_}.", "Leave it out for the default.")
    return given


def _number(value: Mapping[str, Any], name: str, default: float, fits: Callable[[float], bool], range_: str) -> float:
    given = value.get(name)
    if given is None:
        return default
    if isinstance(given, bool) or not isinstance(given, int | float) or not fits(given):
        raise wrong(name, f"'{name}' must be a number {range_}.", f"Leave it out for {default:g}.")
    return float(given)


def _stops(given: Any) -> tuple[str, ...]:
    stops = [given] if isinstance(given, str) else [] if given is None else given
    if not isinstance(stops, list) or len(stops) > MOST_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise wrong("stop", f"'stop' must be a text or a list of at most {MOST_STOPS} texts.", "Leave it out.")
    return tuple(stops)


def classify_request(body: bytes, engine: str) -> list[str]:
    """Texts of a classification request. Raises InvalidInputError that names the wrong parameter."""
    return _texts(json_object(body), engine)


def embeddings_request(body: bytes, engine: str) -> tuple[list[str], Callable[[Sequence[float]], Any]]:
    """Texts of an embeddings request, and how a vector is written: numbers, or base64 of little-endian float32.

    Raises InvalidInputError that names the wrong parameter.
    """
    value = dict(json_object(body))
    form = value.pop("encoding_format", None) or "float"
    if form not in ("float", "base64"):
        raise wrong("encoding_format", "'encoding_format' must be float or base64.", "Leave it out for float.")
    return _texts(value, engine), list if form == "float" else _packed


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _texts(value: Mapping[str, Any], engine: str) -> list[str]:
    if named := adapter_of(value):
        raise wrong("model", f"There is no adapter '{named}' here.", "Adapters stand beside models that chat.")
    for name in value:
        if name not in UNUSED and name != "input":
            raise wrong(name, f"The engine {engine} does not follow '{name}'.", "Send 'input' only.")
    given = value.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise wrong("input", "'input' must be a text or a list of texts.", 'Send "input": ["first", "second"].')
    if len(texts) > MOST_TEXTS:
        raise wrong("input", f"'input' holds {len(texts)} texts, {MOST_TEXTS} at most.", "Send them in parts.")
    return texts
