"""Trains an adapter of low rank (LoRA, Hu et al. 2021) with peft; the output holds it, and the merged weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from llm_os.spec.artifacts import ArtifactFacts
from llm_os.tasks.applications import application
from llm_os.tasks.context import Context
from llm_os.tasks.training.method import Method
from llm_os.tasks.training.optimizers import rate_of
from llm_os.tasks.training.options import TrainingOptions

HEADS = frozenset({"classifier", "score"})
"""What architectures call their head for classes."""
RATE = 5e-4
"""Highest learning rate that `auto` means: ten times that of a full training, as is usual for LoRA."""


class LoraOptions(TrainingOptions):
    rank: int = Field(default=16, ge=1, le=512)
    """Rank of the adapter's matrices."""
    alpha: float = Field(default=32.0, gt=0)
    """Scale: the adapter counts alpha / rank."""
    dropout: float = Field(default=0.05, ge=0, lt=1)
    """Dropout before the adapter."""
    targets: str = "all-linear"
    """Modules that get an adapter: `all-linear`, or names separated by commas (`query,value`)."""


class Lora(Method[LoraOptions]):
    Options = LoraOptions
    name = "training/lora"

    def trainable(self, options: LoraOptions, inputs: Mapping[str, ArtifactFacts]) -> int:
        """Two matrices for each of the twelve widths of linear layers in a block, and a head."""
        _, hidden, layers = application.counts(inputs["model"].meta)
        return 18 * options.rank * hidden * layers + hidden * hidden

    def run(self, context: Context, options: LoraOptions) -> None:
        found, prepared = application.prepare(context, options)
        adapted = prepared.model = _adapted(prepared.model, options, found.adapter, prepared.heads)
        outcome = application.train(context, options, prepared, rate=rate_of(options, RATE), method="lora")

        def save(folder: Path) -> None:
            adapted.save_pretrained(folder / "adapter", safe_serialization=True)
            prepared.model = adapted.merge_and_unload()
            found.save(prepared, folder)

        application.finish(
            context, prepared, outcome, save, {"adapter": {"rank": options.rank, "alpha": options.alpha}}
        )


def _adapted(model: Any, options: LoraOptions, task: str, heads: Sequence[str]) -> Any:
    """The model with adapters. Its head is trained whole, so it gets none; nor does anything else that is fresh."""
    from peft import LoraConfig, TaskType, get_peft_model

    targets = options.targets if options.targets == "all-linear" else [t.strip() for t in options.targets.split(",")]
    fresh = {_module(name, model.base_model_prefix) for name in heads}
    named = re.compile(rf"(.*\.)?({'|'.join(map(re.escape, sorted(HEADS | fresh)))})(\..*)?")
    excluded = [name for name, _ in model.named_modules() if named.fullmatch(name)]
    config = LoraConfig(
        task_type=TaskType(task),
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=targets,
        exclude_modules=excluded if targets == "all-linear" and excluded else None,
        modules_to_save=sorted(fresh) or None,
    )
    return get_peft_model(model, config)


def _module(parameter: str, base: str) -> str:
    """The module that a fresh parameter belongs to: `classifier` of `classifier.dense.weight`, `pooler` of a base's."""
    return parameter.removeprefix(f"{base}.").partition(".")[0]


PLUGIN = Lora()
