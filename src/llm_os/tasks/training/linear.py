"""The best linear head on given features: logistic regression for classes, ridge regression for a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_os.errors import EmptyDataError
from llm_os.tasks.training.batches import hold_out

STRENGTHS = tuple(10.0 ** (power / 2) for power in range(-8, 1))
"""Inverses of the regularization that are tried, on features of variance one."""
UNSEEN = -20.0
"""Bias of a class that no row has."""
MOST_ROUNDS = 2000
"""Of the solver."""
TIED = 1e-9
"""How strongly the weights that stand for a bias are kept small, for each row, on features of size one."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What each row should be: class ids or numbers, and what else counts.

    Attributes:
        classes: how many; 0: a score.
        soft: probability of each class, in the place of its id. weights: what each class counts.
    """

    values: Sequence[float]
    classes: int
    soft: Sequence[Sequence[float]] | None = None
    weights: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class Head:
    """float64 [outputs, width] and [outputs], for features as they are."""

    weight: Any
    bias: Any

    def times(self, factor: float) -> Head:
        return Head(factor * self.weight, factor * self.bias)


@dataclass(frozen=True, slots=True)
class Solved:
    """A head, and what it did.

    Attributes:
        figures: `loss`, `validation_loss`, `validation_accuracy` of the head that did not learn the held-out rows.
        said: its outputs for those, float64 [rows, outputs]; None: there are none.
    """

    head: Head
    strength: float
    figures: Mapping[str, float]
    because: str
    said: Any


def solve(
    train: Any,
    targets: Targets,
    held: tuple[Any, Targets] | None,
    strength: float | None,
    *,
    learn_held: bool,
    seed: int,
    biased: bool = True,
) -> Solved:
    """The head for features `train`, float [rows, width].

    Args:
        held: features and targets to judge by. learn_held: they belong to the training rows, and are learnt at the end.
        strength: see STRENGTHS; None: the one that is best on `held` or, without, on a tenth of the rows.
        biased: whether the head may have a bias; else it is one of `without_bias` everywhere.

    Raises:
        EmptyDataError: too few rows to choose the strength by.
    """
    import numpy as np

    because = ""
    if strength is None:
        strength, because = _choose(train, targets, held, seed, biased)
    head = fit(train, targets, strength, biased)
    figures = {"loss": judge(outputs(head, train), targets)["loss"]}
    said = None
    if held is not None:
        said = outputs(head, held[0])
        figures |= {f"validation_{name}": value for name, value in judge(said, held[1]).items()}
        if learn_held:
            head = fit(np.concatenate([train, held[0]]), joined(targets, held[1]), strength, biased)
    return Solved(head, strength, figures, because, said)


def _choose(
    train: Any, targets: Targets, held: tuple[Any, Targets] | None, seed: int, biased: bool
) -> tuple[float, str]:
    if held is None:
        kept, out = hold_out(len(train), 0.1, seed, targets.values if targets.classes else None)
        if not kept or not out:
            raise EmptyDataError(
                f"{len(train)} rows are too few to choose the strength of the head by.",
                hint="Give more rows, or strength=0.01.",
            )
        held = train[out], _part(targets, out)
        train, targets = train[kept], _part(targets, kept)
    losses = {}
    for strength in STRENGTHS:
        head = fit(train, targets, strength, biased)
        losses[strength] = judge(outputs(head, held[0]), held[1])["loss"]
    best = min(losses, key=lambda strength: losses[strength])
    return best, f"strength {best:.2g}: of {len(losses)} the lowest loss, {losses[best]:.4f}, on {len(held[0])} rows."


def fit(features: Any, targets: Targets, strength: float, biased: bool = True) -> Head:
    """Standardizes, solves, and folds the standardization into the head."""
    import numpy as np

    wide = np.asarray(features, dtype=np.float64)
    mean, scale = wide.mean(0), wide.std(0)
    scale[scale < 1e-9] = 1.0
    weight, bias = solution((wide - mean) / scale, targets, strength)
    head = Head(weight / scale, bias - (weight / scale) @ mean)
    return head if biased else without_bias(head, wide)


def solution(matrix: Any, targets: Targets, strength: float) -> tuple[Any, Any]:
    """(weights [outputs, width], biases [outputs]) for a matrix, dense or sparse, as it is."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression, Ridge

    if not targets.classes:
        ridge = Ridge(alpha=1 / strength).fit(matrix, np.asarray(targets.values))
        return np.atleast_2d(ridge.coef_), np.atleast_1d(ridge.intercept_)
    rows, ids, counts = _weighed(targets)
    model = LogisticRegression(C=strength, max_iter=MOST_ROUNDS).fit(matrix[rows], ids, sample_weight=counts)
    weight, bias = np.zeros((targets.classes, matrix.shape[1])), np.full(targets.classes, UNSEEN)
    found = model.classes_.astype(int)
    if len(found) == 2:
        weight[found], bias[found] = np.outer([-0.5, 0.5], model.coef_[0]), [-0.5, 0.5] * model.intercept_
    else:
        weight[found], bias[found] = model.coef_, model.intercept_
    return weight, bias


def _weighed(targets: Targets) -> tuple[Any, Any, Any]:
    """(row, class id, weight) of everything that counts: a row of unsure class is there for each class."""
    import numpy as np

    ids = np.asarray(targets.values, dtype=int)
    if targets.soft is None:
        rows, counts = np.arange(len(ids)), np.ones(len(ids))
    else:
        soft = np.asarray(targets.soft)
        rows, ids = np.nonzero(soft)
        counts = soft[rows, ids]
    return rows, ids, counts if targets.weights is None else counts * np.asarray(targets.weights)[ids]


def outputs(head: Head, features: Any) -> Any:
    """float64 [rows, outputs]."""
    import numpy as np

    return np.asarray(features, dtype=np.float64) @ head.weight.T + head.bias


def judge(said: Any, targets: Targets) -> dict[str, float]:
    """`loss` of outputs [rows, outputs] (as `fit` weighs it) and, of classes, `accuracy`."""
    import numpy as np
    from scipy.special import log_softmax

    if not targets.classes:
        return {"loss": float(np.mean((said[:, 0] - np.asarray(targets.values)) ** 2))}
    rows, ids, counts = _weighed(targets)
    losses = -log_softmax(said, axis=1)[rows, ids]
    right = said.argmax(1) == np.asarray(targets.values, dtype=int)
    return {"loss": float((losses * counts).sum() / counts.sum()), "accuracy": float(right.mean())}


def blend(one: Any, other: Any, targets: Targets) -> tuple[float, float]:
    """Factors, not negative, of two outputs [rows, outputs] whose sum has the lowest loss."""
    from scipy.optimize import minimize

    found = minimize(
        lambda factors: judge(factors[0] * one + factors[1] * other, targets)["loss"],
        x0=(0.5, 0.5),
        bounds=((0, None), (0, None)),
        method="L-BFGS-B",
    )
    return float(found.x[0]), float(found.x[1])


def without_bias(head: Head, features: Any) -> Head:
    """A head of weights alone that does nearly what `head` does with its bias, for features like these.

    Heads of decoders have no bias. Their features hold a nearly constant direction: weights are found whose product
    with every row is nearly 1 (ridge regression), and the bias is put onto them.
    """
    import numpy as np

    wide = np.asarray(features, dtype=np.float64)
    size = np.sqrt((wide**2).mean(0))
    size[size < 1e-9] = 1.0
    scaled = wide / size
    gram = scaled.T @ scaled + TIED * len(wide) * np.eye(wide.shape[1])
    constant = np.linalg.solve(gram, scaled.sum(0)) / size
    bias = head.bias - head.bias.mean() if len(head.bias) > 1 else head.bias  # what all classes share says nothing
    return Head(head.weight + np.outer(bias, constant), np.zeros_like(head.bias))


def _part(targets: Targets, rows: Sequence[int]) -> Targets:
    soft = None if targets.soft is None else [targets.soft[row] for row in rows]
    return Targets([targets.values[row] for row in rows], targets.classes, soft, targets.weights)


def joined(one: Targets, two: Targets) -> Targets:
    soft = None if one.soft is None or two.soft is None else [*one.soft, *two.soft]
    return Targets([*one.values, *two.values], one.classes, soft, one.weights)
