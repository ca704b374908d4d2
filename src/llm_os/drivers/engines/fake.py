"""An engine without a model, for tests: its options are its faults. Must not know any real engine."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from llm_os.drivers.device import Available, Probe, Unavailable
from llm_os.drivers.engine import TRUSTS_NOBODY, AdapterRoom, Engine
from llm_os.memory.serving import estimate
from llm_os.settings import Settings
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Spec
from llm_os.spec.processes import ProcessSpec
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.spec.units import Bytes, Duration

OVERHEAD = 96 * 2**20
"""Interpreter and HTTP server, in bytes (measured resident set: below 70 MiB)."""


class FakeOptions(Spec):
    reply: str = "This is a fake answer."
    """What a chat is answered; a text's classification follows from the text alone."""
    calls: str | None = None
    """Arguments, as JSON, with which a chat calls the first tool that it is offered; None: only where it must."""
    tokens_per_second: float = Field(default=0.0, ge=0)
    """Words a second; 0: at once."""
    ready_after: Duration = 0.0
    """Seconds until it is ready."""
    start_fails: bool = False
    """It ends with an error instead of getting ready."""
    dies_after: int | None = Field(default=None, ge=0)
    """The process kills itself in the middle of the request after this many."""
    fails: bool = False
    """It answers every request with an error 500."""
    slow: Duration = 0.0
    """Seconds that it thinks before an answer."""
    hangs: bool = False
    """It takes requests and never answers."""
    disagrees: float = Field(default=0.0, ge=0, le=1)
    """Share of the reference's places where it says something else; elsewhere it says what the reference says."""
    memory: Bytes | None = None
    """Bytes it claims to need; None: little."""
    max_adapters: int = Field(default=2, ge=0)
    """Adapters that a replica holds; their name and version are said before the reply."""
    adapters_fail: bool = False
    """It takes none of them."""


class Fake(Engine):
    name = "fake"
    formats = ("safetensors", "gguf")
    tasks = ("text-generation", "text-classification")
    Options = FakeOptions
    shares_prefixes = True  # it reads nothing, and is asked as those are that do
    preference = -100
    gaps: ClassVar[Mapping[str, str]] = dict.fromkeys(
        (
            "probabilities_of_tokens_are_told",
            "the_likeliest_tokens_are_told",
            "an_answer_is_held_to_a_schema",
            "prompt_tokens_from_the_cache_are_told",
        ),
        "it has no model",
    )

    def probe(self) -> Probe:
        if not Settings().testing:
            return Unavailable("The fake engine serves no model, it is for tests.", hint="Set LLM_OS_TESTING=1.")
        return Available(version=f"{sys.version_info.major}.{sys.version_info.minor}", detail="for tests only")

    def adapter_room(self, options: Spec, task: str) -> AdapterRoom | None:
        return AdapterRoom(FakeOptions.model_validate(options.model_dump()).max_adapters, 16)

    def footprint(self, options: Spec, model: ArtifactFacts, granted: Capacity) -> ResourceSpec:
        asked = options.memory if isinstance(options, FakeOptions) else None
        return ResourceSpec(cpus=0.1, memory=asked or estimate(0, overhead=OVERHEAD))

    def process(self, options: Spec, model: ArtifactFacts, resources: ResourceSpec) -> ProcessSpec:
        argv = ("{python}", "-m", "llm_os.workers.fake", "{attempt}")
        return ProcessSpec(argv=argv, env=TRUSTS_NOBODY, resources=resources)


PLUGIN = Fake()
