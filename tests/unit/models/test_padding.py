"""Texts in one batch say what each says alone, also where a tokenizer makes nothing of a text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tiny_chat import tiny_tokenizer

from llm_os.models.embedding import POOLINGS, Encoder
from llm_os.models.load import Classifier

TEXTS = ["", "hello there, how are you", " "]


def tiny(kind: str) -> tuple[Any, Any]:
    """(model, tokenizer) of a decoder whose tokenizer puts nothing around a text."""
    import torch
    import transformers

    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    assert tokenizer("")["input_ids"] == []
    torch.manual_seed(0)
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": 1}
    config = transformers.Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        **ends,
    )
    return getattr(transformers, kind)(config).eval(), tokenizer


def test_a_classifier_says_of_an_empty_text_the_same_alone_and_beside_others() -> None:
    model, tokenizer = tiny("Qwen2ForSequenceClassification")
    classifier = Classifier(model=model, tokenizer=tokenizer, labels=("a", "b"), max_length=64)
    for text, beside in zip(TEXTS, classifier.predict(TEXTS), strict=True):
        assert beside == pytest.approx(classifier.predict([text])[0], abs=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_an_encoder_has_the_same_numbers_for_an_empty_text_alone_and_beside_others(pooling: str) -> None:
    encoder = Encoder(*tiny("Qwen2Model"), pooling)
    for text, beside in zip(TEXTS, encoder.predict(TEXTS), strict=True):
        assert beside == pytest.approx(encoder.predict([text])[0], abs=1e-5)
