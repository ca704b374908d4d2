"""Judges a classifier that may say several labels of a text, each from the threshold that was saved with it."""

from __future__ import annotations

from collections.abc import Mapping

from llm_os.errors import DataError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.evaluation import labels
from llm_os.tasks.evaluation.judging import EvaluationOptions, expect, publish, sized
from llm_os.tasks.libraries import TRANSFORMERS
from llm_os.tasks.task import Task
from llm_os.tasks.training.batches import read_rows


class MultiLabelOptions(EvaluationOptions):
    threshold: float | None = None
    """Probability from which a label is said; none: for each label the one that was saved with the model."""


class MultiLabel(Task[MultiLabelOptions]):
    Options = MultiLabelOptions
    inputs = ("model", "data")
    output = "report"
    preload = TRANSFORMERS
    cacheable = True

    def resources(
        self, options: MultiLabelOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity
    ) -> ResourceSpec:
        expect(inputs, ("multi-label-classification",), ("multi-label",), "multi_label")
        known, wanted = (inputs[role].meta.get("labels") for role in ("model", "data"))
        if known != wanted:
            raise DataError(
                f"The model knows the labels {known}; the data has {wanted}.",
                hint="Evaluate on data with the labels the model was trained on.",
            )
        return sized(inputs["model"], granted)

    def run(self, context: Context, options: MultiLabelOptions) -> None:
        import torch

        from llm_os.models.load import load_classifier

        torch.set_num_threads(context.threads)
        classifier = load_classifier(context.inputs["model"].path)
        rows = read_rows(context.inputs["data"].path, options.split, options.start, options.stop)
        sure: list[list[float]] = []
        for begin in range(0, len(rows), 8 * options.batch_size):
            part = rows[begin : begin + 8 * options.batch_size]
            sure += classifier.predict([str(row["text"]) for row in part], options.batch_size)
            context.report(stage="evaluating", step=len(sure), total=len(rows))
        count = len(classifier.labels)
        thresholds = classifier.thresholds if options.threshold is None else (options.threshold,) * count
        publish(context, options, labels.judged(rows, sure, classifier.labels, thresholds))


PLUGIN = MultiLabel()
