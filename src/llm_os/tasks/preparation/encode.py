"""Sequence encoding: each text as ids of a fixed vocabulary, made from the training rows, or of a model's tokenizer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import islice
from typing import Any

from pydantic import Field

from llm_os.errors import DataError
from llm_os.spec.base import Spec
from llm_os.tasks.datasets.spool import Spool
from llm_os.tasks.preparation.step import Bench, Row, Step
from llm_os.tasks.preparation.vocabulary import TOKENIZER, Vocabulary, counted, tokenizer_of

BATCH = 1000


class EncodeOptions(Spec):
    model: str | None = None
    """Model whose tokenizer is used, as in `load_model`; none: a vocabulary of words made from the training rows, or
    the one that `word_vectors` made before."""
    max_length: int = Field(default=128, ge=1)
    """Ids that are kept of a text."""
    max_words: int = Field(default=30_000, ge=3)
    """Size of the vocabulary, `[PAD]` (0) and `[UNK]` (1) included."""
    min_count: int = Field(default=2, ge=1)
    """Words that are rarer in the training rows are unknown."""
    lowercase: bool = True
    """Write words in lower case before they are looked up."""
    column: str = "input_ids"
    """Column for the ids; the text stays beside it."""


class Encode(Step[EncodeOptions]):
    """The vocabulary and its tokenizer lie in the folder `encoding` of the data set; see `vocabulary.py`."""

    Options = EncodeOptions
    after_split = True

    def apply(self, rows: Iterator[Row], options: EncodeOptions, bench: Bench) -> Iterator[Row]:
        if options.model is not None:
            tokenizer = tokenizer_of(bench, options.model)
            if not (bench.side / TOKENIZER).exists():
                shutil.copyfile(tokenizer.path, bench.side_folder() / TOKENIZER)
            yield from self._encoded(rows, tokenizer.tokenizer, options, bench)
            return
        vocabulary = Vocabulary.load(bench.side) if bench.split == "test" else None
        if vocabulary is not None:
            yield from self._encoded(rows, vocabulary.tokenizer(), options, bench)
            return
        with Spool(bench.scratch / "encode.jsonl") as spool:
            for row in rows:
                spool.add(row)
            vocabulary = Vocabulary.load(bench.side) or self._learnt(spool, options, bench)
            spooled = (spool[number] for number in range(len(spool)))
            yield from self._encoded(spooled, vocabulary.tokenizer(), options, bench)

    def _learnt(self, spool: Spool, options: EncodeOptions, bench: Bench) -> Vocabulary:
        texts = (text_of(spool[number]) for number in range(len(spool)))
        counts = counted(texts, lowercase=options.lowercase)
        vocabulary = Vocabulary.build(counts, options.max_words, options.min_count, lowercase=options.lowercase)
        vocabulary.save(bench.side_folder())
        return vocabulary

    def _encoded(self, rows: Iterator[Row], tokenizer: Any, options: EncodeOptions, bench: Bench) -> Iterator[Row]:
        tokenizer.no_padding()
        unknown = tokenizer.token_to_id("[UNK]")
        tokenizer.enable_truncation(options.max_length)
        while batch := list(islice(rows, BATCH)):
            for row, encoding in zip(batch, tokenizer.encode_batch([text_of(row) for row in batch]), strict=True):
                bench.notes["ids"] += len(encoding.ids)
                bench.notes["unknown"] += encoding.ids.count(unknown)
                bench.notes["cut"] += bool(encoding.overflowing)
                yield {**row, options.column: list(encoding.ids)}


def text_of(row: Row) -> str:
    """The text. Raises DataError where a row has none."""
    text = row.get("text")
    if not isinstance(text, str):
        raise DataError(
            "A row has no text to encode.",
            hint='Messages become a text by the step "chat_format", put before this one.',
        )
    return text


PLUGIN = Encode()
