"""Segmentation: words with one space between them, Chinese by its dictionary, other languages where letters end."""

from __future__ import annotations

from collections.abc import Iterator

from llm_os.spec.base import Spec
from llm_os.tasks.preparation.step import Bench, Row, Step
from llm_os.tasks.preparation.texts import texts, with_texts
from llm_os.tasks.preparation.words import is_word, language_of, pieces


class SegmentOptions(Spec):
    language: str = "auto"
    """ISO 639-1 code; `auto`: the data's, and where nobody said, each text's own."""
    punctuation: bool = True
    """Keep punctuation, as words of its own."""
    lowercase: bool = False
    """Write words in lower case."""
    column: str | None = None
    """Column for the list of words, so that the text stays as it is; none: the text itself is segmented."""


class Segment(Step[SegmentOptions]):
    """For models that part words at spaces: TF-IDF, word vectors, LSTM. A transformer has a tokenizer of its own."""

    Options = SegmentOptions

    def apply(self, rows: Iterator[Row], options: SegmentOptions, bench: Bench) -> Iterator[Row]:
        said = bench.language if options.language == "auto" else options.language

        def segmented(text: str) -> str:
            return " ".join(words(text, language_of(text, said), options))

        for row in rows:
            if options.column is not None:
                found = " ".join(segmented(text) for text in texts(row)).split()
                yield {**row, options.column: [*found]}
                continue
            changed = with_texts(row, segmented)
            bench.notes["changed"] += changed is not row
            yield changed


def words(text: str, language: str, options: SegmentOptions) -> list[str]:
    """The words of a text; all its signs where it has no words, so that no text becomes empty."""
    parts = [piece for piece in pieces(text, language) if not piece.isspace()]
    kept = [piece for piece in parts if options.punctuation or is_word(piece)] or parts
    return [piece.lower() for piece in kept] if options.lowercase else kept


PLUGIN = Segment()
