"""Waiting for a deployment that starts: as long as it lives, showing how far it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fake_kernel import FakeKernel

from llm_os.client import deployments
from llm_os.client.deployments import READY_SECONDS, wait_ready
from llm_os.errors import ConflictError, UnavailableError
from llm_os.spec.deployments import (
    Deployment,
    DeploymentSpec,
    DeploymentState,
    Phase,
    Replica,
    Revision,
    Rollout,
    UpdatePolicy,
)
from llm_os.spec.parity import COMPARING
from llm_os.spec.resources import ResourceSpec

PATH = "GET /v1/deployments/dep-1"


def record(step: int | None = None, state: DeploymentState = DeploymentState.STARTING) -> Deployment:
    told = {} if step is None else {"stage": COMPARING, "step": step, "total": 1040, "at": float(step)}
    replica = Replica(attempt="a", state="running", endpoint=None, engine="e", progress=told)
    spec = DeploymentSpec(name="chat", model="chat@1")
    return Deployment(
        id="dep-1", spec=spec, version="chat@1", task="text-generation", engine="e", session=None, state=state,
        replicas=(replica,), created_at=0.0,
    )  # fmt: skip


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the client believes have passed; each look takes a hundred."""
    now = [0.0]
    monkeypatch.setattr(deployments.time, "monotonic", lambda: now[0])
    return now


def kernel(clock: list[float], records: Iterator[Deployment]) -> FakeKernel:
    def look(_: Any) -> Deployment:
        clock[0] += 100.0
        return next(records)

    why = {"subject": "chat", "kind": "deployment", "state": "starting", "sentence": "It loads."}
    return FakeKernel({PATH: look, "GET /v1/why/dep-1": why})


def test_a_comparison_that_goes_on_for_an_hour_is_waited_for(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [record(step) for step in range(1, 40)]
    asked = kernel(clock, iter([*steps, record(state=DeploymentState.READY)]))
    assert wait_ready(asked, record()).state is DeploymentState.READY  # type: ignore[arg-type]
    assert clock[0] > 6 * READY_SECONDS
    assert "chat: comparing, step 1 of 1040" in capsys.readouterr().err


def test_of_two_that_start_the_one_that_comes_on_is_the_sign_of_life(clock: list[float]) -> None:
    steps = [
        record(step).model_copy(update={"replicas": record(1).replicas + record(step).replicas})
        for step in range(1, 20)
    ]
    asked = kernel(clock, iter([*steps, record(state=DeploymentState.READY)]))
    assert wait_ready(asked, record()).state is DeploymentState.READY  # type: ignore[arg-type]


def test_one_that_tells_nothing_more_is_given_up_with_the_reason(clock: list[float]) -> None:
    asked = kernel(clock, (record(7) for _ in range(100)))
    with pytest.raises(UnavailableError, match=r"chat is not ready yet: It loads\."):
        wait_ready(asked, record(7))  # type: ignore[arg-type]
    assert clock[0] <= READY_SECONDS + 200, "the same report is no sign of life"


@pytest.mark.parametrize("keep", [True, False])
def test_who_waits_no_longer_is_told_what_goes_on(capsys: pytest.CaptureFixture[str], keep: bool) -> None:
    answer = {"deployment": record().model_dump(mode="json"), "key": "k", "url": None}
    asked = FakeKernel({"POST /v1/deployments": answer, PATH: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        deployments.deploy(asked, DeploymentSpec(name="chat", model="chat@1"), keep=keep)  # type: ignore[arg-type]
    said = capsys.readouterr().err
    assert "chat goes on starting. End it with: llm-os stop chat" in said
    assert ("llm-os keys create KEY --only chat" in said) is keep, "its own key was never shown"


def updating(phase: Phase, state: DeploymentState = DeploymentState.READY) -> Deployment:
    target = Revision(number=2, version="chat@2", task="t", engine="e", resources=ResourceSpec(memory=1))
    rollout = Rollout(target=target, policy=UpdatePolicy(), asked="chat@2", phase=phase, started_at=0, since=0)
    return record(state=state).model_copy(update={"rollout": rollout})


@pytest.mark.parametrize("state", [DeploymentState.STOPPING, DeploymentState.STOPPED])
def test_a_deployment_that_is_ended_while_it_is_updated_is_no_success(
    state: DeploymentState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends in the middle of a phase: the phase says nothing of it."""
    monkeypatch.setattr(deployments.time, "sleep", lambda _: None)
    asked = iter([updating(Phase.CANARY), updating(Phase.CANARY), updating(Phase.CANARY, state)])
    kernel = FakeKernel({"GET /v1/deployments/chat": lambda _: next(asked)})
    handle = deployments.Deployment(kernel, "chat", "http://127.0.0.1:1/v1", "key", "chat@1")  # type: ignore[arg-type]
    with pytest.raises(ConflictError, match="chat was ended while it was updated"):
        handle._followed(updating(Phase.STARTING))
