"""How long texts are: characters, words, tokens of a model. Keeps four bytes a row and measure."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

from llm_os.spec.quality import Spread
from llm_os.tasks.preparation.words import is_word, pieces, written_in_han
from llm_os.tasks.quality.rows import Seen

BINS = 24


class Lengths:
    """Words are those of the language: Chinese is segmented.

    Args:
        tokens: counts the tokens that a model makes of a text; None: no model was named.
    """

    def __init__(self, tokens: Callable[[str], int] | None) -> None:
        self._tokens = tokens
        self._found = {name: array("L") for name in ("characters", "words", *(["tokens"] if tokens else []))}

    def add(self, seen: Seen) -> None:
        self._found["characters"].append(len(seen.text))
        self._found["words"].append(words(seen.text))
        if self._tokens is not None:
            self._found["tokens"].append(self._tokens(seen.text))

    def result(self) -> dict[str, Spread]:
        return {name: spread(values, logarithmic=True) for name, values in self._found.items() if len(values)}

    def beyond(self, most: int) -> int:
        """Rows with more tokens."""
        import numpy

        return int((numpy.asarray(self._found["tokens"]) > most).sum())


def words(text: str) -> int:
    return sum(is_word(piece) for piece in pieces(text, "zh" if written_in_han(text) else "unknown"))


def spread(values: Sequence[float] | array[int] | array[float], *, logarithmic: bool = False) -> Spread:
    """Quantiles and a histogram of at least one number.

    Args:
        logarithmic: bins of equal ratio, for lengths; otherwise of equal width.
    """
    import numpy

    ordered = numpy.sort(numpy.asarray(values, dtype=float))
    low, high = float(ordered[0]), float(ordered[-1])
    if high == low:
        edges = numpy.asarray([low, low + 1])
    elif logarithmic:
        edges = numpy.unique(numpy.round(numpy.geomspace(max(1.0, low), high + 1, BINS + 1)))
        edges[0] = low
    else:
        edges = numpy.linspace(low, high, BINS + 1)
    counts, edges = numpy.histogram(ordered, edges)
    points = {"min": 0.0, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}
    quantiles = {name: float(ordered[round(share * (len(ordered) - 1))]) for name, share in points.items()}
    return Spread(
        **quantiles,
        mean=round(float(ordered.mean()), 4),
        edges=tuple(float(edge) for edge in edges),
        counts=tuple(int(count) for count in counts),
    )
