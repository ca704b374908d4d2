"""Text classification and regression: the model with its head, and the examples."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Self

from llm_os.errors import DataError, SingleClassError, UnsupportedModelError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json
from llm_os.tasks.applications.application import (
    Application,
    Prepared,
    expect_safetensors,
    expect_same_labels,
    heads_of,
    length_of,
    names_of_classes,
    training_rows,
    validation_rows,
)
from llm_os.tasks.applications.class_weights import class_weights
from llm_os.tasks.applications.labels import labels_of
from llm_os.tasks.applications.probabilities import COLUMN, probabilities
from llm_os.tasks.context import Context
from llm_os.tasks.training.examples import Batch, Forward, TokenExamples
from llm_os.tasks.training.options import TrainingOptions

WIDE = "WideForSequenceClassification"
"""Architecture of models/wide.py, whose table belongs to the data it was made of."""


class Labelled(TokenExamples):
    """Texts with a class id each, or with a number (a regression).

    Args:
        targets: class ids or numbers. classes: how many; 0: a regression.
        smoothing: share of certainty that is spread over the other classes.
        weights: what each class counts; None: all alike.
        soft: for each text the probability of each class, which is learnt in the place of its class; None: the class.
    """

    def __init__(
        self,
        tokens: Sequence[Sequence[int]],
        targets: Sequence[float],
        pad: int,
        classes: int,
        smoothing: float,
        weights: Sequence[float] | None = None,
        soft: Sequence[Sequence[float]] | None = None,
    ) -> None:
        super().__init__(tokens, pad)
        self.targets, self.soft = targets, soft
        self.classes, self.weights, self._smoothing = classes, weights, smoothing

    def part(self, indices: Sequence[int]) -> Self:
        tokens, targets = [self.tokens[i] for i in indices], [self.targets[i] for i in indices]
        soft = None if self.soft is None else [self.soft[i] for i in indices]
        return type(self)(tokens, targets, self.pad, self.classes, self._smoothing, self.weights, soft)

    def weight(self, indices: Sequence[int]) -> float:
        weights = self.weights
        if weights is None:
            return float(len(indices))
        if self.soft is not None:
            return sum(weight * p for i in indices for weight, p in zip(weights, self.soft[i], strict=True))
        return sum(weights[int(self.targets[i])] for i in indices)

    def collate(self, indices: Sequence[int]) -> Batch:
        import torch

        batch = {"targets": torch.tensor([self.targets[i] for i in indices], dtype=torch.float32)}
        if self.soft is not None:
            batch["soft"] = torch.tensor([self.soft[i] for i in indices], dtype=torch.float32)
        return {**super().collate(indices), **batch}

    def loss(self, forward: Forward, batch: Batch) -> Any:
        return self._mean(self._logits(forward, batch), batch)

    def measure(self, forward: Forward, batch: Batch) -> dict[str, tuple[float, float]]:
        import torch

        logits = self._logits(forward, batch)
        count = counted = float(len(logits))
        targets = batch["targets"].to(logits.device).long()
        if self.weights is not None and "soft" in batch:
            counted = float((batch["soft"] @ torch.tensor(self.weights)).sum())
        elif self.weights is not None:
            counted = sum(self.weights[target] for target in targets.tolist())
        figures = {"loss": (float(self._mean(logits, batch)) * counted, counted)}
        if self.classes:
            figures["accuracy"] = (float((logits.argmax(-1) == targets).sum()), count)
        return figures

    def strata(self) -> Sequence[Hashable] | None:
        return self.targets if self.classes else None

    def _logits(self, forward: Forward, batch: Batch) -> Any:
        return forward(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()

    def _mean(self, logits: Any, batch: Batch) -> Any:
        import torch

        targets = batch["targets"].to(logits.device)
        if not self.classes:
            return torch.nn.functional.mse_loss(logits.squeeze(-1), targets)
        weights = None if self.weights is None else torch.tensor(self.weights, device=logits.device)
        if "soft" in batch:
            soft, smoothing = batch["soft"].to(logits.device), self._smoothing
            soft = (1 - smoothing) * soft + smoothing / self.classes
            losses = -(soft * logits.log_softmax(-1) * (1.0 if weights is None else weights)).sum(-1)
            return losses.sum() / (len(losses) if weights is None else (batch["soft"].to(weights) @ weights).sum())
        return torch.nn.functional.cross_entropy(logits, targets.long(), weights, label_smoothing=self._smoothing)


class TextClassification(Application):
    kinds = ("classification", "score")
    adapter = "SEQ_CLS"

    def check(self, model: ArtifactFacts, data: ArtifactFacts) -> None:
        expect_safetensors(model, "as a classifier")
        if model.meta.get("architecture") == WIDE:
            raise UnsupportedModelError(
                "A version with n-grams beside it is not trained further.", hint="Train the model it came from."
            )
        labels_of(data)

    def supports(self, data: ArtifactFacts) -> frozenset[str]:
        return frozenset({"label_smoothing", "class_weights", "mixup"} if labels_of(data) else {"mixup"})

    def load(
        self, context: Context, options: TrainingOptions, *, layers: int | None = None, prompt: str = ""
    ) -> Prepared:
        """Model and examples.

        Args:
            layers: kept of the model, from the bottom; None: all. prompt: what is put behind every text.
        """
        from llm_os.models.load import load_transformer
        from llm_os.models.prompt import ask

        given, data = context.inputs["model"], context.inputs["data"]
        labels = labels_of(data.facts)
        heads: dict[str, Any] = names_of_classes(labels) if labels else {"num_labels": 1}
        heads["problem_type"] = "single_label_classification" if labels else "regression"
        known = given.facts.meta
        fresh = known.get("labels") != labels or known.get("task") != "text-classification"
        # Dropout inside the attention rules out its fused kernel; the dropout of the layers stays.
        loaded = load_transformer(
            given.path, "text-classification", fresh=fresh, attention_dropout=0.0, layers=layers, **heads
        )
        model, tokenizer = loaded.model, loaded.tokenizer
        length = length_of(context, options)
        tokenizer = ask(tokenizer, prompt, length)
        train = encode(training_rows(context, options), tokenizer, labels, length, options)
        if labels and len(set(train.targets)) < 2:
            raise SingleClassError("All rows of this slice have one class.", hint="Take more rows, or other ones.")
        valid = None
        rows = validation_rows(context, options)
        if rows is not None:
            expect_same_labels(context, labels)
            valid = encode(rows, tokenizer, labels, length, options, train.targets)
        named: Json = [*labels] if labels else None
        return Prepared(model, tokenizer, train, valid, heads=heads_of(loaded), facts={"labels": named})


def encode(
    rows: Sequence[dict[str, Any]],
    tokenizer: Any,
    labels: Sequence[str] | None,
    length: int,
    options: TrainingOptions,
    seen: Sequence[float] | None = None,
) -> Labelled:
    """Tokenize texts and turn labels to ids.

    Args:
        seen: targets of the training rows, by which classes are weighed; None: those of these rows.

    Raises:
        DataError: a label the model does not know.
    """
    ids = {label: number for number, label in enumerate(labels or ())}
    targets = []
    for number, row in enumerate(rows):
        label = row["label"]
        if labels is None:
            targets.append(float(label))
        elif str(label) in ids:
            targets.append(float(ids[str(label)]))
        else:
            raise DataError(f"Row {number} has the label '{label}'.", hint=f"The classes are: {', '.join(ids)}.")
    texts = [str(row["text"]) for row in rows]
    tokens = tokenizer(texts, truncation=True, max_length=length, padding=False)["input_ids"]
    soft = None
    if labels is not None and options.soft_labels and any(row.get(COLUMN) is not None for row in rows):
        soft = [probabilities(row, labels, f"Row {number}") for number, row in enumerate(rows)]
    weights = class_weights(options.class_weights, list(ids), targets if seen is None else seen)
    return Labelled(
        [list(one) for one in tokens],
        targets,
        tokenizer.pad_token_id or 0,
        len(ids),
        options.label_smoothing,
        weights,
        soft,
    )


PLUGIN = TextClassification()
