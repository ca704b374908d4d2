"""Serves classifiers and regressions with PyTorch. Never imports it: the worker does, in its own process."""

from __future__ import annotations

from importlib import metadata
from typing import Literal

from pydantic import Field

from llm_os.drivers.device import Available, Probe, Unavailable
from llm_os.drivers.engine import Engine
from llm_os.memory.serving import estimate
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
COPIES = 2.5
"""The weights in fp32, in bf16 while both are compared, and the file's pages while it is read."""


class TorchOptions(Spec):
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto` takes bf16 where it is measured faster at the start and agrees with fp32."""
    max_batch: int = Field(default=32, ge=1, le=1024)
    """Most texts that are run together."""


class Torch(Engine):
    name = "torch"
    formats = ("safetensors",)
    tasks = ("text-classification",)
    Options = TorchOptions
    preference = 10

    def probe(self) -> Probe:
        try:
            version = f"{metadata.version('torch')}, transformers {metadata.version('transformers')}"
        except metadata.PackageNotFoundError as missing:
            return Unavailable(f"The package {missing.name} is not installed.", hint="pip install 'llm-os[train]'")
        return Available(version=version)

    def footprint(self, options: Spec, model: ArtifactFacts, granted: Capacity) -> ResourceSpec:
        parameters = model.meta.get("parameters")
        weights = 4 * int(parameters) if isinstance(parameters, int | float) and parameters else model.size
        width = model.meta.get("hidden_size")
        work = BATCH_TOKENS * VALUES * 4 * int(width) if isinstance(width, int | float) else 0
        return ResourceSpec(cpus=0.25, memory=estimate(int(weights * COPIES), overhead=OVERHEAD + work))

    def process(self, options: Spec, model: ArtifactFacts, resources: ResourceSpec) -> ProcessSpec:
        argv = ("{python}", "-m", "llm_os.workers.torch", "{attempt}")
        # Threads that spin while they wait take the cores from training beside: three times slower when both run.
        return ProcessSpec(argv=argv, env={"OMP_WAIT_POLICY": "PASSIVE"}, resources=resources)


PLUGIN = Torch()
