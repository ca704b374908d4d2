"""Adapters for tests: drawn, not trained, of any model in safetensors; knows no engine and no framework."""

from __future__ import annotations

import json
from pathlib import Path

TARGETS = ("q_proj.weight", "v_proj.weight")


def write_adapter(
    folder: Path, *, model: Path | None = None, base: str = "", rank: int = 4, seed: int = 0, strength: float = 0.1
) -> Path:
    """A folder in peft's form.

    Args:
        folder: is made.
        model: whose layers it changes, enough to change every answer; None, or one in another form: it only passes
            for an adapter.
        base: digest of the model, as an adapter that was trained here names it.
        strength: standard deviation of its values.
    """
    import numpy as np
    from safetensors.numpy import save_file

    draw = np.random.default_rng(seed)
    tensors = {"w": np.full(1, seed, np.float32)}
    for name, (rows, columns) in _layers(model).items():
        down, up = draw.normal(0, strength, (rank, columns)), draw.normal(0, strength, (rows, rank))
        tensors.pop("w", None)
        tensors[f"base_model.model.{name}.lora_A.weight"] = down.astype(np.float32)
        tensors[f"base_model.model.{name}.lora_B.weight"] = up.astype(np.float32)
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": base}))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def _layers(model: Path | None) -> dict[str, tuple[int, int]]:
    """Shapes of the layers that are changed, by name; none where the model has none of that kind."""
    from safetensors import safe_open

    found: dict[str, tuple[int, int]] = {}
    for file in sorted(model.glob("*.safetensors")) if model is not None else ():
        with safe_open(file, framework="numpy") as tensors:
            names = [name for name in tensors.keys() if name.endswith(TARGETS)]  # noqa: SIM118 - it is no mapping
            for name in names:
                rows, columns = tensors.get_slice(name).get_shape()
                found[name.removesuffix(".weight")] = (int(rows), int(columns))
    return found
