"""A runnable model from a folder: safetensors only, nothing remote, nothing that could run code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_os.errors import BrokenWeightsError, ModelError, UnsupportedModelError
from llm_os.models.formats import inspect

LONGEST = 512
"""Tokens of a text that a classifier looks at, at most."""


@dataclass(slots=True)
class Classifier:
    """A sequence classifier (or a regression with one output) and what it needs to read texts.

    Attributes:
        labels: names in the order of their ids; empty for a regression.
        max_length: tokens kept of a text.
    """

    model: Any
    tokenizer: Any
    labels: tuple[str, ...]
    max_length: int
    precision: str = "fp32"

    def predict(self, texts: list[str], batch_size: int = 32) -> list[list[float]]:
        """For each text the probabilities by label id, or the one number of a regression; in the order given."""
        import torch

        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        answers: list[list[float]] = [[] for _ in texts]
        with torch.inference_mode():
            for begin in range(0, len(order), batch_size):
                part = order[begin : begin + batch_size]
                logits = self.logits([texts[i] for i in part])
                values = torch.softmax(logits, -1) if self.labels else logits
                for index, row in zip(part, values.tolist(), strict=True):
                    answers[index] = row
        return answers

    def logits(self, texts: list[str]) -> Any:
        """float32 [texts, outputs]."""
        import torch

        batch = self.tokenizer(
            texts, truncation=True, max_length=self.max_length, padding=True, return_tensors="pt"
        ).to(self.model.device)
        with torch.autocast(self.model.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            return self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()


def load_classifier(folder: Path, *, dtype: str = "fp32", device: str = "cpu") -> Classifier:
    """Load a tuned classifier for inference.

    Args:
        dtype: `fp32`, or `bf16` for matrix products in bf16 (weights stay fp32).

    Raises:
        UnsafeWeightsError, BrokenWeightsError, ModelError: see `models.formats`.
        UnsupportedModelError: the folder holds a model without a classification head.
    """
    facts = inspect(folder)
    if facts["task"] != "text-classification":
        raise UnsupportedModelError(
            f"This model ({facts['architecture']}) has no classification head.",
            hint="Train it first: model.train(data).",
        )
    model, tokenizer = load_transformer(folder)
    labels = facts["labels"] if isinstance(facts["labels"], list) and model.config.num_labels > 1 else []
    return Classifier(
        model=model.to(device).eval(),
        tokenizer=tokenizer,
        labels=tuple(str(label) for label in labels),
        max_length=min(LONGEST, int(str(facts["context_length"]))),
        precision=dtype,
    )


def load_transformer(folder: Path, **config: Any) -> tuple[Any, Any]:
    """(AutoModelForSequenceClassification in fp32, tokenizer); `config` overrides, such as `num_labels`."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    safe = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, **safe, **config
        )
    except SafetensorError as error:
        raise BrokenWeightsError(f"The weights are broken: {error}.", hint="Copy the model again.") from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"The model cannot be loaded: {error}", hint="It must be an encoder or decoder that transformers knows."
        ) from error
    return model, tokenizer
