"""A classifier beside which a table of n-grams speaks too: what the words say, added to what the model knows.

Source: Cheng et al. 2016, Wide & Deep Learning; the table holds weights for TF-IDF (sublinear, of length 1) of runs of
tokens. Saved and loaded as other models of transformers; nothing remote. Knows no data and no job.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

BITS = 21
"""Of a token in the key of an n-gram: three tokens of any vocabulary fit into one integer."""
LONGEST = 63 // BITS
"""Tokens of an n-gram at most."""

SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
"""What a configuration says of its classifier, by the usual names."""


class WideConfig(PreTrainedConfig):
    """A classifier's own configuration, and the sizes of the table.

    Args:
        body: configuration of the classifier, as a dict.
        ngrams: tokens of the longest run. entries: rows of the table.
        behind: tokens at the end of each text that are a prompt, not the text.
        further: SIZES, `max_position_embeddings`, and what every configuration has.
    """

    model_type = "llm-os-wide"

    def __init__(
        self,
        body: dict[str, Any] | None = None,
        ngrams: int = 2,
        entries: int = 1,
        behind: int = 0,
        **further: Any,
    ) -> None:
        self.body = body or {}
        self.ngrams, self.entries, self.behind = ngrams, entries, behind
        for name in (*SIZES, "max_position_embeddings"):
            setattr(self, name, further.pop(name, None))
        super().__init__(**further)


class WideForSequenceClassification(PreTrainedModel):
    """Logits of the classifier `body`, and of the table, summed."""

    config_class = WideConfig
    base_model_prefix = "body"

    def __init__(self, config: WideConfig) -> None:
        super().__init__(config)
        known = dict(config.body)
        given = AutoConfig.for_model(known.pop("model_type"), **known)
        given.num_labels, given.pad_token_id = config.num_labels, config.pad_token_id
        self.num_labels = config.num_labels
        self.body = AutoModelForSequenceClassification.from_config(given)
        self.register_buffer("keys", torch.zeros(config.entries, dtype=torch.long))
        self.register_buffer("idf", torch.zeros(config.entries))
        self.table = nn.Parameter(torch.zeros(config.entries, config.num_labels))
        self.bias = nn.Parameter(torch.zeros(config.num_labels))
        self.post_init()

    def forward(self, input_ids: Any, attention_mask: Any = None, **_: Any) -> SequenceClassifierOutput:
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        known = self.body(input_ids=input_ids, attention_mask=attention_mask).logits.float()
        rows, entries, values = tfidf(
            input_ids, attention_mask, self.keys, self.idf, self.config.ngrams, self.config.behind
        )
        said = torch.zeros_like(known).index_add(0, rows, self.table[entries].float() * values.unsqueeze(-1))
        return SequenceClassifierOutput(logits=known + said + self.bias)


def runs(ids: Any, mask: Any, longest: int, behind: int) -> tuple[Any, Any]:
    """(text, key) of every run of 1 to `longest` tokens: int64 [runs] each, texts in order of run length.

    Args:
        ids, mask: [texts, tokens], padded at the right. behind: tokens at the end of each text that do not count.
    """
    count = ids.shape[1]
    lengths = mask.sum(1) - behind
    texts, keys = [], []
    for length in range(1, min(longest, count) + 1):
        key = torch.zeros_like(ids[:, length - 1 :])
        for place in range(length):
            key = (key << BITS) + ids[:, place : count - length + 1 + place] + 1
        inside = torch.arange(key.shape[1], device=ids.device) + length <= lengths.unsqueeze(1)
        texts.append(inside.nonzero()[:, 0])
        keys.append(key[inside])
    return torch.cat(texts), torch.cat(keys)


def tfidf(ids: Any, mask: Any, keys: Any, idf: Any, longest: int, behind: int) -> tuple[Any, Any, Any]:
    """(text, entry, value) of each n-gram of the table that a text holds; the values of a text have length 1.

    Args:
        keys: of the table's entries, ascending. idf: how rare each is.
    """
    texts, found = runs(ids, mask, longest, behind)
    entries = torch.searchsorted(keys, found).clamp(max=len(keys) - 1)
    there = keys[entries] == found
    pairs, counts = torch.unique(texts[there] * len(keys) + entries[there], return_counts=True)
    texts, entries = pairs // len(keys), pairs % len(keys)
    values = (1 + counts.float().log()) * idf[entries].float()
    squares = torch.zeros(len(ids), device=ids.device).index_add(0, texts, values**2)
    return texts, entries, values / squares[texts].sqrt()


@cache
def register() -> None:
    """Make the Auto classes of this process know it."""
    AutoConfig.register(WideConfig.model_type, WideConfig)
    AutoModelForSequenceClassification.register(WideConfig, WideForSequenceClassification)
