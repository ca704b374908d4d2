"""What an evaluation gives back: its figures as attributes, their intervals, and the whole report as text and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_os.client import tables
from llm_os.client.connection import Connection
from llm_os.client.exports import copied_out
from llm_os.client.jobs import run
from llm_os.errors import UnsupportedModelError
from llm_os.spec.jobs import Job, JobSpec


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Precision, recall and F1, of one class or macro; `support` is the number of rows."""

    precision: float
    recall: float
    f1: float
    support: int | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `model.evaluate` gives back. Figures that this kind of evaluation does not have are None.

    Attributes:
        accuracy: share of rows that were right.
        loss: mean cross entropy in nats (regression: mean squared error).
        per_class: by class name. macro: plain mean over classes.
        confusion: rows are true classes, columns what was said, both in the order of `labels`.
        count: rows that were judged.
        metrics: every figure by name (`macro_f1`, `ece`, `brier`, `perplexity`, `rouge_l` ...).
        intervals: (low, high) of every figure, at `confidence`; how they were made stands in `report["interval"]`.
        slices: column -> value -> `count` and, for the main figures, [value, low, high].
        version, data, job: what was judged, on what, by which job.
        report: everything, as it is kept.
    """

    loss: float | None
    count: int
    accuracy: float | None = None
    labels: tuple[str, ...] | None = None
    per_class: Mapping[str, ClassScore] | None = None
    macro: ClassScore | None = None
    confusion: Sequence[Sequence[int]] | None = None
    mean_absolute_error: float | None = None
    r2: float | None = None
    kind: str = "classification"
    metrics: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    confidence: float = 0.95
    slices: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    version: str = ""
    data: str = ""
    job: str = ""
    artifact: str = ""
    """Content address of the report."""
    report: Mapping[str, Any] = field(default_factory=dict, repr=False)
    _connection: Connection | None = field(default=None, repr=False, compare=False)

    @property
    def precision(self) -> Mapping[str, float] | None:
        """By class, and `macro`."""
        return self._named("precision")

    @property
    def recall(self) -> Mapping[str, float] | None:
        """By class, and `macro`."""
        return self._named("recall")

    @property
    def f1(self) -> Mapping[str, float] | None:
        """By class, and `macro`."""
        return self._named("f1")

    @property
    def ece(self) -> float | None:
        """Expected calibration error: how far confidence and accuracy lie apart, in 15 bins."""
        return self.metrics.get("ece")

    @property
    def brier(self) -> float | None:
        """Mean squared distance of the probabilities to the truth, over all classes (0 to 2)."""
        return self.metrics.get("brier")

    def _named(self, what: str) -> Mapping[str, float] | None:
        if self.per_class is None or self.macro is None:
            return None
        return {name: getattr(score, what) for name, score in {**self.per_class, "macro": self.macro}.items()}

    def describe(self) -> str:
        """Everything as text: intervals, classes, confusion, calibration, slices."""
        return tables.described(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON knows it."""
        return {"version": self.version, "job": self.job, "artifact": self.artifact, **self.report}

    def save(self, folder: str | Path) -> Path:
        """Copy the report into a new folder: `report.json`, `rows.jsonl` (each row), pictures as PNG files.

        Raises:
            ConflictError: the folder holds something.
        """
        if self._connection is None:
            raise ValueError("this evaluation came without its connection")
        return copied_out(self._connection, self.artifact, folder)

    def __str__(self) -> str:
        """The main figures, a line each."""
        shown = self.report.get("shown") or ["accuracy", "loss"]
        plain = {"accuracy": self.accuracy, "loss": self.loss}
        found = [(name, self.metrics.get(name, plain.get(name))) for name in shown]
        lines = [f"{tables.title(name)}: {tables.number(value)}" for name, value in found]
        return "\n".join(["Model evaluation:", *lines])


def evaluation(job: Job, version: str = "", connection: Connection | None = None) -> Evaluation:
    """From the job of an evaluation."""
    values: dict[str, Any] = {name: value for name, value in job.result.items() if name not in BOOKKEEPING}
    metrics, intervals = {}, {}
    for name, figure in values["metrics"].items():
        if figure["value"] is not None:
            metrics[name] = figure["value"]
        if figure["low"] is not None:
            intervals[name] = (figure["low"], figure["high"])
    per_class, macro = values.get("per_class"), values.get("macro")
    labels = values.get("labels")
    data = values.get("data") or {}
    return Evaluation(
        loss=values.get("loss", metrics.get("loss")),
        count=values["count"],
        accuracy=values.get("accuracy", metrics.get("accuracy")),
        labels=tuple(labels) if labels else None,
        per_class={
            name: ClassScore(score["precision"], score["recall"], score["f1"], int(score["support"]))
            for name, score in per_class.items()
        }
        if per_class
        else None,
        macro=ClassScore(macro["precision"], macro["recall"], macro["f1"]) if macro else None,
        confusion=values.get("confusion"),
        mean_absolute_error=values.get("mean_absolute_error"),
        r2=values.get("r2"),
        kind=values["kind"],
        metrics=metrics,
        intervals=intervals,
        confidence=values["confidence"],
        slices=values["slices"],
        version=version,
        data=f"{data.get('name')}/{values.get('split')}",
        job=job.id,
        artifact=str(job.result["artifact"]),
        report=values,
        _connection=connection,
    )


BOOKKEEPING = frozenset({"artifact", "parent", "usage", "version"})
"""What the kernel adds to a result; no figures."""


@dataclass(frozen=True, slots=True)
class Difference:
    """`a - b` in one figure.

    Attributes:
        low, high: interval of the difference. p: two-sided, by `test`.
        better: `a`, `b`, or None where it is not certain at the confidence asked for.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float
    test: str
    better: str | None
    direction: str
    unit: str

    def sentence(self, name: str, confidence: float) -> str:
        """`A is better by 1.2 points of accuracy (95 % interval 0.4 to 2.0), p = 0.003 (McNemar, exact).`"""
        times = 100 if self.unit == "points" else 1
        sign = 1 if self.difference > 0 else -1
        ahead = "A" if (self.difference > 0) == (self.direction == "higher") else "B"
        low, high = sorted((sign * self.low * times, sign * self.high * times))
        amount, bounds = rounded(abs(self.difference) * times), f"{rounded(low)} to {rounded(high)}"
        by = f"{amount} points of {tables.inline(name)}" if times == 100 else f"{amount} in {tables.inline(name)}"
        sure = f"({confidence * 100:g} % interval {bounds}), {tables.chance(self.p)}"
        if self.difference == 0:
            return f"Both are alike in {tables.inline(name)} {sure} ({self.test})."
        if self.better is None:
            return f"No difference is certain: {ahead} is ahead by {by} {sure} ({self.test})."
        return f"{self.better.upper()} is better by {by} {sure} ({self.test})."


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `model.evaluate(data, against=other)` gives back; `a` is the model itself, `b` the other one.

    Attributes:
        differences: by figure; the first is the main one.
        not_compared: figures left out, and why.
    """

    a: Evaluation
    b: Evaluation
    differences: Mapping[str, Difference]
    not_compared: Mapping[str, str]
    confidence: float
    count: int
    report: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def better(self) -> str | None:
        """Version that is better in the main figure; None where it is not certain."""
        main = next(iter(self.differences.values()), None)
        return {"a": self.a.version, "b": self.b.version}.get(main.better or "") if main else None

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON knows it."""
        return {"a": self.a.version, "b": self.b.version, "better": self.better, **self.report}

    def describe(self) -> str:
        """All figures of both, with the interval of each difference and its p."""
        rows = [
            (
                tables.title(name),
                tables.number(d.a),
                tables.number(d.b),
                f"{d.difference:+.4f}",
                tables.between(d.low, d.high),
                f"{d.p:.4f}",
            )
            for name, d in self.differences.items()
        ]
        whole = tables.table(("", "A", "B", "A - B", f"{self.confidence * 100:g} % interval", "p"), rows)
        left = "".join(f"\n{tables.title(name)}: {why}." for name, why in self.not_compared.items())
        return f"{self._head()}\n{whole}{left}"

    def _head(self) -> str:
        return f"A: {self.a.version}, B: {self.b.version}, {self.count:,} rows of {self.a.data}"

    def __str__(self) -> str:
        shown = [name for name in self.a.report["shown"] if name in self.differences] or list(self.differences)[:1]
        both = [(name, self.differences[name]) for name in shown]
        lines = [f"{tables.title(name)}: A {tables.number(d.a)}, B {tables.number(d.b)}" for name, d in both]
        return "\n".join([self._head(), *lines, *(d.sentence(name, self.confidence) for name, d in both)])


def compare_evaluations(connection: Connection, a: Evaluation, b: Evaluation, options: Mapping[str, Any]) -> Comparison:
    """Have two evaluations compared, with those options of theirs that a comparison has too."""
    wanted = {name: options[name] for name in ("confidence", "resamples", "seed") if name in options}
    spec = JobSpec(task="evaluation/compare", options=wanted, inputs={"a": a.artifact, "b": b.artifact})
    return comparison(run(connection, spec, f"Comparing {a.version} and {b.version}"), a, b)


def comparison(job: Job, a: Evaluation, b: Evaluation) -> Comparison:
    """From the job of a comparison and the two evaluations it compared."""
    values: dict[str, Any] = {name: value for name, value in job.result.items() if name not in BOOKKEEPING}
    found = {name: Difference(**one) for name, one in values["differences"].items() if one["difference"] is not None}
    main = [name for name in a.report["shown"] if name in found]
    ordered = {name: found[name] for name in [*main, *(name for name in found if name not in main)]}
    return Comparison(a, b, ordered, values["not_compared"], values["confidence"], values["count"], values)


def rounded(value: float) -> str:
    """Two digits that count: `12`, `1.2`, `0.0042`."""
    value += 0.0  # there is no minus zero
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.2g}"


METHODS: Mapping[tuple[str, str], str] = {
    ("text-classification", "classification"): "classification",
    ("text-classification", "score"): "classification",
    ("multi-label-classification", "multi-label"): "multi_label",
    ("token-classification", "tokens"): "tokens",
    ("feature-extraction", "pairs"): "embeddings",
    ("sentence-similarity", "pairs"): "embeddings",
    ("text2text-generation", "pairs"): "generation",
    ("text-generation", "text"): "perplexity",
    ("text-generation", "chat"): "generation",
    ("text-generation", "pairs"): "generation",
    ("text-generation", "choices"): "choices",
}
"""(task of the model, kind of the data) -> how it is judged when nobody says."""


def method_for(task: str, kind: str) -> str:
    """Raises UnsupportedModelError with what the model can be judged on."""
    if (task, kind) in METHODS:
        return METHODS[task, kind]
    kinds = [known for known_task, known in METHODS if known_task == task]
    if task == "feature-extraction" and kind not in kinds:
        raise UnsupportedModelError(
            f"This model has no head for {kind} data, so there is nothing to evaluate.",
            hint="Train it first: model.train(data).",
        )
    raise UnsupportedModelError(
        f"A {task} model cannot be evaluated on data of the kind '{kind}'.",
        hint=f"It can on: {', '.join(kinds)}." if kinds else "Choose another model.",
    )
