"""Exports the history of a trained version to CSV, TensorBoard, MLflow or a picture, at any time after its training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from llm_os.errors import NotFoundError, UnavailableError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Spec
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.task import Task
from llm_os.tasks.training import curves


class ExportOptions(Spec):
    format: Literal["csv", "tensorboard", "mlflow", "png"] = "csv"
    """`csv`: history.csv and steps.csv; `tensorboard`: an event file; `mlflow`: a store of files; `png`: curves.png."""
    name: str = "training"
    """What the run is called there."""


class Export(Task[ExportOptions]):
    Options = ExportOptions
    inputs = ("model",)
    output = "report"
    cacheable = True

    def resources(self, options: ExportOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> ResourceSpec:
        return ResourceSpec(cpus=min(0.5, granted.cpus), memory=512 * 2**20)

    def run(self, context: Context, options: ExportOptions) -> None:
        context.report(stage=f"writing {options.format}", step=0, total=0)
        given = context.inputs["model"]
        path = given.path / "history.json"
        if not path.exists():
            raise NotFoundError(
                f"{options.name} has no history: it was not trained here.",
                hint="Export a version that model.train made.",
            )
        facts = {name: str(value) for name, value in given.facts.meta.items() if isinstance(value, str | int | float)}
        history = curves.History.read(path, options.name, facts)
        try:
            curves.FORMATS[options.format](history, context.output)
        except ModuleNotFoundError as error:
            raise UnavailableError(
                f"{error.name} is not installed, which writes {options.format}.", hint="pip install 'llm-os[history]'"
            ) from error
        context.finish("report", {"report": "history", "format": options.format})
        context.result(format=options.format)


PLUGIN = Export()
