"""Trains an adapter that turns directions by low rank and learns magnitudes (DoRA, Liu et al. 2024) with peft.

Closer to a full training than LoRA at the same rank, and slower: each step norms the columns of every adapted weight.
"""

from __future__ import annotations

from llm_os.tasks.applications import application
from llm_os.tasks.context import Context
from llm_os.tasks.training.adapters import AdapterMethod, AdapterOptions, tune


class DoraOptions(AdapterOptions):
    """No options beyond those that all adapters share."""


class Dora(AdapterMethod[DoraOptions]):
    Options = DoraOptions
    name = "training/dora"

    def run(self, context: Context, options: DoraOptions) -> None:
        found, prepared = application.prepare(context, options)
        tune(context, options, found, prepared, method="dora", use_dora=True)


PLUGIN = Dora()
