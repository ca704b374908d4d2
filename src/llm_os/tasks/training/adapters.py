"""What the methods that train an adapter share: its options and size, putting it in, and what is saved of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from llm_os.errors import InvalidOptionError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.applications import application
from llm_os.tasks.applications.application import Application, Prepared
from llm_os.tasks.context import Context
from llm_os.tasks.training.method import Method
from llm_os.tasks.training.optimizers import rate_of
from llm_os.tasks.training.options import TrainingOptions

RATE = 5e-4
"""Highest learning rate that `auto` means: ten times that of a full training, as is usual for LoRA."""
RATES = {"preference": 5e-5}
"""And where the kind of data wants another one: preferences are learnt with a tenth of it (Rafailov et al. 2023)."""
HEADS = frozenset({"classifier", "score"})
"""What architectures call their head for classes."""
ALONE = frozenset({"text", "chat", "preference", "classification", "score"})
"""Kinds of data whose adapters hold all that a merged version must know."""
FOLDER = "adapter"
"""Folder of the adapter in peft's form inside a merged version."""

PLAIN: Mapping[str, Any] = {"safe_serialization": True, "save_embedding_layers": False}
"""The adapter's own weights; peft would ask a hub on the network whether the embeddings belong to it."""


class AdapterOptions(TrainingOptions):
    rank: int = Field(default=16, ge=1, le=512)
    """Rank of the adapter's matrices."""
    alpha: float = Field(default=32.0, gt=0)
    """Scale: the adapter counts alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before the adapter; on processors it costs more than the adapter itself."""
    targets: str = "all-linear"
    """Modules that get an adapter: `all-linear`, or names separated by commas (`query,value`)."""
    merge: bool = True
    """Save whole weights with the adapter in them; false: the adapter alone, which `model.merge()` merges later."""


OptionsT = TypeVar("OptionsT", bound=AdapterOptions)


class AdapterMethod(Method[OptionsT]):
    """A method whose base is frozen: a subclass states `Options`, `name` and `run`."""

    def resources(self, options: OptionsT, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> ResourceSpec:
        needed = super().resources(options, inputs, granted)
        kind = application.kind_of(inputs["data"])
        if not options.merge and kind not in ALONE:
            raise InvalidOptionError(
                f"What {kind} data teaches is not saved as an adapter alone.",
                hint="Take method='lora' or 'dora' with merge=True.",
                details={"option": "merge"},
            )
        return needed

    def trainable(self, options: OptionsT, inputs: Mapping[str, ArtifactFacts]) -> int:
        """Two matrices for each of the twelve widths of linear layers in a block, and a head."""
        _, hidden, layers = application.counts(inputs["model"].meta)
        return 18 * options.rank * hidden * layers + hidden * hidden


def tune(
    context: Context,
    options: AdapterOptions,
    found: Application,
    prepared: Prepared,
    *,
    method: str,
    more: Mapping[str, Json] | None = None,
    **config: Any,
) -> None:
    """Put an adapter into the prepared model, train it, and save what the options ask for.

    Args:
        config: further arguments of peft's LoraConfig. more: joins what the version says of its adapter.
    """
    adapted = prepared.model = adapted_model(prepared.model, options, found.adapter, prepared.heads, **config)
    prepared.heads = ()  # an adapter is as fresh as the head: all of it learns at one rate
    kind = application.kind_of(context.inputs["data"].facts)
    rate = rate_of(options, RATES.get(kind, RATE))
    outcome = application.train(context, options, prepared, rate=rate, method=method)

    base = context.inputs["model"].facts
    adapted.peft_config["default"].base_model_name_or_path = base.digest  # not a path of this machine

    def save(folder: Path) -> None:
        if not options.merge:
            adapted.save_pretrained(folder, **PLAIN)
            prepared.tokenizer.save_pretrained(folder)
            return
        adapted.save_pretrained(folder / FOLDER, **PLAIN)
        prepared.model = adapted.merge_and_unload()
        found.save(prepared, folder)

    said: dict[str, Json] = {"method": method, "rank": options.rank, "alpha": options.alpha, **(more or {})}
    facts: dict[str, Json] = {"adapter": said}
    if not options.merge:
        facts["base"] = base.digest
    application.finish(context, options, prepared, outcome, save, facts)


def adapted_model(model: Any, options: AdapterOptions, task: str, heads: Sequence[str] = (), **config: Any) -> Any:
    """The model with a fresh adapter; its own weights are frozen.

    Its head is trained whole, so it gets no adapter; nor does anything else that is fresh.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    targets = options.targets if options.targets == "all-linear" else [t.strip() for t in options.targets.split(",")]
    fresh = {_module(name, model.base_model_prefix) for name in heads}
    named = re.compile(rf"(.*\.)?({'|'.join(map(re.escape, sorted(HEADS | fresh)))})(\..*)?")
    excluded = [name for name, _ in model.named_modules() if named.fullmatch(name)]
    return get_peft_model(
        model,
        LoraConfig(
            task_type=TaskType(task),
            r=options.rank,
            lora_alpha=options.alpha,
            lora_dropout=options.dropout,
            target_modules=targets,
            exclude_modules=excluded if targets == "all-linear" and excluded else None,
            modules_to_save=sorted(fresh) or None,
            **config,
        ),
    )


def _module(parameter: str, base: str) -> str:
    """The module that a fresh parameter belongs to: `classifier` of `classifier.dense.weight`, `pooler` of a base's."""
    return parameter.removeprefix(f"{base}.").partition(".")[0]
