"""Stop words: words that carry little meaning (the, of, 的, 了) are taken out; negations stay unless asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

from pydantic import Field

from llm_os.errors import DataError, did_you_mean
from llm_os.spec.base import Spec
from llm_os.tasks.preparation.step import Bench, Row, Step
from llm_os.tasks.preparation.texts import with_texts
from llm_os.tasks.preparation.words import NEGATIONS, is_word, language_of, pieces


class StopWordsOptions(Spec):
    language: str = "auto"
    """ISO 639-1 code of the list; `auto`: the data's, and where nobody said, each text's own."""
    add: tuple[str, ...] = Field(default=(), examples=[["film", "movie"]])
    """Further words to take out."""
    keep: tuple[str, ...] = Field(default=(), examples=[["against"]])
    """Words of the list that stay."""
    negations: bool = True
    """Keep words such as `not` and 不, which the lists hold too: without them a text may say the contrary."""


class StopWords(Step[StopWordsOptions]):
    """Lists: stopwords-iso, 58 languages. A text of stop words alone stays as it is."""

    Options = StopWordsOptions

    def apply(self, rows: Iterator[Row], options: StopWordsOptions, bench: Bench) -> Iterator[Row]:
        said = bench.language if options.language == "auto" else options.language
        if said != "unknown":
            stop_words(said)

        def filtered(text: str) -> str:
            language = language_of(text, said)
            listed = stop_words(language) if said != "unknown" or language in languages() else frozenset()
            listed = (listed | frozenset(word.lower() for word in options.add)) - frozenset(
                word.lower() for word in options.keep
            )
            if options.negations:
                listed -= NEGATIONS.get(language, frozenset())
            parts = pieces(text, language)
            kept = without(parts, listed)
            if not any(map(is_word, kept)):
                bench.notes["only stop words"] += 1
                return text
            bench.notes["words taken out"] += sum(map(is_word, parts)) - sum(map(is_word, kept))
            return "".join(kept).strip()

        bench.notes.update({"words taken out": 0, "only stop words": 0})
        for row in rows:
            yield with_texts(row, filtered)


def without(parts: Sequence[str], listed: frozenset[str]) -> list[str]:
    """The pieces but the listed words, each of which takes a space with it."""
    kept: list[str] = []
    dropped = False
    for piece in parts:
        if piece.lower().replace("’", "'") in listed:
            dropped = True
            continue
        if dropped and kept and kept[-1].isspace() and not is_word(piece):
            kept.pop()
        kept.append(piece)
        dropped = False
    return kept


def languages() -> frozenset[str]:
    """ISO 639-1 codes that there is a list for."""
    from stopwordsiso import langs

    return frozenset(langs())


@cache
def stop_words(language: str) -> frozenset[str]:
    """The list of a language. Raises DataError for one without."""
    from stopwordsiso import stopwords

    if language not in languages():
        raise DataError(
            f"There is no list of stop words for the language '{language}'.",
            hint=did_you_mean(language, languages()) + " Or name your own with `add` and another language.",
        )
    return frozenset(stopwords(language))


PLUGIN = StopWords()
