"""Picks the method that fits the machine and says why; the job that runs, and is recorded, is of that method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field, create_model

from llm_os import plugins
from llm_os.errors import InvalidOptionError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import descriptions
from llm_os.spec.jobs import Choice
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.spec.units import format_bytes
from llm_os.tasks.context import Context
from llm_os.tasks.libraries import TRANSFORMERS
from llm_os.tasks.task import Task
from llm_os.tasks.training import sizing
from llm_os.tasks.training.options import TrainingOptions

METHODS = ("full", "lora", "qlora")
"""From the one that learns most to the one that needs least; those that are there are tried in this order."""


def _methods() -> list[str]:
    known = plugins.names("task")
    return [f"training/{name}" for name in METHODS if f"training/{name}" in known]


def _options() -> type[TrainingOptions]:
    """Options of all methods in one; those of a single method have no default, because then it is that method."""
    more: dict[str, Any] = {}
    for name in _methods():
        options = plugins.load("task", name).Options
        told = descriptions(options)
        for field in options.model_fields:
            if field not in TrainingOptions.model_fields:
                more[field] = (Any, Field(default=None, description=f"{told.get(field, '')} ({name})"))
    return create_model("AutoOptions", __base__=TrainingOptions, **more)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A method with definite options, and what it needs."""

    task: str
    options: Mapping[str, Any]
    need: int

    @property
    def name(self) -> str:
        return self.task.partition("/")[2]


class Auto(Task[TrainingOptions]):
    Options = _options()
    inputs = ("model", "data")
    optional_inputs = ("validation",)
    output = "model"
    preload = TRANSFORMERS

    def choose(self, options: TrainingOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> Choice:
        """The first method that has all the options given and fits into what is granted; else the smallest."""
        room = sizing.room(granted)
        tried: list[Candidate] = []
        for candidate in _candidates(options, inputs, granted):
            tried.append(candidate)
            if candidate.need <= room:
                break
        chosen = tried[-1] if tried[-1].need <= room else min(tried, key=lambda one: one.need)
        larger = [f"{one.name} needs {format_bytes(one.need)}" for one in tried if one is not chosen]
        where = f" where {' and '.join(larger)}" if larger else ""
        because = (
            f"method {chosen.name}: it needs {format_bytes(chosen.need)}{where}, and {format_bytes(room)} are granted."
        )
        return Choice(task=chosen.task, options=chosen.options, because=because)

    def resources(
        self, options: TrainingOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity
    ) -> ResourceSpec:
        choice = self.choose(options, inputs, granted)
        task = plugins.load("task", choice.task)
        size: ResourceSpec = task.resources(task.Options.model_validate(choice.options), inputs, granted)
        return size

    def run(self, context: Context, options: TrainingOptions) -> None:
        """Alone, without a kernel that chose: with all memory that is available now."""
        import psutil

        granted = Capacity(cpus=context.threads, memory=psutil.virtual_memory().available)
        choice = self.choose(options, {role: given.facts for role, given in context.inputs.items()}, granted)
        context.message(choice.because)
        task = plugins.load("task", choice.task)
        task.run(context, task.Options.model_validate(choice.options))


def _candidates(
    options: TrainingOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity
) -> Iterator[Candidate]:
    """Each method that knows every option given, with its need where memory is short already saved by smaller parts."""
    given = options.model_dump(mode="json", exclude_unset=True)
    for name in _methods():
        task = plugins.load("task", name)
        if not set(given) <= set(task.Options.model_fields):
            continue
        definite = task.Options.model_validate(given)
        choice = task.choose(definite, inputs, granted)
        if choice is not None:
            definite = task.Options.model_validate(choice.options)
        try:
            size = task.resources(definite, inputs, granted)
        except InvalidOptionError:
            if name == _methods()[0]:
                raise
            continue  # a smaller method may not know what this data needs
        need = size.accelerator_memory if size.accelerator_memory is not None else size.memory
        yield Candidate(name, definite.model_dump(mode="json", exclude_unset=True), need)


PLUGIN = Auto()
