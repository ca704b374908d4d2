"""Which precision serves an encoder: the fastest that says what PyTorch says in fp32; must not know an engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_os.errors import LLMOSError
from llm_os.models.embedding import Encoder
from llm_os.models.load import Classifier
from llm_os.models.tagging import Tagger
from llm_os.spec.parity import ScoredText
from llm_os.tasks.evaluation.prompts import ours
from llm_os.tasks.evaluation.reference import CUTS, beginnings
from llm_os.workers.parity import complaints, of_scores
from llm_os.workers.torch import AGREES, FASTER, best_time, distance

Runnable = Classifier | Encoder | Tagger
LEAST_COSINE = 0.99
"""Of a text's vector and that of the reference."""
TIMED = 16
"""Texts by which precisions are timed: one batch."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A precision with its model, and why it is that one, for the log."""

    precision: str
    model: Any
    why: str


def check_texts() -> list[str]:
    """A quarter of what `evaluation/reference` asks, halves of its texts: enough for a choice in the start."""
    return beginnings(ours())[1::CUTS]


def choose(runnable: Runnable, models: Mapping[str, Callable[[], Any]]) -> Chosen:
    """The fastest model that agrees; the first one where no other is much faster.

    Args:
        runnable: with the reference, PyTorch in fp32; it is unchanged afterwards.
        models: by precision, the plainest first, which agrees by its making. One that raises is told of and left.
    """
    texts = check_texts()
    expected = runnable.predict(_given(runnable, texts))
    reference = runnable.model
    told: list[str] = []
    best: tuple[float, str, Any] | None = None
    for precision, make in models.items():
        try:
            model = runnable.model = make()
            if best is not None and (wrong := differs(runnable, expected, runnable.predict(_given(runnable, texts)))):
                told.append(f"{precision} differs: {wrong}")
                continue
            seconds = best_time(runnable.predict, _given(runnable, sorted(texts, key=len)[-TIMED:]))
        except (LLMOSError, RuntimeError) as error:  # the latter by OpenVINO, for what this processor cannot
            if best is None:
                raise
            told.append(f"{precision}: {(str(error).strip() or type(error).__name__).splitlines()[-1][:200]}")
            continue
        finally:
            runnable.model = reference
        told.append(f"{precision} {seconds * 1000:.1f} ms")
        if best is None or seconds * FASTER < best[0]:
            best = seconds, precision, model
    assert best is not None  # noqa: S101 - the first one raises or is taken
    return Chosen(best[1], best[2], f"{', '.join(told)} for {TIMED} texts")


def _given(runnable: Runnable, texts: Sequence[str]) -> list[Any]:
    """The texts as its `predict` takes them."""
    return [text.split() or [text] for text in texts] if isinstance(runnable, Tagger) else list(texts)


def differs(runnable: Runnable, expected: Sequence[Any], got: Sequence[Any]) -> str:
    """Why these answers are not as good as the expected ones; empty: they are. Limits of `workers.parity`."""
    if isinstance(runnable, Encoder):
        least = min(map(cosine, expected, got))
        return "" if least >= LEAST_COSINE else f"a cosine is {least:.4f}, {LEAST_COSINE} must be"
    if isinstance(runnable, Classifier) and not runnable.labels:
        apart = distance(expected, got, False)
        return "" if apart <= AGREES else f"a value differs by {apart:.3g} of itself, {AGREES} may"
    if isinstance(runnable, Tagger):
        pairs = [pair for one, two in zip(expected, got, strict=True) for pair in zip(one, two, strict=True)]
        rows = [({label: sure}, {other: score}) for (label, sure), (other, score) in pairs]
    else:
        named = [[dict(zip(runnable.labels, row, strict=True)) for row in rows] for rows in (expected, got)]
        rows = list(zip(*named, strict=True))
    if any(score != score for _, other in rows for score in other.values()):
        return "a score is no number"
    scored = [ScoredText(text="", scores=one) for one, _ in rows]
    return "; ".join(complaints(of_scores(scored, [two for _, two in rows])))


def cosine(one: Sequence[float], two: Sequence[float]) -> float:
    """Of two vectors of one width; 0 where one is no number or nothing."""
    product = sum(a * b for a, b in zip(one, two, strict=True))
    lengths = math.sqrt(sum(a * a for a in one) * sum(b * b for b in two))
    return product / lengths if lengths > 0 else 0.0
