"""Further steps on a data set that is prepared already: `dataset.prepare(...)`. Its split stays as it is."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from pydantic import Field

from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.datasets.ingest import SIDE, Ingest, Source
from llm_os.tasks.datasets.options import DataOptions
from llm_os.tasks.datasets.stored import read
from llm_os.tasks.preparation.step import StepSpec, choose
from llm_os.tasks.task import Task


class PreparedOptions(DataOptions):
    steps: tuple[StepSpec, ...] = Field(min_length=1, examples=[[{"step": "clean"}]])
    """Preparation steps, in order."""


class Prepared(Task[PreparedOptions]):
    Options = PreparedOptions
    inputs = ("data",)
    optional_inputs = ("tokenizer",)
    output = "dataset"
    cacheable = True

    def resources(
        self, options: PreparedOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity
    ) -> ResourceSpec:
        choose(options.steps)
        return ResourceSpec(cpus=min(0.25, granted.cpus), memory=768 * 2**20)

    def run(self, context: Context, options: PreparedOptions) -> None:
        data = context.inputs["data"]
        meta = data.facts.meta
        language = options.language if options.language != "unknown" else str(meta.get("language") or "unknown")
        known, before = meta.get("labels"), meta.get("steps")
        source = Source(
            name=str(meta.get("name") or "data"),
            title="the data set",
            rows=read(data.path),
            facts={
                "kind": "dataset",
                "digest": data.facts.digest,
                "of": meta.get("source"),
            },
            labels=[str(name) for name in known] if isinstance(known, list) else None,
            kind=str(meta.get("kind") or "classification"),
            before=before if isinstance(before, list) else (),
        )
        if (data.path / SIDE).is_dir():
            shutil.copytree(data.path / SIDE, context.output / SIDE)
        Ingest(context, options.model_copy(update={"language": language}), source).run()


PLUGIN = Prepared()
