"""Labels that are probably wrong: a linear model that was trained on other rows is confidently of another opinion.

Source: Northcutt, Jiang and Chuang 2021, Confident Learning, sections 3.1 and 3.2: out-of-sample probabilities, a
threshold for each class (its mean probability over the rows so labelled), doubtful is who passes the threshold of
another class. Ranked by the margin between both. For scores the same idea with residuals.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llm_os.spec.quality import Doubt, Doubts, RowRef
from llm_os.tasks.preparation.near import normal_form
from llm_os.tasks.preparation.words import written_in_han

if TYPE_CHECKING:
    import numpy

FOLDS = 5
FEWEST = 10
"""Rows that a class needs, so that a model can have an opinion of it."""
FEATURES = 2**20
"""Terms are hashed, so that memory does not grow with the vocabulary."""
READ = 4000
"""Characters of a text that an opinion is formed of."""
MOST_CHARACTERS = 5_000_000
"""Of all texts together: about 60 bytes of memory each where they are Chinese."""
MOST_CLASSES = 50
OUTLIER = 4.0
"""Robust standard deviations from which a score is doubtful."""
Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Sheet:
    """Texts with what they are labelled, one entry for each label that is judged.

    Attributes:
        shown: for people, masked. unit: entries of one unit are never on both sides of a fold.
    """

    at: list[RowRef] = field(default_factory=list)
    texts: list[Any] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    unit: list[int] = field(default_factory=list)
    rows: int = 0
    characters: int = 0

    @property
    def full(self) -> bool:
        return self.characters >= MOST_CHARACTERS

    def add(self, at: RowRef, text: str | list[str], label: Any, shown: str, unit: str) -> None:
        read = text[:READ] if isinstance(text, str) else text
        self.rows += not self.at or self.at[-1] != at
        self.characters += len(read) if isinstance(read, str) else sum(map(len, read))
        self.at.append(at)
        self.texts.append(read)
        self.labels.append(label)
        self.shown.append(shown)
        self.unit.append(hash_of(unit))


def hash_of(text: str) -> int:
    """The same on every machine and in every process."""
    import hashlib

    return int.from_bytes(hashlib.blake2b(normal_form(text).encode("utf-8", "replace"), digest_size=6).digest(), "big")


def classes(sheet: Sheet, most: int, progress: Progress) -> Doubts | None:
    """Doubts about one label a row; None where there are too few rows for an opinion."""
    import numpy

    found = Counter(sheet.labels)
    names = sorted(name for name, count in found.items() if count >= FEWEST)
    if len(names) < 2 or len(names) > MOST_CLASSES:
        return None
    kept = [i for i, label in enumerate(sheet.labels) if found[label] >= FEWEST]
    given = numpy.asarray([names.index(sheet.labels[i]) for i in kept])
    features, method = vectors([sheet.texts[i] for i in kept])
    chances = probabilities(features, given, [sheet.unit[i] for i in kept], len(names), progress)
    likely, margin, doubtful = confident(chances, given)
    order = [int(i) for i in numpy.argsort(margin, kind="stable") if doubtful[i]]
    confused = Counter(f"{names[given[i]]} -> {names[likely[i]]}" for i in order)
    return Doubts(
        method=f"{method}, logistic regression, {FOLDS} folds",
        looked_at=len(kept),
        agreement=round(float((chances.argmax(1) == given).mean()), 4),
        count=len(order),
        confused=dict(confused.most_common(20)),
        rows=tuple(
            Doubt(
                at=sheet.at[kept[i]],
                label=names[given[i]],
                likely=names[likely[i]],
                margin=round(float(margin[i]), 4),
                excerpt=sheet.shown[kept[i]],
            )
            for i in order[:most]
        ),
    )


def confident(chances: numpy.ndarray, given: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """(likely other class, margin, doubtful) of each row.

    Args:
        chances: [rows, classes], out of sample. given: [rows], ids of the labels.
    """
    import numpy

    rows = numpy.arange(len(given))
    bars = numpy.asarray([chances[given == k, k].mean() for k in range(chances.shape[1])])
    others = chances.copy()
    others[rows, given] = -1.0
    passing = numpy.where(others >= bars, others, -1.0)
    likely = numpy.where(passing.max(1) >= 0, passing.argmax(1), others.argmax(1))
    margin = chances[rows, given] - others[rows, likely]
    return likely, margin, (passing.max(1) >= 0) & (margin < 0)


def probabilities(
    features: Any, given: numpy.ndarray, units: Sequence[int], count: int, progress: Progress
) -> numpy.ndarray:
    """[rows, classes]: of each row by a model that saw none of its unit."""
    import numpy
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    fold = numpy.asarray(units) % FOLDS
    chances = numpy.zeros((len(given), count))
    for part in range(FOLDS):
        progress(part, FOLDS)
        inside = fold == part
        seen = numpy.unique(given[~inside])
        if not inside.any() or len(seen) < 2:
            continue
        model: Any = LogisticRegression(C=4.0, solver="liblinear", tol=1e-2)
        model = model if len(seen) == 2 else OneVsRestClassifier(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # an opinion need not be exact
            model.fit(features[~inside], given[~inside])
        chances[numpy.ix_(inside, model.classes_)] = model.predict_proba(features[inside])
    return chances


def vectors(texts: Sequence[Any]) -> tuple[Any, str]:
    """TF-IDF, and how it was made: one or two words; 1 to 3 characters of Chinese; lists are features as they are."""
    import numpy
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    how: dict[str, Any]
    if isinstance(texts[0], list):
        how, method = {"analyzer": _as_they_are}, "words around a token"
    elif sum(written_in_han(text) for text in texts) * 2 > len(texts):
        how, method = {"analyzer": "char", "ngram_range": (1, 3)}, "TF-IDF of 1 to 3 characters"
    else:
        how, method = {"ngram_range": (1, 2)}, "TF-IDF of 1 to 2 words"
    hashing: Any = HashingVectorizer(n_features=FEATURES, alternate_sign=False, norm=None, dtype=numpy.float32, **how)
    counts = hashing.transform(texts)
    twice = numpy.bincount(counts.indices, minlength=FEATURES) >= 2
    kept = counts[:, twice] if twice.any() else counts
    return TfidfTransformer(sublinear_tf=True).fit_transform(kept), method


def _as_they_are(listed: list[str]) -> list[str]:
    return listed


def several(sheet: Sheet, most: int, progress: Progress) -> Doubts | None:
    """Doubts about rows with any number of labels: each class is judged for itself, by yes and no."""
    import numpy

    found = Counter(name for names in sheet.labels for name in names)
    names = [name for name, n in found.most_common(MOST_CLASSES) if FEWEST <= n <= len(sheet.labels) - FEWEST]
    if not names:
        return None
    features, method = vectors(sheet.texts)
    agreed, confused, found_rows = 0, Counter[str](), []
    for done, name in enumerate(names):
        given = numpy.asarray([int(name in labels) for labels in sheet.labels])
        progress(done, len(names))
        chances = probabilities(features, given, sheet.unit, 2, lambda _part, _parts: None)
        agreed += int((chances.argmax(1) == given).sum())
        _, margin, doubtful = confident(chances, given)
        confused[f"{name} -> not {name}"] += int((doubtful & (given == 1)).sum())
        confused[f"not {name} -> {name}"] += int((doubtful & (given == 0)).sum())
        found_rows += [(float(margin[i]), int(i), name, bool(given[i])) for i in numpy.flatnonzero(doubtful)]
    found_rows.sort()
    return Doubts(
        method=f"{method}, logistic regression for each class, {FOLDS} folds",
        looked_at=len(sheet.texts),
        agreement=round(agreed / (len(names) * len(sheet.texts)), 4),
        count=len(found_rows),
        confused={pair: count for pair, count in confused.most_common(20) if count},
        rows=tuple(
            Doubt(
                at=sheet.at[i],
                label=name if has else f"not {name}",
                likely=f"not {name}" if has else name,
                margin=round(margin, 4),
                excerpt=sheet.shown[i],
            )
            for margin, i, name, has in found_rows[:most]
        ),
    )


def scores(sheet: Sheet, most: int, progress: Progress) -> Doubts | None:
    """Doubts about numbers: far from what a ridge regression says that did not see them."""
    import numpy
    from sklearn.linear_model import Ridge

    if len(sheet.texts) < 10 * FOLDS:
        return None
    given = numpy.asarray(sheet.labels, dtype=float)
    features, method = vectors(sheet.texts)
    fold, said = numpy.asarray(sheet.unit) % FOLDS, numpy.full(len(given), given.mean())
    for part in range(FOLDS):
        progress(part, FOLDS)
        inside = fold == part
        if inside.any() and not inside.all():
            said[inside] = (
                Ridge(alpha=1.0, solver="sparse_cg", tol=1e-3)
                .fit(features[~inside], given[~inside])
                .predict(features[inside])
            )
    off = given - said
    deviation = 1.4826 * float(numpy.median(numpy.abs(off - numpy.median(off)))) or float(off.std()) or 1.0
    distance = numpy.abs(off) / deviation
    order = [int(i) for i in numpy.argsort(-distance, kind="stable") if distance[i] > OUTLIER]
    variance = float(((given - given.mean()) ** 2).sum())
    return Doubts(
        method=f"{method}, ridge regression, {FOLDS} folds",
        looked_at=len(given),
        agreement=round(1 - float((off**2).sum()) / variance, 4) if variance else 0.0,
        count=len(order),
        rows=tuple(
            Doubt(
                at=sheet.at[i],
                label=f"{given[i]:g}",
                likely=f"{said[i]:.2f}",
                margin=round(-float(distance[i]), 2),
                excerpt=sheet.shown[i],
            )
            for i in order[:most]
        ),
    )


def around(tokens: Sequence[str], place: int) -> list[str]:
    """Features of one token: itself, its end and shape, its neighbours."""
    token = tokens[place]
    before = tokens[place - 1].lower() if place else "<"
    after = tokens[place + 1].lower() if place + 1 < len(tokens) else ">"
    shape = "".join("X" if c.isupper() else "x" if c.islower() else "9" if c.isdigit() else c for c in token[:6])
    return [f"is {token.lower()}", f"ends {token[-3:].lower()}", f"like {shape}", f"after {before}", f"before {after}"]
