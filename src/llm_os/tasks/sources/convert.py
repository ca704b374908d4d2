"""Makes float weights of a GGUF model, once: training needs them, and the result is kept as a version of its own."""

from __future__ import annotations

from collections.abc import Mapping

from llm_os.errors import UnsupportedModelError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Spec
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.evaluation import prompts
from llm_os.tasks.task import Task

BASE = 700 * 2**20
"""Interpreter, torch, transformers and the tokenizer while it is built, in bytes."""
COPIES = 1.5
"""fp32 weights, one tensor in work, and the pages of the files that are read and written."""


class ConvertOptions(Spec):
    """No options: there is one way."""


class Convert(Task[ConvertOptions]):
    Options = ConvertOptions
    inputs = ("model",)
    output = "model"
    cacheable = True

    def resources(
        self, options: ConvertOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity
    ) -> ResourceSpec:
        given = inputs["model"].meta
        if given.get("format") != "gguf":
            raise UnsupportedModelError(f"A model in {given.get('format')} needs no conversion.", hint="Train it.")
        weights = 4 * int(str(given.get("parameters") or 0))
        return ResourceSpec(cpus=min(granted.cpus, 1.0), memory=BASE + int(COPIES * weights))

    def run(self, context: Context, options: ConvertOptions) -> None:
        import torch

        from llm_os.models.convert import gguf_to_safetensors

        torch.set_num_threads(context.threads)
        context.report(stage="reading GGUF", step=0, total=0)
        given = context.inputs["model"]
        facts = gguf_to_safetensors(given.path, context.output)
        prompts.bring(context.output, given.path)
        context.message(
            f"Weights of {given.facts.meta.get('file')} as fp32: no better than the quantization they come from."
        )
        context.finish("model", {**facts, "license": given.facts.meta.get("license", "not stated")})


PLUGIN = Convert()
