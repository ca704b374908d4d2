"""What a loop learns from: how long each example is, how some become tensors, what their loss is. Holds no model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Self

Batch = Mapping[str, Any]
"""Tensors by name; `input_ids` and `attention_mask` [batch, longest] where texts are read."""
Forward = Callable[..., Any]
"""Calls the model with tensors by name, at the precision and on the device of the loop; returns its outputs."""


class Examples(ABC):
    """Examples of one application, for training or for validation.

    Attributes:
        lengths: tokens of each example, by which like ones share a batch.
    """

    lengths: Sequence[int]

    def __len__(self) -> int:
        return len(self.lengths)

    @abstractmethod
    def part(self, indices: Sequence[int]) -> Self:
        """Only these examples, in this order."""

    @abstractmethod
    def collate(self, indices: Sequence[int]) -> Batch:
        """Tensors of these examples, on the CPU."""

    @abstractmethod
    def loss(self, forward: Forward, batch: Batch) -> Any:
        """Mean loss, a float32 scalar that can be differentiated."""

    def weight(self, indices: Sequence[int]) -> float:
        """What the mean loss of a batch is a mean over: examples, or target tokens."""
        return float(len(indices))

    def measure(self, forward: Forward, batch: Batch) -> dict[str, tuple[float, float]]:
        """Figures of a batch without gradients: name -> (sum, over how many); `loss` must be one of them."""
        count = float(len(batch["input_ids"]))
        return {"loss": (float(self.loss(forward, batch)) * count, count)}

    def begin(self, forward: Forward, batch_size: int) -> None:  # noqa: B027 - most need nothing
        """Called once before the first step, without gradients, with the model as it is at the start (also when a
        training goes on from a checkpoint); for what the loss compares with."""

    def strata(self) -> Sequence[Hashable] | None:
        """What must be in proportion when some are held out; None: nothing."""
        return None


class TokenExamples(Examples):
    """Examples that are token ids, padded at the right.

    Args:
        tokens: ids of each example. pad: id that fills up shorter ones.
    """

    def __init__(self, tokens: Sequence[Sequence[int]], pad: int) -> None:
        self.tokens = tokens
        self.pad = pad
        self.lengths = [len(ids) for ids in tokens]

    def collate(self, indices: Sequence[int]) -> Batch:
        return padded([self.tokens[i] for i in indices], self.pad)


def padded(rows: Sequence[Sequence[int]], pad: int) -> dict[str, Any]:
    """`input_ids` and `attention_mask`: int64 [rows, longest]."""
    import torch

    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), pad, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[place, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}
