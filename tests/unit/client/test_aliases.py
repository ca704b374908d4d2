"""An alias moves when there is what its followers are compared with, where one of them is compared at all."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))
from fake_kernel import FakeKernel, ended, version

from llm_os.cli.commands import models as verbs
from llm_os.client.aliases import move_alias
from llm_os.client.models import Model
from llm_os.errors import (
    BrokenWeightsError,
    CapacityError,
    ConflictError,
    InvalidInputError,
    JobCancelledError,
    LLMOSError,
    UnavailableError,
)
from llm_os.spec.api import Alias
from llm_os.spec.deployments import Deployment, DeploymentSpec, DeploymentState, Revision, Rollout, UpdatePolicy
from llm_os.spec.jobs import JobState
from llm_os.spec.models import ModelVersion
from llm_os.spec.resources import ResourceSpec

MOVED = "PUT /v1/aliases/chat/production"
NEXT = version("chat", 2, task="text-generation").model_copy(update={"format": "gguf"})


def follower(name: str = "assistant", engine: str = "openvino", *, check: bool = True, **fields: Any) -> Deployment:
    spec = DeploymentSpec(name=name, model="chat@production", check=check)
    known = {"id": f"dep-{name}", "spec": spec, "engine": engine, "session": None, "created_at": 0.0}
    given = {"version": "chat@1", "task": "text-generation", "state": DeploymentState.READY, **fields}
    return Deployment.model_validate({**known, **given})


def kernel(*followers: Deployment, job: Any = None) -> FakeKernel:
    """One in which the alias is followed by these; it has nothing against updating them."""
    names = tuple(one.spec.name for one in followers)
    done = job or ended({"artifact": "sha256:" + "b" * 64})
    meant = Alias(card="chat", name="production", version="chat@1", followers=names)
    other = Alias(card="chat", name="stable", version="chat@1", followers=("not-there",))
    answers: dict[str, Any] = {
        "GET /v1/aliases": [meant, other],
        "GET /v1/models/chat@2": NEXT,
        "POST /v1/jobs": done,
        "GET /v1/jobs/job-1": done,
        "GET /v1/jobs/job-1/reports": {"reports": [], "next": 0, "ended": True},
        MOVED: meant.model_copy(update={"version": "chat@2"}),
    }
    for one in followers:
        answers |= {f"GET /v1/deployments/{one.spec.name}": one, f"POST /v1/deployments/{one.spec.name}/update": one}
    return FakeKernel(answers)


def moved(asked: FakeKernel, meant: ModelVersion = NEXT, *, check: bool = True) -> str:
    return move_alias(asked, "chat", "production", meant, check=check).version  # type: ignore[arg-type]


def changes(asked: FakeKernel) -> list[str]:
    """What was asked for that is no look."""
    return [what for what, sent in asked.asked if not what.startswith("GET") and not (sent or {}).get("only_check")]


def test_the_reference_of_what_it_will_mean_is_made_before_it_moves() -> None:
    asked = kernel(follower())
    assert moved(asked) == "chat@2"
    assert changes(asked) == ["POST /v1/jobs", MOVED]
    (spec,) = [sent["spec"] for what, sent in asked.asked if what == "POST /v1/jobs"]
    assert (spec["task"], spec["inputs"]) == ("evaluation/reference", {"model": NEXT.manifest})
    assert asked.asked[-1][1] == {"version": "chat@2"}


def test_it_is_made_once_where_one_of_several_followers_is_compared() -> None:
    asked = kernel(follower("raw", check=False), follower("first"), follower("second"))
    moved(asked)
    assert changes(asked) == ["POST /v1/jobs", MOVED]


@pytest.mark.parametrize(
    ("followers", "meant"),
    [
        ((), NEXT),
        ((follower(check=False),), NEXT),
        ((follower(engine="torch"),), NEXT.model_copy(update={"format": "safetensors"})),
        ((follower(version="chat@2"),), NEXT),
        ((follower(refused="chat@2"),), NEXT),
    ],
    ids=["nobody follows", "unchecked", "PyTorch itself", "serves it", "took it back"],
)
def test_none_is_made_where_nobody_will_be_compared(followers: tuple[Deployment, ...], meant: ModelVersion) -> None:
    asked = kernel(*followers)
    moved(asked, meant)
    assert changes(asked) == [MOVED]


def test_none_is_made_for_what_a_follower_cannot_serve_and_it_moves_all_the_same() -> None:
    asked = kernel(follower())
    asked.answers["POST /v1/deployments/assistant/update"] = CapacityError("It can never fit.")
    moved(asked)
    assert changes(asked) == [MOVED]


def test_a_follower_that_is_being_updated_will_be_compared_as_well() -> None:
    """The kernel refuses a second update until the alias has moved: that ends the first one."""
    target = Revision(
        number=2, version="chat@3", task="text-generation", engine="openvino", resources=ResourceSpec(memory=1)
    )
    rollout = Rollout(target=target, asked="chat@production", policy=UpdatePolicy(), started_at=0.0, since=0.0)
    asked = kernel(follower(rollout=rollout))
    asked.answers["POST /v1/deployments/assistant/update"] = ConflictError("It is being updated.")
    moved(asked)
    assert changes(asked) == ["POST /v1/jobs", MOVED]


def test_where_it_cannot_be_made_the_alias_moves_and_one_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    missing = UnavailableError("torch is not installed, which runs the reference.", hint="pip install 'llm-os[train]'")
    asked = kernel(follower(), job=ended({}, JobState.FAILED, error=missing.to_dict()))
    assert moved(asked) == "chat@2"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("chat@2 is served without a comparison with PyTorch: torch is not installed")


@pytest.mark.parametrize("error", [BrokenWeightsError("They are broken."), JobCancelledError("Somebody ended it.")])
def test_it_stays_where_the_version_is_broken_or_somebody_ends_that(error: LLMOSError) -> None:
    asked = kernel(follower(), job=ended({}, JobState.FAILED, error=error.to_dict()))
    with pytest.raises(type(error)):
        moved(asked)
    assert changes(asked) == ["POST /v1/jobs"]


def test_a_version_of_another_model_is_refused_without_that_work() -> None:
    asked = kernel(follower())
    asked.answers[MOVED] = InvalidInputError("chat@production cannot mean other@2.")
    with pytest.raises(InvalidInputError, match="cannot mean other@2"):
        moved(asked, NEXT.model_copy(update={"card": "other"}))
    assert changes(asked) == [MOVED]


@pytest.mark.parametrize(("check", "made"), [(True, ["POST /v1/jobs"]), (False, [])])
def test_the_handle_and_the_command_make_it_unless_they_are_told_not_to(
    monkeypatch: pytest.MonkeyPatch, check: bool, made: list[str]
) -> None:
    asked = kernel(follower())
    assert Model(asked, NEXT).alias("production", check=check) == "chat@production"  # type: ignore[arg-type]
    assert changes(asked) == [*made, MOVED]
    asked = kernel(follower())
    monkeypatch.setattr(verbs, "looking", lambda: asked)
    monkeypatch.setattr(verbs, "connect", lambda: asked)
    words = ["alias", "chat@production", "chat@2", *([] if check else ["--no-check"])]
    done = CliRunner().invoke(verbs.models, words)
    assert done.stdout == "chat@production means chat@2; assistant will be updated.\n"
    assert changes(asked) == [*made, MOVED]
