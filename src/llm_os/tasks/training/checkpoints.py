"""Whole training states as folders: tensors as safetensors, the rest as JSON. Resuming from one is sample-exact."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llm_os.errors import IntegrityError
from llm_os.tasks.context import Context


@dataclass(slots=True)
class Progress:
    """Where a training stands; everything but tensors.

    Attributes:
        epoch: epoch in work, from 0. position: batches of it that are done.
        losses: loss of every step so far. history: one dict an epoch.
        best_loss, best_epoch: of the validation; epoch numbers from 1, 0: none yet.
    """

    precision: str = ""
    epoch: int = 0
    position: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    best_loss: float | None = None
    best_epoch: int = 0
    epoch_seconds: float = 0.0
    seconds: float = 0.0


def save(
    context: Context,
    progress: Progress,
    identity: Mapping[str, str],
    model: Any,
    optimizer: Any,
    best: Mapping[str, Any] | None,
) -> None:
    """Write a checkpoint of everything the next step depends on."""
    import torch
    from safetensors.torch import save_file

    folder = context.scratch / "checkpoint"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    trained = {name: p.detach().contiguous() for name, p in model.named_parameters() if p.requires_grad}
    save_file(trained, folder / "weights.safetensors")
    moments: dict[str, Any] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            moments[f"{index}/{name}"] = torch.as_tensor(value).contiguous()
    save_file(moments, folder / "optimizer.safetensors")
    if best is not None:
        save_file({name: value.contiguous() for name, value in best.items()}, folder / "best.safetensors")
    random_state = base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode()
    whole = {"progress": asdict(progress), "identity": dict(identity), "torch_rng": random_state}
    (folder / "state.json").write_text(json.dumps(whole), encoding="utf-8")
    context.checkpoint(progress.step, folder)


def restore(
    folder: Path, identity: Mapping[str, str], model: Any, optimizer: Any
) -> tuple[Progress, dict[str, Any] | None]:
    """Put a checkpoint back into model and optimizer. Returns progress and best weights.

    Raises:
        IntegrityError: it was made for another model, other data or other options; says which.
    """
    import numpy
    import torch
    from safetensors.torch import load_file

    whole = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    for name, value in identity.items():
        if whole["identity"].get(name) != value:
            raise IntegrityError(
                f"The checkpoint {folder.name} was made for another {name}.",
                hint="It belongs to another job; start this one anew.",
                details={"found": whole["identity"].get(name), "expected": value},
            )
    weights = load_file(folder / "weights.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(weights[name])
    moments: dict[int, dict[str, Any]] = {}
    for name, value in load_file(folder / "optimizer.safetensors").items():
        index, _, key = name.partition("/")
        moments.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    best = folder / "best.safetensors"
    raw = numpy.frombuffer(base64.b64decode(whole["torch_rng"]), dtype=numpy.uint8).copy()
    torch.set_rng_state(torch.from_numpy(raw))
    return Progress(**whole["progress"]), load_file(best) if best.exists() else None
