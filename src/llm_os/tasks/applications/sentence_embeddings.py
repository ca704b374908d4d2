"""Sentence embeddings: texts that mean the same get vectors that point the same way.

Pairs without a score: each text must find its partner among those of its batch (in-batch negatives: van den Oord et al.
2018, InfoNCE; Henderson et al. 2017, section 4). Pairs with a score: the cosine shall be the score (Reimers and
Gurevych 2019, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from llm_os.spec.artifacts import ArtifactFacts
from llm_os.tasks.applications.application import (
    Application,
    Prepared,
    expect_safetensors,
    length_of,
    training_rows,
    validation_rows,
)
from llm_os.tasks.context import Context
from llm_os.tasks.training.examples import Batch, Examples, Forward, padded
from llm_os.tasks.training.options import TrainingOptions

TEMPERATURE = 0.05
"""What cosines are divided by before the softmax; 20 times the cosine is usual (Reimers and Gurevych's library)."""


class Paired(Examples):
    """Pairs of texts as token ids.

    Args:
        firsts, seconds: ids of each side. scores: how alike each pair is, 0 to 1; None: alike, all of them.
        pad: id that fills up shorter ones.
    """

    def __init__(
        self,
        firsts: Sequence[Sequence[int]],
        seconds: Sequence[Sequence[int]],
        scores: Sequence[float] | None,
        pad: int,
    ) -> None:
        self.firsts, self.seconds, self.scores, self.pad = firsts, seconds, scores, pad
        self.lengths = [len(a) + len(b) for a, b in zip(firsts, seconds, strict=True)]

    def part(self, indices: Sequence[int]) -> Self:
        scores = None if self.scores is None else [self.scores[i] for i in indices]
        return type(self)([self.firsts[i] for i in indices], [self.seconds[i] for i in indices], scores, self.pad)

    def collate(self, indices: Sequence[int]) -> Batch:
        """Both sides in one batch, first all firsts, then all seconds; `same` [2, pairs] marks equal texts."""
        import torch

        firsts, seconds = [self.firsts[i] for i in indices], [self.seconds[i] for i in indices]
        batch = padded([*firsts, *seconds], self.pad)
        seen: dict[tuple[int, ...], int] = {}
        numbers = [seen.setdefault(tuple(ids), len(seen)) for ids in [*firsts, *seconds]]
        batch["same"] = torch.tensor(numbers).view(2, len(indices))
        if self.scores is not None:
            batch["scores"] = torch.tensor([self.scores[i] for i in indices], dtype=torch.float32)
        return batch

    def loss(self, forward: Forward, batch: Batch) -> Any:
        import torch

        first, second = self._vectors(forward, batch)
        if self.scores is not None:
            return torch.nn.functional.mse_loss((first * second).sum(-1), batch["scores"].to(first.device))
        return self._contrast(self._similar(first, second, batch))

    def measure(self, forward: Forward, batch: Batch) -> dict[str, tuple[float, float]]:
        import torch

        first, second = self._vectors(forward, batch)
        count = float(len(first))
        if self.scores is not None:
            error = (first * second).sum(-1) - batch["scores"].to(first.device)
            return {"loss": (float((error**2).sum()), count), "absolute_error": (float(error.abs().sum()), count)}
        similar = self._similar(first, second, batch)
        right = similar.argmax(-1) == torch.arange(len(first), device=similar.device)
        return {"loss": (float(self._contrast(similar)) * count, count), "accuracy": (float(right.sum()), count)}

    def _vectors(self, forward: Forward, batch: Batch) -> tuple[Any, Any]:
        from llm_os.models.embedding import pooled

        states = forward(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        vectors = pooled(states, batch["attention_mask"])
        half = len(vectors) // 2
        return vectors[:half], vectors[half:]

    @staticmethod
    def _similar(first: Any, second: Any, batch: Batch) -> Any:
        """Cosine of every first with every second over the temperature; equal texts are no negatives of each other."""
        import torch

        similar = first @ second.T / TEMPERATURE
        a, b = batch["same"].to(similar.device)
        equal = (a[:, None] == a[None, :]) | (b[:, None] == b[None, :])
        others = ~torch.eye(len(similar), dtype=torch.bool, device=similar.device)
        return similar.masked_fill(equal & others, float("-inf"))

    @staticmethod
    def _contrast(similar: Any) -> Any:
        import torch

        right = torch.arange(len(similar), device=similar.device)
        both = (torch.nn.functional.cross_entropy(s, right) for s in (similar, similar.T))
        return sum(both) / 2


class SentenceEmbeddings(Application):
    kinds = ("pairs",)
    adapter = "FEATURE_EXTRACTION"

    def suits(self, model: ArtifactFacts) -> bool:
        return model.meta.get("task") != "text2text-generation"

    def check(self, model: ArtifactFacts, data: ArtifactFacts) -> None:
        expect_safetensors(model, "to embed sentences")

    def load(self, context: Context, options: TrainingOptions) -> Prepared:
        from llm_os.models.load import load_transformer

        loaded = load_transformer(context.inputs["model"].path, "feature-extraction", fresh=True, attention_dropout=0.0)
        length = length_of(context, options)
        rows = validation_rows(context, options)
        train = encode(training_rows(context, options), loaded.tokenizer, length)
        valid = None if rows is None else encode(rows, loaded.tokenizer, length)
        width = int(loaded.model.config.hidden_size)
        return Prepared(loaded.model, loaded.tokenizer, train, valid, facts={"dimensions": width, "longest": length})

    def save(self, prepared: Prepared, folder: Path) -> None:
        from llm_os.models.embedding import write_layout

        super().save(prepared, folder)
        write_layout(folder, int(str(prepared.facts["dimensions"])), int(str(prepared.facts["longest"])))


def encode(rows: Sequence[Mapping[str, Any]], tokenizer: Any, length: int) -> Paired:
    """Tokenize both sides of pairs, each cut at `length`."""

    def ids(column: str) -> list[list[int]]:
        read = tokenizer([str(row[column]) for row in rows], truncation=True, max_length=length)["input_ids"]
        return [list(one) for one in read]

    scores = [float(row["score"]) for row in rows] if all("score" in row for row in rows) else None
    return Paired(ids("text"), ids("other"), scores, tokenizer.pad_token_id or 0)


PLUGIN = SentenceEmbeddings()
