"""The module-level API refuses what cannot be meant, before any kernel is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import llm_os
from llm_os import session
from llm_os.client import sources
from llm_os.errors import InvalidInputError, InvalidOptionError, NotFoundError
from llm_os.spec.models import ModelVersion


@pytest.fixture(autouse=True)
def _no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Any:
        raise AssertionError("a kernel was asked")

    monkeypatch.setattr(session, "connect", refuse)


@pytest.mark.parametrize("gpus", [0, "0", "0,1"])
def test_gpus_are_a_list(gpus: Any) -> None:
    with pytest.raises(InvalidOptionError, match=r"is no list\. Write gpus=\[0\]"):
        llm_os.set_resources(gpus=gpus)


@pytest.mark.parametrize(
    "given", [{"cpus": 0}, {"cpus": -1}, {"cpus": "many"}, {"memory": "lots"}, {"gpus": ["a"]}], ids=str
)
def test_caps_that_make_no_sense_are_named(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError, match=f"set_resources: {next(iter(given))}="):
        llm_os.set_resources(**given)


def test_a_model_needs_a_name() -> None:
    with pytest.raises(InvalidInputError, match="needs a name or a path"):
        llm_os.load_model(" ")


def test_a_wrong_task_is_answered_with_the_tasks_there_are() -> None:
    with pytest.raises(InvalidOptionError, match="Did you mean 'text-classification'"):
        llm_os.load_model("transformer", task="classification")


class Kernel:
    """Knows one model of its own."""

    @property
    def transport(self) -> Kernel:
        return self

    def call(self, method: str, path: str, answer: Any) -> Any:
        if path != "/v1/models":
            raise NotFoundError("There is no such model.")
        digest = "sha256:" + "a" * 64
        kind = {"format": "safetensors", "precision": "fp32", "task": "text-classification", "size": 1}
        return [ModelVersion(card="my-mood", number=1, manifest=digest, created_at=0.0, **kind)]


@pytest.mark.parametrize(("typed", "meant"), [("my-mod", "my-mood"), ("transfomer", "transformer")])
def test_a_mistyped_model_is_answered_with_ones_own_and_the_catalogues(
    typed: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "connect", Kernel)
    with pytest.raises(
        NotFoundError, match=f"Did you mean '{meant}'\\? Known: my-mood, qwen2.5-coder-0.5b, smollm2, transformer"
    ):
        llm_os.load_model(typed)


def test_columns_are_for_files(tmp_path: Path) -> None:
    columns = {"text": "tweet", "label": None}
    with (
        pytest.raises(InvalidInputError, match="Leave `text` out"),
        sources.job_for("sentic_data", {}, columns, None, tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "words"), [("sentic_dat", "Did you mean 'sentic_data'"), ("none.csv", "There is no file")]
)
def test_a_mistyped_data_set_is_told_from_a_missing_file(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(NotFoundError, match=words), sources.job_for(name, {}, {}, None, tmp_path):
        pass
