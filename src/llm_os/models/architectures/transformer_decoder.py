"""A Transformer decoder that reads from left to right: a language model (Llama's layout: Touvron et al. 2023)."""

from __future__ import annotations

from typing import Any

from llm_os.models.architecture import Architecture, Sizes


class TransformerDecoder(Architecture):
    task = "text-generation"
    rate = 1e-3
    alphabet = "bytes"

    def config(self, sizes: Sizes, ids: dict[str, int]) -> Any:
        from transformers import LlamaConfig

        return LlamaConfig(
            vocab_size=sizes.vocabulary,
            hidden_size=sizes.width,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            num_key_value_heads=sizes.heads,
            intermediate_size=-(-8 * sizes.width // 3 // 16) * 16,  # three matrices in place of two: two thirds as wide
            max_position_embeddings=sizes.context,
            tie_word_embeddings=True,
            **ids,
        )


PLUGIN = TransformerDecoder()
