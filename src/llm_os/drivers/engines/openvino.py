"""Serves chat models in GGUF with openvino-genai. Never imports it: the worker does, in its own process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from llm_os import programs
from llm_os.drivers.device import Available, Probe, Unavailable
from llm_os.drivers.engine import TRUSTS_NOBODY, Engine
from llm_os.memory.serving import estimate, kv_bytes_per_token
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Spec
from llm_os.spec.processes import ProcessSpec
from llm_os.spec.resources import Capacity, ResourceSpec

OVERHEAD = 384 * 2**20
"""Interpreter, openvino, tokenizer and work space, in bytes (see benchmarks/serving)."""
COPIES = 2.0
"""The file's pages while it is read and the weights in the engine's own layout."""
WIDER = 1.9
"""Weights in 4 bits may be served in 8 (see `models.widen`): so many times their file's size."""
KV_BYTES = 1.125
"""Bytes of a value in the cache: u8, and scale and zero point of each group."""
UNKNOWN_CONTEXT = 4096
ARCHITECTURES = ("llama", "qwen2", "qwen3")
"""Of GGUF files: what openvino-genai 2026.4 builds a graph for."""
CACHES: tuple[Mapping[str, int], ...] = (
    {"cache_tokens": 32768},  # 32 requests of 1,024 tokens
    {},
)
"""Caches, of which the largest is taken that leaves three quarters of the memory to others."""
SMALLER: tuple[Mapping[str, int], ...] = (
    {},
    {"cache_tokens": 8192},
    {"cache_tokens": 4096, "context": 4096},
    {"cache_tokens": 2048, "context": 2048},
)
"""What is taken where that is too much, from the defaults downwards."""


class OpenVinoOptions(Spec):
    context: int = Field(default=8192, ge=128)
    """Most tokens of a prompt with its answer; never more than the model was made for."""
    cache_tokens: int = Field(default=16384, ge=128)
    """Tokens whose keys and values are kept, over all requests; at least `context` are."""
    max_batch: int = Field(default=32, ge=1, le=256)
    """Most requests that are worked on together; more wait."""
    precision: Literal["auto", "int8"] = "auto"
    """`auto`: the file's, or 8 bits where the engine would round 4 bits once more; `int8`: all of fewer bits in 8."""
    threads: int | None = Field(default=None, ge=1)
    """Cores that it computes on, at most; None: all that it is granted."""
    stream_interval: int = Field(default=25, ge=0, le=1000)
    """Least milliseconds between two events of a stream, twice that while four or more are answered: each costs the
    cores that compute. 0: every token by itself."""


class OpenVino(Engine):
    name = "openvino"
    formats = ("gguf",)
    tasks = ("text-generation",)
    Options = OpenVinoOptions
    preference = 20
    shares_prefixes = True
    gaps: ClassVar[Mapping[str, str]] = {
        "the_likeliest_tokens_are_told": "openvino-genai tells the probability of the token that was taken, no others",
        "adapters_are_hot": "it takes only adapters that are in the weights: they are merged and written as GGUF",
        "prompt_tokens_from_the_cache_are_told": "openvino-genai caches beginnings and tells of no request how much",
    }

    def probe(self) -> Probe:
        found = programs.installed(self.name, "openvino-genai")
        if isinstance(found, str):
            return Unavailable(found, hint="pip install 'llm-os[openvino]'")
        return Available(version=found["openvino-genai"])

    def identity(self, options: Spec) -> str:
        found = programs.installed(self.name, "openvino-genai", "openvino", "openvino-tokenizers")
        return found if isinstance(found, str) else json.dumps(found, sort_keys=True)

    def refuses(self, model: ArtifactFacts) -> str | None:
        kind = model.meta.get("architecture")
        if model.meta.get("format") != "gguf" or not isinstance(kind, str) or kind in ARCHITECTURES:
            return None
        return f"it opens GGUF of the kinds {', '.join(ARCHITECTURES)}, and this is {kind}"

    def footprint(self, options: Spec, model: ArtifactFacts, granted: Capacity) -> ResourceSpec:
        asked = OpenVinoOptions.model_validate(options.model_dump())
        meta = {name: int(value) for name, value in model.meta.items() if isinstance(value, int | float)}
        context = min(asked.context, meta.get("context_length") or UNKNOWN_CONTEXT)
        hidden, heads = meta.get("hidden_size", 0), meta.get("heads", 0)
        width = hidden * meta.get("kv_heads", heads) // heads if heads else hidden
        token = kv_bytes_per_token(layers=meta.get("layers", 0), kv_width=width, bytes_per_value=KV_BYTES)
        kv_bytes = max(asked.cache_tokens, context) * token
        wider = WIDER if model.meta.get("precision") == "int4" else 1.0
        memory = estimate(int(model.size * wider * COPIES), kv_bytes=kv_bytes, overhead=OVERHEAD)
        return ResourceSpec(cpus=0.5, memory=memory)

    def candidates(self, model: ArtifactFacts, granted: Capacity, precision: str | None = None) -> tuple[Spec, ...]:
        """With a cache as large as there is room for; with half of many cores, too."""
        if precision not in (None, "int8"):  # whether 4 bits stay 4 the file's blocks decide
            return ()
        kind = "auto" if precision is None else precision
        large = (OpenVinoOptions.model_validate({"precision": kind, **cache}) for cache in CACHES)
        small = (OpenVinoOptions.model_validate({"precision": kind, **less}) for less in SMALLER)
        roomy = self.first_that_fits(large, model, granted.memory // 4)
        if (best := roomy or self.first_that_fits(small, model, granted.memory)) is None:
            return ()
        halved = [best.model_copy(update={"threads": int(granted.cpus) // 2})] if granted.cpus >= 4 else []
        return (best, *halved)

    def process(self, options: Spec, model: ArtifactFacts, resources: ResourceSpec) -> ProcessSpec:
        argv = ("{python}", "-m", "llm_os.workers.openvino", "{attempt}")
        return ProcessSpec(argv=argv, env=TRUSTS_NOBODY, resources=resources, environment=self.name)


PLUGIN = OpenVino()
