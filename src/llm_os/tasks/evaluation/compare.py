"""Compares two evaluations of the same rows: which version is better, by how much, and how sure that is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from llm_os.errors import DataError, InvalidInputError, InvalidOptionError, did_you_mean
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json, Spec
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.evaluation.judging import METHOD, finite, read_metrics
from llm_os.tasks.task import Task


class CompareOptions(Spec):
    metrics: tuple[str, ...] = ()
    """Figures to compare; none: all that both have."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Confidence of the intervals; a version is called better where also p is below one minus this."""
    resamples: int = Field(default=2000, ge=100, le=100_000)
    """Bootstrap resamples of the intervals."""
    seed: int = 42
    """Of resamples and permutations."""


class Compare(Task[CompareOptions]):
    Options = CompareOptions
    inputs = ("a", "b")
    output = "report"
    cacheable = True

    def resources(
        self, options: CompareOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity
    ) -> ResourceSpec:
        a, b = inputs["a"], inputs["b"]
        for role, facts in inputs.items():
            if facts.kind != "report" or "rows" not in facts.meta:
                raise InvalidInputError(
                    f"'{role}' is a {facts.kind}, not a report of an evaluation.", hint="Evaluate both models first."
                )
        if a.meta["report"] != b.meta["report"]:
            raise DataError(
                f"One model was judged by {a.meta['report']}, the other by {b.meta['report']}.",
                hint="Only two evaluations of one kind can be compared.",
            )
        if a.meta["rows"] != b.meta["rows"]:
            raise DataError(
                f"The two were judged on different rows ({_rows(a)} and {_rows(b)}).",
                hint="Evaluate both on the same split of the same data.",
            )
        return ResourceSpec(cpus=min(0.5, granted.cpus), memory=512 * 2**20)

    def run(self, context: Context, options: CompareOptions) -> None:
        from llm_os.tasks.evaluation.resampling import compare

        a, b = (read_metrics(context.inputs[role].path) for role in ("a", "b"))
        both = [name for name in a if name in b]
        for name in options.metrics:
            if name not in both:
                raise InvalidOptionError(f"There is no figure '{name}' in both.", hint=did_you_mean(name, both))
        differences: dict[str, Json] = {}
        passed: dict[str, Json] = {}
        wanted = list(options.metrics) or both
        for step, name in enumerate(wanted, 1):
            why = incomparable(a[name], b[name])
            if why:
                passed[name] = why
                continue
            found = compare(
                a[name], b[name], confidence=options.confidence, resamples=options.resamples, seed=options.seed
            )
            sure = found.better if found.p < 1 - options.confidence else None
            differences[name] = {
                "a": finite(found.a),
                "b": finite(found.b),
                "difference": finite(found.difference),
                "low": finite(found.low),
                "high": finite(found.high),
                "p": found.p,
                "test": found.test,
                "better": sure,
                "direction": a[name].better,
                "unit": "points" if a[name].in_points else "",
            }
            context.report(stage="comparing", step=step, total=len(wanted))
        first = context.inputs["a"].facts.meta
        figures: dict[str, Json] = {
            "kind": "comparison",
            "count": first["count"],
            "differences": differences,
            "not_compared": passed,
            "confidence": options.confidence,
            "interval": f"paired {METHOD}, {options.resamples} resamples, seed {options.seed}",
            "models": {role: context.inputs[role].facts.meta["model"] for role in ("a", "b")},
            "data": first["data"],
            "split": first["split"],
        }
        text = json.dumps(figures, ensure_ascii=False, indent=1) + "\n"
        (context.output / "report.json").write_text(text, encoding="utf-8")
        context.finish("report", {"report": "comparison", "count": first["count"]})
        context.result(**figures)


def incomparable(a: Any, b: Any) -> str:
    """Why a figure of one says nothing beside the other's; empty where it does."""
    if a.form != b.form or a.statistics.shape != b.statistics.shape:
        return "the two models have different classes"
    per_unit = a.form in {"ratio", "exponential"} and not (a.statistics[:, 1] == b.statistics[:, 1]).all()
    return "the two models cut texts into different tokens; compare figures per byte" if per_unit else ""


def _rows(facts: ArtifactFacts) -> str:
    data = facts.meta.get("data")
    name = data.get("name") if isinstance(data, dict) else None
    return f"{facts.meta.get('count')} of {name}/{facts.meta.get('split')}"


PLUGIN = Compare()
