"""An engine is compared with PyTorch before it serves: a real kernel, the real reference of a tiny model, a fake engine
that says something else as often as it is told to."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "models"))
from tiny_chat import tiny_chat, tiny_llama, tiny_tokenizer

from llm_os.client import references
from llm_os.client.aliases import move_alias
from llm_os.client.connection import Connection
from llm_os.spec.models import ModelVersion
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


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def free_cores(home: Home) -> AsyncIterator[None]:
    """Each test ends what it deployed: in whatever order they run, PyTorch finds the whole core that it needs."""
    yield
    for deployment in await home.get("/v1/deployments"):
        await home.post(f"/v1/deployments/{deployment['spec']['name']}/stop")


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


async def test_an_engine_beside_another_one_that_says_something_else_does_not_serve_and_the_other_does(
    home: Home,
) -> None:
    members = [{"engine": "fake", "options": options} for options in ({"reply": "both"}, {"disagrees": 0.3})]
    spec = {"name": "both", "model": "tiny", "members": members}
    await home.post("/v1/deployments", {"spec": spec, "keep": True})
    await home.until_state("both", "ready")

    async def out() -> bool:
        return bool((await home.get("/v1/deployments/both"))["troubles"])

    await home.until(out, 60)
    found = await home.get("/v1/deployments/both")
    assert found["state"] == "ready"
    assert [one["member"] for one in found["replicas"]] == [0]
    first, second = parity(found), found["history"][-1]["beside"][0]["parity"]
    assert first["everywhere"]["agreed"] == first["everywhere"]["count"]
    assert second is None
    assert "fake does not serve it" in (await home.get("/v1/why/both"))["sentence"]


async def test_without_the_check_it_serves_all_the_same_and_has_no_figures(home: Home) -> None:
    await home.deploy("unchecked", "tiny", options={"disagrees": 0.2}, check=False)
    assert parity(await home.get("/v1/deployments/unchecked")) is None


async def test_an_on_demand_replica_is_not_compared(home: Home) -> None:
    spec = {"name": "mine", "model": "tiny", "engine": "fake", "options": {"disagrees": 0.2}}
    await home.post("/v1/deployments", {"spec": spec, "keep": True, "private": True})
    await home.until_state("mine", "ready")
    assert (await served(home, "mine"))["reference"] is None


async def test_a_check_refuses_what_would_be_refused_and_makes_nothing(home: Home) -> None:
    spec = {"name": "only-asked", "model": "tiny", "engine": "fake"}
    found = await home.post("/v1/deployments", {"spec": spec, "keep": True, "only_check": True})
    assert (found["key"], found["deployment"]["engine"], found["deployment"]["version"]) == ("", "fake", "tiny@1")
    assert "only-asked" not in {one["spec"]["name"] for one in await home.get("/v1/deployments", all="true")}
    events = await home.get("/v1/events", limit=1000)
    assert not [event for event in events if event["subject"] == "only-asked"]
    await home.deploy("there", "tiny", options={"reply": "there"})
    with pytest.raises(AssertionError, match="is there already"):
        await home.post("/v1/deployments", {"spec": {**spec, "name": "there"}, "keep": True, "only_check": True})
    body = {"options": {"reply": "other"}, "policy": AT_ONCE, "only_check": True}
    assert (await home.post("/v1/deployments/there/update", body))["rollout"] is None
    ready = [event for event in await home.get("/v1/events", limit=1000) if event["kind"] == "replica.ready"]
    assert "there" in {event["subject"] for event in ready}, "events are told of names"


async def verified(home: Home, name: str) -> Any:
    """The comparison of a live deployment, when it is done."""
    found = await home.post(f"/v1/deployments/{name}/verify", {})

    async def done() -> bool:
        nonlocal found
        found = await home.get(f"/v1/deployments/{name}/verify", number=found["number"], wait=5)
        return all(one["parity"] or one["error"] for one in found["replicas"])

    await home.until(done, 60)
    return found


async def test_a_live_service_is_compared_again_and_the_figure_stays_with_its_revision(home: Home) -> None:
    await home.deploy("watched", "tiny", options={"reply": "watched"})
    before = parity(await home.get("/v1/deployments/watched"))
    (told,) = (await verified(home, "watched"))["replicas"]
    assert told["begun"]
    assert told["error"] is None
    assert told["parity"]["everywhere"] == before["everywhere"]
    assert told["parity"]["complaints"] == []
    after = parity(await home.get("/v1/deployments/watched"))
    assert (after["key"], after["everywhere"]) == (before["key"], before["everywhere"])
    assert after["at"] > before["at"]


async def test_a_live_service_that_says_something_else_is_told_with_the_places(home: Home) -> None:
    options = {"reply": "wrong", "disagrees": 0.2}
    await home.deploy("wrong", "tiny", options=options, check=False)
    (told,) = (await verified(home, "wrong"))["replicas"]
    assert told["parity"]["everywhere"]["agreed"] < 0.5 * told["parity"]["everywhere"]["count"]
    assert any("98% must" in one for one in told["parity"]["complaints"])
    assert len(told["differences"]) == 5
    assert parity(await home.get("/v1/deployments/wrong"))["complaints"] == told["parity"]["complaints"]
    # What was found wrong is no licence: the same is compared, and refused, where it is deployed to be checked.
    again = {"name": "wrong-again", "model": "tiny", "engine": "fake", "options": options}
    await home.post("/v1/deployments", {"spec": again, "keep": True})
    await home.until_state("wrong-again", "failed")
    assert (await home.get("/v1/deployments/wrong-again"))["error"]["code"] == "parity"


async def test_the_command_tells_both_kinds_and_ends_with_what_it_found(home: Home) -> None:
    await home.deploy("asked", "tiny", options={"reply": "asked"})
    code, said, _ = await home.command("verify", "asked")
    assert (code, said.splitlines()[0]) == (0, "asked (fake) says what tiny@1 says in PyTorch.")
    assert "100.0% of" in said
    code, said, _ = await home.command("verify", "tiny@1")
    assert (code, "is whole" in said) == (0, True)
    manifest = (await home.get("/v1/models/tiny@1"))["manifest"].removeprefix("sha256:")
    files = json.loads((home.settings.artifacts / "manifests" / f"{manifest}.json").read_bytes())["files"]
    config = next(file for file in files if file["path"] == "config.json")
    blob = home.settings.artifacts / "blobs" / config["sha256"][:2] / config["sha256"]
    content = blob.read_bytes()
    blob.chmod(0o600)
    try:
        blob.write_bytes(b"!" + content[1:])
        code, said, _ = await home.command("verify", "tiny")
        assert code == 1
        assert "config.json was changed in chunk 0 of 1" in said
        assert "model.safetensors" not in said
    finally:
        blob.write_bytes(content)
        blob.chmod(0o400)
    code, _, told = await home.command("verify", "nothing")
    assert (code != 0, "There is no deployment and no model 'nothing'" in told) == (True, True)


async def test_a_service_without_a_replica_cannot_be_compared(home: Home) -> None:
    spec = {"name": "gone", "model": "tiny", "engine": "fake", "options": {"start_fails": True}}
    await home.post("/v1/deployments", {"spec": spec, "keep": True})
    error = await home.refused("/v1/deployments/gone/verify", {})
    assert "no replica that answers" in json.dumps(error)


async def test_what_an_alias_moves_to_is_compared_though_nobody_deployed_it_before(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "NOT_COMPARED", ("torch",))  # the fake engine stands for one that is compared
    for width in (0.3, 0.4):
        folder, tokenizer = home.folder / f"moving-{width}", tiny_tokenizer()
        tiny_llama(tokenizer, initializer_range=width).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        await job(home, {"task": "sources/fetch", "options": {"source": str(folder)}, "name": "moving"})
    await home.put("/v1/aliases/moving/production", {"version": "moving@1"})
    await home.deploy("moving", "moving@production", update=AT_ONCE)
    version = ModelVersion.model_validate(await home.get("/v1/models/moving@2"))
    script = Connection(home.settings.home, home.settings.socket, name="test", ttl=60, idle_after=60)
    try:
        moved = await asyncio.to_thread(move_alias, script, "moving", "production", version)
    finally:
        await asyncio.to_thread(script.close)
        script.transport.close()
    assert (moved.version, moved.followers) == ("moving@2", ("moving",))

    async def served() -> bool:
        found = await home.get("/v1/deployments/moving")
        return found["version"] == "moving@2" and found["rollout"]["phase"] == "done"

    await home.until(served, 60)
    found = parity(await home.get("/v1/deployments/moving"))
    assert found["everywhere"]["agreed"] == found["everywhere"]["count"] >= 1000
