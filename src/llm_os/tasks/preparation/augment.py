"""Augmentation: copies of training rows with words swapped, left out, or exchanged for synonyms.

Source: Wei and Zou 2019 (EDA: easy data augmentation for text classification), whose three operations these are.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import Field

from llm_os.errors import DataError
from llm_os.spec.base import Spec
from llm_os.tasks.preparation import lexicons
from llm_os.tasks.preparation.lexicons import Synonyms
from llm_os.tasks.preparation.step import Bench, Row, Step
from llm_os.tasks.preparation.texts import texts, with_texts
from llm_os.tasks.preparation.words import NEGATIONS, is_word, language_of, pieces


class AugmentOptions(Spec):
    copies: int = Field(default=1, ge=1, le=32)
    """Changed copies that each training row gets; the row itself stays."""
    swap: float = Field(default=0.1, ge=0, le=1)
    """Share of the words that change places with another word of the text."""
    delete: float = Field(default=0.1, ge=0, lt=1)
    """Share of the words that are left out; one word always stays."""
    synonyms: float = Field(default=0.1, ge=0, le=1)
    """Share of the words that are exchanged for a synonym, where `lexicon` knows one."""
    lexicon: str | Mapping[str, tuple[str, ...]] | None = Field(default=None, examples=["wordnet"])
    """`wordnet` (English), `cilin` (Chinese), the path of a file (a group of words a line, with commas or tabs between
    them) or of a WordNet folder, or the words themselves as {word: [synonyms]}; none: no synonyms are put in."""
    keep: tuple[str, ...] = ()
    """Words that are never touched."""
    negations: bool = True
    """Never touch words such as `not` and 不, which turn a sentence round."""
    language: str = "auto"
    """ISO 639-1 code; `auto`: the data's, and where nobody said, each text's own."""


class Augment(Step[AugmentOptions]):
    """What happens to a row follows from the seed and its text, so that the order of rows plays no part."""

    Options = AugmentOptions
    training_only = True

    def apply(self, rows: Iterator[Row], options: AugmentOptions, bench: Bench) -> Iterator[Row]:
        said = bench.language if options.language == "auto" else options.language
        synonyms = lexicon_of(options.lexicon, bench.scratch)
        for row in rows:
            yield row
            chance = bench.random("\n".join(texts(row)))
            made = {tuple(texts(row))}
            for _ in range(options.copies):
                copy = copied(row, said, options, synonyms, chance)
                if tuple(texts(copy)) in made:
                    bench.notes["copies that were not new"] += 1
                    continue
                made.add(tuple(texts(copy)))
                bench.notes["copies"] += 1
                yield copy


def copied(row: Row, said: str, options: AugmentOptions, synonyms: Synonyms, chance: random.Random) -> Row:
    """The row with every text changed."""
    return with_texts(row, lambda text: changed(text, language_of(text, said), options, synonyms, chance))


def lexicon_of(given: str | Mapping[str, Sequence[str]] | None, scratch: Path) -> Synonyms:
    """The lexicon that the option names. Raises DataError, SourceError."""
    if given is None:
        return {}
    if not isinstance(given, str):
        return lexicons.from_mapping(given)
    if given == "wordnet":
        return lexicons.from_wordnet()
    if given == "cilin":
        return lexicons.from_cilin(scratch)
    path = Path(given).expanduser()
    if not path.exists():
        raise DataError(f"There is no lexicon '{given}'.", hint="Write wordnet, cilin, or the path of a file.")
    return lexicons.from_wordnet(path) if path.is_dir() else lexicons.from_file(path)


def changed(text: str, language: str, options: AugmentOptions, synonyms: Synonyms, chance: random.Random) -> str:
    """The text after synonyms, swaps and deletions; white space and signs stay where they are."""
    parts = pieces(text, language)
    fixed = {word.lower() for word in options.keep} | (
        NEGATIONS.get(language, frozenset()) if options.negations else set()
    )
    places = [i for i, part in enumerate(parts) if is_word(part) and part.lower().replace("’", "'") not in fixed]
    known = [i for i in places if synonyms.get(parts[i].lower())]
    for i in chance.sample(known, min(len(known), count_of(options.synonyms, len(places), chance))):
        parts[i] = like(parts[i], chance.choice(synonyms[parts[i].lower()]))
    for _ in range(count_of(options.swap, len(places), chance) if len(places) > 1 else 0):
        i, j = chance.sample(places, 2)
        parts[i], parts[j] = parts[j], parts[i]
    left_out = chance.sample(places, min(max(0, len(places) - 1), count_of(options.delete, len(places), chance)))
    for i in left_out:
        parts[i] = ""
        if i and i + 1 < len(parts) and parts[i - 1].isspace() and parts[i + 1].isspace():
            parts[i + 1] = ""
    return "".join(parts).strip()


def count_of(share: float, words: int, chance: random.Random) -> int:
    """A whole number near `share * words`, which it is on average."""
    exact = share * words
    return int(exact) + (chance.random() < exact - int(exact))


def like(word: str, other: str) -> str:
    """The other word, with a capital where the word has one."""
    return other[:1].upper() + other[1:] if word[:1].isupper() else other


PLUGIN = Augment()
