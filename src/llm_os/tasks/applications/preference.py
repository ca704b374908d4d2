"""Preference tuning: answers that people chose become likelier than those they rejected.

Direct preference optimization (Rafailov et al. 2023, equation 7): with r = log p(answer | prompt) of the model in
training minus that of the model at the start (the reference), the loss is -log sigmoid(beta (r_chosen - r_rejected)).
The reference never changes, so its log-probabilities are computed once, before the first step, at the precision of the
training; a second model is never held. With an adapter that is the model with its adapter off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from llm_os.errors import EmptyDataError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.tasks.applications import conversations
from llm_os.tasks.applications.application import Application, Prepared, length_of, training_rows, validation_rows
from llm_os.tasks.applications.documents import Document, LanguageExamples, check_chat
from llm_os.tasks.context import Context
from llm_os.tasks.training.batches import sorted_batches
from llm_os.tasks.training.examples import Batch, Examples, Forward
from llm_os.tasks.training.options import TrainingOptions
from llm_os.tasks.training.scoring import Scorer

BETA = 0.1
"""How much departing from the reference costs: the paper's own choice."""


@dataclass(slots=True)
class Pair:
    """Two conversations that differ in the last answer.

    Attributes:
        reference: log-probability of both answers under the model at the start; None before it was asked.
    """

    chosen: Document
    rejected: Document
    reference: tuple[float, float] | None = None


class Pairs(Examples):
    """Pairs of answers.

    Args:
        beta: see the module. doubt: share of pairs that are thought to be the wrong way round.
    """

    def __init__(self, pairs: Sequence[Pair], pad: int, scorer: Scorer, *, beta: float, doubt: float = 0.0) -> None:
        self.pairs = pairs
        self.lengths = [len(pair.chosen.ids) + len(pair.rejected.ids) for pair in pairs]
        self._pad, self._scorer, self._beta, self._doubt = pad, scorer, beta, doubt

    def part(self, indices: Sequence[int]) -> Self:
        return type(self)([self.pairs[i] for i in indices], self._pad, self._scorer, beta=self._beta, doubt=self._doubt)

    def begin(self, forward: Forward, batch_size: int) -> None:
        for indices in sorted_batches(self.lengths, batch_size):
            for index, both in zip(indices, self._answers(forward, self.collate(indices)).T.tolist(), strict=True):
                self.pairs[index].reference = (both[0], both[1])

    def collate(self, indices: Sequence[int]) -> Batch:
        """Chosen answers in the first half of the rows, rejected ones in the second; `reference` [2, pairs]."""
        import torch

        pairs = [self.pairs[i] for i in indices]
        rows = [[pair.chosen] for pair in pairs] + [[pair.rejected] for pair in pairs]
        batch = LanguageExamples(rows, self._pad, self._scorer).collate(range(len(rows)))
        known = torch.tensor([pair.reference or (0.0, 0.0) for pair in pairs], dtype=torch.float32)
        return {**batch, "reference": known.T}

    def loss(self, forward: Forward, batch: Batch) -> Any:
        return self._losses(self._gains(forward, batch)).mean()

    def measure(self, forward: Forward, batch: Batch) -> dict[str, tuple[float, float]]:
        gains = self._gains(forward, batch)
        count = float(len(gains))
        return {
            "loss": (float(self._losses(gains).sum()), count),
            "accuracy": (float((gains > 0).sum()), count),
            "margin": (float(gains.sum()), count),
        }

    def _answers(self, forward: Forward, batch: Batch) -> Any:
        """float32 [2, pairs]: log-probability of chosen and rejected answers."""
        import torch

        losses = self._scorer(forward, batch)
        rows = batch["targets"][:, 1:].nonzero()[:, 0].to(losses.device)
        sums = torch.zeros(len(batch["input_ids"]), device=losses.device).index_add(0, rows, -losses)
        return sums.view(2, -1)

    def _gains(self, forward: Forward, batch: Batch) -> Any:
        """float32 [pairs]: beta (r_chosen - r_rejected)."""
        answers = self._answers(forward, batch)
        ratios = answers - batch["reference"].to(answers.device)
        return self._beta * (ratios[0] - ratios[1])

    def _losses(self, gains: Any) -> Any:
        import torch

        right, wrong = torch.nn.functional.logsigmoid(gains), torch.nn.functional.logsigmoid(-gains)
        return -(1 - self._doubt) * right - self._doubt * wrong


class Preference(Application):
    kinds = ("preference",)
    adapter = "CAUSAL_LM"

    def check(self, model: ArtifactFacts, data: ArtifactFacts) -> None:
        check_chat(model, needs_template=True)

    def supports(self, data: ArtifactFacts) -> frozenset[str]:
        return frozenset({"beta", "label_smoothing"})

    def load(self, context: Context, options: TrainingOptions) -> Prepared:
        from llm_os.models.load import load_language_model

        model, tokenizer = load_language_model(context.inputs["model"].path)
        length, scorer, beta = length_of(context, options), Scorer(model), options.beta or BETA

        def examples(rows: Sequence[dict[str, Any]]) -> Pairs:
            pairs = pairs_of(context, rows, tokenizer, length)
            return Pairs(pairs, tokenizer.pad_token_id or 0, scorer, beta=beta, doubt=options.label_smoothing)

        train = examples(training_rows(context, options))
        held = validation_rows(context, options)
        return Prepared(model, tokenizer, train, None if held is None else examples(held))


def pairs_of(context: Context, rows: Sequence[dict[str, Any]], tokenizer: Any, length: int) -> list[Pair]:
    """Pairs that fit whole into `length`: a cut answer would be judged by its beginning. The others are counted."""
    pairs = []
    for row in rows:
        both = []
        for answer in (row["chosen"], row["rejected"]):
            messages = [*row["prompt"], {"role": "assistant", "content": answer}]
            both.append(Document(*conversations.encode(tokenizer, messages, last_only=True)))
        if all(len(document.ids) <= length for document in both):
            pairs.append(Pair(both[0], both[1]))
    if not pairs:
        raise EmptyDataError(f"No pair fits into {length} tokens.", hint="Give a larger max_length.")
    if len(pairs) < len(rows):
        context.message(f"{len(rows) - len(pairs)} of {len(rows)} pairs are longer than {length} tokens: left out.")
    return pairs


PLUGIN = Preference()
