"""What all methods of training are to the kernel: their inputs, their size, and what they become where memory is short.

A method says how many weights it trains; the rest of its size follows. Pure, but for `run`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, TypeVar

from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.jobs import Choice
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.spec.units import format_bytes
from llm_os.tasks.applications import application
from llm_os.tasks.libraries import TRANSFORMERS
from llm_os.tasks.task import Task
from llm_os.tasks.training import sizing
from llm_os.tasks.training.options import TrainingOptions, batch_of, part_of

OptionsT = TypeVar("OptionsT", bound=TrainingOptions)


class Method(Task[OptionsT]):
    """A way to train: a subclass states `Options`, `name`, `run`, and `trainable` and `weight_bytes` where they differ.

    Class attributes:
        name: of the task, such as `training/full`.
        weight_bytes: bytes of a weight of the base model while it is trained on.
    """

    name: ClassVar[str]
    weight_bytes: ClassVar[float] = 4.0
    inputs = ("model", "data")
    optional_inputs = ("validation",)
    output = "model"
    preload = TRANSFORMERS

    def trainable(self, options: OptionsT, inputs: Mapping[str, ArtifactFacts]) -> int | None:
        """About how many weights are trained; None: all."""
        return None

    def resources(self, options: OptionsT, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> ResourceSpec:
        """Half of the cores are guaranteed, so that services fit beside it; memory by the estimate; a GPU if there is.

        Raises:
            UnsupportedModelError: the model's format cannot be trained. SingleClassError, DataError: nor can the data.
            InvalidOptionError: an option means nothing for the data.
        """
        application.check(inputs, options)
        need = self._size(options, inputs).peak(part_of(options))
        gpu = bool(granted.devices)
        return ResourceSpec(
            cpus=min(granted.cpus, max(0.5, granted.cpus / 2)),
            memory=2 * 2**30 if gpu else need,
            accelerators=1 if gpu else 0,
            accelerator_memory=need if gpu else None,
        )

    def choose(self, options: OptionsT, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> Choice | None:
        """Fewer texts at a time, of the same steps, where all of a batch do not fit into what is granted."""
        application.check(inputs, options)
        if options.accumulation != "auto":
            return None
        batch, size, room = batch_of(options), self._size(options, inputs), sizing.room(granted)
        part = size.largest(room) or 1
        if part >= batch:
            return None
        parts = -(-batch // part)
        return Choice(
            task=self.name,
            options={**options.model_dump(mode="json", exclude_unset=True), "accumulation": parts},
            because=f"{-(-batch // parts)} texts at a time, {parts} times a step: all {batch} at once would need "
            f"{format_bytes(size.peak(batch))}, and {format_bytes(room)} are granted.",
        )

    def alternatives(
        self, options: OptionsT, inputs: Mapping[str, ArtifactFacts], granted: Capacity, free_memory: int
    ) -> str:
        part, batch = self._size(options, inputs).largest(free_memory), batch_of(options)
        if part is None or part >= part_of(options):
            return ""
        return f"accumulation={-(-batch // part)} would fit" if batch > part else f"batch_size {part} would fit"

    def _size(self, options: OptionsT, inputs: Mapping[str, ArtifactFacts]) -> sizing.Size:
        return sizing.Size.of(options, inputs, self.trainable(options, inputs), self.weight_bytes)
