"""Adapters beside the model of a deployment, through a real kernel, gateway and workers; the engine is the fake one."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from llm_os.testing.adapters import write_adapter
from llm_os.testing.home_bed import Home

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATH = "/v1/deployments/chat"


class Bed:
    """A home with a model, adapters of it, and a deployment with two replicas.

    Attributes:
        base: digest of the model.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self.base = self.url = self.key = ""

    async def start(self) -> None:
        await self.home.start()
        await self.home.load("toy", "ToyForCausalLM")
        self.base = (await self.home.get("/v1/models/toy@1"))["manifest"]
        await self.adapter("mood", self.base)
        await self.adapter("mood", self.base, seed=1)
        self.url, self.key = await self.home.deploy("chat", "toy@1", replicas=2)

    async def adapter(self, card: str, base: str, **about: Any) -> None:
        folder = self.home.folder / f"{card}-{about.get('seed', 0)}"
        await self.home.fetch(str(write_adapter(folder, base=base, **about)), card)

    async def add(self, version: str, **more: Any) -> None:
        await self.home.post(f"{PATH}/adapters", {"version": version, **more})

    async def refused(self, version: str, **more: Any) -> str:
        error = await self.home.refused(f"{PATH}/adapters", {"version": version, **more})
        return f"{error['message']} {error['hint']}"

    async def say(self, model: str, path: str = "/v1/chat/completions", key: str = "") -> tuple[int, Any]:
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "temperature": 0}
        return await self.home.ask(self.url, key or self.key, path, body)

    async def answer(self, model: str) -> str:
        status, body = await self.say(model)
        assert status == 200, body
        assert body["model"] == model.replace("toy@1", "chat")
        return str(body["choices"][0]["message"]["content"])

    async def until_held(self, adapters: dict[str, str], replicas: int = 2) -> Any:
        async def held() -> bool:
            there = (await self.home.get(PATH))["replicas"]
            return [one["adapters"] for one in there if one["state"] == "ready"] == [adapters] * replicas

        await self.home.until(held)
        return await self.home.get(PATH)

    async def empty(self) -> None:
        for name in (await self.home.get(PATH))["spec"]["adapters"]:
            await self.home.call("DELETE", f"{PATH}/adapters/{name}")
        await self.until_held({})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bed]:
    bed = Bed(Home(tmp_path_factory.mktemp("adapters")))
    try:
        await bed.start()
        yield bed
    finally:
        await bed.home.down()


@pytest_asyncio.fixture(loop_scope="module")
async def bed(whole: Bed) -> Bed:
    await whole.empty()
    return whole


async def test_an_adapter_answers_beside_the_model_as_soon_as_it_is_added_and_can_be_replaced_and_removed(
    bed: Bed,
) -> None:
    said = await bed.answer("chat")
    await bed.add("mood@1")
    # The request waits for a replica that holds it: nobody has to look first.
    assert await bed.answer("chat:mood") == f"mood mood@1 {said}"
    assert await bed.answer("toy@1:mood") == f"mood mood@1 {said}"
    assert await bed.answer("chat") == said
    await bed.until_held({"mood": "mood@1"})
    assert await bed.refused("mood@2") == (
        "chat has an adapter 'mood' already (mood@1). Replace it: llm-os adapters add chat VERSION --as mood "
        "--replace; or choose another name: --as."
    )
    await bed.add("mood@1")  # once more is once
    await bed.add("mood@2", replace=True)
    await bed.add("mood@1", name="old")
    await bed.until_held({"mood": "mood@2", "old": "mood@1"})
    assert await bed.answer("chat:mood") == f"mood mood@2 {said}"
    assert await bed.answer("chat:old") == f"old mood@1 {said}"
    await bed.home.call("DELETE", f"{PATH}/adapters/old")
    status, body = await bed.say("chat:old")
    assert (status, body["error"]["code"]) == (404, "not_found")
    assert body["error"]["message"] == "'chat' has no adapter 'old'."
    assert body["error"]["hint"].endswith("Known: chat, chat:mood.")
    status, body = await bed.say("chat:moo")
    assert "Did you mean 'chat:mood'?" in body["error"]["hint"]
    kinds = [event["kind"] for event in await bed.home.get("/v1/events", limit=1000)]
    assert kinds.count("adapter.added") >= 3
    assert "adapter.removed" in kinds


async def test_lists_counts_and_keys_know_adapters(bed: Bed) -> None:
    await bed.add("mood@1")
    await bed.until_held({"mood": "mood@1"})
    await bed.answer("chat:mood")
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {bed.key}"}) as session:
        async with session.get(f"{bed.url}/v1/models") as answer:
            listed = {one["id"]: one for one in (await answer.json())["data"]}
        async with session.get(f"{bed.url}/v1/models/chat:mood") as answer:
            assert await answer.json() == listed["chat:mood"]
    assert "parent" not in listed["chat"]
    mood = listed["chat:mood"]
    assert (mood["parent"], mood["version"], mood["ready"]) == ("chat", "mood@1", True)
    await bed.home.deploy("other", "toy@1")
    made = await bed.home.post("/v1/keys", {"name": "narrow", "deployments": ["other"]})
    status, body = await bed.say("chat:mood", key=made["key"])
    assert (status, body["error"]["code"]) == (403, "permission_denied")
    mine = await bed.home.post("/v1/keys", {"name": "mine", "deployments": ["chat"]})
    assert (await bed.say("chat:mood", key=mine["key"]))[0] == 200

    async def counted() -> bool:
        usage = await bed.home.get("/v1/usage")
        return any(one["version"] == "mood@1" and one["completion_tokens"] >= 7 for one in usage)

    await bed.home.until(counted)


async def test_answers_that_are_kept_are_never_those_of_another_adapter(bed: Bed) -> None:
    await bed.add("mood@1")
    await bed.until_held({"mood": "mood@1"})
    quota = {"cache": True}
    key = (await bed.home.post("/v1/keys", {"name": "keeps", "tenant": "keeps", "quota": quota}))["key"]
    said = {}
    for _ in range(2):
        for model in ("chat", "chat:mood"):
            _, body = await bed.say(model, key=key)
            said.setdefault(model, []).append((body["id"], body["choices"][0]["message"]["content"]))
    assert {model: len({number for number, _ in each}) for model, each in said.items()} == {"chat": 1, "chat:mood": 1}
    assert said["chat"][1][1] != said["chat:mood"][1][1]
    await bed.add("mood@2", replace=True)
    await bed.until_held({"mood": "mood@2"})
    _, body = await bed.say("chat:mood", key=key)
    assert body["choices"][0]["message"]["content"].startswith("mood mood@2")


async def test_what_cannot_be_carried_is_refused_by_name_and_nothing_changes(bed: Bed) -> None:
    await bed.home.load("foreign", "ToyForCausalLM", 2)
    foreign = (await bed.home.get("/v1/models/foreign@1"))["manifest"]
    await bed.adapter("strange", foreign)
    await bed.adapter("unknown", "some/hub-model")
    await bed.adapter("thick", bed.base, rank=64)
    assert "strange@1 was trained on foreign@1, and toy@1 is another one." in await bed.refused("strange")
    assert "It is not recorded on what unknown@1 was trained." in await bed.refused("unknown")
    assert "thick@1 has rank 64, and replicas of fake have room for 16 here." in await bed.refused("thick")
    assert "toy@1 is no adapter: it is a whole model (safetensors)." in await bed.refused("toy@1")
    assert "Did you mean 'mood@1'" in await bed.refused("mod@1")
    await bed.add("mood@1", name="a")
    await bed.add("mood@1", name="b")
    message = await bed.refused("mood@1", name="c")
    assert message.startswith("chat would carry 3 adapters, and its replicas have room for 2.")
    assert "llm-os update chat --option max_adapters=3" in message
    error = await bed.home.refused(f"{PATH}/adapters/c", method="DELETE")
    assert (error["message"], error["hint"]) == ("chat has no adapter 'c'.", "Known: a, b.")
    error = await bed.home.refused(f"{PATH}/adapters", {"version": "mood@1", "name": "Two Words"})
    assert "name" in error["message"]
    assert sorted((await bed.home.get(PATH))["spec"]["adapters"]) == ["a", "b"]
    # Another base under a deployment with adapters would leave their callers without an answer.
    error = await bed.home.refused(f"{PATH}/update", {"model": "foreign@1"})
    assert "chat carries the adapter 'a': mood@1 was trained on toy@1" in error["message"]
    assert "llm-os adapters remove chat a" in error["hint"]


async def test_replicas_that_come_later_hold_what_the_deployment_carries_and_a_killed_kernel_changes_nothing(
    bed: Bed,
) -> None:
    await bed.add("mood@1")
    record = await bed.until_held({"mood": "mood@1"})
    process = json.loads((bed.home.settings.attempts / record["replicas"][0]["attempt"] / "process.json").read_text())
    os.kill(process["pid"], signal.SIGKILL)

    async def lost() -> bool:
        return bool((await bed.home.get(PATH))["replicas"] != record["replicas"])

    await bed.home.until(lost)
    await bed.until_held({"mood": "mood@1"})
    await bed.home.kill_kernel()
    assert (await bed.answer("chat:mood")).startswith("mood mood@1 ")
    await bed.home.start()
    await bed.until_held({"mood": "mood@1"})
    await bed.add("mood@2", name="new")
    await bed.until_held({"mood": "mood@1", "new": "mood@2"})
    await bed.home.post(f"{PATH}/update", {"options": {"reply": "Newer."}, "policy": {"bake": 0, "watch": 0}})

    async def done() -> bool:
        return (await bed.home.get(PATH))["rollout"]["phase"] == "done"

    await bed.home.until(done)
    await bed.until_held({"mood": "mood@1", "new": "mood@2"})
    assert await bed.answer("chat:new") == "new mood@2 Newer."


async def test_nobody_fails_while_adapters_come_and_go(bed: Bed) -> None:
    await bed.add("mood@1")
    await bed.until_held({"mood": "mood@1"})
    statuses: list[int] = []
    over = asyncio.Event()

    async def ask(model: str) -> None:
        while not over.is_set():
            statuses.append((await bed.say(model))[0])

    asking = [asyncio.create_task(ask(model)) for model in ("chat", "chat:mood", "chat:mood")]
    for turn in range(4):
        await bed.add(f"mood@{1 + turn % 2}", replace=True)
        await bed.add("mood@1", name="guest")
        await bed.until_held({"mood": f"mood@{1 + turn % 2}", "guest": "mood@1"})
        await bed.home.call("DELETE", f"{PATH}/adapters/guest")
        await bed.until_held({"mood": f"mood@{1 + turn % 2}"})
    over.set()
    await asyncio.gather(*asking)
    assert set(statuses) == {200}
    assert len(statuses) > 10


async def test_an_adapter_that_no_replica_can_take_is_told_of_and_the_model_goes_on(bed: Bed) -> None:
    options = {"adapters_fail": True}
    url, key = await bed.home.deploy("picky", "toy@1", options=options, adapters={"mood": "mood@1"})
    body = {"model": "picky:mood", "messages": [{"role": "user", "content": "Hello"}]}
    status, told = await bed.home.ask(url, key, "/v1/chat/completions", body)
    assert (status, told["error"]["code"]) == (503, "unavailable")
    assert "was told to take no adapter" in told["error"]["message"]
    assert (await bed.home.ask(url, key, "/v1/chat/completions", {**body, "model": "picky"}))[0] == 200
    code, _, errors = await bed.home.command("adapters", "add", "picky", "mood@2", "--as", "more")
    assert code != 0
    assert "picky cannot hold the adapter mood@2" in errors
    assert (await bed.home.get("/v1/deployments/picky"))["state"] == "ready"


async def test_the_command_line_adds_lists_and_removes(bed: Bed) -> None:
    code, out, errors = await bed.home.command("adapters", "add", "chat", "mood@1")
    assert (code, out, errors) == (0, "chat:mood is mood@1.\n", "")
    code, out, _ = await bed.home.command("adapters", "add", "chat", "mood@2", "--replace", "--json")
    assert json.loads(out)["served"] is True
    code, out, _ = await bed.home.command("adapters", "list", "chat", "--json")
    expected = {"name": "mood", "model": "chat:mood", "version": "mood@2", "replicas": 2, "ready": 2}
    assert json.loads(out) == [{**expected, "failed": "", "served": True}]
    code, out, _ = await bed.home.command("adapters", "list", "chat")
    assert "chat:mood" in out
    code, out, _ = await bed.home.command("adapters", "remove", "chat", "mood")
    assert (code, out) == (0, "chat:mood is served no more.\n")
    code, out, _ = await bed.home.command("adapters", "list", "chat")
    assert out.strip() == "chat serves its model alone."
    code, _, errors = await bed.home.command("adapters", "remove", "chat", "mood")
    assert code != 0
    assert "chat has no adapter 'mood'." in errors
