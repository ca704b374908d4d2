"""Serves a chat model in GGUF with openvino-genai's continuous batching; must not know HTTP or the kernel."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from llm_os.errors import InvalidInputError, UnsupportedModelError
from llm_os.models.formats import inspect
from llm_os.models.widen import BELOW_8, UNREAD, WITH_MINIMUM, in_8_bits
from llm_os.spec.attempts import AttemptSpec, ServeCall
from llm_os.workers.backend import Backend
from llm_os.workers.calling import Form
from llm_os.workers.chatting import QUEUE, ChatBackend
from llm_os.workers.conversation import Message
from llm_os.workers.one_writer import OneWriter
from llm_os.workers.requests import ChatRequest
from llm_os.workers.serving import main, pause_of, quick_loop, threads_of
from llm_os.workers.texts import ByteText, table_of
from llm_os.workers.tools import Tool

log = logging.getLogger("llm_os.worker")

BLOCK = 32
"""Tokens of a cache block on CPU."""


class OpenVinoBackend(ChatBackend):
    """A pipeline of openvino-genai, with its own tokenizer."""

    follows = frozenset(
        {"logprobs", "response_format", "frequency_penalty", "presence_penalty", "tools", "tool_choice"}
        | {"top_k", "repetition_penalty"}
    )
    reads_anew = True  # it takes a whole burst in before any block of it can be used again

    def __init__(self, pipeline: Any, *, context: int, most: int, blocks: int, pause: float = 0.0) -> None:
        self._tokenizer = pipeline.get_tokenizer()
        words = {token: _as_bytes(word) for word, token in self._tokenizer.get_vocab().items()}
        self._vocab = {word.decode(errors="replace"): token for token, word in words.items()}
        one_writer = OneWriter(
            pipeline,
            lambda prompt: prompt.data[0].tolist(),
            lambda: pipeline.get_metrics().cache_usage / 100,
            block=BLOCK,
            blocks=blocks,
        )
        super().__init__(one_writer, context=context, most=most, vocabulary=1 + max(words), pause=pause)
        # The pipeline's own tokenizer runs a model for a token's text, on the processors that the answers need.
        alone = dict(zip(words, self._tokenizer.decode([[token] for token in words]), strict=True))
        self.table = table_of(words, alone, self._decoded)

    def chat_template(self) -> str:
        return str(self._tokenizer.chat_template)

    def token(self, text: str) -> int | None:
        return self._vocab.get(text)

    def template(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[int]:
        told = [tool.told() for tool in tools] or None
        try:
            text = self._tokenizer.apply_chat_template(
                [dict(m) for m in messages], add_generation_prompt=True, tools=told
            )
        except RuntimeError as error:
            raise InvalidInputError(
                f"The model's chat template refuses these messages: {error}", hint="Check their roles and order."
            ) from error
        return self._encoded(text, add_special_tokens=False)

    def encode(self, text: str) -> list[int]:
        return self._encoded(text, add_special_tokens=True)

    def _encoded(self, text: str, *, add_special_tokens: bool) -> list[int]:
        ids = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).input_ids
        return [int(one) for one in ids.data[0]]

    def prompt(self, ids: list[int]) -> Any:
        import numpy
        import openvino

        return openvino.Tensor(numpy.array([ids], dtype=numpy.int64))

    def sampling(self, request: ChatRequest, most: int) -> Any:
        import openvino_genai

        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = most
        config.set_eos_token_id(self._tokenizer.get_eos_token_id())
        config.frequency_penalty = request.frequency_penalty
        config.presence_penalty = request.presence_penalty
        config.repetition_penalty = request.repetition_penalty
        config.logprobs = int(request.logprobs is not None)
        if request.schema is not None:
            form = openvino_genai.StructuredOutputConfig()
            form.json_schema = request.schema
            config.structured_output_config = form
        elif request.must_call or any(tool.strict for tool in request.tools):
            form = openvino_genai.StructuredOutputConfig()
            form.compound_grammar = calls_only(request, self.form)
            config.structured_output_config = form
        config.do_sample = request.temperature > 0
        if config.do_sample:
            config.temperature = request.temperature
            config.top_p = request.top_p
            if request.top_k:
                config.top_k = request.top_k
            config.rng_seed = random.getrandbits(31) if request.seed is None else request.seed
        return config

    async def logprobs(self, ids: Sequence[int]) -> list[float]:
        """See `Backend`: the pipeline tells of prompts where it repeats them, but for what it has in its cache."""
        import openvino_genai

        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.logprobs, config.echo = 1, 1, True
        with self._seats.one():
            async with aclosing(self._stepper.generate(lambda: (self.prompt(list(ids)), config))) as tokens:
                told = [one async for new in tokens for one in new.logprobs]
        return told[1 if len(told) > len(ids) else 0 : -1]

    def decode(self, ids: Sequence[int]) -> str:
        return self._decoded(ids) if self.table is None else ByteText(self.table).feed(ids, last=True)

    def _decoded(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids))


def _as_bytes(word: Any) -> bytes:
    return word if isinstance(word, bytes) else str(word).encode()


def calls_only(request: ChatRequest, form: Form) -> Any:
    """The grammar of an answer that is nothing but calls, or whose calls are right ones where none must come."""
    import openvino_genai

    grammar = openvino_genai.StructuredOutputConfig
    tags = []
    for tool in request.tools:
        held = request.must_call or tool.strict
        before, after = form.around(tool.name)
        schema = grammar.JSONSchema(json.dumps(tool.parameters if held else {"type": "object"}))
        tags.append(grammar.Tag(before, schema, after))
    if not request.must_call:
        return grammar.TriggeredTags([form.trigger], tags, stop_after_first=not request.parallel_calls)
    several = request.parallel_calls and bool(form.end)
    return grammar.TagsWithSeparator(tags, "\n", at_least_one=True, stop_after_first=not several)


def cannot_open(file: Path, error: Exception) -> UnsupportedModelError:
    """What the engine's own words mean, where they are known to mean something, and what opens the file."""
    said = " ".join(str(error).split())
    cause = next((meaning for words, meaning in _MEANINGS if words in said), "")
    return UnsupportedModelError(
        f"openvino-genai cannot open '{file.name}': {cause}{said[-MOST_SAID:]}",
        hint="It reads GGUF of the Llama, Qwen2 and Qwen3 kind. llama.cpp opens every kind: --engine llamacpp.",
    )


_MEANINGS = (
    ("gguf_tensor_to_f16", "its reader does not know the form of some of the weights. "),
    ("Unsupported model architecture", "it does not know models of this architecture. "),
    ("allocate", "there is not enough memory. "),
)
"""Words of the engine's errors -> the likely cause, before the words themselves."""
MOST_SAID = 300
"""Characters of the engine's words that are repeated, the last ones: they begin with paths of its makers."""


def load(call: ServeCall, spec: AttemptSpec) -> Backend:
    """Open the model.

    Raises:
        BrokenWeightsError, ModelError: see `models.formats`.
        UnavailableError: the package gguf is not installed.
        UnsupportedModelError: openvino-genai cannot read this GGUF, or it has no chat template.
    """
    import openvino_genai

    folder, options = Path(call.model.path), dict[str, Any](call.options)
    facts = inspect(folder)
    if facts["format"] != "gguf":
        raise UnsupportedModelError(f"The engine openvino serves GGUF, this is {facts['format']}.", hint="Use another.")
    if not facts["chat_template"]:
        raise UnsupportedModelError("The model has no chat template.", hint="Take an instruction-tuned model.")
    context = min(int(options.get("context", 8192)), int(str(facts["context_length"])) or 4096)
    most = int(options.get("max_batch", 32))
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.num_kv_blocks = -(-max(int(options.get("cache_tokens", 16384)), context) // BLOCK)
    scheduler.enable_prefix_caching = True
    scheduler.max_num_seqs = most
    scheduler.max_num_batched_tokens = 512
    scheduler.dynamic_split_fuse = True
    # Pinned threads of two engines would fight for the same cores while others are idle.
    properties = {
        "INFERENCE_NUM_THREADS": threads_of(options, spec),
        "NUM_STREAMS": "1",
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
        "KV_CACHE_PRECISION": "u8",
    }
    file = folder / str(facts["file"]) if folder.is_dir() else folder
    types = BELOW_8 if options.get("precision") == "int8" else WITH_MINIMUM | UNREAD
    path = str(in_8_bits(file, Path(spec.cwd), call.model.facts.digest, types))
    try:
        pipeline = openvino_genai.ContinuousBatchingPipeline(path, scheduler, "CPU", properties)
    except RuntimeError as error:
        raise cannot_open(file, error) from error
    log.info("context %d tokens, cache %d blocks of %d", context, scheduler.num_kv_blocks, BLOCK)
    blocks = scheduler.num_kv_blocks
    return OpenVinoBackend(pipeline, context=context, most=most * QUEUE, blocks=blocks, pause=pause_of(options))


if __name__ == "__main__":
    main(load, quick_loop)
