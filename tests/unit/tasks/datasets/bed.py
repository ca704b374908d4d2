"""Runs a data task in folders of a test; real rows of sentic_data to write in any form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llm_os import plugins
from llm_os.spec.attempts import Report
from llm_os.spec.resources import Capacity
from llm_os.tasks.context import Context
from llm_os.tasks.datasets import sentic_data


def real_rows(count: int) -> list[dict[str, Any]]:
    """That many clear English reviews, with the domain they are from."""
    rows, _ = sentic_data.select(sentic_data.read("en"), 2)
    return [
        {"text": r["text"], "label": r["label"], "domain": r["domain"]} for r in rows[:: len(rows) // count][:count]
    ]


class Done:
    """What a run left."""

    def __init__(self, output: Path, reports: list[Report]) -> None:
        self.meta: dict[str, Any] = json.loads((output / "artifact.json").read_text())["meta"]
        self.messages = [str(report.values["text"]) for report in reports if report.kind == "message"]
        self.train, self.test = (
            [json.loads(line) for line in (output / split / "rows.jsonl").read_text().split("\n") if line]
            for split in ("train", "test")
        )

    @property
    def texts(self) -> set[str]:
        return {row["text"] for row in [*self.train, *self.test]}


def prepare(task: str, root: Path, **options: Any) -> Done:
    folder = root / f"run-{len(list(root.glob('run-*')))}"
    for name in ("output", "checkpoints", "scratch"):
        (folder / name).mkdir(parents=True)
    reports: list[Report] = []
    context = Context(
        inputs={},
        output=folder / "output",
        checkpoints=folder / "checkpoints",
        scratch=folder / "scratch",
        on_report=reports.append,
    )
    plugin = plugins.load("task", task)
    checked = plugin.Options.model_validate({"steps": [], **options})
    plugin.resources(checked, {}, Capacity(cpus=2, memory=4 * 2**30))
    plugin.run(context, checked)
    return Done(folder / "output", reports)
