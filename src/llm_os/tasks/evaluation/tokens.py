"""Judges a model that gives each word a tag: F1 of whole spans, accuracy of tags."""

from __future__ import annotations

from collections.abc import Mapping

from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.evaluation import spans
from llm_os.tasks.evaluation.judging import EvaluationOptions, expect, publish, sized
from llm_os.tasks.libraries import TRANSFORMERS
from llm_os.tasks.task import Task
from llm_os.tasks.training.batches import read_rows


class Tokens(Task[EvaluationOptions]):
    Options = EvaluationOptions
    inputs = ("model", "data")
    output = "report"
    preload = TRANSFORMERS
    cacheable = True

    def resources(
        self, options: EvaluationOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity
    ) -> ResourceSpec:
        expect(inputs, ("token-classification",), ("tokens",), "tokens")
        return sized(inputs["model"], granted)

    def run(self, context: Context, options: EvaluationOptions) -> None:
        import torch

        from llm_os.models.tagging import load_tagger

        torch.set_num_threads(context.threads)
        tagger = load_tagger(context.inputs["model"].path)
        rows = read_rows(context.inputs["data"].path, options.split, options.start, options.stop)
        said: list[list[str]] = []
        for begin in range(0, len(rows), 8 * options.batch_size):
            part = rows[begin : begin + 8 * options.batch_size]
            tagged = tagger.predict([[str(word) for word in row["tokens"]] for row in part], options.batch_size)
            said += [[tag for tag, _ in words] for words in tagged]
            context.report(stage="evaluating", step=len(said), total=len(rows))
        judgement = spans.judged(rows, said)
        judgement.notes["spans"] = f"as conlleval reads them; {tagger.max_length} sub-words a row, the rest counts as O"
        publish(context, options, judgement)


PLUGIN = Tokens()
