"""Trains every weight of a model."""

from __future__ import annotations

from llm_os.tasks.applications import application
from llm_os.tasks.context import Context
from llm_os.tasks.training.method import Method
from llm_os.tasks.training.optimizers import rate_of
from llm_os.tasks.training.options import TrainingOptions

RATE = 5e-5
"""Highest learning rate that `auto` means; see benchmarks/quality for what was tried."""


class FullOptions(TrainingOptions):
    """No options beyond those that all methods share."""


class Full(Method[FullOptions]):
    Options = FullOptions
    name = "training/full"

    def run(self, context: Context, options: FullOptions) -> None:
        found, prepared = application.prepare(context, options)
        outcome = application.train(
            context, options, prepared, rate=rate_of(options, application.own_rate(context, RATE)), method="full"
        )
        application.finish(context, prepared, outcome, lambda folder: found.save(prepared, folder))


PLUGIN = Full()
