"""Trains every weight of a model."""

from __future__ import annotations

from llm_os.tasks.applications import application
from llm_os.tasks.context import Context
from llm_os.tasks.training.method import Method
from llm_os.tasks.training.optimizers import rate_of
from llm_os.tasks.training.options import TrainingOptions

RATE = 5e-5
"""Highest learning rate that `auto` means; see benchmarks/quality for what was tried."""
SMALL, SMALL_RATE = 50_000_000, 1e-4
"""And that of a classifier of so few parameters at most."""


class FullOptions(TrainingOptions):
    """No options beyond those that all methods share."""


class Full(Method[FullOptions]):
    Options = FullOptions
    name = "training/full"

    def run(self, context: Context, options: FullOptions) -> None:
        found, prepared = application.prepare(context, options)
        rate = rate_of(options, application.own_rate(context, usual_rate(context)))
        outcome = application.train(context, options, prepared, rate=rate, method="full")
        application.finish(context, options, prepared, outcome, lambda folder: found.save(prepared, folder))


def usual_rate(context: Context) -> float:
    """What `auto` means for this model and data."""
    size, _, _ = application.counts(context.inputs["model"].facts.meta)
    classifies = application.kind_of(context.inputs["data"].facts) in {"classification", "score"}
    return SMALL_RATE if classifies and size <= SMALL else RATE


PLUGIN = Full()
