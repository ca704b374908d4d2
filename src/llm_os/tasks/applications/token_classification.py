"""Token classification: a tag for each word, learnt at the word's first sub-word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from llm_os.errors import DataError, UnsupportedModelError
from llm_os.spec.artifacts import ArtifactFacts
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
from llm_os.tasks.training.examples import Batch, Forward, TokenExamples
from llm_os.tasks.training.options import TrainingOptions

UNUSED = -100
"""Target of a position that teaches nothing: further sub-words, marks of beginning and end, padding."""


class Tagged(TokenExamples):
    """Sub-words with a class id each, or `UNUSED`.

    Args:
        targets: as many as an example has tokens. smoothing: share of certainty that is spread over other tags.
    """

    def __init__(
        self, tokens: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], pad: int, smoothing: float = 0.0
    ) -> None:
        super().__init__(tokens, pad)
        self.targets = targets
        self._smoothing = smoothing

    def part(self, indices: Sequence[int]) -> Self:
        tokens, targets = [self.tokens[i] for i in indices], [self.targets[i] for i in indices]
        return type(self)(tokens, targets, self.pad, self._smoothing)

    def collate(self, indices: Sequence[int]) -> Batch:
        import torch

        batch = super().collate(indices)
        targets = torch.full_like(batch["input_ids"], UNUSED)
        for place, index in enumerate(indices):
            targets[place, : len(self.targets[index])] = torch.tensor(self.targets[index])
        return {**batch, "targets": targets}

    def loss(self, forward: Forward, batch: Batch) -> Any:
        return self._mean(*self._said(forward, batch))

    def weight(self, indices: Sequence[int]) -> float:
        return float(sum(target != UNUSED for i in indices for target in self.targets[i]))

    def measure(self, forward: Forward, batch: Batch) -> dict[str, tuple[float, float]]:
        logits, targets = self._said(forward, batch)
        used = targets != UNUSED
        count = float(used.sum())
        right = float(((logits.argmax(-1) == targets) & used).sum())
        return {"loss": (float(self._mean(logits, targets)) * count, count), "accuracy": (right, count)}

    def _said(self, forward: Forward, batch: Batch) -> tuple[Any, Any]:
        logits = forward(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()
        return logits, batch["targets"].to(logits.device)

    def _mean(self, logits: Any, targets: Any) -> Any:
        import torch

        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=UNUSED, label_smoothing=self._smoothing
        )


class TokenClassification(Application):
    kinds = ("tokens",)
    adapter = "TOKEN_CLS"

    def check(self, model: ArtifactFacts, data: ArtifactFacts) -> None:
        expect_safetensors(model, "to tag words")
        labels_of(data)

    def supports(self, data: ArtifactFacts) -> frozenset[str]:
        return frozenset({"label_smoothing"})

    def load(self, context: Context, options: TrainingOptions) -> Prepared:
        from llm_os.models.load import load_transformer

        given = context.inputs["model"]
        labels = labels_of(context.inputs["data"].facts) or []
        known = given.facts.meta
        loaded = load_transformer(
            given.path,
            "token-classification",
            fresh=known.get("labels") != labels or known.get("task") != "token-classification",
            attention_dropout=0.0,
            **names_of_classes(labels),
        )
        if not loaded.tokenizer.is_fast:
            raise UnsupportedModelError(
                "The model's tokenizer does not say which word a piece belongs to.",
                hint="Take a model with a tokenizer.json.",
            )
        length = length_of(context, options)
        train = encode(training_rows(context, options), loaded.tokenizer, labels, length, options.label_smoothing)
        rows = validation_rows(context, options)
        if rows is not None:
            expect_same_labels(context, labels)
        valid = None if rows is None else encode(rows, loaded.tokenizer, labels, length, options.label_smoothing)
        return Prepared(loaded.model, loaded.tokenizer, train, valid, heads=loaded.fresh, facts={"labels": [*labels]})


def encode(
    rows: Sequence[Mapping[str, Any]], tokenizer: Any, labels: Sequence[str], length: int, smoothing: float = 0.0
) -> Tagged:
    """Sub-words of the rows, cut at `length`, with targets. Raises DataError for a tag the model does not know."""
    from llm_os.models.tagging import pieces

    ids = {label: number for number, label in enumerate(labels)}
    tokens, targets = [], []
    for number, (row, (read, firsts)) in enumerate(
        zip(rows, pieces(tokenizer, [[str(word) for word in row["tokens"]] for row in rows], length), strict=True)
    ):
        tags = [str(tag) for tag in row["tags"]]
        unknown = next((tag for tag in tags if tag not in ids), None)
        if unknown is not None:
            raise DataError(f"Row {number} has the tag '{unknown}'.", hint=f"The tags are: {', '.join(ids)}.")
        places = [UNUSED] * len(read)
        for word, place in firsts.items():
            places[place] = ids[tags[word]]
        tokens.append(read)
        targets.append(places)
    return Tagged(tokens, targets, tokenizer.pad_token_id or 0, smoothing)


PLUGIN = TokenClassification()
