"""One dial: the method that fits what is granted is taken, and one sentence says why, with the figures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tiny import Bench, given, sentences, tiny_data, tiny_model

from llm_os import plugins
from llm_os.errors import InvalidOptionError
from llm_os.kernel.submission import validated
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.jobs import Choice
from llm_os.spec.resources import Capacity, Device

LARGE = {"format": "safetensors", "parameters": 400_000_000, "hidden_size": 1024, "layers": 24, "context_length": 512}


@pytest.fixture
def facts(tmp_path: Path) -> dict[str, ArtifactFacts]:
    data = {"labels": ["bad", "good"], "name": "reviews"}
    return {
        "model": given(tmp_path, "model", LARGE, "1").facts,
        "data": given(tmp_path, "dataset", data, "2").facts,
    }


def choose(facts: dict[str, ArtifactFacts], gib: float, method: str = "auto", **options: Any) -> Choice | None:
    task = plugins.load("task", f"training/{method}")
    granted = Capacity(cpus=4, memory=int(gib * 2**30))
    choice: Choice | None = task.choose(task.Options.model_validate(options), facts, granted)
    return choice


def test_full_training_where_it_fits(facts: dict[str, ArtifactFacts]) -> None:
    choice = choose(facts, 64)
    assert choice is not None
    assert (choice.task, choice.options) == ("training/full", {})
    assert choice.because.startswith("method full: it needs ")
    assert "and 64.0 GiB are granted" in choice.because


def test_fewer_texts_at_a_time_before_another_method(facts: dict[str, ArtifactFacts]) -> None:
    choice = choose(facts, 12, epochs=2)
    assert choice is not None
    assert choice.task == "training/full"
    assert choice.options["epochs"] == 2
    assert choice.options["accumulation"] > 1


def test_an_adapter_where_full_training_does_not_fit(facts: dict[str, ArtifactFacts]) -> None:
    choice = choose(facts, 4)
    assert choice is not None
    assert choice.task == "training/lora"
    assert "where full needs 8.8 GiB" in choice.because
    assert "and 4.0 GiB are granted" in choice.because


def test_what_was_chosen_fits_and_is_not_chosen_anew(facts: dict[str, ArtifactFacts]) -> None:
    for gib in (4, 6, 9, 12, 16, 64):
        choice = choose(facts, gib)
        assert choice is not None
        task = plugins.load("task", choice.task)
        options = task.Options.model_validate(choice.options)
        granted = Capacity(cpus=4, memory=gib * 2**30)
        assert task.resources(options, facts, granted).memory <= granted.memory
        assert task.choose(options, facts, granted) is None


def test_the_room_is_that_of_a_gpu_where_there_is_one(facts: dict[str, ArtifactFacts]) -> None:
    task = plugins.load("task", "training/auto")
    gpu = Device(kind="nvidia", index=0, name="x", memory=4 * 2**30)
    choice = task.choose(task.Options(), facts, Capacity(cpus=4, memory=64 * 2**30, devices=(gpu,)))
    assert choice.task == "training/lora"


def test_the_smallest_is_taken_where_nothing_fits_so_that_the_refusal_is_the_last_word(
    facts: dict[str, ArtifactFacts],
) -> None:
    choice = choose(facts, 0.1)
    assert choice is not None
    assert choice.task != "training/full"


def test_an_option_of_one_method_chooses_it(facts: dict[str, ArtifactFacts]) -> None:
    choice = choose(facts, 64, rank=4)
    assert choice is not None
    assert choice.task == "training/lora"
    assert choice.options == {"rank": 4}


def test_an_option_that_no_method_has_is_refused_by_name() -> None:
    with pytest.raises(InvalidOptionError) as caught:
        validated(plugins.load("task", "training/auto").Options, {"rnak": 4}, "training/auto")
    assert "Did you mean 'rank'?" in caught.value.hint


def test_a_method_by_name_takes_fewer_texts_at_a_time_where_memory_is_short(facts: dict[str, ArtifactFacts]) -> None:
    choice = choose(facts, 12, "full")
    assert choice is not None
    parts = int(str(choice.options["accumulation"]))
    assert f"{32 // parts} texts at a time, {parts} times a step" in choice.because
    assert choose(facts, 12, "full", accumulation=1) is None


def test_runs_alone_too(tmp_path: Path) -> None:
    inputs = {"model": tiny_model(tmp_path / "model"), "data": tiny_data(tmp_path / "data", sentences(32))}
    task = plugins.load("task", "training/auto")
    bench = Bench(tmp_path / "run", inputs)
    task.run(bench.context, task.Options(epochs=1, batch_size=8, precision="fp32"))
    assert any(message.startswith("method full: it needs ") for message in bench.messages)
    assert len(bench.losses) == 4
