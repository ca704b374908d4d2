"""Whole training states as folders: tensors as safetensors, the rest as JSON. Resuming from one is sample-exact."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llm_os.errors import IntegrityError
from llm_os.tasks.context import Context
from llm_os.tasks.training import seeds


@dataclass(slots=True)
class Progress:
    """Where a training stands; everything but tensors.

    Attributes:
        epoch: epoch in work, from 0. position: batches of it that are done.
        losses: loss of every step so far. history: one dict an epoch.
        best_accuracy, best_loss, best_epoch: of the best epoch so far; numbers from 1, 0: none yet.
    """

    precision: str = ""
    epoch: int = 0
    position: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    best_accuracy: float = 0.0
    best_loss: float | None = None
    best_epoch: int = 0
    epoch_seconds: float = 0.0
    epoch_cpu: float = 0.0
    seconds: float = 0.0


def machine(device: str) -> dict[str, str]:
    """What the last bits of a step depend on beside model, data and options, by names for people."""
    import torch
    import transformers

    if device == "cuda":
        kind = torch.cuda.get_device_name()
    else:
        kind = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
        kind += " with bf16" if torch.cpu.get_capabilities().get("avx512_bf16") else ""
        kind += " with AMX" if torch.cpu.get_capabilities().get("amx_tile") else ""
    return {"version of torch": torch.__version__, "version of transformers": transformers.__version__, "machine": kind}


def save(
    context: Context,
    progress: Progress,
    identity: Mapping[str, str],
    model: Any,
    optimizer: Any,
    tensors: Mapping[str, Mapping[str, Any] | None],
) -> None:
    """Write a checkpoint of everything the next step depends on.

    Args:
        tensors: further sets of weights by name (`best`, `average`); None: there are none yet.
    """
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
            if value is not None:
                moments[f"{index}/{name}"] = torch.as_tensor(value).contiguous()
    save_file(moments, folder / "optimizer.safetensors")
    for name, weights in tensors.items():
        if weights is not None:
            save_file({key: value.contiguous() for key, value in weights.items()}, folder / f"{name}.safetensors")
    whole = {
        "progress": asdict(progress),
        "identity": dict(identity),
        "threads": torch.get_num_threads(),
        "random": seeds.state(),
    }
    (folder / "state.json").write_text(json.dumps(whole), encoding="utf-8")
    context.checkpoint(progress.step, folder)


def precision_of(folder: Path) -> str:
    """The precision that a checkpoint's training computes at."""
    return str(json.loads((folder / "state.json").read_text(encoding="utf-8"))["progress"]["precision"])


def restore(
    folder: Path, identity: Mapping[str, str], model: Any, optimizer: Any
) -> tuple[Progress, dict[str, dict[str, Any]]]:
    """Put a checkpoint back into model, optimizer and random state. Returns progress and the further sets of weights.

    It takes no more threads than the checkpoint was made with: sums in another order differ in their last bits.

    Raises:
        IntegrityError: it was made for another model, data or options, or elsewhere; says which.
    """
    import torch
    from safetensors.torch import load_file

    whole = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    expect_same(folder.name, whole, identity)
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
    seeds.restore(whole["random"])
    known = {"weights", "optimizer"}
    more = {file.stem: load_file(file) for file in folder.glob("*.safetensors") if file.stem not in known}
    return Progress(**whole["progress"]), more


def expect_same(checkpoint: str, state: Mapping[str, Any], identity: Mapping[str, str]) -> None:
    """See `restore`: the state says for what it was made, and with how many threads, which are taken here too."""
    for name, value in identity.items():
        found = state["identity"].get(name)
        if found != value:
            figures = f" ({found}; here it is {value})" if len(f"{found}{value}") < 80 else ""
            raise IntegrityError(
                f"The checkpoint {checkpoint} was made for another {name}{figures}.",
                hint="From it the same curve cannot go on; start the job anew, or where the checkpoint was made.",
                details={"found": found, "expected": value},
            )
    _take_threads(checkpoint, int(state["threads"]))


def _take_threads(name: str, count: int) -> None:
    import torch

    if torch.get_num_threads() < count:
        raise IntegrityError(
            f"The checkpoint {name} was made with {count} threads; here are {torch.get_num_threads()}.",
            hint=f"Grant {count} threads again (set_resources(cpus={count})), or start the job anew.",
            details={"found": count, "expected": torch.get_num_threads()},
        )
    torch.set_num_threads(count)
