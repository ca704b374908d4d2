"""What a frozen model says of each text: the numbers that enter its head, computed once. Exact when it goes on."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_os.errors import NothingLearntError, UnsupportedModelError
from llm_os.tasks.applications.application import Prepared, identity_of
from llm_os.tasks.context import Context
from llm_os.tasks.training import checkpoints
from llm_os.tasks.training.batches import sorted_batches
from llm_os.tasks.training.examples import Examples
from llm_os.tasks.training.options import TrainingOptions, part_of
from llm_os.tasks.training.precision import autocast, choose_precision, quick_attention

REPORT_EVERY = 1.0
"""Seconds between reports of progress."""


@dataclass(frozen=True, slots=True)
class Features:
    """float32 [texts, width] of the rows that are learnt, and of those held out."""

    train: Any
    valid: Any | None
    precision: str
    seconds: float


@dataclass(slots=True)
class Work:
    """What is done so far: batches of all sets of texts, one set after the other."""

    found: dict[str, Any]
    done: int = 0
    precision: str = ""
    seconds: float = 0.0


def head_of(model: Any) -> tuple[Any, str, Any]:
    """(module that holds the head, name of the head in it, the head): the last linear layer outside of the body.

    Raises UnsupportedModelError for an architecture whose head is of another form.
    """
    from torch import nn

    body = {id(module) for module in model.base_model.modules()} if model.base_model is not model else set()
    found = None
    for parent in model.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Linear and id(child) not in body and child.out_features == model.config.num_labels:
                found = parent, name, child
    if found is None:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no linear head that could be learnt alone.", hint="Take method='full'."
        )
    return found


def compute(context: Context, options: TrainingOptions, prepared: Prepared) -> Features:
    """Features of all examples; goes on from a checkpoint of the same texts, model and options.

    Raises `Stopped` when the kernel asked it to end, with what is done kept; NothingLearntError where the model
    overflows; IntegrityError for a checkpoint of something else.
    """
    import torch
    from torch import nn

    device = "cuda" if context.devices else "cpu"
    model = prepared.model.to(device).eval()
    parent, name, head = head_of(model)
    sets = {"train": prepared.train} | ({"valid": prepared.valid} if prepared.valid is not None else {})
    if device == "cpu":
        quick_attention(model, max(max(examples.lengths) for examples in sets.values()))
    identity = {**identity_of(context, options, "probe"), **checkpoints.machine(device)}
    work = _begin(context, options, sets, head.in_features, device, identity)
    setattr(parent, name, nn.Identity())  # what would enter the head comes out
    caches = getattr(model.config, "use_cache", None)
    model.config.use_cache = False
    try:
        with torch.inference_mode(), autocast(work.precision, device):
            _batches(context, options, model, sets, work, identity)
    finally:
        setattr(parent, name, head)
        if caches is None:
            del model.config.use_cache
        else:
            model.config.use_cache = caches
    if not all(bool(tensor.isfinite().all()) for tensor in work.found.values()):
        raise NothingLearntError("The model gives no numbers for some texts.", hint="Take precision='fp32'.")
    return Features(
        work.found["train"].numpy(),
        work.found["valid"].numpy() if "valid" in work.found else None,
        work.precision,
        work.seconds,
    )


def _begin(
    context: Context,
    options: TrainingOptions,
    sets: Mapping[str, Examples],
    width: int,
    device: str,
    identity: Mapping[str, str],
) -> Work:
    import torch
    from safetensors.torch import load_file

    kept = context.latest_checkpoint()
    if kept is not None:
        state = json.loads((kept.folder / "state.json").read_text(encoding="utf-8"))
        checkpoints.expect_same(kept.folder.name, state, identity)
        context.message(f"Goes on after {state['done']} batches.")
        tensors = load_file(kept.folder / "features.safetensors")
        return Work(tensors, state["done"], state["precision"], state["seconds"])
    precision: str = options.precision
    if precision == "auto":
        precision, sentence = choose_precision(device)
        context.message(sentence)
    empty = {name: torch.zeros(len(examples), width) for name, examples in sets.items()}
    return Work(empty, precision=precision)


def _batches(
    context: Context,
    options: TrainingOptions,
    model: Any,
    sets: Mapping[str, Examples],
    work: Work,
    identity: Mapping[str, str],
) -> None:
    size = part_of(options)
    batches = [(name, part) for name, examples in sets.items() for part in sorted_batches(examples.lengths, size)]
    begun = saved = time.monotonic()
    before, reported = work.seconds, 0.0
    for number in range(work.done, len(batches)):
        name, indices = batches[number]
        work.found[name][indices] = _of(model, sets[name], indices)
        work.done, now = number + 1, time.monotonic()
        work.seconds = before + now - begun
        if now - reported > REPORT_EVERY or work.done == len(batches):
            reported = now
            left = work.seconds / work.done * (len(batches) - work.done)
            context.report(stage="computing features", step=work.done, total=len(batches), eta=round(left, 1))
        asked = context.should_stop()
        if asked or now - saved >= options.checkpoint_every or work.done == len(batches):
            _save(context, work, identity)
            saved = time.monotonic()
            if asked:
                context.stop_here()


def _of(model: Any, examples: Examples, indices: Sequence[int]) -> Any:
    batch = examples.collate(indices)
    ids, mask = batch["input_ids"].to(model.device), batch["attention_mask"].to(model.device)
    return model(input_ids=ids, attention_mask=mask).logits.float().cpu()


def _save(context: Context, work: Work, identity: Mapping[str, str]) -> None:
    import torch
    from safetensors.torch import save_file

    folder = context.scratch / "checkpoint"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    save_file(work.found, folder / "features.safetensors")
    state = {"done": work.done, "precision": work.precision, "seconds": work.seconds, "identity": dict(identity)}
    text = json.dumps({**state, "threads": torch.get_num_threads()})
    (folder / "state.json").write_text(text, encoding="utf-8")
    context.checkpoint(work.done, folder)
