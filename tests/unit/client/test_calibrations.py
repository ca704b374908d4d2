"""Who has engines measured: the client, before it deploys what nobody named an engine for, and only then."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fake_kernel import FakeKernel, ended, version

from llm_os.client.calibrations import calibrate, calibrate_for_update
from llm_os.client.models import Model
from llm_os.errors import CapacityError, ConflictError, UnavailableError
from llm_os.spec import api
from llm_os.spec.calibration import Calibration, Candidate, Member
from llm_os.spec.deployments import Deployment, DeploymentSpec, DeploymentState, Revision
from llm_os.spec.jobs import JobState
from llm_os.spec.resources import ResourceSpec

CHAT = version("chat", task="text-generation").model_copy(update={"format": "gguf"})
KNOWN = Calibration(version="chat@1", fingerprint="f", trials=(), chosen=(), why="figures")
GET = "GET /v1/models/chat@1/calibration"


class Stop(Exception):  # noqa: N818 - where a test ends what it does not look at
    pass


def candidate(engine: str, *, compared: bool = True) -> Candidate:
    return Candidate(
        member=Member(engine=engine), engine_version="1", argv=("x",), resources=ResourceSpec(memory=1),
        compared=compared,
    )  # fmt: skip


TWO = (candidate("a"), candidate("b"))


def made(body: Any) -> Any:
    """The call that only checks goes on; the one that makes it ends the test."""
    if not body["only_check"]:
        raise Stop
    spec = DeploymentSpec(name="chat", model="chat@1")
    record = Deployment(
        id="dep", spec=spec, version="chat@1", task="text-generation", engine="a", session=None,
        state=DeploymentState.PENDING, created_at=0.0,
    )  # fmt: skip
    return api.CreatedDeployment(deployment=record, key="", url=None)


def kernel(*candidates: Candidate, known: Calibration | None = None, job: Any = None) -> FakeKernel:
    """One in which a calibration is known once a job has measured it."""
    done = job or ended({"artifact": "sha256:" + "b" * 64})
    asked = FakeKernel({"GET /v1/jobs/job-1": done, "POST /v1/deployments": made})

    def told(_: Any) -> api.Measured:
        found = known or (KNOWN if "serving/calibration" in tasks(asked) else None)
        return api.Measured(candidates=candidates, calibration=found)

    asked.answers |= {GET: told, "POST /v1/jobs": done, "GET /v1/models/chat@1": CHAT}
    asked.answers["GET /v1/jobs/job-1/reports"] = {"reports": [], "next": 0, "ended": True}
    asked.calibrate = True
    return asked


def tasks(kernel: FakeKernel) -> list[str]:
    return [sent["spec"]["task"] for what, sent in kernel.asked if what == "POST /v1/jobs"]


def deployed(asked: FakeKernel, **options: Any) -> list[str]:
    with pytest.raises(Stop):
        Model(asked, CHAT).deploy(**options)  # type: ignore[arg-type]
    return tasks(asked)


def test_deploying_measures_after_the_reference_was_made() -> None:
    assert deployed(kernel(*TWO)) == ["evaluation/reference", "serving/calibration"]


@pytest.mark.parametrize(
    "options", [{"engine": "torch"}, {"max_batch": 4}, {"calibrate": False}], ids=["engine", "option", "off"]
)
def test_what_was_named_is_not_measured(options: dict[str, Any]) -> None:
    asked = kernel(*TWO)
    assert "serving/calibration" not in deployed(asked, **options)
    assert GET not in [what for what, _ in asked.asked]


def test_the_setting_says_whether_where_nobody_else_does() -> None:
    asked = kernel(*TWO)
    asked.calibrate = False
    assert "serving/calibration" not in deployed(asked)
    again = kernel(*TWO)
    again.calibrate = False
    assert "serving/calibration" in deployed(again, calibrate=True)


def test_what_is_known_and_what_leaves_no_choice_is_not_measured() -> None:
    assert deployed(kernel(*TWO, known=KNOWN)) == ["evaluation/reference"]
    assert deployed(kernel(candidate("a"))) == ["evaluation/reference"]


def test_a_precision_narrows_what_is_measured() -> None:
    asked = kernel(*TWO)
    deployed(asked, precision="int8")
    assert {"session": asked.session, "precision": "int8"} in [sent for what, sent in asked.asked if what == GET]
    (job,) = [s["spec"] for w, s in asked.asked if w == "POST /v1/jobs" and s["spec"]["task"] == "serving/calibration"]
    assert job["options"] == {"precision": "int8"}


def test_without_check_no_reference_is_made_for_it() -> None:
    assert deployed(kernel(*TWO), check=False) == ["serving/calibration"]


def test_no_reference_is_made_where_every_candidate_is_the_reference() -> None:
    asked = kernel(candidate("a", compared=False), candidate("b", compared=False))
    assert calibrate(asked, CHAT) == KNOWN  # type: ignore[arg-type]
    assert tasks(asked) == ["serving/calibration"]


def test_once_more_runs_although_it_is_known() -> None:
    asked = kernel(*TWO, known=KNOWN)
    calibrate(asked, CHAT, again=True)  # type: ignore[arg-type]
    (sent,) = [s for w, s in asked.asked if w == "POST /v1/jobs" and s["spec"]["task"] == "serving/calibration"]
    assert sent["again"]


def test_what_cannot_be_measured_is_said_and_served_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    broken = ended({}).model_copy(
        update={"state": JobState.FAILED, "error": UnavailableError("None may serve it.").to_dict()}
    )
    deployed(kernel(*TWO, job=broken), check=False)
    assert "The engine of chat@1 is chosen without measuring: None may serve it." in capsys.readouterr().err


def record(because: str) -> Deployment:
    served = Revision(
        number=1, version="old@1", task="text-generation", engine="a", resources=ResourceSpec(memory=1), because=because
    )
    return Deployment(
        id="dep-1", spec=DeploymentSpec(name="chat", model="old@1", engine="a", check=False), version="old@1",
        task="text-generation", engine="a", session=None, state=DeploymentState.READY, history=(served,), created_at=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("because", "request_", "measures"),
    [
        ("figures", api.UpdateDeployment(model="chat@1"), True),
        ("", api.UpdateDeployment(model="chat@1"), False),
        ("figures", api.UpdateDeployment(model="chat@1", engine="b"), False),
        ("figures", api.UpdateDeployment(model="chat@1", options={"x": 1}), False),
        ("figures", api.UpdateDeployment(options={"x": 1}), False),
    ],
)
def test_an_update_measures_where_the_engine_was_nobodys_wish(
    because: str, request_: api.UpdateDeployment, measures: bool
) -> None:
    asked = kernel(*TWO)
    asked.answers["POST /v1/deployments/chat/update"] = record(because)
    calibrate_for_update(asked, record(because), request_)  # type: ignore[arg-type]
    assert ("serving/calibration" in tasks(asked)) is measures


TAKEN = ConflictError("It is there already.")
LARGE = CapacityError("The preferred engine needs more than there is.")


def test_what_will_be_refused_is_refused_before_anything_is_measured() -> None:
    asked = kernel(*TWO)
    asked.answers["POST /v1/deployments"] = TAKEN
    with pytest.raises(ConflictError):
        Model(asked, CHAT.model_copy(update={"format": "safetensors"})).deploy()  # type: ignore[arg-type]
    assert tasks(asked) == []
    asked.answers["POST /v1/deployments/chat/update"] = TAKEN
    with pytest.raises(ConflictError):
        calibrate_for_update(asked, record("figures"), api.UpdateDeployment(model="chat@1"))  # type: ignore[arg-type]
    assert tasks(asked) == []


def test_an_engine_that_is_too_large_does_not_keep_the_others_from_being_measured() -> None:
    asked = kernel(*TWO)
    asked.answers["POST /v1/deployments"] = lambda body: LARGE if body["only_check"] else made(body)
    assert "serving/calibration" in deployed(asked)
    asked.answers["POST /v1/deployments/chat/update"] = LARGE
    again = len(tasks(asked))
    asked.answers[GET] = api.Measured(candidates=TWO, calibration=None)
    calibrate_for_update(asked, record("figures"), api.UpdateDeployment(model="chat@1"))  # type: ignore[arg-type]
    assert len(tasks(asked)) > again
