"""Puts an adapter into the weights of its base: one model that needs neither, with the same answers to rounding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_os.errors import UnsupportedModelError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json, Spec
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.evaluation import prompts
from llm_os.tasks.task import Task

BASE = 700 * 2**20
"""Interpreter, torch, transformers and peft, in bytes."""
COPIES = 2.5
"""fp32 weights, the pages of the file they are read from, and one layer's product."""
PASSED_ON = ("metrics", "trained_on", "preparation", "labels", "adapter")
"""What a merged version knows from its adapter."""


class MergeOptions(Spec):
    """No options: there is one way."""


class Merge(Task[MergeOptions]):
    """The base's weights stay bit for bit where the adapter has nothing to say."""

    Options = MergeOptions
    inputs = ("model", "base")
    output = "model"
    cacheable = True

    def resources(self, options: MergeOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> ResourceSpec:
        adapter, base = inputs["model"].meta, inputs["base"].meta
        if adapter.get("format") != "adapter":
            raise UnsupportedModelError(
                "This version is no adapter: there is nothing to merge.", hint="Use it as it is."
            )
        if base.get("format") != "safetensors":
            raise UnsupportedModelError(
                f"An adapter cannot be merged into {base.get('format')}.",
                hint="Give the float weights it was trained on (card NAME-float).",
            )
        weights = 4 * int(str(base.get("parameters") or 0))
        return ResourceSpec(cpus=min(granted.cpus, 1.0), memory=BASE + int(COPIES * weights))

    def run(self, context: Context, options: MergeOptions) -> None:
        import torch

        from llm_os.models import settings
        from llm_os.models.adapters import merged
        from llm_os.models.formats import inspect

        torch.set_num_threads(context.threads)
        context.report(stage="merging", step=0, total=0)
        adapter, base = context.inputs["model"], context.inputs["base"]
        labels = adapter.facts.meta.get("labels")
        model, tokenizer = merged(base.path, adapter.path, str(adapter.facts.meta.get("task")), _named(labels))
        model.save_pretrained(context.output)
        tokenizer.save_pretrained(context.output)
        settings.hand_on(base.path, context.output)
        if adapter.facts.meta.get("task") in prompts.COMPARED:
            prompts.bring(context.output, adapter.path)
        known: dict[str, Json] = {name: adapter.facts.meta.get(name) for name in PASSED_ON}
        context.finish(
            "model",
            {**inspect(context.output), "license": base.facts.meta.get("license", "not stated"), **known},
        )


def _named(labels: Any) -> tuple[str, ...]:
    return tuple(str(label) for label in labels) if isinstance(labels, list) else ()


PLUGIN = Merge()
