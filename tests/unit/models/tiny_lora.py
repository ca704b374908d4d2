"""Adapters for the tiny models, with weights that are drawn, not trained: they change every answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tiny_chat import tiny_tokenizer


def tiny_adapter(
    make: Callable[[Any], Any], folder: Path, seed: int, *, rank: int = 4, targets: Any = "all-linear", **config: Any
) -> Path:
    """A folder in peft's form, for the model that `make` makes of a tokenizer."""
    import torch
    from peft import LoraConfig, TaskType, get_peft_model

    config["fan_in_fan_out"] = make.__name__ == "tiny_gpt2"  # as its layers lie; peft warns where it is not said
    asked = LoraConfig(task_type=TaskType.CAUSAL_LM, r=rank, lora_alpha=2 * rank, target_modules=targets, **config)
    adapted = get_peft_model(make(tiny_tokenizer()), asked)
    torch.manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.15)
    adapted.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    return folder
