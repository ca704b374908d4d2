"""Small models of several families, with random weights, made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = ["good", "fine", "great", "bad", "poor", "awful", "film", "book", "the", "a", "was", "is", "very", "so"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = len(WORDS) + len(SPECIAL)
ENCODERS = ("bert", "roberta", "distilbert", "deberta-v2", "electra", "modernbert")
DECODERS = ("gpt2", "llama", "qwen2")
PAIRED = ("bart", "t5")

_WIDE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
_SIZES: dict[str, dict[str, Any]] = {
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 40},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 40},
    "bart": {
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 40,
    },
    "t5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2},
    "electra": {**_WIDE, "embedding_size": 16},
    "qwen2": {**_WIDE, "num_key_value_heads": 1},
}


def tokenizer(folder: Path, *, padding: bool = True) -> Any:
    """Splits at spaces into a handful of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*SPECIAL, *WORDS])}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "eos_token": "[SEP]"}
    made = PreTrainedTokenizerFast(tokenizer_object=inner, **names, **({"pad_token": "[PAD]"} if padding else {}))
    made.save_pretrained(folder)
    return made


def family(folder: Path, name: str, head: str = "AutoModel") -> Path:
    """A folder with a model of the family `name` and the `head` of that Auto class."""
    import torch
    import transformers

    tokenizer(folder, padding=name not in DECODERS)
    ids = {"pad_token_id": None if name in DECODERS else 0, "bos_token_id": 2, "eos_token_id": 3}
    extra = {"cls_token_id": 2, "sep_token_id": 3} if name == "modernbert" else {}
    extra |= {"decoder_start_token_id": 3, "forced_eos_token_id": None} if name in PAIRED else {}
    config = transformers.AutoConfig.for_model(name, vocab_size=VOCABULARY, **_SIZES.get(name, _WIDE), **ids, **extra)
    torch.manual_seed(0)
    getattr(transformers, head).from_config(config).save_pretrained(folder)
    return folder
