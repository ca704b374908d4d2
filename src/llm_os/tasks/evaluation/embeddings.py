"""Judges sentence vectors on pairs: rank correlation with people's scores, or whether the other text is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from llm_os.errors import DataError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.evaluation import nearness
from llm_os.tasks.evaluation.judging import EvaluationOptions, Judgement, expect, publish, sized
from llm_os.tasks.libraries import TRANSFORMERS
from llm_os.tasks.task import Task
from llm_os.tasks.training.batches import read_rows


class EmbeddingsOptions(EvaluationOptions):
    batch_size: int = Field(default=32, ge=1)
    """Texts computed together."""


class Embeddings(Task[EmbeddingsOptions]):
    Options = EmbeddingsOptions
    inputs = ("model", "data")
    output = "report"
    preload = TRANSFORMERS
    cacheable = True

    def resources(
        self, options: EmbeddingsOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity
    ) -> ResourceSpec:
        expect(inputs, ("feature-extraction", "sentence-similarity"), ("pairs",), "embeddings")
        return sized(inputs["model"], granted)

    def run(self, context: Context, options: EmbeddingsOptions) -> None:
        import torch

        from llm_os.models.embedding import load_encoder

        torch.set_num_threads(context.threads)
        encoder = load_encoder(context.inputs["model"].path)
        rows = read_rows(context.inputs["data"].path, options.split, options.start, options.stop)
        unique = list(dict.fromkeys(str(row[side]) for row in rows for side in ("text", "other")))
        vectors: list[list[float]] = []
        for begin in range(0, len(unique), 8 * options.batch_size):
            vectors += encoder.predict(unique[begin : begin + 8 * options.batch_size], options.batch_size)
            context.report(stage="evaluating", step=len(vectors), total=len(unique))
        judgement = judged(rows, unique, vectors)
        judgement.notes["vectors"] = f"{encoder.pooling} pooling, {encoder.max_length} tokens at most; cosine"
        publish(context, options, judgement)


def judged(rows: Sequence[Mapping[str, Any]], texts: Sequence[str], vectors: Sequence[Sequence[float]]) -> Judgement:
    """Of scored pairs the correlation, of others the retrieval of each second text among all second texts.

    Args:
        texts: every different text of the rows. vectors: of each.

    Raises:
        DataError: some pairs have a score and some do not, or all scores are equal.
    """
    import numpy as np

    place = {text: number for number, text in enumerate(texts)}
    unit = np.asarray(vectors, dtype=np.float64)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    first, second = (unit[[place[str(row[side])] for row in rows]] for side in ("text", "other"))
    scored = sum("score" in row for row in rows)
    if scored not in {0, len(rows)}:
        raise DataError(f"{scored} of {len(rows)} pairs have a score.", hint="Give all of them one, or none.")
    if scored:
        if len({row["score"] for row in rows}) < 2:
            raise DataError("All pairs have one score.", hint="A correlation needs pairs that are alike and others.")
        return nearness.correlated(rows, (first * second).sum(axis=1))
    corpus = list(dict.fromkeys(str(row["other"]) for row in rows))
    at = {text: number for number, text in enumerate(corpus)}
    found = nearness.places(first, unit[[place[text] for text in corpus]], [at[str(row["other"])] for row in rows])
    return nearness.retrieved(rows, found, len(corpus))


PLUGIN = Embeddings()
