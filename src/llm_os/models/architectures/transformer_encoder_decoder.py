"""A Transformer that reads a text and writes one (T5's layout, version 1.1: Raffel et al. 2020; Shazeer 2020)."""

from __future__ import annotations

from typing import Any

from llm_os.models.architecture import Architecture, Sizes


class TransformerEncoderDecoder(Architecture):
    task = "text2text-generation"
    rate = 1e-3
    alphabet = "bytes"

    def config(self, sizes: Sizes, ids: dict[str, int]) -> Any:
        from transformers import T5Config

        return T5Config(
            vocab_size=sizes.vocabulary,
            d_model=sizes.width,
            d_kv=sizes.width // sizes.heads,
            d_ff=2 * sizes.width,
            num_layers=sizes.layers,
            num_decoder_layers=sizes.layers,
            num_heads=sizes.heads,
            dropout_rate=sizes.dropout,
            feed_forward_proj="gated-gelu",
            n_positions=sizes.context,
            decoder_start_token_id=ids["pad_token_id"],
            **ids,
        )


PLUGIN = TransformerEncoderDecoder()
