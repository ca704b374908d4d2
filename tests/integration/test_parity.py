"""An engine is compared with PyTorch before it serves: a real kernel, the real reference of a tiny model, a fake engine
that says something else as often as it is told to."""

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "models"))
from tiny_chat import tiny_chat

from llm_os.testing.home_bed import Home

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]
AT_ONCE = {"canary": 1.0, "bake": 0, "watch": 0, "ready_within": 60}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def home(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Home]:
    """A home with `tiny@1`, whose reference was made by the job that deploying submits."""
    folder = tmp_path_factory.mktemp("parity")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder / "r"))
        home = Home(folder)
        await home.start()
        try:
            tiny_chat(folder / "tiny")
            await job(home, {"task": "sources/fetch", "options": {"source": str(folder / "tiny")}, "name": "tiny"})
            await job(home, {"task": "evaluation/reference", "inputs": {"model": "tiny@1"}})
            yield home
        finally:
            await home.down()


async def job(home: Home, spec: dict[str, Any]) -> Any:
    found = await home.post("/v1/jobs", {"spec": spec, "background": True})

    async def ended() -> bool:
        nonlocal found
        found = await home.get(f"/v1/jobs/{found['id']}", wait=5)
        return found["state"] in {"succeeded", "failed", "cancelled"}

    await home.until(ended, 120)
    assert found["state"] == "succeeded", found["error"]
    return found


async def served(home: Home, name: str) -> Any:
    """What the worker of the only replica was asked to serve."""
    attempt = (await home.get(f"/v1/deployments/{name}"))["replicas"][0]["attempt"]
    return json.loads((home.settings.attempts / attempt / "spec.json").read_bytes())["serve"]


def parity(record: Any) -> Any:
    return record["history"][-1]["parity"]


async def test_the_figures_of_the_comparison_stay_with_the_revision(home: Home) -> None:
    await home.deploy("good", "tiny")
    found = parity(await home.get("/v1/deployments/good"))
    assert (await served(home, "good"))["reference"] is not None
    assert found["everywhere"]["count"] >= 1000
    assert found["everywhere"]["agreed"] == found["everywhere"]["count"]
    assert found["everywhere"]["low"] > 0.99


async def test_what_was_compared_once_is_not_compared_again(home: Home) -> None:
    await home.deploy("first", "tiny", options={"reply": "again"})
    await home.deploy("second", "tiny", options={"reply": "again"})
    first, second = [await home.get(f"/v1/deployments/{name}") for name in ("first", "second")]
    assert (await served(home, "first"))["reference"] is not None
    assert (await served(home, "second"))["reference"] is None
    assert parity(second) == parity(first) != None  # noqa: E711 - the chain reads as one claim


async def test_an_engine_that_says_something_else_is_refused_with_the_places(home: Home) -> None:
    spec = {"name": "bad", "model": "tiny", "engine": "fake", "options": {"disagrees": 0.2}}
    await home.post("/v1/deployments", {"spec": spec, "keep": True})
    await home.until_state("bad", "failed")
    error = (await home.get("/v1/deployments/bad"))["error"]
    assert error["code"] == "parity"
    assert "80.0% of" in error["message"]
    assert len(error["details"]["differences"]) == 5
    events = await home.get("/v1/events", limit=1000)
    assert sum(e["kind"] == "replica.lost" and e["subject"] == "bad" for e in events) == 1, "it is not tried again"


async def test_an_update_to_such_an_engine_is_taken_back(home: Home) -> None:
    await home.deploy("kept", "tiny", options={"reply": "kept"})
    body = {"options": {"disagrees": 0.2}, "policy": AT_ONCE}
    await home.post("/v1/deployments/kept/update", body)

    async def taken_back() -> bool:
        return (await home.get("/v1/deployments/kept"))["rollout"]["phase"] == "rolled_back"

    await home.until(taken_back, 60)
    found = await home.get("/v1/deployments/kept")
    assert (found["state"], found["revision"]) == ("ready", 1)
    assert "does not say what tiny@1 says in PyTorch" in found["rollout"]["message"]


async def test_without_the_check_it_serves_all_the_same_and_has_no_figures(home: Home) -> None:
    await home.deploy("unchecked", "tiny", options={"disagrees": 0.2}, check=False)
    assert parity(await home.get("/v1/deployments/unchecked")) is None


async def test_an_on_demand_replica_is_not_compared(home: Home) -> None:
    spec = {"name": "mine", "model": "tiny", "engine": "fake", "options": {"disagrees": 0.2}}
    await home.post("/v1/deployments", {"spec": spec, "keep": True, "private": True})
    await home.until_state("mine", "ready")
    assert (await served(home, "mine"))["reference"] is None
