"""Trains an adapter of low rank (LoRA, Hu et al. 2021) with peft; the output holds it, and the merged weights."""

from __future__ import annotations

from llm_os.tasks.applications import application
from llm_os.tasks.context import Context
from llm_os.tasks.training.adapters import AdapterMethod, AdapterOptions, tune


class LoraOptions(AdapterOptions):
    """No options beyond those that all adapters share."""


class Lora(AdapterMethod[LoraOptions]):
    Options = LoraOptions
    name = "training/lora"

    def run(self, context: Context, options: LoraOptions) -> None:
        found, prepared = application.prepare(context, options)
        tune(context, options, found, prepared, method="lora")


PLUGIN = Lora()
