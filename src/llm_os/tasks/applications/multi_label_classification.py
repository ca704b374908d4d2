"""Multi-label classification: each class is said or not on its own, from a probability on that held-out rows choose."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from llm_os.errors import DataError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json
from llm_os.tasks.applications.application import (
    Application,
    Prepared,
    expect_safetensors,
    expect_same_labels,
    length_of,
    names_of_classes,
    training_rows,
    validation_rows,
)
from llm_os.tasks.applications.labels import labels_of
from llm_os.tasks.context import Context
from llm_os.tasks.training.batches import sorted_batches
from llm_os.tasks.training.examples import Batch, Forward, TokenExamples
from llm_os.tasks.training.options import TrainingOptions

THRESHOLD = 0.5
"""Probability from which a class is said, where too little is known to choose a better one."""
LEAST = 10
"""Held-out rows with a class, and without it, from which on its threshold is chosen."""


class ManyLabelled(TokenExamples):
    """Texts with any number of classes each.

    Args:
        targets: ids of the classes of each text. classes: how many there are.
        smoothing: share of certainty that is taken back.
    """

    def __init__(
        self,
        tokens: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]],
        pad: int,
        classes: int,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__(tokens, pad)
        self.targets = targets
        self._classes, self._smoothing = classes, smoothing

    def part(self, indices: Sequence[int]) -> Self:
        tokens, targets = [self.tokens[i] for i in indices], [self.targets[i] for i in indices]
        return type(self)(tokens, targets, self.pad, self._classes, self._smoothing)

    def collate(self, indices: Sequence[int]) -> Batch:
        import torch

        targets = torch.zeros((len(indices), self._classes))
        for place, index in enumerate(indices):
            targets[place, list(self.targets[index])] = 1.0
        return {**super().collate(indices), "targets": targets}

    def loss(self, forward: Forward, batch: Batch) -> Any:
        return self._mean(self._logits(forward, batch), batch)

    def measure(self, forward: Forward, batch: Batch) -> dict[str, tuple[float, float]]:
        logits = self._logits(forward, batch)
        count = float(len(logits))
        right = ((logits > 0) == (batch["targets"].to(logits.device) > 0)).float()
        return {
            "loss": (float(self._mean(logits, batch)) * count, count),
            "accuracy": (float(right.sum()), count * self._classes),
            "subset_accuracy": (float(right.all(dim=-1).sum()), count),
        }

    def strata(self) -> Sequence[Hashable] | None:
        return [tuple(target) for target in self.targets]

    def _logits(self, forward: Forward, batch: Batch) -> Any:
        return forward(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()

    def _mean(self, logits: Any, batch: Batch) -> Any:
        import torch

        targets = batch["targets"].to(logits.device)
        softened = targets * (1 - self._smoothing) + self._smoothing / 2
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, softened)


class MultiLabelClassification(Application):
    kinds = ("multi-label",)
    adapter = "SEQ_CLS"

    def check(self, model: ArtifactFacts, data: ArtifactFacts) -> None:
        expect_safetensors(model, "as a classifier")
        labels_of(data)

    def supports(self, data: ArtifactFacts) -> frozenset[str]:
        return frozenset({"label_smoothing", "mixup"})

    def load(self, context: Context, options: TrainingOptions) -> Prepared:
        from llm_os.models.load import load_transformer

        given = context.inputs["model"]
        labels = labels_of(context.inputs["data"].facts) or []
        known = given.facts.meta
        loaded = load_transformer(
            given.path,
            "text-classification",
            fresh=known.get("labels") != labels or known.get("task") != "multi-label-classification",
            attention_dropout=0.0,
            problem_type="multi_label_classification",
            thresholds=[THRESHOLD] * len(labels),
            **names_of_classes(labels),
        )
        length = length_of(context, options)
        train = encode(training_rows(context, options), loaded.tokenizer, labels, length, options.label_smoothing)
        rows = validation_rows(context, options)
        if rows is not None:
            expect_same_labels(context, labels)
        valid = None if rows is None else encode(rows, loaded.tokenizer, labels, length, options.label_smoothing)
        return Prepared(loaded.model, loaded.tokenizer, train, valid, heads=loaded.fresh, facts={"labels": [*labels]})

    def save(self, prepared: Prepared, folder: Path) -> None:
        valid = prepared.valid
        if isinstance(valid, ManyLabelled):
            found = thresholds(probabilities(prepared.model, valid), valid.targets)
            prepared.model.config.thresholds = found
            prepared.facts["thresholds"] = [*found]
        super().save(prepared, folder)


def encode(
    rows: Sequence[Mapping[str, Any]], tokenizer: Any, labels: Sequence[str], length: int, smoothing: float = 0.0
) -> ManyLabelled:
    """Tokenize texts and turn labels to ids. Raises DataError for a label the model does not know."""
    ids = {label: number for number, label in enumerate(labels)}
    targets = []
    for number, row in enumerate(rows):
        unknown = next((str(name) for name in row["labels"] if str(name) not in ids), None)
        if unknown is not None:
            raise DataError(f"Row {number} has the label '{unknown}'.", hint=f"The classes are: {', '.join(ids)}.")
        targets.append([ids[str(name)] for name in row["labels"]])
    tokens = tokenizer([str(row["text"]) for row in rows], truncation=True, max_length=length)["input_ids"]
    return ManyLabelled([list(one) for one in tokens], targets, tokenizer.pad_token_id or 0, len(ids), smoothing)


def probabilities(model: Any, examples: ManyLabelled) -> list[list[float]]:
    """[examples, classes], in the order of the examples."""
    import torch

    model.eval()
    found: list[list[float]] = [[] for _ in examples.lengths]
    with torch.inference_mode():
        for indices in sorted_batches(examples.lengths, 64):
            batch = examples.collate(indices)
            read = {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}
            for index, row in zip(indices, model(**read).logits.float().sigmoid().tolist(), strict=True):
                found[index] = row
    return found


def thresholds(sure: Sequence[Sequence[float]], targets: Sequence[Sequence[int]]) -> list[Json]:
    """For each class the probability from which F1 on these rows is best; `THRESHOLD` where they are too few."""
    from sklearn.metrics import precision_recall_curve

    found: list[Json] = []
    for number in range(len(sure[0])):
        true = [number in target for target in targets]
        if min(sum(true), len(true) - sum(true)) < LEAST:
            found.append(THRESHOLD)
            continue
        precision, recall, cuts = precision_recall_curve(true, [row[number] for row in sure])
        f1 = 2 * precision * recall / (precision + recall + 1e-12)
        best = int(f1[:-1].argmax())
        below = float(cuts[best - 1]) if best else 0.0
        found.append(round((below + float(cuts[best])) / 2, 6))  # between two rows, not on one
    return found


PLUGIN = MultiLabelClassification()
