"""Every task plugin keeps the task contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from llm_os import plugins
from llm_os.errors import DataError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Spec
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.task import Task
from llm_os.testing.conformance.task import examine, kill_midway, sizing_problems


@pytest.mark.parametrize("name", plugins.names("task"))
def test_is_light_documented_and_sizes_itself_purely(name: str) -> None:
    assert examine((name,)) == {name: []}


def test_the_suite_finds_what_is_wrong() -> None:
    (problem,) = examine(("training/nothing",))["training/nothing"]
    assert "There is no task 'training/nothing'" in problem


class Undecided(Task[Spec]):
    """A task that sizes itself as the test says."""

    Options = Spec
    inputs = ("data",)

    def __init__(self, size: Callable[[], int]) -> None:
        self._size = size

    def resources(self, options: Spec, inputs: Mapping[str, ArtifactFacts], granted: Capacity) -> ResourceSpec:
        return ResourceSpec(memory=self._size())

    def run(self, context: Context, options: Spec) -> None:
        raise NotImplementedError


def read_the_machine() -> int:
    with open("/proc/meminfo") as file:
        return len(file.readline())


def refuse() -> int:
    raise DataError("There is no column 'text'.")


def test_the_suite_accepts_a_pure_size() -> None:
    assert sizing_problems(Undecided(lambda: 7), Spec()) == []


def test_the_suite_finds_a_size_that_changes() -> None:
    sizes = iter(range(100))
    assert any("then as" in problem for problem in sizing_problems(Undecided(lambda: next(sizes)), Spec()))


def test_the_suite_finds_a_look_at_the_machine() -> None:
    assert sizing_problems(Undecided(read_the_machine), Spec()) == ["to size itself it does: open /proc/meminfo"]


def test_the_suite_finds_a_task_that_refuses_everything() -> None:
    (problem,) = sizing_problems(Undecided(refuse), Spec())
    assert problem.startswith("it refuses all example inputs")


def test_a_kill_in_the_middle_leaves_no_finished_artifact(tmp_path: Path) -> None:
    kill_midway("datasets/sentic_data", tmp_path, options={"limit": 2000}, inputs={})
