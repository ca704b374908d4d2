"""Jobs of a script run on the spot, in its own process: documents are tested with the real client and no kernel."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from llm_os import plugins
from llm_os.errors import NotFoundError
from llm_os.spec import api
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.attempts import Report
from llm_os.spec.jobs import Job, JobSpec, JobState
from llm_os.spec.models import ModelVersion
from llm_os.tasks.context import Context, InputFolder


class WithoutKernel:
    """Stands for a `Connection` and its transport: runs tasks of data, and serves their rows.

    Args:
        root: folder for what is made. models: folders by the name of their card.
    """

    session = "session"

    def __init__(self, root: Path, models: dict[str, Path]) -> None:
        self._root = self.home = root
        self._models = {name: (folder, _digest(name)) for name, folder in models.items()}
        self._made: dict[str, InputFolder] = {}
        self.jobs: list[JobSpec] = []
        self.messages: list[str] = []

    @property
    def transport(self) -> WithoutKernel:
        return self

    def call(
        self, method: str, path: str, answer: type[Any], *, body: BaseModel | None = None, params: Any = None
    ) -> Any:
        parts = path.strip("/").split("/")[1:]
        if method == "POST" and parts == ["jobs"]:
            assert isinstance(body, api.SubmitJob)
            return self._run(body.spec)
        match parts:
            case ["jobs", _, "reports"]:
                return api.ReportPage(reports=(), next=0, ended=True)
            case ["jobs", _]:
                return self._last
            case ["models", name]:
                return self._model(name)
            case ["artifacts", digest]:
                return self._made[digest].facts
            case ["artifacts", digest, "rows"]:
                return self._rows(self._made[digest].path, **params)
        raise AssertionError(f"{method} {path}")

    def _run(self, spec: JobSpec) -> Job:
        plugin = plugins.load("task", spec.task)
        options = plugin.Options.model_validate(dict(spec.options))
        folders = [self._root / f"job-{len(self.jobs)}" / name for name in ("output", "checkpoints", "scratch")]
        for folder in folders:
            folder.mkdir(parents=True)
        inputs = {role: self._input(ref) for role, ref in spec.inputs.items()}
        context = Context(
            inputs=inputs, output=folders[0], checkpoints=folders[1], scratch=folders[2], on_report=self._report
        )
        self._result: dict[str, Any] = {}
        plugin.run(context, options)
        self.jobs.append(spec)
        meta = json.loads((folders[0] / "artifact.json").read_text())["meta"]
        digest = _digest(spec.model_dump_json())
        self._made[digest] = InputFolder(folders[0], ArtifactFacts(digest=digest, kind="dataset", size=1, meta=meta))
        self._last = Job(
            id="job",
            spec=spec,
            state=JobState.SUCCEEDED,
            session=None,
            result={**self._result, "artifact": digest},
            created_at=0.0,
        )
        return self._last

    def _report(self, report: Report) -> None:
        if report.kind == "message":
            self.messages.append(str(report.values["text"]))
        elif report.kind == "result":
            self._result.update(report.values)

    def _input(self, digest: str) -> InputFolder:
        if digest in self._made:
            return self._made[digest]
        (folder,) = (folder for folder, known in self._models.values() if known == digest)
        return InputFolder(folder, ArtifactFacts(digest=digest, kind="model", size=1))

    def _model(self, name: str) -> ModelVersion:
        card = name.partition("@")[0]
        if card not in self._models:
            raise NotFoundError(f"There is no model '{name}'.")
        return ModelVersion(
            card=card,
            number=1,
            manifest=self._models[card][1],
            format="safetensors",
            precision="fp32",
            task="text-generation",
            size=1,
            created_at=0.0,
        )

    @staticmethod
    def _rows(folder: Path, split: str, offset: int, limit: int) -> api.RowPage:
        rows = [json.loads(line) for line in (folder / split / "rows.jsonl").read_text().splitlines()]
        return api.RowPage(split=split, offset=offset, total=len(rows), rows=tuple(rows[offset : offset + limit]))


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
