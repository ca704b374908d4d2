"""Counts steps and keeps its place in a checkpoint: a killed job must go on where it was and do nothing twice."""

from __future__ import annotations

import time
from collections.abc import Mapping

from pydantic import Field

from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Spec
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.task import Task


class StepsOptions(Spec):
    steps: int = Field(default=10, ge=1)
    """Steps to count."""
    seconds: float = Field(default=0.1, ge=0)
    """Seconds that a step takes."""
    cpus: float = Field(default=0.1, gt=0)
    """Cores to hold."""


class Steps(Task[StepsOptions]):
    Options = StepsOptions
    output = "files"

    def resources(self, options: StepsOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> ResourceSpec:
        return ResourceSpec(cpus=options.cpus, memory=64 * 2**20)

    def run(self, context: Context, options: StepsOptions) -> None:
        found = context.latest_checkpoint()
        lines = (found.folder / "steps.txt").read_text().splitlines() if found else []
        for step in range(len(lines) + 1, options.steps + 1):
            if context.should_stop():
                context.stop_here()
            time.sleep(options.seconds)
            lines.append(f"step {step}")
            folder = context.scratch / "checkpoint"
            folder.mkdir()
            (folder / "steps.txt").write_text("\n".join(lines) + "\n")
            context.checkpoint(step, folder)
            context.report(stage="counting", step=step, total=options.steps)
        (context.output / "steps.txt").write_text("\n".join(lines) + "\n")
        context.finish("files", {"steps": len(lines)})
        context.result(steps=len(lines))


PLUGIN = Steps()
