"""Texts in the order of how near they are to a query, by the vectors of an embedding model; must not know the network.

The shapes are those of Cohere and Jina (`/v1/rerank`) and of vLLM (`/v1/score`). The score is the cosine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_os.workers.backend import Embedded
from llm_os.workers.requests import MOST_TEXTS, UNUSED, json_object, wrong


class Rerank:
    """A request for an order.

    Attributes:
        texts: the query, then the documents.
    """

    def __init__(self, body: bytes, engine: str) -> None:
        value = _known(body, engine, "query", "documents", "top_n", "return_documents")
        query, documents = value.get("query"), value.get("documents")
        if not isinstance(query, str) or not query:
            raise wrong("query", "'query' must be a text.", 'Send "query": "...".')
        if isinstance(documents, list):
            documents = [one.get("text") if isinstance(one, dict) else one for one in documents]
        self.texts = [query, *_texts(documents, "documents")]
        top = value.get("top_n")
        if top is not None and (isinstance(top, bool) or not isinstance(top, int) or top < 1):
            raise wrong("top_n", "'top_n' must be a whole number, 1 or more.", "Leave it out for all of them.")
        told = value.get("return_documents")
        if told is not None and not isinstance(told, bool):
            raise wrong("return_documents", "'return_documents' must be true or false.", "Leave it out for true.")
        self._top, self._told = top, told is not False

    def answer(self, found: Embedded, model: str) -> dict[str, Any]:
        """Documents, the nearest first."""
        scores = cosines(found.vectors[:1], found.vectors[1:])
        order = sorted(range(len(scores)), key=lambda index: -scores[index])[: self._top]
        results = [
            {
                "index": index,
                "relevance_score": scores[index],
                **({"document": {"text": self.texts[1 + index]}} if self._told else {}),
            }
            for index in order
        ]
        return {"model": model, "results": results, "usage": _usage(found)}


class Score:
    """A request for the nearness of pairs: one text with each of a list, or two lists of one length.

    Attributes:
        texts: all of them.
    """

    def __init__(self, body: bytes, engine: str) -> None:
        value = _known(body, engine, "text_1", "text_2")
        first, second = (_texts(value.get(name), name) for name in ("text_1", "text_2"))
        if len(first) not in {1, len(second)}:
            raise wrong(
                "text_1",
                f"'text_1' has {len(first)} texts and 'text_2' {len(second)}.",
                "Send one text and a list, or two lists of one length.",
            )
        self.texts = [*first, *second]
        self._first = len(first)

    def answer(self, found: Embedded, model: str) -> dict[str, Any]:
        """A score for each pair, in their order."""
        first, second = found.vectors[: self._first], found.vectors[self._first :]
        data = [
            {"object": "score", "index": index, "score": score} for index, score in enumerate(cosines(first, second))
        ]
        return {"object": "list", "model": model, "data": data, "usage": _usage(found)}


def cosines(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> list[float]:
    """Of the angles between pairs of vectors, the first of which may be one for all; 0 where one of them is nothing."""
    import numpy

    one, other = numpy.asarray(first, numpy.float64), numpy.asarray(second, numpy.float64)
    sizes = numpy.linalg.norm(one, axis=1) * numpy.linalg.norm(other, axis=1)
    products = (one * other).sum(axis=1)
    return [float(x) for x in numpy.divide(products, sizes, out=numpy.zeros_like(products), where=sizes > 0)]


def _usage(found: Embedded) -> dict[str, int]:
    return {"prompt_tokens": found.prompt_tokens, "total_tokens": found.prompt_tokens}


def _known(body: bytes, engine: str, *names: str) -> Mapping[str, Any]:
    value = json_object(body)
    for name, given in value.items():
        if name not in UNUSED and name not in names and given is not None:
            raise wrong(name, f"The engine {engine} does not follow '{name}'.", f"It follows: {', '.join(names)}.")
    return value


def _texts(given: Any, name: str) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise wrong(name, f"'{name}' must be a text or a list of texts.", f'Send "{name}": ["first", "second"].')
    if len(texts) > MOST_TEXTS:
        raise wrong(name, f"'{name}' holds {len(texts)} texts, {MOST_TEXTS} at most.", "Send them in parts.")
    return texts
