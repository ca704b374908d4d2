"""Adapters in peft's form: put into a base, and merged into its weights. Knows no training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_os.errors import ModelError
from llm_os.models.load import load_transformer


def merged(base: Path, adapter: Path, task: str, labels: Sequence[str] = ()) -> tuple[Any, Any]:
    """(model with the adapter in its weights, fp32; the base's tokenizer).

    Args:
        labels: class names of a classifier.

    Raises:
        ModelError: the adapter does not fit this base.
    """
    from peft import PeftModel

    heads: dict[str, Any] = {}
    if task in {"text-classification", "token-classification"}:
        heads["num_labels"] = len(labels) or 1
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
