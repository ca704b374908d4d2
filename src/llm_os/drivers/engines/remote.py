"""Serves a model that any server with OpenAI's API has: requests are passed on to it, nothing is computed here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from llm_os.drivers.device import Available, Probe
from llm_os.drivers.engine import Engine
from llm_os.memory.serving import estimate
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Spec
from llm_os.spec.processes import ProcessSpec
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.spec.units import Duration

OVERHEAD = 96 * 2**20
"""Interpreter, HTTP server and client, in bytes."""


class RemoteOptions(Spec):
    key_file: str | None = None
    """Absolute path of a file of mode 0600 with the key of that server and nothing else; None: it asks for none."""
    timeout: Duration = Field(default=120.0, gt=0)
    """Seconds without a byte from that server after which a request is given up."""
    max_requests: int = Field(default=64, ge=1, le=4096)
    """Requests that are there at once; more are refused."""
    limit_parameter: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto"
    """What that server calls the most new tokens of a chat; `auto`: max_tokens, and the other where it refuses that."""

    @field_validator("key_file")
    @classmethod
    def _absolute(cls, path: str | None) -> str | None:
        if path is not None and not path.startswith("/"):
            raise ValueError("it must be the absolute path of a file, not the key itself")
        return path


class Remote(Engine):
    name = "remote"
    formats = ("remote",)
    tasks = ("text-generation",)
    Options = RemoteOptions
    compared = False  # its weights are not here
    gaps: ClassVar[Mapping[str, str]] = {
        "adapters_are_hot": "what stands beside a model is its server's affair",
        "tokens_are_told_and_turned_back": "OpenAI's API has no way to ask for a model's tokens",
        "tools_and_their_results_are_read": "the same: what tools take of a prompt cannot be counted",
        "a_wrong_prompt_or_token_is_refused_by_name": "it knows no tokens, so it cannot say which are wrong",
    }

    def probe(self) -> Probe:
        return Available(version="OpenAI's API, version 1")

    def footprint(self, options: Spec, model: ArtifactFacts, granted: Capacity) -> ResourceSpec:
        return ResourceSpec(cpus=0.1, memory=estimate(0, overhead=OVERHEAD))

    def process(self, options: Spec, model: ArtifactFacts, resources: ResourceSpec) -> ProcessSpec:
        return ProcessSpec(argv=("{python}", "-m", "llm_os.workers.remote", "{attempt}"), resources=resources)


PLUGIN = Remote()
