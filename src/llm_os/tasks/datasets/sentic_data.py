"""The data set that ships with the package: human-rated English texts, Chinese reviews. See data/CARD.md."""

from __future__ import annotations

import hashlib
import json
import lzma
import math
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Literal

from pydantic import Field

from llm_os.errors import DataError, IntegrityError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.tasks.context import Context
from llm_os.tasks.datasets.ingest import Ingest, Source, SourceRow
from llm_os.tasks.datasets.options import DataOptions
from llm_os.tasks.datasets.writer import Row
from llm_os.tasks.preparation.near import normal_form
from llm_os.tasks.preparation.step import choose
from llm_os.tasks.task import Task

DATA = Path(__file__).parent / "data"
SHA256 = {
    "en": "d8db7bfb1360e3f50e1778d79019a2257c7d392529e65ba3e01a679a1768f25d",
    "zh": "64ea5656580deebd72f0ab726cdce094ddb224b53f11a3aec2075e587b080ea5",
}
SLOPE = 1.5
"""Of the logistic function that turns a mean rating to the probability of `positive`: 0.82 at 1.0, 0.95 at 2.0."""
NEUTRAL = 0.5
"""Largest distance of a mean rating from 0 that counts as neutral (three classes)."""


class SenticDataOptions(DataOptions):
    language: Literal["en", "zh"] = "en"
    """`en` or `zh`."""
    labels: Literal[2, 3, "score"] = 2
    """2 or 3 classes, or `score`: the mean rating from -4 to 4. Chinese has 2 classes only."""
    least: float = Field(default=1.0, gt=0, le=3)
    """Least distance of a mean rating from 0 that counts as positive or negative (English)."""
    weak: float | None = Field(default=None, gt=0, le=3)
    """Train, but do not test, on less clear ratings too, from this distance on (English, two classes)."""
    limit: int | None = Field(default=None, ge=10)
    """At most this many rows in all, chosen at random by the seed, classes in proportion."""


class SenticData(Task[SenticDataOptions]):
    """Same options, same bytes: on every machine and at every time."""

    Options = SenticDataOptions
    optional_inputs = ("tokenizer",)
    output = "dataset"
    cacheable = True

    def resources(
        self, options: SenticDataOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity
    ) -> ResourceSpec:
        choose(options.steps or ())
        return ResourceSpec(cpus=min(0.25, granted.cpus), memory=512 * 2**20)

    def run(self, context: Context, options: SenticDataOptions) -> None:
        if options.language == "zh" and options.labels != 2:
            raise DataError(
                "The Chinese texts have two classes and no ratings.", hint="Leave `labels` out, or take language='en'."
            )
        rows, names = select(read(options.language), options.labels, options.least)
        weak = weaker(rows, options)
        source = Source(
            name="sentic_data",
            title="sentic_data",
            rows=chain(
                (SourceRow(f"Row {number}", row) for number, row in enumerate(rows, 1)),
                (SourceRow(f"Row {number}", row, "train") for number, row in enumerate(weak, len(rows) + 1)),
            ),
            facts={"kind": "package data", "sha256": SHA256[options.language], "license": "MIT"},
            labels=names,
            stratum=(lambda row: str(row.get("domain"))) if names is None else None,
            kind="score" if names is None else "classification",
        )
        (context.output / "CARD.md").write_bytes((DATA / "CARD.md").read_bytes())
        Ingest(context, options, source).run()


def read(language: str) -> list[dict[str, Json]]:
    """All shipped rows of a language. Raises IntegrityError when the file was changed."""
    packed = (DATA / f"sentic_data.{language}.jsonl.xz").read_bytes()
    if hashlib.sha256(packed).hexdigest() != SHA256[language]:
        raise IntegrityError(f"The shipped data file for '{language}' was changed.", hint="Install the package again.")
    return [json.loads(line) for line in lzma.decompress(packed).splitlines()]


def select(rows: list[dict[str, Json]], labels: int | str, least: float = 1.0) -> tuple[list[Row], list[str] | None]:
    """Rows with their `label`, equal texts once, and the class names (None for scores)."""
    chosen: dict[str, Row] = {}
    for row in rows:
        label = _label(row, labels, least)
        if label is not None:
            more = _probabilities(float(str(row["score"]))) if labels == 2 and "score" in row else {}
            chosen.setdefault(normal_form(str(row["text"])), {"text": row["text"], "label": label, **row, **more})
    if labels == "score":
        return list(chosen.values()), None
    return list(chosen.values()), ["negative", "positive"] if labels == 2 else ["negative", "neutral", "positive"]


def _probabilities(score: float) -> dict[str, Json]:
    """How sure a text of this mean rating is one or the other."""
    positive = 1 / (1 + math.exp(-SLOPE * score))
    return {"probabilities": {"negative": round(1 - positive, 4), "positive": round(positive, 4)}}


def weaker(rows: list[Row], options: SenticDataOptions) -> list[Row]:
    """Rows that `weak` adds to `rows`. Raises DataError where it means nothing."""
    if options.weak is None:
        return []
    if (options.language, options.labels) != ("en", 2) or options.weak >= options.least:
        raise DataError(
            f"weak={options.weak} adds no rows.",
            hint=f"It is for English texts in two classes, and below least={options.least}.",
        )
    known = {normal_form(str(row["text"])) for row in rows}
    more, _ = select(read(options.language), options.labels, options.weak)
    return [row for row in more if normal_form(str(row["text"])) not in known]


def _label(row: dict[str, Json], labels: int | str, least: float) -> str | float | None:
    if "label" in row:
        return str(row["label"])
    score = float(str(row["score"]))
    if labels == "score":
        return score
    if abs(score) >= least:
        return "positive" if score > 0 else "negative"
    return "neutral" if labels == 3 and abs(score) <= NEUTRAL else None


PLUGIN = SenticData()
