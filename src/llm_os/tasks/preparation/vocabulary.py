"""A vocabulary of words with ids, on disk in the form that transformers reads. Knows no row and no step.

What stands in the folder `encoding` of a data set:

- `tokenizer.json`: cuts texts into words and gives their ids; `PreTrainedTokenizerFast(tokenizer_file=...)` reads it,
  with the padding token `[PAD]` (id 0) and `[UNK]` (id 1) for unknown words;
- `vocabulary.txt`: one word a line, the line's number (from 0) is its id;
- `vectors.safetensors`, where there are word vectors: the tensor `vectors`, float32 [words, size], row = id;
- `encoding.json`: `words`, `lowercase`, `pad`, `unknown`, and under `vectors` their source, size and known words.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from llm_os.errors import DataError, UnsupportedModelError
from llm_os.spec.base import Json
from llm_os.tasks.preparation.step import Bench
from llm_os.tasks.preparation.words import HAN, WORD

PAD, UNKNOWN = "[PAD]", "[UNK]"
TOKENIZER, WORDS, FACTS, VECTORS = "tokenizer.json", "vocabulary.txt", "encoding.json", "vectors.safetensors"
LONGEST_WORD = 8
"""Chinese characters that a word has at most, but for rare ones."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Words by id: padding, unknown, then the others from frequent to rare."""

    words: Sequence[str]
    lowercase: bool

    @classmethod
    def build(cls, counts: Mapping[str, int], most: int, least_count: int, *, lowercase: bool) -> Vocabulary:
        """The most frequent words. Raises DataError where Chinese texts were not cut into words, or nothing is left.

        Args:
            most: words, the two special ones included. least_count: rarer words are unknown.
        """
        long = sum(count for word, count in counts.items() if len(HAN.findall(word)) > LONGEST_WORD)
        if 10 * long > sum(counts.values()):
            raise DataError(
                "The Chinese texts are not cut into words.", hint='Put "segment" before this step; it cuts them.'
            )
        ordered = sorted((-count, word) for word, count in counts.items() if count >= least_count)
        if not ordered:
            raise DataError(f"No word is there {least_count} times.", hint="Give more texts, or a lower min_count.")
        return cls([PAD, UNKNOWN, *(word for _, word in ordered[: max(0, most - 2)])], lowercase)

    @classmethod
    def load(cls, folder: Path) -> Vocabulary | None:
        """The vocabulary of a data set; None where it has none."""
        if not (folder / WORDS).exists():
            return None
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        return cls((folder / WORDS).read_text(encoding="utf-8").split("\n")[:-1], bool(facts["lowercase"]))

    def save(self, folder: Path) -> None:
        """Words, tokenizer and facts."""
        (folder / WORDS).write_text("".join(word + "\n" for word in self.words), encoding="utf-8")
        self.tokenizer().save(str(folder / TOKENIZER))
        facts = {"words": len(self.words), "lowercase": self.lowercase, "pad": 0, "unknown": 1}
        (folder / FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    def tokenizer(self) -> Any:
        """A `tokenizers.Tokenizer` that gives the ids."""
        from tokenizers import Tokenizer, models

        ids = {word: number for number, word in enumerate(self.words)}
        tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
        tokenizer.normalizer, tokenizer.pre_tokenizer = parts(lowercase=self.lowercase)
        tokenizer.add_special_tokens([PAD, UNKNOWN])
        return tokenizer


def parts(*, lowercase: bool) -> tuple[Any, Any]:
    """(normalizer, pre-tokenizer) that cut a text into words and signs; one space parts Chinese words too."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    forms = [normalizers.NFC(), *([normalizers.Lowercase()] if lowercase else [])]
    cut = pre_tokenizers.Split(Regex(rf"{WORD}|[^\w\s]"), behavior="removed", invert=True)
    return normalizers.Sequence(forms), cut


def counted(texts: Iterable[str], *, lowercase: bool) -> Counter[str]:
    """How often each word is there."""
    counts: Counter[str] = Counter()
    for words in cut(texts, lowercase=lowercase):
        counts.update(words)
    return counts


def cut(texts: Iterable[str], *, lowercase: bool) -> Iterable[list[str]]:
    """The words of each text, as the tokenizer sees them."""
    normalizer, splitter = parts(lowercase=lowercase)
    for text in texts:
        yield [word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]


def add_facts(folder: Path, **more: Json) -> None:
    """Join further facts to `encoding.json`."""
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    (folder / FACTS).write_text(json.dumps({**facts, **more}, indent=1, sort_keys=True) + "\n", encoding="utf-8")


class Given(NamedTuple):
    """A `tokenizers.Tokenizer` and the file it was read from."""

    tokenizer: Any
    path: Path


def tokenizer_of(bench: Bench, model: str) -> Given:
    """The tokenizer of the model that a step was given.

    Raises UnsupportedModelError where no model was given to the job, or it has no tokenizer we can read.
    """
    from tokenizers import Tokenizer

    if bench.tokenizer is None:
        raise UnsupportedModelError(
            f"The model '{model}' was not given to this job.", hint="Name it in load_data(steps=...) or prepare(...)."
        )
    path = bench.tokenizer / TOKENIZER
    if not path.exists():
        raise UnsupportedModelError(
            f"The model '{model}' has no {TOKENIZER}.", hint="Name one in safetensors; a GGUF file has another form."
        )
    return Given(Tokenizer.from_file(str(path)), path)
