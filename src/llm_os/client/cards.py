"""The card of a model version: what it is, what it was made of, how it did. Made of records alone; guesses nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_os.client.card_text import on, written
from llm_os.client.tables import between, inline, number
from llm_os.client.transport import Transport
from llm_os.errors import NotFoundError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.jobs import Job
from llm_os.spec.models import ModelVersion

MOST_ANCESTORS = 20
SURE_ENOUGH = 0.05
"""Calibration error above which a card says that the model is not as sure as it is right."""


@dataclass(frozen=True, slots=True)
class Card:
    """What is recorded of one version.

    Attributes:
        facts: all of it, as JSON knows it: `version`, `model`, `base`, `data`, `training`, `evaluations`, `limits`.
    """

    facts: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON knows it."""
        return dict(self.facts)

    def markdown(self) -> str:
        """The form of Hugging Face's model cards: facts for machines in front, then text."""
        return written(self.facts)

    def save(self, path: str | Path) -> Path:
        """Write the text to a file; an older one of that name is replaced."""
        target = Path(path).expanduser().absolute()
        target.write_text(self.markdown(), encoding="utf-8")
        return target

    __str__ = markdown


def card(transport: Transport, version: ModelVersion) -> Card:
    """Ask the kernel for all that is recorded of a version."""
    meta, lineage = version.meta, version.lineage
    evaluations = list(_evaluations(transport, version))
    facts: dict[str, Any] = {
        "version": version.ref,
        "digest": version.manifest,
        "made": time.strftime("%Y-%m-%d", time.gmtime(version.created_at)),
        "license": meta.get("license") or "not stated",
        "model": {
            "task": version.task,
            "architecture": meta.get("architecture"),
            "parameters": meta.get("parameters"),
            "format": version.format,
            "precision": version.precision,
            "size": version.size,
            "context_length": meta.get("context_length"),
            "labels": meta.get("labels"),
        },
        "base": [_ancestor(one) for one in _ancestors(transport, version)],
        "source": _told(lineage.source),
        "data": {
            role: _data(transport, digest) for role, digest in lineage.inputs.items() if role not in {"model", "a", "b"}
        },
        "training": _training(transport, version),
        "evaluations": evaluations,
    }
    return Card({**facts, "limits": limits(facts)})


def _ancestors(transport: Transport, version: ModelVersion) -> Iterator[ModelVersion]:
    """The version it was made from, the one that one was made from, and so on."""
    for _ in range(MOST_ANCESTORS):
        if version.lineage.parent is None:
            return
        version = transport.call("GET", f"/v1/models/{version.lineage.parent}", ModelVersion)
        yield version


def _ancestor(version: ModelVersion) -> dict[str, Any]:
    return {
        "version": version.ref,
        "source": _told(version.lineage.source),
        "license": version.meta.get("license") or "not stated",
    }


def _told(source: str | None) -> str | None:
    """A card is handed out: of a path on this machine only its last part is told."""
    return f"file:{Path(source).name}" if source is not None and source.startswith("file:") else source


def _data(transport: Transport, digest: str) -> dict[str, Any]:
    """What is recorded of a data set; its digest alone where it is gone."""
    try:
        meta = dict(transport.call("GET", f"/v1/artifacts/{digest}", ArtifactFacts).meta)
    except NotFoundError:
        return {"digest": digest}
    source = meta.get("source")
    told = source if isinstance(source, dict) else {}
    names = ("name", "language", "kind", "labels", "splits", "split", "steps")
    kept: dict[str, Any] = {name: meta[name] for name in names if name in meta}
    left_out = meta.get("left_out")
    return {
        "digest": digest,
        **kept,
        "left_out": left_out if isinstance(left_out, dict) else {},
        "source": source,
        "license": told.get("license") or "not stated",
    }


def _training(transport: Transport, version: ModelVersion) -> dict[str, Any] | None:
    """How it was trained; None for a version that was fetched."""
    lineage = version.lineage
    if lineage.job is None or not (lineage.task or "").startswith("training/"):
        return None
    try:
        result = dict(transport.call("GET", f"/v1/jobs/{lineage.job}", Job).result)
    except NotFoundError:
        result = {}
    names = ("history", "epochs_run", "best_epoch", "stopped_early", "precision", "seconds", "rows", "usage")
    return {
        "job": lineage.job,
        "method": (lineage.task or "").partition("/")[2],
        "options": dict(lineage.options),
        "code": lineage.code_version,
        **{name: result[name] for name in names if name in result},
    }


def _jobs(transport: Transport, digest: str) -> list[Job]:
    """Jobs that read an artifact, newest first."""
    return transport.call("GET", "/v1/jobs", list[Job], params={"input": digest, "state": "succeeded", "limit": 1000})


def _evaluations(transport: Transport, version: ModelVersion) -> Iterator[dict[str, Any]]:
    """Every evaluation of exactly these weights, oldest first, with its comparisons; for equal rows the newest."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    reports: set[str] = set()
    for job in reversed(_jobs(transport, version.manifest)):
        result: Any = job.result
        report = str(result.get("artifact"))
        if not job.spec.task.startswith("evaluation/") or report in reports:
            continue
        reports.add(report)
        key = (job.spec.task, result.get("rows"), str(result.get("notes")))  # other slices are no other evaluation
        before = found.pop(key, {"comparisons": []})
        found[key] = {
            "job": job.id,
            "task": job.spec.task,
            "report": report,
            **{name: result.get(name) for name in KEPT},
            "comparisons": [*before["comparisons"], *_comparisons(transport, version, report)],
        }
    return iter(found.values())


KEPT = (
    "kind",
    "data",
    "split",
    "start",
    "stop",
    "count",
    "shown",
    "metrics",
    "confidence",
    "interval",
    "slices",
    "notes",
)


def _comparisons(transport: Transport, version: ModelVersion, report: str) -> Iterator[dict[str, Any]]:
    known = {one.manifest: one.ref for one in transport.call("GET", "/v1/models", list[ModelVersion])}
    seen: set[str] = set()
    for job in _jobs(transport, report):
        result: Any = job.result
        if job.spec.task != "evaluation/compare" or result.get("artifact") in seen:
            continue
        seen.add(result["artifact"])
        side, other = ("a", "b") if job.spec.inputs.get("a") == report else ("b", "a")
        digest = result["models"][other]
        main = next((name for name in result["differences"] if name != "loss"), None)
        if digest == version.manifest or main is None:
            continue
        found = result["differences"][main]
        sign = 1 if side == "a" else -1
        yield {
            "against": known.get(digest, digest),
            "metric": main,
            "difference": sign * found["difference"],
            "low": min(sign * found["low"], sign * found["high"]),
            "high": max(sign * found["low"], sign * found["high"]),
            "p": found["p"],
            "test": found["test"],
            "certain": found["better"] is not None,
        }


def limits(facts: Mapping[str, Any]) -> list[str]:
    """What the records say about where not to trust it, a sentence each."""
    found = []
    evaluations = facts["evaluations"]
    if not evaluations:
        found.append("It has not been evaluated here: nothing is known of how good it is.")
    trained = {data.get("digest") for data in facts["data"].values()}
    split = (facts["training"] or {}).get("options", {}).get("split")
    own = [one for one in evaluations if (one["data"] or {}).get("digest") in trained]
    seen = [one for one in own if one["split"] == split]
    found += [
        f"The evaluation on {on(one)} is on rows that it was trained on: it says nothing of others." for one in seen
    ]
    if own and len(own) == len(evaluations) and not seen:
        found.append("All evaluations are on rows held out from the data it was trained on; other data may differ.")
    for one in evaluations:
        found += _weak_slices(one)
        ece = one["metrics"].get("ece")
        if ece and ece["low"] is not None and ece["low"] > SURE_ENOUGH:
            found.append(f"On {on(one)} its confidence is off by {number(ece['value'])} on average (ECE).")
    length = facts["model"]["context_length"]
    if length:
        found.append(f"It reads {length} tokens at most; what is longer is cut.")
    languages = sorted({str(data["language"]) for data in facts["data"].values() if data.get("language")} - {"unknown"})
    if languages:
        found.append(f"It was trained on texts in {', '.join(languages)}.")
    if facts["license"] == "not stated":
        found.append("The licence of its weights is not stated.")
    return found


def _weak_slices(one: Mapping[str, Any]) -> Iterator[str]:
    """Slices that are certainly worse than the whole in the main figure: their interval lies beyond its value."""
    name = one["shown"][0]
    whole = one["metrics"][name]
    for column, table in (one["slices"] or {}).items():
        for value, part in table.items():
            here, low, high = part[name]
            worse = low is not None and (high < whole["value"] if whole["better"] == "higher" else low > whole["value"])
            if worse:
                yield (
                    f"On {on(one)} it is worse where {column} is {value}: {inline(name)} {number(here)} "
                    f"({between(low, high)}, {part['count']:,} rows) against {number(whole['value'])} over all."
                )
