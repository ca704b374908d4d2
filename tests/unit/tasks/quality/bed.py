"""Prepared data made on the spot, real texts with planted faults, and the report's task without a kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from llm_os import plugins
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.attempts import Report
from llm_os.spec.quality import Quality
from llm_os.tasks.context import Context, InputFolder
from llm_os.tasks.datasets.sentic_data import read, select
from llm_os.tasks.datasets.writer import write_rows

Row = dict[str, Any]


def real(language: str, count: int) -> list[Row]:
    """Texts with a label from the shipped data, those of both classes by turns."""
    return [dict(row) for row in by_turns(language)[:count]]


@cache
def by_turns(language: str) -> Sequence[Row]:
    rows, _ = select(read(language), 2)
    sides = [[dict(row) for row in rows if row["label"] == label] for label in ("positive", "negative")]
    return [row for pair in zip(*sides, strict=False) for row in pair]


def prepared(folder: Path, splits: Mapping[str, Sequence[Row]], **meta: Any) -> InputFolder:
    """A prepared data set with these rows."""
    for name, rows in splits.items():
        (folder / name).mkdir(parents=True)
        write_rows(folder / name, rows)
    facts = {
        "name": "planted",
        "kind": "classification",
        "language": "en",
        "labels": ["negative", "positive"],
        "splits": {name: {"rows": len(rows)} for name, rows in splits.items()},
        **meta,
    }
    return InputFolder(
        folder,
        ArtifactFacts.model_validate({"digest": "sha256:" + "0" * 64, "kind": "dataset", "size": 1, "meta": facts}),
    )


class Bed:
    """One report: what it says, the folder it wrote, what it reported while it ran."""

    def __init__(self, root: Path, inputs: Mapping[str, InputFolder], **options: Any) -> None:
        self.reports: list[Report] = []
        for name in ("output", "checkpoints", "scratch"):
            (root / name).mkdir(parents=True)
        self.output = root / "output"
        context = Context(
            inputs=inputs,
            output=self.output,
            checkpoints=root / "checkpoints",
            scratch=root / "scratch",
            on_report=self.reports.append,
        )
        task = plugins.load("task", "datasets/report")
        task.run(context, task.Options.model_validate(options))
        self.quality = Quality.model_validate_json((self.output / "report.json").read_text())

    @property
    def sentences(self) -> list[str]:
        return [finding.sentence for finding in self.quality.findings]

    @property
    def everything(self) -> str:
        """All that was written or reported, as text."""
        files = [path.read_bytes().decode("utf-8", "replace") for path in self.output.rglob("*") if path.is_file()]
        return "".join([*files, *(report.model_dump_json() for report in self.reports), str(self.quality)])


def described(
    root: Path, splits: Mapping[str, Sequence[Row]], meta: Mapping[str, Any] | None = None, **options: Any
) -> Bed:
    """The report of these rows, without pictures where nobody asks for them."""
    return Bed(
        root / "run", {"data": prepared(root / "data", splits, **(meta or {}))}, **{"pictures": False, **options}
    )
