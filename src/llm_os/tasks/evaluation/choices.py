"""Judges a language model on questions with choices: the one it finds likeliest is its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.evaluation import language
from llm_os.tasks.evaluation.judging import EvaluationOptions, Judgement, expect, publish
from llm_os.tasks.libraries import TRANSFORMERS
from llm_os.tasks.task import Task
from llm_os.tasks.training.batches import read_rows


class ChoicesOptions(EvaluationOptions):
    prompt: str = Field(default="Question: {question}\nAnswer:", pattern=r"\{question\}")
    """What the model reads before a choice; `{question}` stands for the question."""
    separator: str = " "
    """What stands between prompt and choice."""


class Choices(Task[ChoicesOptions]):
    Options = ChoicesOptions
    inputs = ("model", "data")
    output = "report"
    preload = TRANSFORMERS
    cacheable = True

    def resources(
        self, options: ChoicesOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity
    ) -> ResourceSpec:
        expect(inputs, ("text-generation",), ("choices",), "choices")
        return language.sized(inputs["model"], granted)

    def run(self, context: Context, options: ChoicesOptions) -> None:
        model, tokenizer, notes = language.load(context)
        rows = read_rows(context.inputs["data"].path, options.split, options.start, options.stop)
        longest = int(str(context.inputs["model"].facts.meta.get("context_length") or 1024))
        pieces = [
            language.continuation(
                tokenizer, options.prompt.replace("{question}", row["question"]), options.separator + choice, longest
            )
            for row in rows
            for choice in row["choices"]
        ]

        def told(done: int) -> None:
            context.report(stage="evaluating", step=done, total=len(pieces))

        flat = iter([-float(part.sum()) for part in language.losses(model, pieces, told)])
        scores = [[next(flat) for _ in row["choices"]] for row in rows]
        judgement = chosen(rows, scores)
        judgement.notes |= {
            "prompt": options.prompt + options.separator + "{choice}",
            "accuracy": "of the choice with the largest ln p",
            "normalised accuracy": "of the choice with the largest ln p by character (acc_norm of lm-eval)",
            **notes,
        }
        publish(context, options, judgement)


def chosen(rows: Sequence[Mapping[str, Any]], scores: Sequence[Sequence[float]]) -> Judgement:
    """Accuracy by ln p and by ln p per character; the loss is -ln of the share that the right choice has of all.

    Args:
        scores: ln p of every choice of every row.
    """
    import numpy as np

    from llm_os.tasks.evaluation.metrics import mean

    plain, by_length, loss = [], [], []
    said: list[dict[str, Json]] = []
    for at, (row, score) in enumerate(zip(rows, scores, strict=True)):
        values = np.array(score)
        lengths = np.array([max(1, len(choice)) for choice in row["choices"]])
        best, fair, answer = int(values.argmax()), int((values / lengths).argmax()), int(row["answer"])
        plain.append(float(best == answer))
        by_length.append(float(fair == answer))
        loss.append(float(np.logaddexp.reduce(values) - values[answer]))
        said.append(
            {"row": at, "true": answer, "said": best, "by_length": fair, "scores": [round(s, 4) for s in score]}
        )
    chance = float(np.mean([1 / len(row["choices"]) for row in rows]))
    return Judgement(
        kind="choices",
        metrics=[mean("accuracy", plain), mean("normalised_accuracy", by_length), mean("loss", loss, "lower")],
        shown=("accuracy", "normalised_accuracy"),
        rows=rows,
        texts=[str(row["question"]) for row in rows],
        targets=("question", "choices", "answer", "id"),
        said=said,
        further={"chance": chance},
    )


PLUGIN = Choices()
