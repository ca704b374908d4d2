"""Runs an encoder-decoder: a text in, a text out. Knows no job and no HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_os.errors import UnsupportedModelError
from llm_os.models.formats import inspect
from llm_os.models.load import LONGEST, load_transformer


@dataclass(slots=True)
class Translator:
    """An encoder-decoder and what it needs to read and write texts.

    Attributes:
        max_length: tokens kept of a text, and most tokens of an answer.
    """

    model: Any
    tokenizer: Any
    max_length: int

    def predict(self, texts: Sequence[str], batch_size: int = 32, max_tokens: int | None = None) -> list[str]:
        """For each text the likeliest answer, token by token (greedy), in the order given."""
        return [self.text(ids) for ids in self.generate(texts, batch_size, max_tokens)]

    def generate(
        self, texts: Sequence[str], batch_size: int = 32, max_tokens: int | None = None, **options: Any
    ) -> list[list[int]]:
        """As `predict`, but token ids without marks of beginning and end; `options` go to transformers' generate."""
        import torch

        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        answers: list[list[int]] = [[] for _ in texts]
        special = set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}
        most = min(max_tokens or self.max_length, self.max_length)
        with torch.inference_mode():
            for begin in range(0, len(order), batch_size):
                part = order[begin : begin + batch_size]
                batch = self.tokenizer(
                    [texts[i] for i in part],
                    truncation=True,
                    max_length=self.max_length,
                    padding=True,
                    return_tensors="pt",
                ).to(self.model.device)
                said = self.model.generate(
                    input_ids=batch["input_ids"],
                    attention_mask=batch["attention_mask"],
                    **{"do_sample": False, "num_beams": 1, "max_new_tokens": most, **options},
                )
                for index, row in zip(part, said.tolist(), strict=True):
                    answers[index] = [token for token in row if token not in special]
        return answers

    def text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def count(self, text: str) -> int:
        """Tokens of a text as the model sees it."""
        return len(self.tokenizer(text, truncation=True, max_length=self.max_length)["input_ids"])


def load_translator(folder: Path) -> Translator:
    """Load an encoder-decoder for inference, in fp32.

    Raises:
        UnsafeWeightsError, BrokenWeightsError, ModelError: see `models.formats`.
        UnsupportedModelError: the folder holds another kind of model.
    """
    facts = inspect(folder)
    if facts["task"] != "text2text-generation":
        raise UnsupportedModelError(
            f"This model ({facts['architecture']}) is no encoder-decoder.", hint="Take one, such as T5 or BART."
        )
    loaded = load_transformer(folder, "text2text-generation")
    return Translator(loaded.model.eval(), loaded.tokenizer, min(LONGEST, int(str(facts["context_length"]))))
