"""What a training needs of a machine: shared by all methods. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llm_os.memory import training as memory
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.resources import Capacity
from llm_os.tasks.applications import application
from llm_os.tasks.training.optimizers import KINDS
from llm_os.tasks.training.options import LENGTH, TrainingOptions


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes of one training, but for how many texts go through it at once."""

    still: int
    """Bytes without a single text."""
    per_text: int

    @classmethod
    def of(
        cls,
        options: TrainingOptions,
        inputs: Mapping[str, ArtifactFacts],
        trainable: int | None,
        weight_bytes: float,
    ) -> Size:
        """Args:
        trainable: weights that are trained; None: all.
        weight_bytes: bytes of a weight of the base.
        """
        parameters, hidden, layers = application.counts(inputs["model"].meta)
        average = 4 if options.ema is not None else 0
        still = memory.estimate(
            parameters=parameters,
            hidden=hidden,
            layers=layers,
            batch_size=0,
            length=0,
            trainable=trainable,
            state_bytes=KINDS[options.optimizer].state_bytes + average,
            weight_bytes=weight_bytes,
        )
        length = options.max_length or LENGTH
        text = memory.per_sequence(hidden, layers, length, again=options.gradient_checkpointing)
        kind = application.kind_of(inputs["data"])
        if kind in {"text", "chat", "preference"}:
            still += memory.slice_of_logits(int(str(inputs["model"].meta.get("vocabulary") or 0)))
        return cls(still, 2 * text if kind == "preference" else text)  # a pair is two texts

    def peak(self, texts: int) -> int:
        """Bytes with so many texts at once."""
        return self.still + texts * self.per_text

    def largest(self, room: int) -> int | None:
        """The largest power of two of texts at once that fits; None if not even one does."""
        count = (room - self.still) // max(1, self.per_text)
        return None if count < 1 else 1 << (int(count).bit_length() - 1)


def room(granted: Capacity) -> int:
    """Bytes that a training may have where it runs: of its GPU, or of the host."""
    return max((device.memory for device in granted.devices), default=granted.memory)
