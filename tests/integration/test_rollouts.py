"""From one version of a deployment to the next, through a real kernel, gateway and workers, while callers ask."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from llm_os.testing.home_bed import Callers, Home

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]
QUICK = {"canary": 0.5, "bake": "300ms", "watch": 0, "ready_within": 20}
SLOW = {"reply": "word " * 200, "tokens_per_second": 20}
NUMBERS = count(1)


class Mood:
    """A deployment with a name of its own in a home that the tests share."""

    def __init__(self, home: Home, name: str) -> None:
        self.home, self.name = home, name
        self.path = f"/v1/deployments/{name}"
        self.url = self.key = ""

    async def deploy(self, model: str, **spec: Any) -> None:
        self.url, self.key = await self.home.deploy(self.name, model, **spec)

    def callers(self, number: int) -> Callers:
        return Callers(self.url, self.key, self.name, number)

    async def record(self) -> Any:
        return await self.home.get(self.path)

    async def update(self, model: str | None = None, **body: Any) -> None:
        await self.home.post(f"{self.path}/update", {"model": model, **body})

    async def refused(self, verb: str, body: Any = None) -> str:
        return str((await self.home.refused(f"{self.path}/{verb}", body))["message"])

    async def until(self, fact: Any) -> Any:
        """The deployment when this is true of it."""

        async def true() -> bool:
            return bool(fact(await self.record()))

        await self.home.until(true)
        return await self.record()

    async def until_phase(self, phase: str) -> Any:
        return await self.until(lambda found: found["rollout"] is not None and found["rollout"]["phase"] == phase)

    async def ask(self, key: str = "", messages: Any = None, **more: str) -> tuple[int, Any]:
        """Status and answer; `more` are further headers."""
        path = "/v1/chat/completions" if messages else "/classify"
        body = {"model": self.name, **({"messages": messages} if messages else {"input": "a fine day"})}
        headers = {"authorization": f"Bearer {key or self.key}", **more}
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.url + path, json=body, headers=headers) as answer,
        ):
            return answer.status, await answer.json()

    @asynccontextmanager
    async def streams(self, number: int, words: int) -> AsyncIterator[list[aiohttp.ClientResponse]]:
        """Chats of so many words that are told as they are written; the first word of each is there."""
        body = {"model": self.name, "messages": [{"role": "user", "content": "write"}], "max_tokens": words}
        async with aiohttp.ClientSession(headers={"authorization": f"Bearer {self.key}"}) as session:
            url, asked = self.url + "/v1/chat/completions", body | {"stream": True}
            yield [await session.post(url, json=asked) for _ in range(number)]

    async def served(self) -> set[tuple[str, str, int]]:
        """Tenant, version and requests, as the gateway counted them."""
        found = await self.home.get("/v1/usage")
        return {(one["tenant"], one["version"], one["requests"]) for one in found if one["deployment"] == self.name}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def home(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Home]:
    folder = tmp_path_factory.mktemp("rollouts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder / "r"))
        home = Home(folder)
        await home.start()
        for card, architecture in (("critic", "ToyForSequenceClassification"), ("writer", "ToyForCausalLM")):
            for number in (1, 2, 3)[: 3 if card == "critic" else 2]:
                await home.load(card, architecture, number)
        try:
            yield home
        finally:
            await home.down()


@pytest_asyncio.fixture(loop_scope="module")
async def mood(home: Home) -> AsyncIterator[Mood]:
    mood = Mood(home, f"mood-{next(NUMBERS)}")
    yield mood
    if mood.url:
        await home.post(f"{mood.path}/stop")
        await home.until_state(mood.name, "stopped")


async def test_no_caller_sees_an_update_and_the_version_before_is_a_command_away(mood: Mood) -> None:
    await mood.deploy("critic@1", replicas=2, update=QUICK)
    callers = mood.callers(3)
    await callers.until_more(20)
    await mood.update("critic@2")
    done = await mood.until_phase("done")
    await callers.until_more(20)
    assert (done["version"], done["revision"], done["spec"]["model"]) == ("critic@2", 2, "critic@2")
    assert {replica["version"] for replica in done["replicas"] if replica["state"] == "ready"} == {"critic@2"}
    await mood.home.post(f"{mood.path}/rollback")
    back = await mood.until_phase("done")
    await callers.until_more(20)
    await callers.close()
    assert (back["version"], back["revision"]) == ("critic@1", 3)
    assert set(callers.statuses) == {200}
    events = await mood.home.get("/v1/events", since=0, limit=1000)
    told = [e for e in events if e["kind"].startswith("rollout") and e["subject"] == mood.name]
    assert [(one["kind"].removeprefix("rollout."), one["data"]["version"]) for one in told] == [
        ("started", "critic@2"),
        ("canary", "critic@2"),
        ("rolling", "critic@2"),
        ("done", "critic@2"),
        ("started", "critic@1"),
        ("rolling", "critic@1"),
        ("done", "critic@1"),
    ]


def is_whole(told: str, words: int) -> bool:
    """Whether a stream has all of its words, its end and no error."""
    return (told.count("word"), told.endswith("data: [DONE]\n\n"), '"error"' in told) == (words, True, False)


async def test_slow_streams_end_whole_while_their_replicas_are_scaled_away_and_replaced(mood: Mood) -> None:
    await mood.deploy("writer@1", replicas=2, options=SLOW, update={**QUICK, "bake": 0})

    async def both_asked() -> bool:
        routes = json.loads(mood.home.settings.routes.read_bytes())["routes"]
        return [len(one["endpoints"]) for one in routes if one["deployment"] == mood.name] == [2]

    await mood.home.until(both_asked)
    async with mood.streams(2, 140) as answers:
        await mood.home.post(f"{mood.path}/scale", {"replicas": 1})
        await mood.update("writer@2")
        found = await mood.until(
            lambda found: (
                sorted((one["version"], one["state"]) for one in found["replicas"])
                == [("writer@1", "stopping"), ("writer@1", "stopping"), ("writer@2", "ready")]
            )
        )
        for replica in found["replicas"]:
            if replica["state"] == "stopping":
                told = json.loads((mood.home.settings.attempts / replica["attempt"] / "control.json").read_bytes())
                assert told["grace"] == 60
        for answer in answers:
            assert is_whole(await answer.text(), 140)
    assert (await mood.until_phase("done"))["version"] == "writer@2"


async def test_a_stream_ends_whole_though_its_deployment_is_stopped(mood: Mood) -> None:
    await mood.deploy("writer@1", options=SLOW)
    async with mood.streams(1, 50) as (answer,):
        await mood.home.post(f"{mood.path}/stop")
        assert is_whole(await answer.text(), 50)
    await mood.home.until_state(mood.name, "stopped")


async def test_a_version_that_fails_is_taken_back_and_its_failures_are_answered_by_the_old_one(mood: Mood) -> None:
    await mood.deploy("critic@1", update={**QUICK, "bake": "20s"})
    callers = mood.callers(2)
    await mood.update("critic@2", options={"fails": True})
    back = await mood.until_phase("rolled_back")
    await callers.until_more(10)
    await callers.close()
    assert set(callers.statuses) == {200}
    assert "requests failed" in back["rollout"]["message"]
    assert (back["version"], back["state"]) == ("critic@1", "ready")

    await mood.until(lambda found: [replica["version"] for replica in found["replicas"]] == ["critic@1"])
    why = await mood.home.get(f"/v1/why/{mood.name}")
    assert "rolled back" in why["sentence"]


async def test_a_version_that_does_not_start_never_gets_a_request(mood: Mood) -> None:
    await mood.deploy("critic@1", update=QUICK)
    callers = mood.callers(1)
    await mood.update("critic@2", options={"start_fails": True})
    back = await mood.until_phase("rolled_back")
    await callers.until_more(5)
    await callers.close()
    assert set(callers.statuses) == {200}
    assert "told to fail at its start" in back["rollout"]["message"]
    assert {version for _, version, _ in await mood.served()} <= {"critic@1"}


async def test_a_slow_version_is_taken_back_after_it_took_over(mood: Mood) -> None:
    await mood.deploy("critic@1", update={**QUICK, "bake": 0, "watch": 30})
    callers = mood.callers(4)
    await callers.until_more(100)
    await mood.update("critic@2", options={"slow": 0.2})

    back = await mood.until(lambda found: found["revision"] == 3 and found["rollout"]["phase"] == "done")
    await callers.close()
    assert set(callers.statuses) == {200}
    assert back["version"] == "critic@1"


async def test_a_tenant_tries_a_version_and_others_do_not_until_it_is_promoted(mood: Mood) -> None:
    await mood.deploy("critic@1")
    lab = (await mood.home.post("/v1/keys", {"name": "lab", "tenant": "lab"}))["key"]
    policy = {**QUICK, "canary": 0, "tenants": ["lab"], "bake": None}
    await mood.update("critic@2", policy=policy)
    await mood.until_phase("canary")
    for _ in range(5):
        assert (await mood.ask())[0] == (await mood.ask(lab))[0] == 200

    async def counted() -> bool:
        return await mood.served() == {("default", "critic@1", 5), ("lab", "critic@2", 5)}

    await mood.home.until(counted)
    assert "is being updated to critic@2" in await mood.refused("update", {"model": "critic@3"})
    await mood.home.post(f"{mood.path}/promote")
    assert (await mood.until_phase("done"))["version"] == "critic@2"


async def test_a_shadow_gets_copies_and_nobody_sees_its_answers(mood: Mood) -> None:
    await mood.deploy("writer@1", options={"reply": "old words"})
    policy = {**QUICK, "canary": 1.0, "shadow": True, "bake": None}
    await mood.update("writer@2", options={"reply": "new words"}, policy=policy)
    await mood.until_phase("canary")
    for _ in range(4):
        status, answer = await mood.ask(messages=[{"role": "user", "content": "hi"}])
        assert (status, answer["choices"][0]["message"]["content"]) == (200, "old words")
    usage = mood.home.settings.run / "usage.json"

    async def copied() -> bool:
        counted = json.loads(usage.read_bytes())["deployments"].get(mood.name, {})
        revisions = counted.get("revisions", {})
        return {number: one["requests"] for number, one in revisions.items()} == {"1": 4, "2": 4}

    await mood.home.until(copied)
    assert await mood.served() == {("default", "writer@1", 4)}  # copies are nobody's requests


async def test_a_deployment_follows_an_alias_but_not_to_what_was_taken_back(mood: Mood) -> None:
    await mood.home.put("/v1/aliases/critic/production", {"version": "critic@1"})
    await mood.deploy("critic@production", update=QUICK)
    callers = mood.callers(1)
    assert (await mood.record())["version"] == "critic@1"
    await mood.home.put("/v1/aliases/critic/production", {"version": "critic@2"})
    assert (await mood.until_phase("done"))["version"] == "critic@2"
    await mood.home.post(f"{mood.path}/rollback")

    await mood.until(lambda found: found["version"] == "critic@1" and found["rollout"]["phase"] == "done")
    await mood.home.kill_kernel()
    await mood.home.start()  # nor does a new kernel follow it there
    await callers.until_more(5)
    assert (await mood.record())["version"] == "critic@1"
    await mood.home.put("/v1/aliases/critic/production", {"version": "critic@3"})

    await mood.until(lambda found: found["version"] == "critic@3")
    await callers.close()
    assert set(callers.statuses) == {200}
    alias = next(one for one in await mood.home.get("/v1/aliases") if one["name"] == "production")
    assert (alias["version"], alias["followers"]) == ("critic@3", [mood.name])
    refused = await mood.home.refused("/v1/aliases/critic/production", method="DELETE")
    assert f"followed by {mood.name}" in refused["message"]


async def test_a_deployment_that_was_pinned_stays_when_its_alias_moves(mood: Mood) -> None:
    await mood.home.put("/v1/aliases/critic/trusted", {"version": "critic@1"})
    await mood.deploy("critic@trusted", update={**QUICK, "bake": 0})
    await mood.update("critic@2")
    pinned = await mood.until_phase("done")
    follower = Mood(mood.home, f"{mood.name}-follower")
    await follower.deploy("critic@trusted", update={**QUICK, "bake": 0})
    await mood.home.put("/v1/aliases/critic/trusted", {"version": "critic@3"})
    assert (await follower.until_phase("done"))["version"] == "critic@3"
    found = await mood.record()
    assert (found["version"], found["rollout"]) == ("critic@2", pinned["rollout"])
    alias = next(one for one in await mood.home.get("/v1/aliases") if one["name"] == "trusted")
    assert alias["followers"] == [follower.name]
    await mood.home.post(f"{follower.path}/stop")


async def test_it_sleeps_when_nobody_asks_and_the_next_request_wakes_it(mood: Mood) -> None:
    scaling = {"least": 0, "most": 2, "idle_after": "500ms", "steady": "500ms", "in_flight": 2}
    await mood.deploy("critic@1", scaling=scaling, options={"slow": 1.5})
    await mood.until(lambda found: found["state"] == "asleep" and not found["replicas"])
    assert (await mood.ask())[0] == 200  # held until it is awake
    answers = asyncio.gather(*(mood.ask() for _ in range(24)))
    await mood.until(lambda found: len(found["replicas"]) == 2)
    assert {status for status, _ in await answers} == {200}
    await mood.home.until_state(mood.name, "asleep")


async def test_what_sleeps_is_asked_while_the_kernel_is_dead_and_answers_when_it_is_back(mood: Mood) -> None:
    await mood.deploy("critic@1", scaling={"least": 0, "most": 1, "idle_after": "500ms"})
    await mood.until(lambda found: found["state"] == "asleep" and not found["replicas"])
    await mood.home.kill_kernel()
    held, begun = asyncio.create_task(mood.ask()), time.monotonic()
    status, answer = await mood.ask(**{"x-llm-os-timeout": "1"})
    took, waits = time.monotonic() - begun, not held.done()
    await mood.home.start()
    assert (await held)[0] == 200
    assert (status, answer["error"]["code"], waits, 1 <= took < 3) == (503, "unavailable", True, True), took


async def test_a_sleeping_deployment_tries_its_update_and_keeps_what_works(mood: Mood) -> None:
    await mood.deploy("critic@1", scaling={"least": 0, "most": 1, "idle_after": "300ms"}, update=QUICK)
    await mood.until(lambda found: found["state"] == "asleep")
    await mood.update("critic@2", options={"start_fails": True})
    back = await mood.until_phase("rolled_back")
    assert (back["version"], back["refused"]) == ("critic@1", "critic@2")
    assert (await mood.ask())[0] == 200
    await mood.update("critic@3", options={})
    assert (await mood.until_phase("done"))["version"] == "critic@3"


async def test_an_alias_that_moves_back_ends_the_update(mood: Mood) -> None:
    await mood.home.put("/v1/aliases/critic/stable", {"version": "critic@1"})
    await mood.deploy("critic@stable", update={**QUICK, "bake": None, "canary": 1.0})
    await mood.home.put("/v1/aliases/critic/stable", {"version": "critic@2"})
    await mood.until_phase("canary")
    await mood.home.put("/v1/aliases/critic/stable", {"version": "critic@1"})
    back = await mood.until_phase("rolled_back")
    assert (back["version"], back["refused"]) == ("critic@1", None)
    await mood.home.put("/v1/aliases/critic/stable", {"version": "critic@2"})  # nothing was wrong with it
    await mood.until_phase("canary")


async def test_a_kernel_that_dies_in_the_middle_goes_on_with_the_update(mood: Mood) -> None:
    await mood.deploy("critic@1", update={**QUICK, "bake": "1s"})
    callers = mood.callers(2)
    await mood.update("critic@2", options={"ready_after": 0.5})
    for phase in ("starting", "canary"):
        await mood.until_phase(phase)
        await mood.home.kill_kernel()
        await callers.until_more(5)
        await mood.home.start()
    assert (await mood.until_phase("done"))["version"] == "critic@2"
    await callers.close()
    assert set(callers.statuses) == {200}


async def test_what_cannot_be_updated_is_said(mood: Mood) -> None:
    await mood.deploy("critic@1")
    for body, says in (
        ({"model": "critic@9"}, "There is no model 'critic@9'"),
        ({"model": "writer"}, "serves text-classification, and writer@2 is text-generation"),
        ({"model": "critic@1"}, "serves critic@1 with fake and these options already"),
        ({}, "Nothing of mood"),
        ({"options": {"replly": "x"}}, "no option 'replly'"),
        ({"model": "critic@2", "policy": {"canary": 2}}, "canary"),
    ):
        assert says in await mood.refused("update", body), body
    assert "served nothing but critic@1" in await mood.refused("rollback")
    assert "No new version of mood" in await mood.refused("promote")
    assert "least" in await mood.refused("scale", {"scaling": {"least": 3, "most": 2}})
    unknown = await mood.home.refused("/v1/deployments/nood/update", {"model": "critic@2"})
    assert "no deployment 'nood'" in unknown["message"]
    for path, version, says in (
        ("critic/7", "critic@1", "numbers name versions"),
        ("critic/best", "writer@1", "another"),
    ):
        refused = await mood.home.refused(f"/v1/aliases/{path}", {"version": version}, method="PUT")
        assert says in refused["message"]


async def test_requests_survive_kills_of_old_and_new_replicas_during_an_update(mood: Mood) -> None:
    await mood.deploy("critic@1", replicas=2, update={**QUICK, "bake": "1s"})
    callers = mood.callers(2)
    await mood.update("critic@2")
    found = await mood.until_phase("canary")
    for version in ("critic@1", "critic@2"):
        attempt = next(r["attempt"] for r in found["replicas"] if r["version"] == version)
        handle = json.loads((mood.home.settings.run / "attempts" / attempt / "process.json").read_bytes())
        os.kill(handle["pid"], signal.SIGKILL)
    assert (await mood.until_phase("done"))["version"] == "critic@2"
    await callers.until_more(5)
    await callers.close()
    assert set(callers.statuses) == {200}


async def said(home: Home, *words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of `llm-os` in this home."""
    environment = {**os.environ, "LLM_OS_HOME": str(home.settings.home), "LLM_OS_TESTING": "1"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "llm_os.cli.main", *words),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    return process.returncode or 0, out.decode(), errors.decode()


async def test_the_command_line_labels_a_deployment_and_finds_it_by_its_labels(mood: Mood) -> None:
    given = ("--label", f"team={mood.name}", "--label", "tier=a=b")
    words = ("deploy", "critic@1", "--name", mood.name, "--engine", "fake", *given, "--json")
    code, out, errors = await said(mood.home, *words)
    assert code == 0, errors
    mood.url = json.loads(out)["url"]
    for wanted, names in (
        ([f"team={mood.name}"], [mood.name]),
        ([f"team={mood.name}", "tier=a=b"], [mood.name]),
        ([f"team={mood.name}", "tier=a"], []),
        (["team=other"], []),
    ):
        found = await mood.home.get("/v1/deployments", label=wanted)
        assert [one["spec"]["name"] for one in found] == names, wanted
    _, out, _ = await said(mood.home, "ps", *given, "--json")
    assert [one["spec"]["name"] for one in json.loads(out)["deployments"]] == [mood.name]
    code, out, _ = await said(mood.home, "ps", "--label", "team=other")
    assert (code, "Nothing runs." in out, mood.name in out) == (0, True, False)


async def test_the_command_line_updates_tries_promotes_and_scales(mood: Mood) -> None:
    await mood.deploy("critic@1")
    code, out, _ = await said(mood.home, "update", mood.name, "critic@2", "--canary", "50%", "--bake", "0")
    assert code == 0
    assert f"{mood.name} to critic@2, done: it replaced critic@1." in out
    code, out, _ = await said(mood.home, "update", mood.name, "critic@3", "--tenant", "lab", "--until-promoted")
    assert (code, f"llm-os promote {mood.name}" in out) == (0, True)
    assert "to critic@3, canary" in (await said(mood.home, "ps"))[1]
    assert (await said(mood.home, "promote", mood.name))[0] == 0
    code, out, _ = await said(mood.home, "rollback", mood.name, "--json")
    assert (code, json.loads(out)["version"]) == (0, "critic@2")
    assert (await said(mood.home, "scale", mood.name, "--least", "1", "--most", "3"))[1] == (
        f"{mood.name} shall have between 1 and 3 replicas.\n"
    )
    code, out, errors = await said(mood.home, "update", mood.name, "critic@1", "-o", "start_fails=true")
    assert (code, "stays with critic@2" in errors) == (1, True)
    for words, says in (
        (("update", mood.name, "critic@1", "--canary", "7"), "no share"),
        (("update", mood.name, "critic@1", "--bake", "soon"), "bake"),
        (("update", mood.name, "critic@1", "--bake", "1s", "--until-promoted"), "exclude each other"),
        (("update", mood.name, "critic@1", "-o", "reply"), "--option NAME=VALUE"),
        (("scale", mood.name), "--least and --most"),
        (("models", "alias", "critic"), "needs a name behind '@'"),
        (("models", "alias", "critic@best", "critic@9"), "There is no model 'critic@9'"),
    ):
        code, _, errors = await said(mood.home, *words)
        assert (code != 0, says in errors, "Traceback" in errors) == (True, True, False), (words, errors)
    assert (await said(mood.home, "models", "alias", "critic@best", "critic@1"))[1] == "critic@best means critic@1.\n"
    assert "critic@best" in (await said(mood.home, "models", "alias"))[1]
    assert (await said(mood.home, "models", "alias", "critic@best", "--remove"))[0] == 0
