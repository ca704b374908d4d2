"""What served models answer: predictions, vectors and chats, as callers read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_os.client.gateway import GREEDY, Gateway, as_messages
from llm_os.errors import InvalidInputError

Prompt = str | Sequence[Mapping[str, Any]]
"""A text, or messages with `role` and `content`."""


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a text with a tag: characters [start, end); `score` is the mean probability of its words' tags."""

    start: int
    end: int
    text: str
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a classifier says of one text.

    Attributes:
        label: the likeliest class; empty where words are tagged. score: its probability. scores: all classes.
        labels: every class the text has; of a multi-label classifier, none or several.
        spans: tagged pieces of the text, where words are tagged.
    """

    label: str
    score: float
    scores: Mapping[str, float]
    labels: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()

    def __str__(self) -> str:
        if not self.scores:
            return " ".join(f"{span.text}/{span.label}" for span in self.spans)
        if self.labels != (self.label,):
            return ", ".join(f"{label} ({self.scores[label]:.3f})" for label in self.labels) or "none"
        return f"{self.label} ({self.score:.3f})"


def predictions(gateway: Gateway, text_or_texts: str | Sequence[str]) -> Prediction | list[Prediction]:
    single = isinstance(text_or_texts, str)
    texts = _texts([text_or_texts] if isinstance(text_or_texts, str) else text_or_texts, "predict")
    found = [_prediction(entry) for entry in gateway.classify(texts)] if texts else []
    return found[0] if single else found


def embeddings(gateway: Gateway, texts: Sequence[str]) -> list[list[float]]:
    """One vector a text. Raises InvalidInputError for what is no list of texts."""
    if isinstance(texts, str):
        raise InvalidInputError("embed takes a list of texts.", hint='model.embed(["first", "second"])')
    wanted = _texts(texts, "embed")
    return gateway.embed(wanted) if wanted else []


def _texts(given: Iterable[object], verb: str) -> list[str]:
    found = list(given) if isinstance(given, Iterable) else [given]
    texts = [text for text in found if isinstance(text, str)]
    if len(texts) < len(found):
        wrong = next(type(text).__name__ for text in found if not isinstance(text, str))
        raise InvalidInputError(f"{verb} takes texts, not {wrong}.", hint="Give a str or a list of str.")
    return texts


def _prediction(entry: Mapping[str, Any]) -> Prediction:
    if "spans" in entry:
        return Prediction("", 0.0, {}, spans=tuple(Span(**span) for span in entry["spans"]))
    labels = entry.get("labels", (entry["label"],))
    return Prediction(entry["label"], entry["score"], entry["scores"], labels=tuple(labels))


def answer(gateway: Gateway, prompt_or_messages: Prompt, max_tokens: int, *, stream: bool) -> str | Iterator[str]:
    messages, options = as_messages(prompt_or_messages), {"max_tokens": max_tokens}
    return gateway.stream(messages, options, GREEDY) if stream else gateway.chat(messages, options, GREEDY)
