"""Rows of documents that a language model learns from, and what such a model must be. Knows no application."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from llm_os.errors import UnsupportedModelError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.tasks.training.examples import Batch, Examples, Forward
from llm_os.tasks.training.scoring import Scorer


@dataclass(frozen=True, slots=True)
class Document:
    """Ids of a text, and which of them shall be foretold."""

    ids: Sequence[int]
    mask: Sequence[bool]


class LanguageExamples(Examples):
    """Rows of one or more documents each; no document sees another one of its row.

    Args:
        rows: documents of each row. pad: id that fills up shorter rows; it is never a target, whatever it means.
    """

    def __init__(self, rows: Sequence[Sequence[Document]], pad: int, scorer: Scorer) -> None:
        self.rows = rows
        self.lengths = [sum(len(document.ids) for document in row) for row in rows]
        self._pad, self._scorer = pad, scorer

    def part(self, indices: Sequence[int]) -> Self:
        return type(self)([self.rows[i] for i in indices], self._pad, self._scorer)

    def collate(self, indices: Sequence[int]) -> Batch:
        """`input_ids`, `targets` [rows, longest]; `position_ids` that begin anew with each document, if several share
        a row: transformers takes them for the borders of documents. There is no mask of padding: it lies at the right,
        where causal attention never looks back to it."""
        import torch

        longest = max(self.lengths[i] for i in indices)
        ids = torch.full((len(indices), longest), self._pad, dtype=torch.long)
        targets = torch.zeros((len(indices), longest), dtype=torch.bool)
        positions = torch.zeros((len(indices), longest), dtype=torch.long)
        for place, index in enumerate(indices):
            at = 0
            for document in self.rows[index]:
                end = at + len(document.ids)
                ids[place, at:end] = torch.tensor(document.ids)
                targets[place, at + 1 : end] = torch.tensor(document.mask[1:], dtype=torch.bool)
                positions[place, at:end] = torch.arange(end - at)
                at = end
            positions[place, at:] = torch.arange(longest - at)
        batch = {"input_ids": ids, "targets": targets}
        packed = any(len(self.rows[index]) > 1 for index in indices)
        return {**batch, "position_ids": positions} if packed else batch

    def loss(self, forward: Forward, batch: Batch) -> Any:
        return self._scorer(forward, batch).mean()

    def weight(self, indices: Sequence[int]) -> float:
        return float(sum(sum(document.mask[1:]) for i in indices for document in self.rows[i]))

    def measure(self, forward: Forward, batch: Batch) -> dict[str, tuple[float, float]]:
        losses = self._scorer(forward, batch)
        return {"loss": (float(losses.double().sum()), float(len(losses)))}


def check_chat(model: ArtifactFacts, *, needs_template: bool) -> None:
    """Raises UnsupportedModelError for a model that cannot learn to speak."""
    if model.meta.get("format") != "safetensors":
        raise UnsupportedModelError(
            f"A model in {model.meta.get('format')} cannot be trained as it is.",
            hint="Turn it into float weights first: the task sources/convert; model.train does it by itself.",
        )
    if model.meta.get("task") != "text-generation":
        raise UnsupportedModelError(
            f"A {model.meta.get('task')} model generates no text.", hint="Take a language model, such as smollm2."
        )
    if needs_template and not model.meta.get("chat_template"):
        raise UnsupportedModelError(
            "The model's tokenizer has no chat template.",
            hint="Take an instruction-tuned model, or prepare the data as kind='text'.",
        )
