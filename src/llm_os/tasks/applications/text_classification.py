"""Text classification and regression: the model with its head, the examples, and the folder that is saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_os.errors import DataError, EmptyDataError, SingleClassError, UnsupportedModelError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json
from llm_os.tasks.context import Context
from llm_os.tasks.training.batches import Examples, encode, hold_out, read_rows
from llm_os.tasks.training.loop import Loop, Outcome
from llm_os.tasks.training.options import LENGTH, TrainingOptions

QUICK_ATTENTION = {"attention_probs_dropout_prob": 0.0}
"""Dropout inside the attention rules out its fused kernel; the dropout of the layers stays."""


@dataclass(slots=True)
class Prepared:
    """Everything a training starts from. `labels` None: a regression."""

    model: Any
    tokenizer: Any
    labels: list[str] | None
    train: Examples
    valid: Examples | None


def labels_of(facts: ArtifactFacts) -> list[str] | None:
    """Class names of a data set, None for a regression. Raises SingleClassError, DataError."""
    meta = facts.meta
    if facts.kind != "dataset":
        raise DataError(f"The input is a {facts.kind}, not a data set.", hint="Give what load_data returned.")
    labels = meta.get("labels")
    if labels is None:
        return None
    names = [str(label) for label in labels] if isinstance(labels, list) else []
    if len(names) < 2:
        raise SingleClassError(f"The data has one class only ({', '.join(names)}).", hint="Two are needed to learn.")
    return names


def prepare(context: Context, options: TrainingOptions) -> Prepared:
    """Load model, tokenizer and examples. Raises what a user can do wrong with either."""
    import torch

    from llm_os.models.load import load_transformer

    torch.set_num_threads(min(context.threads, options.threads or context.threads))
    torch.manual_seed(options.seed)
    context.report(stage="loading", step=0, total=0)
    model_input, data = context.inputs["model"], context.inputs["data"]
    if model_input.facts.meta.get("format") != "safetensors":
        raise UnsupportedModelError(
            f"A model in {model_input.facts.meta.get('format')} cannot be trained.", hint="Train one in safetensors."
        )
    labels = labels_of(data.facts)
    heads: dict[str, Any] = {"num_labels": len(labels) if labels else 1, **QUICK_ATTENTION}
    if labels:
        heads["id2label"] = dict(enumerate(labels))
        heads["label2id"] = {label: number for number, label in enumerate(labels)}
    else:
        heads["problem_type"] = "regression"
    same = (
        model_input.facts.meta.get("labels") == labels and model_input.facts.meta.get("task") == "text-classification"
    )
    if not same:
        heads["ignore_mismatched_sizes"] = True
    model, tokenizer = load_transformer(model_input.path, **heads)
    length = min(options.max_length or LENGTH, int(str(model_input.facts.meta.get("context_length") or 512)))
    rows = read_rows(data.path, options.split, options.start, options.stop)
    train = encode(rows, tokenizer, labels, length)
    if labels and len(set(train.targets)) < 2:
        raise SingleClassError("All rows of this slice have one class.", hint="Take more rows, or other ones.")
    valid = _validation(context, options, tokenizer, labels, length)
    share = options.validation or (0.1 if options.patience is not None else None)
    if valid is None and share is not None:
        kept, held = hold_out(train.targets, share, options.seed, stratified=labels is not None)
        if not kept or not held:
            raise EmptyDataError(
                f"{len(rows)} rows are too few to hold some out.", hint="Set early_stopping=False, or give more rows."
            )
        train, valid = train.part(kept), train.part(held)
    return Prepared(model, tokenizer, labels, train, valid)


def _validation(
    context: Context, options: TrainingOptions, tokenizer: Any, labels: list[str] | None, length: int
) -> Examples | None:
    given = context.inputs.get("validation")
    if given is None:
        return None
    if labels_of(given.facts) != labels:
        raise DataError("Training and validation data have different classes.", hint="Prepare both alike.")
    return encode(read_rows(given.path, options.validation_split), tokenizer, labels, length)


def train(context: Context, options: TrainingOptions, prepared: Prepared, *, rate: float, method: str) -> Outcome:
    """Run the loop on what was prepared."""
    identity = {
        "model": context.inputs["model"].facts.digest,
        "data": context.inputs["data"].facts.digest,
        "options": json.dumps(options.model_dump(mode="json", exclude={"checkpoint_every"}), sort_keys=True),
        "method": method,
    }
    device = "cuda" if context.devices else "cpu"
    loop = Loop(
        context,
        options,
        model=prepared.model.to(device),
        train=prepared.train,
        valid=prepared.valid,
        pad=prepared.tokenizer.pad_token_id or 0,
        regression=prepared.labels is None,
        identity=identity,
        rate=rate,
        device=device,
    )
    return loop.run()


def save(
    context: Context,
    prepared: Prepared,
    outcome: Outcome,
    save_model: Callable[[Path], None],
    extra: Mapping[str, Json] | None = None,
) -> None:
    """Fill the output folder: weights, tokenizer, history; then declare it."""
    context.report(stage="saving", step=0, total=0)
    save_model(context.output)
    prepared.tokenizer.save_pretrained(context.output)
    history = {"epochs": outcome.history, "losses": outcome.losses}
    (context.output / "history.json").write_text(json.dumps(history, indent=1) + "\n", encoding="utf-8")
    from llm_os.models.formats import inspect

    best = outcome.history[outcome.best_epoch - 1]
    metrics = {name: value for name, value in best.items() if isinstance(value, float) and "validation" in name}
    parent = context.inputs["model"].facts.meta
    facts: dict[str, Json] = {
        **inspect(context.output),
        "labels": list(prepared.labels) if prepared.labels else None,
        "license": parent.get("license", "not stated"),
        "metrics": dict(metrics),
        "trained_on": context.inputs["data"].facts.meta.get("name"),
        **(extra or {}),
    }
    context.finish("model", facts)
    context.result(
        history=[dict(entry) for entry in outcome.history],
        epochs_run=outcome.epochs_run,
        best_epoch=outcome.best_epoch,
        stopped_early=outcome.stopped_early,
        precision=outcome.precision,
        seconds=round(outcome.seconds, 3),
        rows={"train": len(prepared.train), "validation": len(prepared.valid) if prepared.valid else 0},
    )


def counts(facts: Mapping[str, Json]) -> tuple[int, int, int]:
    """(parameters, hidden size, layers) of a model's facts."""
    numbers: Sequence[int] = [int(str(facts.get(name) or 0)) for name in ("parameters", "hidden_size", "layers")]
    return numbers[0], numbers[1], numbers[2]
