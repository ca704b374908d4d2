"""Writes a tuned model as GGUF in 8 bits, so that engines serve it that read nothing else; a version of its own."""

from __future__ import annotations

from collections.abc import Mapping

from llm_os.errors import UnavailableError, UnsupportedModelError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json, Spec
from llm_os.spec.models import WEIGHTS_OF
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.evaluation import prompts
from llm_os.tasks.task import Task

BASE = 400 * 2**20
"""Interpreter, torch's tensors, and the parent's header with its vocabulary, in bytes."""
COPIES = 2.0
"""The pages of the weights that are read, those of the file that is written, and one tensor in work."""
FILE = "model-Q8_0.gguf"
PASSED_ON = ("trained_on", "preparation", "labels", "adapter")
"""What is said of the weights and holds in 8 bits. Metrics do not: they were not measured with these."""


class GgufOptions(Spec):
    """No options: there is one way."""


class Gguf(Task[GgufOptions]):
    """Weights as they are served by openvino and llama.cpp; they are compared with what they were made of."""

    Options = GgufOptions
    inputs = ("model", "base")
    output = "model"
    cacheable = True

    def resources(self, options: GgufOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> ResourceSpec:
        given, base = inputs["model"].meta, inputs["base"].meta
        if given.get("format") != "safetensors" or given.get("task") != "text-generation":
            raise UnsupportedModelError(
                f"A {given.get('task')} model in {given.get('format')} is not written as GGUF.",
                hint="Chat models in safetensors are; merge an adapter first (llm-os merge).",
            )
        if base.get("format") != "gguf":
            raise UnsupportedModelError(
                f"The base is in {base.get('format')}.", hint="Give the GGUF model that it was tuned from."
            )
        weights = 4 * int(str(given.get("parameters") or 0))
        return ResourceSpec(cpus=min(granted.cpus, 1.0), memory=BASE + int(COPIES * weights))

    def run(self, context: Context, options: GgufOptions) -> None:
        from llm_os.models import settings
        from llm_os.models.formats import inspect
        from llm_os.models.gguf_writing import write_gguf

        context.report(stage="writing GGUF", step=0, total=0)
        given, base = context.inputs["model"], context.inputs["base"]
        parent = base.path / str(base.facts.meta.get("file")) if base.path.is_dir() else base.path
        try:
            write_gguf(given.path, parent, context.output / FILE)
        except ModuleNotFoundError as error:
            raise UnavailableError(f"{error.name} is not installed.", hint="pip install 'llm-os[openvino]'") from error
        settings.hand_on(given.path, context.output)
        prompts.bring(context.output, given.path)
        known: dict[str, Json] = {name: given.facts.meta.get(name) for name in PASSED_ON}
        license_ = given.facts.meta.get("license", "not stated")
        context.finish(
            "model", {**inspect(context.output), "license": license_, WEIGHTS_OF: given.facts.digest, **known}
        )


PLUGIN = Gguf()
