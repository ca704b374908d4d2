"""Training through its context alone: no kernel, a tiny model, real PyTorch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

sys.path.insert(0, str(Path(__file__).parent))
from tiny import Bench, sentences, tiny_data, tiny_model

from llm_os import plugins
from llm_os.errors import (
    DataError,
    EmptyDataError,
    IntegrityError,
    InvalidOptionError,
    NothingLearntError,
    SingleClassError,
    UnsupportedModelError,
)
from llm_os.spec.resources import Capacity

QUICK: dict[str, Any] = {"epochs": 3, "batch_size": 8, "learning_rate": 5e-3, "precision": "fp32", "warmup": 0.0}


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    return {"model": tiny_model(tmp_path / "model"), "data": tiny_data(tmp_path / "data", sentences(96))}


def train(root: Path, inputs: dict[str, Any], method: str = "full", **options: Any) -> Bench:
    task = plugins.load("task", f"training/{method}")
    bench = Bench(root, inputs)
    task.run(bench.context, task.Options.model_validate({**QUICK, **options}))
    return bench


def evaluate(root: Path, model: Bench, data: Any) -> dict[str, Any]:
    declared = json.loads((model.output / "artifact.json").read_text())
    from tiny import given

    task = plugins.load("task", "evaluation/classification")
    bench = Bench(root, {"model": given(model.output, "model", declared["meta"], "3"), "data": data})
    task.run(bench.context, task.Options())
    return bench.result


@pytest.mark.parametrize("method", ["full", "lora"])
def test_learns_what_can_be_learnt_and_the_saved_model_knows_it(
    tmp_path: Path, inputs: dict[str, Any], method: str
) -> None:
    bench = train(
        tmp_path / "run",
        inputs,
        method,
        epochs=12,
        learning_rate=3e-3 if method == "full" else 5e-3,
        early_stopping=False,
    )
    figures = evaluate(tmp_path / "judge", bench, inputs["data"])
    assert figures["accuracy"] == 1.0
    assert figures["count"] == 96
    assert figures["confusion"] == [[48, 0], [0, 48]]
    assert figures["loss"] < 0.3
    if method == "lora":
        assert (bench.output / "adapter" / "adapter_model.safetensors").exists()


def test_the_same_seed_gives_the_same_curve_bit_for_bit(tmp_path: Path, inputs: dict[str, Any]) -> None:
    first, second = train(tmp_path / "a", inputs), train(tmp_path / "b", inputs)
    other = train(tmp_path / "c", inputs, seed=7)
    assert first.losses == second.losses
    assert first.losses != other.losses


class KilledError(Exception):
    """Stands for kill -9: nothing after it runs."""


@pytest.mark.parametrize("step", [1, 11])
def test_a_run_killed_at_any_step_goes_on_with_the_same_curve(
    tmp_path: Path, inputs: dict[str, Any], step: int
) -> None:
    whole = train(tmp_path / "whole", inputs, checkpoint_every=0)
    task = plugins.load("task", "training/full")
    options = task.Options.model_validate({**QUICK, "checkpoint_every": 0})
    killed = Bench(tmp_path / "killed", inputs)
    keep = killed.context.checkpoint

    def checkpoint(at: int, folder: Path) -> None:
        keep(at, folder)
        if at == step:
            raise KilledError

    killed.context.checkpoint = checkpoint  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        task.run(killed.context, options)
    again = Bench(tmp_path / "killed", inputs)
    task.run(again.context, options)
    assert any(f"step {step}" in message for message in again.messages)
    assert again.losses == whole.losses
    assert (again.output / "model.safetensors").read_bytes() == (whole.output / "model.safetensors").read_bytes()


def test_a_checkpoint_of_other_data_is_refused_by_name(tmp_path: Path, inputs: dict[str, Any]) -> None:
    train(tmp_path / "run", inputs, checkpoint_every=0)
    other = tiny_data(tmp_path / "other", sentences(90))
    from tiny import given

    changed = {**inputs, "data": given(other.path, "dataset", other.facts.meta, "9")}
    for name in ("output", "scratch"):
        for file in sorted((tmp_path / "run" / name).rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
    with pytest.raises(IntegrityError, match="another data"):
        train(tmp_path / "run", changed, checkpoint_every=0)


def test_stops_early_and_keeps_the_best_weights(tmp_path: Path, inputs: dict[str, Any]) -> None:
    rows = [{**row, "label": ("positive", "negative")[i * 7 % 13 % 2]} for i, row in enumerate(sentences(96))]
    noise = {**inputs, "data": tiny_data(tmp_path / "noise", rows)}
    bench = train(tmp_path / "run", noise, epochs=40, learning_rate=3e-3, early_stopping=1)
    result = bench.result
    assert result["stopped_early"]
    assert result["epochs_run"] < 40
    assert result["best_epoch"] == result["epochs_run"] - 1
    said = f"stopped after {result['epochs_run']} of 40: no better since {result['best_epoch']}"
    assert said in bench.messages
    scores = [(entry["validation_accuracy"], -entry["validation_loss"]) for entry in result["history"]]
    assert scores[result["best_epoch"] - 1] == max(scores)


@pytest.mark.parametrize(("asked", "epochs"), [("auto", 3), (1, 2), (2, 3)])
def test_by_itself_it_stops_when_the_rate_has_fallen_and_as_asked_where_that_is_said(
    tmp_path: Path, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch, asked: str | int, epochs: int
) -> None:
    from llm_os.tasks.training import loop

    losses = iter(range(1, 100))
    monkeypatch.setattr(loop.Loop, "judge", lambda *_: {"validation_loss": float(next(losses))})
    result = train(tmp_path / "run", inputs, epochs=10, early_stopping=asked).result
    assert (result["epochs_run"], result["best_epoch"], result["stopped_early"]) == (epochs, 1, True)


def test_the_better_accuracy_counts_and_among_equal_ones_the_loss(
    tmp_path: Path, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm_os.tasks.training import loop

    said = iter([(0.8, 0.3), (0.9, 0.5), (0.9, 0.4), (0.9, 0.4), (0.7, 0.1)])

    def judge(*_: Any) -> dict[str, float]:
        accuracy, loss = next(said)
        return {"validation_accuracy": accuracy, "validation_loss": loss}

    monkeypatch.setattr(loop.Loop, "judge", judge)
    assert train(tmp_path / "run", inputs, epochs=5, early_stopping=2).result["best_epoch"] == 3


def test_a_rate_of_zero_is_a_failure_and_no_version(tmp_path: Path, inputs: dict[str, Any]) -> None:
    with pytest.raises(NothingLearntError, match="did not change"):
        train(tmp_path / "run", inputs, learning_rate=0.0)
    assert not (tmp_path / "run" / "output" / "artifact.json").exists()


def test_a_loss_that_is_no_number_ends_the_training_at_once(tmp_path: Path, inputs: dict[str, Any]) -> None:
    with pytest.raises(NothingLearntError, match=r"became (nan|inf) at step"):
        train(tmp_path / "run", inputs, learning_rate=1e30, clip=1e30, epochs=20)


def test_rows_of_one_class_are_refused(tmp_path: Path, inputs: dict[str, Any]) -> None:
    rows = [row for row in sentences(60) if row["label"] == "positive"]
    with pytest.raises(SingleClassError):
        train(tmp_path / "run", {**inputs, "data": tiny_data(tmp_path / "one", rows)})


def test_an_unknown_label_is_named_with_its_row(tmp_path: Path, inputs: dict[str, Any]) -> None:
    rows = [*sentences(20), {"text": "so so", "label": "meh"}]
    with pytest.raises(DataError, match="Row 20 has the label 'meh'"):
        train(tmp_path / "run", {**inputs, "data": tiny_data(tmp_path / "odd", rows)})


def test_an_empty_slice_is_refused(tmp_path: Path, inputs: dict[str, Any]) -> None:
    with pytest.raises(EmptyDataError):
        train(tmp_path / "run", inputs, start=500, stop=600)


def test_numbers_are_learnt_as_a_regression(tmp_path: Path, inputs: dict[str, Any]) -> None:
    rows = [{**row, "label": 2.0 if row["label"] == "positive" else -2.0} for row in sentences(96)]
    data = tiny_data(tmp_path / "scores", rows, labels=[])
    bench = train(tmp_path / "run", {**inputs, "data": data}, epochs=12, learning_rate=3e-3, early_stopping=False)
    figures = evaluate(tmp_path / "judge", bench, data)
    assert figures["mean_absolute_error"] < 0.8
    assert figures["labels"] is None


def test_what_needs_less_memory_is_said_in_numbers(inputs: dict[str, Any]) -> None:
    task = plugins.load("task", "training/full")
    facts = {role: given.facts for role, given in inputs.items()}
    granted = Capacity(cpus=2, memory=8 * 2**30)
    large = task.Options(batch_size=4096, max_length=32)
    need = task.resources(large, facts, granted).memory
    small = task.resources(task.Options(batch_size=8, max_length=32), facts, granted).memory
    assert need > small
    assert task.alternatives(large, facts, granted, small + 2**20) == "accumulation=512 would fit"


def test_a_chat_model_cannot_be_tuned_as_a_classifier(inputs: dict[str, Any]) -> None:
    task = plugins.load("task", "training/full")
    facts = {role: given.facts for role, given in inputs.items()}
    gguf = facts["model"].model_copy(update={"meta": {**facts["model"].meta, "format": "gguf"}})
    with pytest.raises(UnsupportedModelError, match="gguf"):
        task.resources(task.Options(), {**facts, "model": gguf}, Capacity(cpus=2, memory=2**33))


def test_evaluating_a_model_without_a_head_says_what_to_do(inputs: dict[str, Any]) -> None:
    task = plugins.load("task", "evaluation/classification")
    facts = {role: given.facts for role, given in inputs.items()}
    with pytest.raises(UnsupportedModelError, match="no classification head"):
        task.resources(task.Options(), facts, Capacity(cpus=2, memory=2**33))


def test_gradients_are_the_same_when_layers_are_computed_again(tmp_path: Path, inputs: dict[str, Any]) -> None:
    quick = {"early_stopping": False, "epochs": 1}
    plain, again = (
        train(tmp_path / "a", inputs, **quick),
        train(tmp_path / "b", inputs, gradient_checkpointing=True, **quick),
    )
    assert again.losses == plain.losses
    assert (again.output / "model.safetensors").read_bytes() == (plain.output / "model.safetensors").read_bytes()


def test_a_class_counts_in_the_loss_what_it_was_given(tmp_path: Path, inputs: dict[str, Any]) -> None:
    from llm_os.tasks.applications.class_weights import class_weights
    from llm_os.tasks.applications.text_classification import Labelled

    labels, targets = ["bad", "good"], [0.0, 0.0, 0.0, 1.0]
    balanced = class_weights("balanced", labels, targets)
    assert balanced == [4 / (2 * 3), 4 / (2 * 1)]
    assert class_weights({"good": 3.0}, labels, targets) == [1.0, 3.0]
    import torch

    logits = torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.5, 0.5], [1.0, -1.0]])
    examples = Labelled([[1]] * 4, targets, 0, 2, 0.0, balanced)

    def forward(**_: Any) -> Any:
        return type("Out", (), {"logits": logits})

    each = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 0, 0, 1]), reduction="none")
    by_hand = sum(w * one for w, one in zip([2 / 3, 2 / 3, 2 / 3, 2.0], each.tolist(), strict=True)) / 4
    batch = examples.collate(range(4))
    assert examples.loss(forward, batch).item() == pytest.approx(by_hand)
    assert examples.weight(range(4)) == pytest.approx(4.0)
    total, count = examples.measure(forward, batch)["loss"]
    assert total / count == pytest.approx(by_hand)


def test_weights_of_unknown_classes_are_refused_by_name(tmp_path: Path, inputs: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError, match="'positiv'") as caught:
        train(tmp_path / "run", inputs, class_weights={"positiv": 2.0})
    assert "Did you mean 'positive'" in caught.value.hint


def test_options_that_mean_nothing_for_the_data_are_refused_by_name(inputs: dict[str, Any], tmp_path: Path) -> None:
    task = plugins.load("task", "training/full")
    scores = tiny_data(tmp_path / "scores", sentences(8), labels=[])
    facts = {"model": inputs["model"].facts, "data": scores.facts}
    granted = Capacity(cpus=2, memory=2**33)
    with pytest.raises(InvalidOptionError, match="'class_weights' means nothing for score data"):
        task.resources(task.Options(class_weights="balanced"), facts, granted)
    task.resources(task.Options(mixup=0.2), facts, granted)


def test_mixed_texts_are_learnt_from(tmp_path: Path, inputs: dict[str, Any]) -> None:
    quick = {"early_stopping": False, "epochs": 1}
    plain, mixed = train(tmp_path / "a", inputs, **quick), train(tmp_path / "b", inputs, mixup=0.4, **quick)
    again = train(tmp_path / "c", inputs, mixup=0.4, **quick)
    assert mixed.losses != plain.losses
    assert mixed.losses == again.losses


def test_less_is_kept_for_the_backward_pass_when_layers_are_computed_again(inputs: dict[str, Any]) -> None:
    import torch

    from llm_os.models.load import load_transformer
    from llm_os.tasks.training.layers import checkpoint_gradients

    loaded = load_transformer(inputs["model"].path, "text-classification", fresh=True)
    model = loaded.model
    batch = loaded.tokenizer(["the film was good"] * 8, return_tensors="pt")
    model.train()

    def kept() -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: (sizes.append(t.numel()), t)[1], lambda t: t):
            model(**batch)
        return sum(sizes)

    before = kept()
    checkpoint_gradients(model)
    assert kept() < before / 2


@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 0), ("batch_size", -1), ("learning_rate", -1.0), ("early_stopping", -1)]
)
def test_numbers_that_make_no_sense_are_refused_before_anything_runs(name: str, value: float) -> None:
    with pytest.raises(ValidationError, match=name):
        plugins.load("task", "training/full").Options.model_validate({name: value})


def test_validation_rows_are_the_slice_that_was_given(tmp_path: Path, inputs: dict[str, Any]) -> None:
    judged = {**inputs, "validation": tiny_data(tmp_path / "judged", sentences(40))}
    bench = train(tmp_path / "run", judged, epochs=1, validation_start=10, validation_stop=22)
    assert bench.result["rows"] == {"train": 96, "validation": 12}
