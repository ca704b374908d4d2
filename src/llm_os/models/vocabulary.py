"""Tokenizers trained on texts, with the tokenizers library; Chinese works. Knows no file of data and no job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from llm_os.errors import EmptyDataError

PAD, UNKNOWN, BEGIN, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
WORD = "\u2581"
"""Stands before the first piece of a word."""
LEAST = 2
"""Times that a piece must occur to become a token."""


def train_tokenizer(texts: Iterable[str], size: int, alphabet: str, context: int) -> Any:
    """A tokenizer that puts a mark at both ends of a text.

    Args:
        size: most tokens. context: tokens of the longest text.
        alphabet: `words`: pieces of lower-cased words without accents, each Chinese character for itself; `bytes`:
            pieces of bytes, so that nothing is lost. Both merge frequent pairs (Sennrich et al. 2016).

    Raises:
        EmptyDataError: there is nothing in the texts.
    """
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    special = [PAD, UNKNOWN, BEGIN, END, MASK]
    whole = list(texts)
    if not any(text.strip() for text in whole):
        raise EmptyDataError("The texts hold no word.", hint="Is it the right column?")
    made = (_words if alphabet == "words" else _bytes)(whole, size, special)
    made.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}",
        pair=f"{BEGIN} $A {END} $B:1 {END}:1",
        special_tokens=[(name, made.token_to_id(name)) for name in (BEGIN, END)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_max_length=context,
        pad_token=PAD,
        unk_token=UNKNOWN,
        mask_token=MASK,
        bos_token=BEGIN,
        eos_token=END,
        cls_token=BEGIN,
        sep_token=END,
    )


def _words(texts: Sequence[str], size: int, special: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.BPE(unk_token=UNKNOWN))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    begun = pre_tokenizers.Metaspace(replacement=WORD, prepend_scheme="always")
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), begun])
    made.decoder = decoders.Metaspace(replacement=WORD, prepend_scheme="always")
    # The trainer breaks ties between rare characters by chance, so they are chosen here.
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(made.normalizer.normalize_str(text))
    for space in [mark for mark in counts if mark.isspace()]:
        del counts[space]
    kept = [WORD, *sorted(counts, key=lambda mark: (-counts[mark], mark))[: size // 2]]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        min_frequency=LEAST,
        initial_alphabet=kept,
        limit_alphabet=len(set(kept)),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    return made


def _bytes(texts: Sequence[str], size: int, special: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        min_frequency=LEAST,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    return made
