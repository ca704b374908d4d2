"""A Transformer encoder that reads in both directions (BERT's layout: Devlin et al. 2019, section 3)."""

from __future__ import annotations

from typing import Any

from llm_os.models.architecture import Architecture, Sizes


class TransformerEncoder(Architecture):
    rate = 5e-4

    def config(self, sizes: Sizes, ids: dict[str, int]) -> Any:
        from transformers import BertConfig

        return BertConfig(
            vocab_size=sizes.vocabulary,
            hidden_size=sizes.width,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            intermediate_size=4 * sizes.width,
            max_position_embeddings=sizes.context,
            hidden_dropout_prob=sizes.dropout,
            attention_probs_dropout_prob=0.0,
            **ids,
        )


PLUGIN = TransformerEncoder()
