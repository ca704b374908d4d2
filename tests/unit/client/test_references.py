"""Who makes what an engine is compared with: the client, before it deploys, and only where it is needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fake_kernel import FakeKernel, ended, version

from llm_os.client import watch
from llm_os.client.models import Model
from llm_os.client.references import PATIENCE, ensure_for_update, ensure_reference, is_compared
from llm_os.errors import BrokenWeightsError, NotFoundError, UnavailableError
from llm_os.spec.api import CreatedDeployment, UpdateDeployment
from llm_os.spec.deployments import Deployment, DeploymentSpec, DeploymentState
from llm_os.spec.jobs import JobState
from llm_os.spec.models import ModelVersion


def chat(format: str = "gguf") -> ModelVersion:
    return version("chat", task="text-generation").model_copy(update={"format": format})


class Stop(Exception):  # noqa: N818 - where a test ends what it does not look at
    pass


def created(body: Any) -> Any:
    """What the kernel makes of a deployment: it finds nothing wrong, and the test ends where it would be made."""
    if body["only_check"]:
        return CreatedDeployment(deployment=deployment(), key="", url=None)
    raise Stop


def kernel(job: Any = None) -> FakeKernel:
    done = ended({"artifact": "sha256:" + "b" * 64})
    answers = {"POST /v1/jobs": job or done, "GET /v1/jobs/job-1": job or done, "POST /v1/deployments": created}
    return FakeKernel({**answers, "GET /v1/jobs/job-1/reports": {"reports": [], "next": 0, "ended": True}})


def submitted(kernel: FakeKernel) -> list[Any]:
    return [sent["spec"] for what, sent in kernel.asked if what == "POST /v1/jobs"]


@pytest.mark.parametrize(
    ("found", "engine", "compared"),
    [
        (chat(), None, True),
        (chat("safetensors"), None, False),
        (chat("safetensors"), "torch", False),
        (chat("safetensors"), "vllm", True),
        (chat(), "fake", False),
        (version(task="feature-extraction"), "other", False),
        (version(task="text-classification"), "other", True),
    ],
)
def test_it_is_needed_where_another_engine_than_the_reference_serves(
    found: ModelVersion, engine: str | None, compared: bool
) -> None:
    assert is_compared(found, engine) is compared


def test_deploying_makes_the_reference_first() -> None:
    asked = kernel()
    with pytest.raises(Stop):
        Model(asked, chat()).deploy("assistant")  # type: ignore[arg-type]
    (spec,) = submitted(asked)
    assert (spec["task"], spec["inputs"]) == ("evaluation/reference", {"model": chat().manifest})
    assert asked.asked[-1][1]["spec"]["check"] is True


def test_what_is_refused_is_refused_before_the_reference_is_made() -> None:
    """A wrong name of an engine, say: nobody shall wait a minute for that."""
    asked = kernel()
    asked.answers["POST /v1/deployments"] = NotFoundError("There is no engine 'openvin'.")
    with pytest.raises(NotFoundError, match="openvin"):
        Model(asked, chat()).deploy("assistant", engine="openvin")  # type: ignore[arg-type]
    assert submitted(asked) == []


def test_an_update_that_is_refused_makes_no_reference() -> None:
    asked = kernel()
    asked.answers |= {
        "GET /v1/models/chat@2": chat(),
        "POST /v1/deployments/assistant/update": NotFoundError("There is no engine 'openvin'."),
    }
    with pytest.raises(NotFoundError, match="openvin"):
        ensure_for_update(asked, deployment(), UpdateDeployment(model="chat@2", engine="openvin"))  # type: ignore[arg-type]
    assert submitted(asked) == []


def test_deploying_without_a_check_makes_none_and_says_so_to_the_kernel() -> None:
    asked = kernel()
    with pytest.raises(Stop):
        Model(asked, chat()).deploy("assistant", check=False)  # type: ignore[arg-type]
    assert submitted(asked) == []
    assert asked.asked[-1][1]["spec"]["check"] is False


def test_where_it_cannot_be_made_deploying_goes_on_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    missing = UnavailableError("torch is not installed, which runs the reference.", hint="pip install 'llm-os[train]'")
    asked = kernel(ended({}, JobState.FAILED, error=missing.to_dict()))
    with pytest.raises(Stop):
        Model(asked, chat()).deploy("assistant")  # type: ignore[arg-type]
    said = capsys.readouterr().err
    assert "chat@1 is served without a comparison with PyTorch: torch is not installed" in said


def test_a_broken_model_is_no_reason_to_go_on() -> None:
    asked = kernel(ended({}, JobState.FAILED, error=BrokenWeightsError("The weights are broken.").to_dict()))
    with pytest.raises(BrokenWeightsError):
        ensure_reference(asked, chat(), None)  # type: ignore[arg-type]


def deployment(engine: str = "openvino", **spec: Any) -> Deployment:
    return Deployment(
        id="dep-1",
        spec=DeploymentSpec(name="assistant", model="chat", **spec),
        version="chat@1",
        task="text-generation",
        engine=engine,
        session=None,
        state=DeploymentState.READY,
        created_at=0.0,
    )


@pytest.mark.parametrize(
    ("engine", "given", "count"),
    [
        ("openvino", ("chat@2", None), 1),
        ("openvino", (None, None), 1),
        ("fake", (None, None), 0),
        ("fake", ("chat@2", None), 1),
        ("openvino", (None, "torch"), 0),
    ],
)
def test_an_update_makes_the_reference_of_what_will_be_served(
    engine: str, given: tuple[str | None, str | None], count: int
) -> None:
    """It is served by the engine that serves now, if that opens it, by the one that is taken then, or that is named."""
    asked = kernel()
    asked.answers |= {f"GET /v1/models/chat@{number}": chat() for number in (1, 2)}
    asked.answers["POST /v1/deployments/assistant/update"] = deployment(engine)
    ensure_for_update(asked, deployment(engine), UpdateDeployment(model=given[0], engine=given[1]))  # type: ignore[arg-type]
    checks = [sent["only_check"] for what, sent in asked.asked if what.endswith("/update")]
    assert checks == [True] * count, "it is asked first whether the update would be refused"
    assert len(submitted(asked)) == count


@pytest.mark.parametrize(("engine", "count"), [("openvino_encoders", 1), ("torch", 0)])
def test_an_engine_that_stays_is_compared_with_the_next_version_too(engine: str, count: int) -> None:
    """Of itself the kernel takes no such engine for this format; somebody named it, or measuring did."""
    asked = kernel()
    asked.answers["GET /v1/models/chat@2"] = chat("safetensors")
    asked.answers["POST /v1/deployments/assistant/update"] = deployment(engine)
    ensure_for_update(asked, deployment(engine), UpdateDeployment(model="chat@2"))  # type: ignore[arg-type]
    assert len(submitted(asked)) == count


def test_an_update_of_what_is_not_checked_makes_none() -> None:
    asked = kernel()
    ensure_for_update(asked, deployment(check=False), UpdateDeployment(model="chat@2"))  # type: ignore[arg-type]
    assert asked.asked == []


class Queued(FakeKernel):
    """The reference waits for room, and is placed after so many looks; each look takes a minute."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, placed_after: int = 10**6) -> None:
        super().__init__(kernel().answers)
        self.now, self.looks = 0.0, 0
        self.placed_after = placed_after
        monkeypatch.setattr(watch.time, "monotonic", lambda: self.now)
        waits = ended({}, JobState.QUEUED)
        room = {"subject": "job-1", "kind": "job", "state": "queued", "sentence": "It needs 2 GiB, 1 GiB is free."}
        cancelled = ended({}, JobState.CANCELLED)
        self.answers |= {
            "POST /v1/jobs": waits,
            "GET /v1/jobs/job-1": self._look,
            "GET /v1/jobs/job-1/reports": lambda _: {"reports": [], "next": 0, "ended": self.looks > placed_after + 60},
            "GET /v1/why/job-1": room,
            "POST /v1/jobs/job-1/cancel": cancelled,
        }

    def _look(self, _: Any) -> Any:
        self.looks, self.now = self.looks + 1, self.now + 60.0
        if self.looks <= self.placed_after:
            return ended({}, JobState.QUEUED)
        return ended({"artifact": "sha256:" + "b" * 64}, JobState.RUNNING if self.looks < 60 else JobState.SUCCEEDED)


def test_a_reference_that_finds_no_room_is_given_up_and_the_version_is_served_without(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Queued(monkeypatch)
    with pytest.raises(Stop):
        Model(asked, chat()).deploy("assistant")  # type: ignore[arg-type]
    said = capsys.readouterr().err
    assert "waits, at most 2 min 0 s: It needs 2 GiB, 1 GiB is free." in said
    assert "served without a comparison with PyTorch: it waited 2 min 0 s for room: It needs 2 GiB" in said
    assert [what for what, _ in asked.asked if what.startswith("POST")] == [
        "POST /v1/deployments",
        "POST /v1/jobs",
        "POST /v1/jobs/job-1/cancel",
        "POST /v1/deployments",
    ], "one that checks, and one that makes"
    assert asked.now <= PATIENCE + 180


def test_one_that_runs_may_take_its_time(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = Queued(monkeypatch, placed_after=1)
    with pytest.raises(Stop):
        Model(asked, chat()).deploy("assistant")  # type: ignore[arg-type]
    assert asked.now > 10 * PATIENCE
    assert "without a comparison" not in capsys.readouterr().err
    assert "POST /v1/jobs/job-1/cancel" not in [what for what, _ in asked.asked]
