"""Sequence to sequence: an encoder-decoder learns to write the `other` text of a pair when it reads its `text`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from llm_os.errors import DataError
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

UNUSED = -100
"""Target of padding."""


class Translated(Examples):
    """Texts and what shall be written for them, as token ids.

    Args:
        sources, targets: ids of each side. pad: id that fills up shorter sources.
        smoothing: share of certainty that is spread over the other tokens.
    """

    def __init__(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], pad: int, smoothing: float = 0.0
    ) -> None:
        self.sources, self.targets, self.pad = sources, targets, pad
        self._smoothing = smoothing
        self.lengths = [len(source) + len(target) for source, target in zip(sources, targets, strict=True)]

    def part(self, indices: Sequence[int]) -> Self:
        sources, targets = [self.sources[i] for i in indices], [self.targets[i] for i in indices]
        return type(self)(sources, targets, self.pad, self._smoothing)

    def collate(self, indices: Sequence[int]) -> Batch:
        batch = padded([self.sources[i] for i in indices], self.pad)
        wanted = padded([self.targets[i] for i in indices], 0)
        batch["targets"] = wanted["input_ids"].masked_fill(wanted["attention_mask"] == 0, UNUSED)
        return batch

    def loss(self, forward: Forward, batch: Batch) -> Any:
        return self._mean(*self._said(forward, batch))

    def weight(self, indices: Sequence[int]) -> float:
        return float(sum(len(self.targets[i]) for i in indices))

    def measure(self, forward: Forward, batch: Batch) -> dict[str, tuple[float, float]]:
        logits, targets = self._said(forward, batch)
        used = targets != UNUSED
        count = float(used.sum())
        right = float(((logits.argmax(-1) == targets) & used).sum())
        return {"loss": (float(self._mean(logits, targets)) * count, count), "accuracy": (right, count)}

    def _said(self, forward: Forward, batch: Batch) -> tuple[Any, Any]:
        # Given as `labels`, they are also what the decoder reads, shifted as its architecture wants it.
        read = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        logits = forward(**read, labels=batch["targets"]).logits.float()
        return logits, batch["targets"].to(logits.device)

    def _mean(self, logits: Any, targets: Any) -> Any:
        import torch

        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=UNUSED, label_smoothing=self._smoothing
        )


class SequenceToSequence(Application):
    kinds = ("pairs",)
    adapter = "SEQ_2_SEQ_LM"

    def suits(self, model: ArtifactFacts) -> bool:
        return model.meta.get("task") == "text2text-generation"

    def check(self, model: ArtifactFacts, data: ArtifactFacts) -> None:
        expect_safetensors(model, "to write a text for a text")
        columns = data.meta.get("columns")
        if isinstance(columns, list) and "score" in columns:
            raise DataError(
                "These pairs have scores: they say how alike two texts are, not what to write for one.",
                hint="Leave the column `score` out, or train an encoder, such as transformer.",
            )

    def supports(self, data: ArtifactFacts) -> frozenset[str]:
        return frozenset({"label_smoothing"})

    def load(self, context: Context, options: TrainingOptions) -> Prepared:
        from llm_os.models.load import load_transformer

        loaded = load_transformer(context.inputs["model"].path, "text2text-generation", attention_dropout=0.0)
        length = length_of(context, options)
        rows = validation_rows(context, options)
        train = encode(training_rows(context, options), loaded.tokenizer, length, options.label_smoothing)
        valid = None if rows is None else encode(rows, loaded.tokenizer, length, options.label_smoothing)
        return Prepared(loaded.model, loaded.tokenizer, train, valid)


def encode(rows: Sequence[Mapping[str, Any]], tokenizer: Any, length: int, smoothing: float = 0.0) -> Translated:
    """Tokenize both sides of pairs, each cut at `length`; every target ends with the mark of the end."""
    sources = tokenizer([str(row["text"]) for row in rows], truncation=True, max_length=length)["input_ids"]
    targets = tokenizer(text_target=[str(row["other"]) for row in rows], truncation=True, max_length=length)
    end = tokenizer.eos_token_id
    wanted = [[*ids] if ids and ids[-1] == end else [*ids[: length - 1], end] for ids in targets["input_ids"]]
    return Translated([list(ids) for ids in sources], wanted, tokenizer.pad_token_id or 0, smoothing)


PLUGIN = SequenceToSequence()
