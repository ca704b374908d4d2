"""Adapters in peft's form: put into a base, and merged into its weights. Knows no training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_os.errors import ModelError
from llm_os.models.formats import ADAPTER
from llm_os.models.load import load_transformer

HEADS = ("classifier.weight", "classifier.out_proj.weight", "score.weight")
"""How the last layer of a classifier is called in transformers."""


def merged(base: Path, adapter: Path, task: str, labels: Sequence[str] = ()) -> tuple[Any, Any]:
    """(model with the adapter in its weights, fp32; the base's tokenizer).

    Args:
        labels: class names of a classifier; none: as many as the adapter's head has, with numbers for names.

    Raises:
        ModelError: the adapter does not fit this base.
    """
    from peft import PeftModel

    heads: dict[str, Any] = {}
    if task in {"text-classification", "token-classification"}:
        heads["num_labels"] = len(labels) or _classes(adapter)
        if labels:
            heads["id2label"] = dict(enumerate(labels))
            heads["label2id"] = {label: number for number, label in enumerate(labels)}
    loaded = load_transformer(base, task, fresh=bool(heads), **heads)
    try:
        adapted = PeftModel.from_pretrained(loaded.model, str(adapter), local_files_only=True, is_trainable=False)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ModelError(
            f"The adapter does not fit this base: {error}", hint="Give the base it was trained on."
        ) from error
    return adapted.merge_and_unload(), loaded.tokenizer


def _classes(adapter: Path) -> int:
    """Rows of the head that was saved with an adapter, which is all that one made elsewhere says of its classes."""
    from safetensors import safe_open

    with safe_open(adapter / ADAPTER, framework="numpy") as tensors:
        heads = [name for name in tensors.keys() if name.endswith(HEADS)]  # noqa: SIM118 - it is no mapping
        return int(tensors.get_slice(heads[-1]).get_shape()[0]) if heads else 1
