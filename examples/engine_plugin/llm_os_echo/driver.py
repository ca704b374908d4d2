"""The driver: runs in the kernel, decides what a replica needs and which program serves it. Loads no model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from llm_os.drivers.device import Available, Probe
from llm_os.drivers.engine import Engine
from llm_os.memory.serving import estimate
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Spec
from llm_os.spec.processes import ProcessSpec
from llm_os.spec.resources import Capacity, ResourceSpec


class EchoOptions(Spec):
    greeting: str = Field(default="You said:", min_length=1)
    """What every answer begins with."""


class Echo(Engine):
    name = "echo"
    formats = ("gguf", "safetensors")
    tasks = ("text-generation",)
    Options = EchoOptions
    preference = -50  # only where it is named
    compared = False  # it has no model that could say what PyTorch says
    gaps: ClassVar[Mapping[str, str]] = dict.fromkeys(
        (
            "probabilities_of_tokens_are_told",
            "the_likeliest_tokens_are_told",
            "an_answer_is_held_to_a_schema",
            "tools_and_their_results_are_read",
            "a_wrong_tool_is_refused_by_name",
            "a_tool_is_called_where_it_must_be",
            "adapters_are_hot",
            "prompt_tokens_from_the_cache_are_told",
        ),
        "it has no model",
    )

    def probe(self) -> Probe:
        return Available(version="0.1.0")

    def footprint(self, options: Spec, model: ArtifactFacts, granted: Capacity) -> ResourceSpec:
        return ResourceSpec(cpus=0.1, memory=estimate(0, overhead=96 * 2**20))

    def process(self, options: Spec, model: ArtifactFacts, resources: ResourceSpec) -> ProcessSpec:
        return ProcessSpec(argv=("{python}", "-m", "llm_os_echo.worker", "{attempt}"), resources=resources)


PLUGIN = Echo()
