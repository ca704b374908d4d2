"""Runs a model that turns texts into vectors. Knows no job and no HTTP.

Pooling and normalisation travel with the model, in the layout of sentence-transformers (`modules.json`), so that its
users read our models and we read theirs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_os.errors import UnsupportedModelError
from llm_os.models.formats import inspect
from llm_os.models.load import LONGEST, load_transformer
from llm_os.models.padding import padded, read

POOLINGS = ("mean", "cls", "max", "lasttoken")
MODULES, POOLING, LENGTH = "modules.json", "1_Pooling", "sentence_bert_config.json"
_CLASSES = "sentence_transformers.models."
_FLAGS = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


@dataclass(slots=True)
class Encoder:
    """An encoder and how its states become one vector a text.

    Attributes:
        pooling: one of `POOLINGS`. normalize: vectors have length 1, so that their product is the cosine.
        max_length: tokens kept of a text.
    """

    model: Any
    tokenizer: Any
    pooling: str = "mean"
    normalize: bool = True
    max_length: int = 256

    def predict(self, texts: Sequence[str], batch_size: int = 32) -> list[list[float]]:
        """For each text its vector, in the order given."""
        ids = self.read(texts)
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        answers: list[list[float]] = [[] for _ in texts]
        for begin in range(0, len(order), batch_size):
            part = order[begin : begin + batch_size]
            for index, row in zip(part, self.vectors([ids[i] for i in part]), strict=True):
                answers[index] = row
        return answers

    def read(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts, cut at `max_length`."""
        return read(self.tokenizer, texts, self.max_length)

    def vectors(self, ids: Sequence[Sequence[int]]) -> list[list[float]]:
        """As `predict`, of texts that were read, in one batch."""
        import torch

        rows, mask = (one.to(self.model.device) for one in padded(ids, self.tokenizer))
        with torch.inference_mode():
            states = self.model(input_ids=rows, attention_mask=mask).last_hidden_state
            found: list[list[float]] = pooled(states, mask, self.pooling, normalize=self.normalize).tolist()
        return found


def pooled(states: Any, mask: Any, pooling: str = "mean", *, normalize: bool = True) -> Any:
    """One vector a text, float32 [texts, width], of states [texts, tokens, width] where `mask` is 1 (padded right)."""
    import torch

    states, weights = states.float(), mask.unsqueeze(-1).float().to(states.device)
    if pooling == "cls":
        vectors = states[:, 0]
    elif pooling == "max":
        vectors = states.masked_fill(weights == 0, float("-inf")).max(1).values
    elif pooling == "lasttoken":
        vectors = states[torch.arange(len(states)), weights.sum(1).long().squeeze(-1) - 1]
    else:
        vectors = (states * weights).sum(1) / weights.sum(1).clamp(min=1)
    return torch.nn.functional.normalize(vectors, dim=-1) if normalize else vectors


def load_encoder(folder: Path) -> Encoder:
    """Load an encoder for inference, in fp32; without a `modules.json` the mean over tokens is taken, normalised.

    Raises:
        UnsafeWeightsError, BrokenWeightsError, ModelError: see `models.formats`.
        UnsupportedModelError: its vectors are made in a way we do not know.
    """
    facts = inspect(folder)
    pooling, normalize, length = read_layout(folder)
    loaded = load_transformer(folder, "feature-extraction", fresh=True)  # a pooler it may lack is not used
    longest = min(length or LONGEST, int(str(facts["context_length"])))
    loaded.tokenizer.padding_side = "right"
    return Encoder(loaded.model.eval(), loaded.tokenizer, pooling, normalize, longest)


def read_layout(folder: Path) -> tuple[str, bool, int | None]:
    """(pooling, whether vectors are normalised, longest text) as the folder says. Raises UnsupportedModelError."""
    if not (folder / MODULES).exists():
        return "mean", True, None
    kinds = {str(module["type"]).rpartition(".")[2]: str(module["path"]) for module in _read(folder / MODULES)}
    unknown = sorted(set(kinds) - {"Transformer", "Pooling", "Normalize"})
    if unknown:
        raise UnsupportedModelError(
            f"The model makes its vectors with {', '.join(unknown)}, which is not known here.",
            hint="Take one with Transformer, Pooling and Normalize only.",
        )
    said: Mapping[str, Any] = _read(folder / kinds.get("Pooling", POOLING) / "config.json")
    flags = [name for name in POOLINGS if said.get(_FLAGS[name]) or said.get("pooling_mode") == name]
    others = [
        name for name, value in said.items() if value is True and name not in {*_FLAGS.values(), "include_prompt"}
    ]
    if len(flags) != 1 or any(name.startswith("pooling_mode") for name in others):
        raise UnsupportedModelError(
            f"The model's pooling is {', '.join([*flags, *others]) or 'not stated'}.",
            hint=f"Known: {', '.join(POOLINGS)}.",
        )
    length = _read(folder / LENGTH).get("max_seq_length") if (folder / LENGTH).exists() else None
    return flags[0], "Normalize" in kinds, length


def write_layout(folder: Path, width: int, max_length: int, pooling: str = "mean") -> None:
    """Say in `folder` that its vectors are pooled so, and normalised."""
    parts = [("", "Transformer"), (POOLING, "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": _CLASSES + kind}
        for number, (path, kind) in enumerate(parts)
    ]
    flags = {flag: name == pooling for name, flag in _FLAGS.items()}
    (folder / POOLING).mkdir(exist_ok=True)
    _write(folder / MODULES, modules)
    _write(folder / POOLING / "config.json", {"word_embedding_dimension": width, **flags})
    _write(folder / LENGTH, {"max_seq_length": max_length, "do_lower_case": False})


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
