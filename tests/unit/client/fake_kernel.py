"""A kernel that answers from a table and remembers what it was asked: all that a handle needs of a connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter

from llm_os.client.datasets import Dataset
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.jobs import Job, JobSpec, JobState
from llm_os.spec.models import ModelVersion
from llm_os.spec.resources import Capacity, Device, Resources

GIB = 2**30
ROWS = [{"text": f"text {i}", "label": ("bad", "good")[i % 2]} for i in range(1200)]


class FakeKernel:
    """Connection and transport in one.

    Args:
        answers: `"GET /v1/..."` -> what is answered; an exception is raised, a function is called with the body.
        gpus: so many are granted.
    """

    def __init__(self, answers: Mapping[str, Any] | None = None, gpus: int = 0) -> None:
        self.answers = dict(answers or {})
        self.asked: list[tuple[str, Any]] = []
        self.session = "ses-0000000001"
        self.idle_after = 60.0
        self.calibrate = False
        self._gpus = tuple(Device(kind="fake", index=i, name=f"Fake {i}", memory=GIB) for i in range(gpus))

    @property
    def transport(self) -> FakeKernel:
        return self

    def resources(self) -> Resources:
        capacity = Capacity(cpus=2, memory=GIB, devices=self._gpus)
        return Resources(machine=capacity, granted=capacity, free=capacity)

    def call(self, method: str, path: str, answer: Any, *, body: BaseModel | None = None, params: Any = None) -> Any:
        sent = None if body is None else body.model_dump(mode="json")
        self.asked.append((f"{method} {path}", sent if sent is not None else params))
        found: Any = self.answers[f"{method} {path}"]
        if isinstance(found, Callable):  # type: ignore[arg-type]
            found = found(sent if sent is not None else params)
        if isinstance(found, BaseException):
            raise found
        return found if isinstance(found, BaseModel) else TypeAdapter(answer).validate_python(found)


def facts(rows: int = len(ROWS)) -> ArtifactFacts:
    splits = {name: {"rows": rows, "fingerprint": f"sha256:{name}"} for name in ("train", "test")}
    meta = {"name": "reviews", "labels": ["bad", "good"], "columns": ["text", "label"], "splits": splits}
    return ArtifactFacts.model_validate({"digest": "sha256:" + "d" * 64, "kind": "dataset", "size": 1, "meta": meta})


def data(kernel: FakeKernel, split: str = "train", rows: int = len(ROWS)) -> Dataset:
    def page(params: Mapping[str, Any]) -> dict[str, Any]:
        first = params["offset"]
        shown = ROWS[first : first + params["limit"]]
        return {"split": split, "rows": shown, "offset": first, "total": rows}

    kernel.answers["GET /v1/artifacts/sha256:" + "d" * 64 + "/rows"] = page
    return Dataset(kernel, facts(rows), split)  # type: ignore[arg-type]


def version(card: str = "encoder", number: int = 1, task: str = "feature-extraction", **meta: Any) -> ModelVersion:
    return ModelVersion(
        card=card,
        number=number,
        manifest="sha256:" + "a" * 64,
        format="safetensors",
        precision="fp32",
        task=task,
        size=1,
        meta=meta,
        created_at=0.0,
    )


def ended(result: Mapping[str, Any], state: JobState = JobState.SUCCEEDED, **more: Any) -> Job:
    spec = JobSpec(task="testing/steps")
    return Job(id="job-1", spec=spec, state=state, session=None, result=result, created_at=0.0, **more)
