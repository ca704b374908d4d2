"""Puts the token ids of texts into one rectangle; must not know a model. Tokenizers do it in Python, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def read(tokenizer: Any, texts: Sequence[str], longest: int) -> list[list[int]]:
    """Token ids of texts, cut at the longest that the model reads.

    A text without any token (an empty one, where the tokenizer adds none of its own) is one of padding that is seen:
    a model can say nothing of nothing, and would say something else of it beside other texts.
    """
    found = tokenizer(
        list(texts), truncation=True, max_length=longest, return_attention_mask=False, return_token_type_ids=False
    )
    return [row or [_filler(tokenizer)] for row in found["input_ids"]]


def _filler(tokenizer: Any) -> int:
    return int(tokenizer.pad_token_id or 0)


def padded(ids: Sequence[Sequence[int]], tokenizer: Any) -> tuple[Any, Any]:
    """(ids, mask), int64 [texts, tokens] each, filled up on the tokenizer's side with its token for that."""
    import torch

    width = max((len(row) for row in ids), default=0)
    filled = torch.full((len(ids), width), _filler(tokenizer))
    mask = torch.zeros((len(ids), width), dtype=torch.long)
    for at, row in enumerate(ids):
        place = slice(width - len(row), width) if tokenizer.padding_side == "left" else slice(0, len(row))
        filled[at, place] = torch.tensor(row, dtype=torch.long)
        mask[at, place] = 1
    return filled, mask
