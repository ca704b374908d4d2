"""Which texts are nearly the same: MinHash finds candidates, their exact Jaccard similarity decides.

Source: Broder 1997 (resemblance of shingle sets); banding as in Leskovec, Rajaraman and Ullman, Mining of Massive
Datasets, section 3.4. The signatures are rensa's; the index is ours, because one that gives every pair takes time and
memory with the square of the texts that share a template.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy

PERMUTATIONS = 120
CHUNK = 2000
KEPT = 4096
"""Texts whose n-grams are kept for the next comparison."""
LOOKED = 256
"""Groups of one bucket that a text is held against, at most."""
TRIED = 4
"""Texts of such a group that it is held against, at most."""
SLACK = 0.12
"""A pair whose signatures agree less than the threshold by more than this is not looked at: 3.3 standard deviations of
the estimate at 0.8."""
IDEOGRAPHS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
RECALL = 0.99
"""Least chance that a pair at the threshold becomes a candidate."""


def normal_form(text: str) -> str:
    """Texts that are equal in this form count as the same: Unicode NFKC, no case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def shingles(form: str) -> set[str]:
    """Character n-grams of a text in normal form: 3 characters where a fifth of it is Chinese, Japanese or Korean,
    otherwise 5; the text itself where it is shorter."""
    size = 3 if 5 * len(IDEOGRAPHS.findall(form)) >= len(form) else 5
    if len(form) <= size:
        return {form}
    return {form[at : at + size] for at in range(len(form) - size + 1)}


def similarity(one: set[str], other: set[str]) -> float:
    """Jaccard similarity, 0 to 1."""
    return len(one & other) / max(1, len(one | other))


def bands(threshold: float) -> int:
    """The fewest bands that find a pair at the threshold with at least `RECALL`."""
    fitting = [b for b in range(1, PERMUTATIONS + 1) if PERMUTATIONS % b == 0]
    for count in fitting:
        if 1 - (1 - threshold ** (PERMUTATIONS // count)) ** count >= RECALL:
            return count
    return PERMUTATIONS


def near_pairs(count: int, form: Callable[[int], str], threshold: float) -> Iterator[tuple[int, int, float]]:
    """(i, j, similarity) with i < j of texts at least `threshold` similar, enough of them to link whole groups.

    A pair whose texts are linked by earlier pairs already is left out, so that texts of one template, which are all
    alike, take a pair each and not one for every two of them. Equal forms should be given once only.

    Args:
        form: text number -> its normal form; may be called several times a text.
    """
    import numpy

    own = lru_cache(maxsize=KEPT)(lambda i: shingles(form(i)))
    signs = signatures(count, form)
    links = Links(count)
    least = threshold - SLACK
    for bucket in buckets(signs, bands(threshold)):
        seen: dict[int, list[int]] = {}
        for i in bucket:
            groups_near = [members for root, members in seen.items() if links.root(root) != links.root(i)]
            others = numpy.asarray([j for members in groups_near[-LOOKED:] for j in members], dtype=numpy.int64)
            for j in others[(signs[others] == signs[i]).mean(axis=1) >= least].tolist() if len(others) else ():
                if links.root(i) != links.root(j) and (found := similarity(own(i), own(j))) >= threshold:
                    links.join(i, j)
                    yield min(i, j), max(i, j), found
            members = seen.setdefault(links.root(i), [])
            if len(members) < TRIED:
                members.append(i)


def signatures(count: int, form: Callable[[int], str]) -> numpy.ndarray:
    """MinHash signatures: (texts, PERMUTATIONS), 480 bytes a text."""
    import numpy
    import rensa

    signs = numpy.empty((count, PERMUTATIONS), dtype=numpy.uint32)
    for begin in range(0, count, CHUNK):
        end = min(count, begin + CHUNK)
        sets = (shingles(form(i)) for i in range(begin, end))
        signs[begin:end] = rensa.RMinHash.digests_from_token_sets(sets, PERMUTATIONS, 1)
    return signs


def buckets(signs: numpy.ndarray, count: int) -> Iterator[list[int]]:
    """Texts that agree in one of `count` bands, two or more, ascending; band after band."""
    import numpy

    for band in numpy.split(signs, count, axis=1):
        keys = numpy.ascontiguousarray(band).view(numpy.dtype((numpy.void, band.shape[1] * 4))).ravel()
        _, inverse = numpy.unique(keys, return_inverse=True)
        order = numpy.argsort(inverse, kind="stable")
        borders = numpy.flatnonzero(numpy.diff(inverse[order])) + 1
        starts, ends = numpy.r_[0, borders], numpy.r_[borders, len(order)]
        for start, end in zip(starts, ends, strict=True):
            if end - start > 1:
                yield order[start:end].tolist()


class Links:
    """Who belongs together: a forest in which every root is the smallest of its group."""

    def __init__(self, count: int) -> None:
        self._roots = list(range(count))

    def root(self, i: int) -> int:
        roots = self._roots
        while roots[i] != i:
            roots[i] = roots[roots[i]]
            i = roots[i]
        return i

    def join(self, i: int, j: int) -> None:
        a, b = self.root(i), self.root(j)
        self._roots[max(a, b)] = min(a, b)


def groups(count: int, pairs: Iterator[tuple[int, int, float]]) -> Sequence[int]:
    """For each text the smallest number in its group; who is paired with one of a group belongs to it."""
    links = Links(count)
    for i, j, _ in pairs:
        links.join(i, j)
    return [links.root(i) for i in range(count)]
