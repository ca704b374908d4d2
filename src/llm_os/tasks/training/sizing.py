"""What a training needs of a machine: shared by all methods. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from llm_os.memory import training as memory
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.applications import application
from llm_os.tasks.training.options import LENGTH, TrainingOptions, batch_of


def needs(
    options: TrainingOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity, *, trainable: int | None
) -> ResourceSpec:
    """Half of the cores are guaranteed, so that services fit beside it; memory by the estimate; a GPU if there is one.

    Raises:
        UnsupportedModelError: the model's format cannot be trained. SingleClassError, DataError: nor can the data.
    """
    application.check(inputs, options)
    memory_bytes = _estimate(options, inputs, batch_of(options), trainable)
    gpu = bool(granted.devices)
    return ResourceSpec(
        cpus=min(granted.cpus, max(0.5, granted.cpus / 2)),
        memory=2 * 2**30 if gpu else memory_bytes,
        accelerators=1 if gpu else 0,
        accelerator_memory=memory_bytes if gpu else None,
    )


def smaller(options: TrainingOptions, inputs: Mapping[str, ArtifactFacts], free: int, *, trainable: int | None) -> str:
    """`batch_size 8 would fit`, or an empty text."""
    parameters, hidden, layers = application.counts(inputs["model"].meta)
    best = memory.largest_batch(
        free,
        parameters=parameters,
        hidden=hidden,
        layers=layers,
        length=options.max_length or LENGTH,
        trainable=trainable,
    )
    return f"batch_size {best} would fit" if best and best < batch_of(options) else ""


def _estimate(options: TrainingOptions, inputs: Mapping[str, ArtifactFacts], batch: int, trainable: int | None) -> int:
    parameters, hidden, layers = application.counts(inputs["model"].meta)
    return memory.estimate(
        parameters=parameters,
        hidden=hidden,
        layers=layers,
        batch_size=batch,
        length=options.max_length or LENGTH,
        trainable=trainable,
    )
