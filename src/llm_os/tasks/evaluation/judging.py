"""What every evaluation shares: its options, and the report made of its metrics. Knows no model and no kind of data.

A report is a folder: `report.json` (all figures), `rows.jsonl` (one line a row: what was said, what it cost),
`statistics.npz` (what a comparison needs), and pictures.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from llm_os.errors import DataError, UnsupportedModelError
from llm_os.memory import serving
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json, Spec
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.evaluation.slices import AUTO, divide

if TYPE_CHECKING:
    from llm_os.tasks.evaluation.metrics import Metric

METHOD = "BCa bootstrap"
RUNTIME = 900 * 2**20
"""Bytes of interpreter and framework beside the weights."""


class EvaluationOptions(Spec):
    split: str = "test"
    """Split of the data set that is judged on."""
    start: int = Field(default=0, ge=0)
    """First row of the split."""
    stop: int | None = Field(default=None, ge=1)
    """Row to stop before; none: to the end."""
    batch_size: int = Field(default=64, ge=1)
    """Texts computed together."""
    slices: tuple[str, ...] = (AUTO,)
    """What the rows are divided by: columns, `length`, `language`; `auto`: columns with few values, and length."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Confidence of the intervals."""
    resamples: int = Field(default=2000, ge=100, le=100_000)
    """Bootstrap resamples of the intervals."""
    seed: int = 42
    """Of the resamples."""


@dataclass(slots=True)
class Judgement:
    """What an evaluation found, row by row.

    Attributes:
        kind: of evaluation, such as `classification`.
        metrics: figures over all rows. shown: names of those a person sees first; slices have these too.
        rows: rows of the data that were judged. texts: the text of each. targets: columns with texts or labels.
        said: what is kept of each row in `rows.jsonl`.
        further: figures without an interval (a confusion matrix, bins), as they stand in the report.
    """

    kind: str
    metrics: Sequence[Metric]
    shown: tuple[str, ...]
    rows: Sequence[Mapping[str, Any]]
    texts: Sequence[str]
    targets: tuple[str, ...]
    said: Sequence[Mapping[str, Json]]
    further: dict[str, Json] = field(default_factory=dict)
    notes: dict[str, Json] = field(default_factory=dict)
    """How the figures were made: normalisation, prompts, windows."""


def sized(model: ArtifactFacts, granted: Capacity, *, copies: float = 1.0) -> ResourceSpec:
    """What judging a model needs. `copies`: weights in memory, in sizes of the stored ones."""
    memory = serving.estimate(int(copies * model.size), overhead=RUNTIME)
    return ResourceSpec(cpus=min(0.5, granted.cpus), memory=memory)


def expect(inputs: Mapping[str, ArtifactFacts], tasks: Sequence[str], kinds: Sequence[str], what: str) -> None:
    """Raises UnsupportedModelError, DataError where model and data are not of these tasks and kinds."""
    model, data = inputs["model"].meta, inputs["data"]
    if model.get("task") not in tasks:
        raise UnsupportedModelError(
            f"A {model.get('task')} model cannot be judged by {what}.",
            hint=f"It takes a model for {' or '.join(tasks)}.",
        )
    if data.kind != "dataset":
        raise DataError(f"The input is a {data.kind}, not a data set.", hint="Give what load_data returned.")
    kind = data.meta.get("kind") or ("classification" if data.meta.get("labels") else "score")
    if kind not in kinds:
        raise DataError(
            f"Data of the kind '{kind}' cannot be judged by {what}.", hint=f"It takes {' or '.join(kinds)} data."
        )


def publish(context: Context, options: EvaluationOptions, judgement: Judgement) -> None:
    """Compute all figures, fill the output folder, and declare it as the report of this model on these rows."""
    from llm_os.tasks.evaluation.pictures import draw
    from llm_os.tasks.evaluation.resampling import intervals, resamples_for

    context.report(stage="intervals", step=0, total=0)
    settings: dict[str, Any] = {"confidence": options.confidence, "seed": options.seed}
    counted = intervals(judgement.metrics, resamples=options.resamples, **settings)
    metrics: dict[str, Json] = {
        metric.name: {"value": finite(i.value), "low": finite(i.low), "high": finite(i.high), "better": metric.better}
        for metric, i in zip(judgement.metrics, counted, strict=True)
    }
    figures: dict[str, Json] = {
        "kind": judgement.kind,
        "count": len(judgement.rows),
        "shown": list(judgement.shown),
        "metrics": metrics,
        "confidence": options.confidence,
        "interval": f"{METHOD}, {resamples_for(len(judgement.rows), options.resamples)} resamples, seed {options.seed}",
        "slices": sliced(judgement, options),
        "notes": judgement.notes,
        **judgement.further,
    }
    data, model = context.inputs["data"].facts, context.inputs["model"].facts
    about: dict[str, Json] = {
        "data": {"digest": data.digest, "name": data.meta.get("name"), "language": data.meta.get("language")},
        "model": model.digest,
        "split": options.split,
        "start": options.start,
        "stop": options.stop,
        "rows": fingerprint(judgement.rows),
    }
    whole = {**about, **figures}
    write(context.output, whole, judgement)
    for warning in draw(whole, context.output):
        context.message(warning)
    context.finish("report", {"report": judgement.kind, "count": len(judgement.rows), "metrics": metrics, **about})
    context.result(**whole)


def sliced(judgement: Judgement, options: EvaluationOptions) -> dict[str, Json]:
    """For each slice its rows and the shown figures with intervals (of at most 1000 resamples)."""
    from llm_os.tasks.evaluation.resampling import intervals

    shown = [metric for metric in judgement.metrics if metric.name in judgement.shown]
    found: dict[str, Json] = {}
    for name, parts in divide(judgement.rows, judgement.texts, options.slices, judgement.targets).items():
        table: dict[str, Json] = {}
        for value, rows in parts.items():
            part = [metric.part(rows) for metric in shown]
            counted = intervals(
                part, confidence=options.confidence, resamples=min(1000, options.resamples), seed=options.seed
            )
            table[value] = {
                "count": len(rows),
                **{
                    metric.name: [finite(one.value), finite(one.low), finite(one.high)]
                    for metric, one in zip(part, counted, strict=True)
                },
            }
        found[name] = table
    return found


def write(folder: Path, figures: Mapping[str, Json], judgement: Judgement) -> None:
    """`report.json`, `rows.jsonl` and `statistics.npz`."""
    import numpy as np

    text = json.dumps(figures, ensure_ascii=False, indent=1) + "\n"
    (folder / "report.json").write_text(text, encoding="utf-8")
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for said in judgement.said:
            file.write(json.dumps(said, ensure_ascii=False) + "\n")
    forms = {metric.name: [metric.form, metric.better] for metric in judgement.metrics}
    arrays: dict[str, Any] = {metric.name: metric.statistics for metric in judgement.metrics}
    arrays["(forms)"] = np.frombuffer(json.dumps(forms).encode(), dtype=np.uint8)
    np.savez_compressed(folder / "statistics.npz", **arrays)


def read_metrics(folder: Path) -> dict[str, Metric]:
    """The metrics of a report, by name, as they were written."""
    import numpy as np

    from llm_os.tasks.evaluation.metrics import Metric

    with np.load(folder / "statistics.npz", allow_pickle=False) as arrays:
        forms = json.loads(arrays["(forms)"].tobytes())
        return {name: Metric(name, form, arrays[name], better) for name, (form, better) in forms.items()}


def fingerprint(rows: Sequence[Mapping[str, Any]]) -> str:
    """`sha256:...` of the rows that were judged: two reports with the same one can be compared row by row."""
    whole = hashlib.sha256()
    for row in rows:
        whole.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return f"sha256:{whole.hexdigest()}"


def finite(value: float) -> float | None:
    """JSON knows no NaN: what is not defined is null."""
    return value if math.isfinite(value) else None
