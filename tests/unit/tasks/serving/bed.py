"""A calibration alone, without a kernel: candidates of the fake engine's worker, and a model that it does not read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.attempts import Report
from llm_os.spec.calibration import Calibration, Candidate, Member
from llm_os.spec.parity import FILE, CheckText, Place, Reference
from llm_os.spec.resources import ResourceSpec
from llm_os.tasks.context import Context, InputFolder
from llm_os.tasks.serving.calibration import CalibrationOptions, CalibrationTask

MIB = 2**20


def candidate(engine: str = "fake", memory: int = 100 * MIB, argv: tuple[str, ...] = (), **options: Any) -> Candidate:
    return Candidate(
        member=Member(engine=engine, options=options),
        engine_version="1",
        argv=argv or (sys.executable, "-m", "llm_os.workers.fake", "{attempt}"),
        resources=ResourceSpec(cpus=0.1, memory=memory),
    )


def reference(folder: Path, places: int = 50) -> InputFolder:
    """What a model says at these places; no model has said it."""
    folder.mkdir()
    found = [Place(at=at + 1, token=at, text=f"word{at}", margin=2.0) for at in range(places)]
    text = CheckText(ids=tuple(range(places + 1)), places=tuple(found))
    (folder / FILE).write_text(Reference(texts=(text,)).model_dump_json())
    return InputFolder(folder, ArtifactFacts(digest="sha256:" + "f" * 64, kind="report", size=1))


class Bed:
    """A task's folders.

    Attributes:
        reports: what it said, in order.
    """

    def __init__(self, folder: Path, task: str = "text-generation", *, compared: bool = False) -> None:
        for name in ("model", "output", "checkpoints", "scratch"):
            (folder / name).mkdir(parents=True)
        facts = ArtifactFacts(digest="sha256:" + "a" * 64, kind="model", size=1, meta={"task": task, "format": "toy"})
        inputs = {"model": InputFolder(folder / "model", facts)}
        if compared:
            inputs["reference"] = reference(folder / "reference")
        self.folder = folder
        self.reports: list[Report] = []
        self.control = folder / "control.json"
        self.context = Context(
            inputs=inputs,
            output=folder / "output",
            checkpoints=folder / "checkpoints",
            scratch=folder / "scratch",
            control=self.control,
            on_report=self.reports.append,
        )

    def run(self, *candidates: Candidate, room: int = 2**30) -> Calibration:
        options = CalibrationOptions(candidates=candidates, fingerprint="here", room=room)
        CalibrationTask().run(self.context, options)
        return self.found()

    def found(self) -> Calibration:
        text = (self.folder / "output" / "calibration.json").read_text()
        result = next(report for report in self.reports if report.kind == "result")
        assert json.loads(text) == result.values["calibration"]
        return Calibration.model_validate_json(text)
