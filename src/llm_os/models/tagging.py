"""Runs a model that gives each word a tag, and turns tags into spans of the text. Knows no job and no HTTP."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_os.errors import UnsupportedModelError
from llm_os.models.formats import inspect
from llm_os.models.load import LONGEST, load_transformer

WORD = re.compile(r"\w+(?:[-'’.]\w+)*|[^\w\s]")
"""A word of a plain text; punctuation is a word of its own, as in tagged corpora. Texts in Chinese are cut at spaces
alone: cut them into words first, as the training data was."""
OUTSIDE = "O"


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a text with a tag.

    Attributes:
        start, end: characters [start, end). score: mean probability of its words' tags.
    """

    start: int
    end: int
    text: str
    label: str
    score: float


@dataclass(slots=True)
class Tagger:
    """A token classifier and what it needs to read texts.

    Attributes:
        labels: tags in the order of their ids. max_length: sub-words kept of a text.
    """

    model: Any
    tokenizer: Any
    labels: tuple[str, ...]
    max_length: int

    def predict(self, sentences: Sequence[Sequence[str]], batch_size: int = 32) -> list[list[tuple[str, float]]]:
        """For each sentence, a list of words, the tag of each word and its probability.

        Words beyond the longest text the model reads get `O` (or its first tag) with probability 0.
        """
        import torch

        read = pieces(self.tokenizer, sentences, self.max_length)
        outside = OUTSIDE if OUTSIDE in self.labels else self.labels[0]
        answers = [[(outside, 0.0)] * len(words) for words in sentences]
        order = sorted((i for i in range(len(read)) if read[i][1]), key=lambda i: -len(read[i][0]))
        with torch.inference_mode():
            for begin in range(0, len(order), batch_size):
                part = order[begin : begin + batch_size]
                batch = self.tokenizer.pad({"input_ids": [read[i][0] for i in part]}, return_tensors="pt")
                batch = batch.to(self.model.device)
                logits = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
                best = logits.float().softmax(-1).max(-1)
                for row, index in enumerate(part):
                    for word, place in read[index][1].items():
                        label = self.labels[int(best.indices[row, place])]
                        answers[index][word] = (label, float(best.values[row, place]))
        return answers

    def spans(self, texts: Sequence[str], batch_size: int = 32) -> list[list[Span]]:
        """Tagged pieces of plain texts: whole entities for tags such as `B-PER`, else each word but `O`."""
        cut = [words_of(text) for text in texts]
        said = self.predict([[word for word, _ in words] for words in cut], batch_size)
        return [joined(text, words, tags) for text, words, tags in zip(texts, cut, said, strict=True)]


def load_tagger(folder: Path) -> Tagger:
    """Load a token classifier for inference, in fp32.

    Raises:
        UnsafeWeightsError, BrokenWeightsError, ModelError: see `models.formats`.
        UnsupportedModelError: the folder holds another kind of model.
    """
    facts = inspect(folder)
    if facts["task"] != "token-classification":
        raise UnsupportedModelError(
            f"This model ({facts['architecture']}) does not tag words.", hint="Train it on data with tokens and tags."
        )
    loaded = load_transformer(folder, "token-classification")
    names = loaded.model.config.id2label
    labels = tuple(str(names[number]) for number in sorted(names))
    longest = min(LONGEST, int(str(facts["context_length"])))
    return Tagger(loaded.model.eval(), loaded.tokenizer, labels, longest)


def pieces(tokenizer: Any, sentences: Sequence[Sequence[str]], length: int) -> list[tuple[list[int], dict[int, int]]]:
    """For each sentence its sub-words' ids, and the place of the first one of each word that was kept."""
    if not sentences:
        return []
    read = tokenizer([list(words) for words in sentences], is_split_into_words=True, truncation=True, max_length=length)
    found = []
    for number, ids in enumerate(read["input_ids"]):
        firsts: dict[int, int] = {}
        for place, word in enumerate(read.word_ids(number)):
            if word is not None:
                firsts.setdefault(word, place)
        found.append((list(ids), firsts))
    return found


def words_of(text: str) -> list[tuple[str, int]]:
    """(word, its first character) of a plain text."""
    return [(match.group(), match.start()) for match in WORD.finditer(text)]


def joined(text: str, words: Sequence[tuple[str, int]], tags: Sequence[tuple[str, float]]) -> list[Span]:
    """Spans of tagged words: `B-X I-X` is one of the label X; a plain tag is one a word."""
    found: list[tuple[int, int, str, list[float]]] = []
    for (word, start), (tag, score) in zip(words, tags, strict=True):
        mark, dash, name = tag.partition("-")
        end = start + len(word)
        if tag == OUTSIDE:
            found.append((start, end, OUTSIDE, []))
        elif dash and mark in {"I", "E"} and found and found[-1][2] == name:
            found[-1] = (found[-1][0], end, name, [*found[-1][3], score])
        else:
            found.append((start, end, name if dash and mark in {"B", "I", "E", "S"} else tag, [score]))
    return [
        Span(start, end, text[start:end], label, sum(scores) / len(scores))
        for start, end, label, scores in found
        if scores
    ]
