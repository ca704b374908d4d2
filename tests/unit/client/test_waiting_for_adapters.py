"""How long it is waited for an adapter: as long as a replica that starts comes a step further."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fake_kernel import FakeKernel

from llm_os.client import adapters
from llm_os.client.adapters import READY_SECONDS, add
from llm_os.errors import UnavailableError
from llm_os.spec import api
from llm_os.spec.deployments import Deployment, DeploymentSpec, DeploymentState, Replica

BODY = api.AddAdapter(version="tuned@1", name="tuned")


class Starting:
    """A deployment whose only replica is being compared for `seconds`; then it holds what it shall."""

    def __init__(self, patch: pytest.MonkeyPatch, seconds: float) -> None:
        self.now, self.seconds = 1000.0, seconds
        patch.setattr(adapters.time, "monotonic", lambda: self.now)
        patch.setattr(adapters.time, "sleep", self._sleep)
        answers = {"GET /v1/deployments/chat": self.record, "POST /v1/deployments/chat/adapters": self.record}
        self.kernel: Any = FakeKernel(answers)

    def _sleep(self, _: float) -> None:
        self.now += 10.0

    def record(self, _: Any) -> Deployment:
        ready = self.now >= 1000.0 + self.seconds
        replica = Replica(
            attempt="a", state="ready" if ready else "running", endpoint=None, engine="torch",
            progress={} if ready else {"at": self.now - self.now % 60}, adapters={"tuned": "tuned@1"} if ready else {},
        )  # fmt: skip
        return Deployment(
            id="dep", spec=DeploymentSpec(name="chat", model="m@1", adapters={"tuned": "tuned@1"}), version="m@1",
            task="t", engine="torch", session=None, state=DeploymentState.STARTING, replicas=(replica,), created_at=0,
        )  # fmt: skip


def test_a_replica_that_is_compared_first_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert add(Starting(monkeypatch, 5 * READY_SECONDS).kernel, "chat", BODY).served


def test_one_that_comes_no_step_further_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    starting = Starting(monkeypatch, 5 * READY_SECONDS)
    real = starting.record
    still = real(None).replicas[0].model_copy(update={"progress": {"at": 7.0}})
    starting.kernel.answers["GET /v1/deployments/chat"] = lambda _: real(None).model_copy(update={"replicas": (still,)})
    with pytest.raises(UnavailableError, match="0 of 0 replicas"):
        add(starting.kernel, "chat", BODY)
    assert starting.now < 1000.0 + 2 * READY_SECONDS
