"""Serves encoders in safetensors as graphs of OpenVINO. Never imports it: the worker does, in its own process."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llm_os import programs
from llm_os.drivers.device import Available, Probe, Unavailable
from llm_os.drivers.engine import Engine
from llm_os.memory.serving import estimate
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Spec
from llm_os.spec.processes import ProcessSpec
from llm_os.spec.resources import Capacity, ResourceSpec

OVERHEAD = 640 * 2**20
"""Interpreter, torch, transformers, openvino and work space, in bytes (measured)."""
BATCH_TOKENS = 4096
"""Tokens of the largest batch of the worker."""
VALUES = 24
"""fp32 values that a token needs while it runs, as a multiple of the model's width."""
COPIES = 5.0
"""Weights in fp32 in PyTorch, in the graph, and in the engine's own layout of each precision that is tried."""


class OpenVinoEncodersOptions(Spec):
    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    """`auto` takes the fastest at the start that agrees with fp32; `int8` has weights in 8 bits and rounds what goes
    into matrix products while it runs."""
    max_batch: int = Field(default=32, ge=1, le=1024)
    """Most texts that are run together, in all streams."""
    streams: int | None = Field(default=None, ge=1, le=64)
    """Batches that run side by side, each on its share of the threads; none: one for every two threads, but two where
    there are two. `1` is quickest for one caller, more are quicker for many. Taggers have one, and models of long texts
    few."""


class OpenVinoEncoders(Engine):
    name = "openvino_encoders"
    formats = ("safetensors",)
    tasks = (
        "text-classification",
        "multi-label-classification",
        "token-classification",
        "sentence-similarity",
        "feature-extraction",
    )
    Options = OpenVinoEncodersOptions
    preference = 5  # not every model becomes a graph; whoever measures that it is faster takes it

    def probe(self) -> Probe:
        found = programs.installed(self.name, "openvino", "torch", "transformers")
        if isinstance(found, str):
            return Unavailable(found, hint="pip install 'llm-os[openvino,train]'")
        return Available(version=f"{found['openvino']}, torch {found['torch']}")

    def footprint(self, options: Spec, model: ArtifactFacts, granted: Capacity) -> ResourceSpec:
        meta = {name: int(value) for name, value in model.meta.items() if isinstance(value, int | float)}
        weights = 4 * meta["parameters"] if meta.get("parameters") else model.size
        work = BATCH_TOKENS * VALUES * 4 * meta.get("hidden_size", 0)
        return ResourceSpec(cpus=0.25, memory=estimate(int(weights * COPIES), kv_bytes=0, overhead=OVERHEAD + work))

    def process(self, options: Spec, model: ArtifactFacts, resources: ResourceSpec) -> ProcessSpec:
        argv = ("{python}", "-m", "llm_os.workers.openvino_encoders", "{attempt}")
        # Threads that spin while they wait take the cores from training beside: three times slower when both run.
        return ProcessSpec(argv=argv, env={"OMP_WAIT_POLICY": "PASSIVE"}, resources=resources, environment=self.name)


PLUGIN = OpenVinoEncoders()
