"""Trains every weight of a model."""

from __future__ import annotations

from collections.abc import Mapping

from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.applications import application
from llm_os.tasks.context import Context
from llm_os.tasks.task import Task
from llm_os.tasks.training.optimizers import rate_of
from llm_os.tasks.training.options import TrainingOptions
from llm_os.tasks.training.sizing import needs, smaller

RATE = 5e-5
"""Highest learning rate that `auto` means; see benchmarks/quality for what was tried."""


class FullOptions(TrainingOptions):
    """No options beyond those that all methods share."""


class Full(Task[FullOptions]):
    Options = FullOptions
    inputs = ("model", "data")
    optional_inputs = ("validation",)
    output = "model"

    def resources(self, options: FullOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> ResourceSpec:
        return needs(options, inputs, granted, trainable=None)

    def alternatives(
        self, options: FullOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity, free_memory: int
    ) -> str:
        return smaller(options, inputs, free_memory, trainable=None)

    def run(self, context: Context, options: FullOptions) -> None:
        found, prepared = application.prepare(context, options)
        outcome = application.train(context, options, prepared, rate=rate_of(options, RATE), method="full")
        application.finish(context, prepared, outcome, lambda folder: found.save(prepared, folder))


PLUGIN = Full()
