"""Serves models in safetensors of every kind with PyTorch. Never imports it: the worker does, in its own process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from llm_os import programs
from llm_os.drivers.device import Available, Probe, Unavailable
from llm_os.drivers.engine import AdapterRoom, Engine
from llm_os.memory.serving import estimate, kv_bytes_per_token
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Spec
from llm_os.spec.processes import ProcessSpec
from llm_os.spec.resources import Capacity, ResourceSpec

OVERHEAD = 420 * 2**20
"""Interpreter, torch, transformers and work space of a batch, in bytes (see benchmarks/serving)."""
BATCH_TOKENS = 4096
"""Tokens of the largest batch of the worker."""
VALUES = 24
"""fp32 values that a token needs while it runs, as a multiple of the model's width (measured: below 20)."""
LONGEST = 512
"""Tokens that an encoder-decoder reads, and that it writes, at most."""
SMALLER: tuple[Mapping[str, int], ...] = (
    {},
    {"cache_tokens": 8192},
    {"cache_tokens": 4096, "context": 4096},
    {"cache_tokens": 2048, "context": 2048},
    {"cache_tokens": 2048, "context": 2048, "max_adapters": 0},
)
"""Caches of chats, from the default downwards; at last without room for adapters."""
COPIES = 2.5
"""The weights in fp32, in bf16 while both are compared, and the file's pages while it is read."""
ADAPTER_WIDTHS = 24
"""Widths of the model that a rank of an adapter of all linear layers takes in each of them (7 layers, 4 x inside)."""


class TorchOptions(Spec):
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto` takes bf16 where it is measured faster at the start and agrees with fp32."""
    max_batch: int = Field(default=32, ge=1, le=1024)
    """Most texts, or answers, that are run together."""
    context: int = Field(default=8192, ge=128)
    """Chat: most tokens of a prompt with its answer; never more than the model was made for."""
    cache_tokens: int = Field(default=16384, ge=128)
    """Chat: cells of the cache of keys and values, over all answers; at least `context` are."""
    threads: int | None = Field(default=None, ge=1)
    """Cores that it computes on, at most; None: all that it is granted."""
    streams: int | None = Field(default=None, ge=1, le=64)
    """Classifiers and embedders: batches that run side by side, each on its share of the threads; None: one for every
    two threads, but two where there are two. `1` is quickest for one caller with long texts, more are quicker for many.
    Models of long texts have few."""
    max_adapters: int = Field(default=4, ge=0, le=256)
    """Chat: adapters (LoRA) that a replica holds beside the model; room is set aside for them."""
    max_adapter_rank: int = Field(default=16, ge=1, le=512)
    """Chat: the largest rank of such an adapter."""
    stream_interval: int = Field(default=25, ge=0, le=1000)
    """Chat: least milliseconds between two events of a stream, twice that while four or more are answered: each costs
    the cores that compute. 0: every token by itself."""


def _cache_bytes(asked: TorchOptions, meta: Mapping[str, int]) -> int:
    """Keys and values in fp32, which they are when bf16 is no gain here."""
    context = min(asked.context, meta.get("context_length") or asked.context)
    return max(asked.cache_tokens, context) * _token_bytes(meta)


def _adapter_bytes(asked: TorchOptions, meta: Mapping[str, int]) -> int:
    """All adapters in fp32, once more side by side for a mixed batch, and one that takes another's place."""
    one = ADAPTER_WIDTHS * asked.max_adapter_rank * meta.get("hidden_size", 0) * meta.get("layers", 0) * 4
    return one * (2 * asked.max_adapters + 1) if asked.max_adapters else 0


def _token_bytes(meta: Mapping[str, int]) -> int:
    """Keys and values of a token over all layers."""
    heads = meta.get("heads", 0)
    width = (
        meta.get("hidden_size", 0) * (meta.get("kv_heads") or heads) // heads if heads else meta.get("hidden_size", 0)
    )
    return kv_bytes_per_token(layers=meta.get("layers", 0), kv_width=width, bytes_per_value=4)


class Torch(Engine):
    name = "torch"
    formats = ("safetensors",)
    tasks = (
        "text-classification",
        "multi-label-classification",
        "token-classification",
        "sentence-similarity",
        "feature-extraction",
        "text2text-generation",
        "text-generation",
    )
    Options = TorchOptions
    preference = 10
    compared = False  # it runs what the reference runs; bf16 it takes only where that agrees with fp32
    gaps: ClassVar[Mapping[str, str]] = {
        "an_answer_is_held_to_a_schema": "the reference loop has no grammar; openvino does",
        "a_tool_is_called_where_it_must_be": "the same: a model may call a tool, but it cannot be made to",
        "prompt_tokens_from_the_cache_are_told": "the reference loop keeps no beginnings: it tells 0, which is so",
    }

    def probe(self) -> Probe:
        found = programs.installed(self.name, "torch", "transformers")
        if isinstance(found, str):
            return Unavailable(found, hint="pip install 'llm-os[train]'")
        return Available(version=f"{found['torch']}, transformers {found['transformers']}")

    def adapter_room(self, options: Spec, task: str) -> AdapterRoom | None:
        asked = TorchOptions.model_validate(options.model_dump())
        return AdapterRoom(asked.max_adapters, asked.max_adapter_rank) if task == "text-generation" else None

    def footprint(self, options: Spec, model: ArtifactFacts, granted: Capacity) -> ResourceSpec:
        asked = TorchOptions.model_validate(options.model_dump())
        meta = {name: int(value) for name, value in model.meta.items() if isinstance(value, int | float)}
        weights = 4 * meta["parameters"] if meta.get("parameters") else model.size
        width = meta.get("hidden_size", 0)
        kept = 0
        if model.meta.get("task") == "text-generation":
            kept = _cache_bytes(asked, meta) + _adapter_bytes(asked, meta)
        elif model.meta.get("task") == "text2text-generation":
            kept = 2 * asked.max_batch * LONGEST * _token_bytes(meta)  # of what was read, and of what is written
        work = BATCH_TOKENS * VALUES * 4 * width
        memory = estimate(int(weights * COPIES), kv_bytes=kept, overhead=OVERHEAD + work)
        return ResourceSpec(cpus=0.25, memory=memory)

    def candidates(self, model: ArtifactFacts, granted: Capacity, precision: str | None = None) -> tuple[Spec, ...]:
        """The faster of fp32 and bf16 it takes by itself at its start; the cache is as large as there is room for."""
        if precision not in (None, "fp32", "bf16"):
            return ()
        kind = "auto" if precision is None else precision
        ladder = (TorchOptions.model_validate({"dtype": kind, **less}) for less in SMALLER)
        best = self.first_that_fits(ladder, model, granted.memory)
        return () if best is None else (best,)

    def process(self, options: Spec, model: ArtifactFacts, resources: ResourceSpec) -> ProcessSpec:
        argv = ("{python}", "-m", "llm_os.workers.torch", "{attempt}")
        # Threads that spin while they wait take the cores from training beside: three times slower when both run.
        return ProcessSpec(argv=argv, env={"OMP_WAIT_POLICY": "PASSIVE"}, resources=resources, environment=self.name)


PLUGIN = Torch()
