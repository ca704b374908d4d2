"""Replicas of different engines under one name, through a real kernel, gateway and workers."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from llm_os import plugins
from llm_os.drivers.device import Unavailable
from llm_os.spec.calibration import Speed
from llm_os.spec.routing import Endpoint
from llm_os.testing.gateway_bed import USER, GatewayBed, ScriptedReplica, a_route
from llm_os.testing.home_bed import Home

# -- the gateway alone: where a request finishes soonest ---------------------------------------------------------------

FEW = (Speed(streams=1, per_second=200, first=0.01), Speed(streams=8, per_second=200, first=0.01))
MANY = (Speed(streams=1, per_second=40, first=0.01), Speed(streams=8, per_second=800, first=0.01))


class Kind(ScriptedReplica):
    """A replica of one engine, as it was measured."""

    def __init__(self, path: Path, speeds: tuple[Speed, ...] = (), lacks: tuple[str, ...] = ()) -> None:
        super().__init__(path)
        self.speeds, self.lacks = speeds, lacks

    def endpoint(self) -> Endpoint:
        more = {"engine": self.path.stem, "speeds": self.speeds, "lacks": self.lacks}
        return super().endpoint().model_copy(update=more)


async def ask(url: str, **more: Any) -> tuple[int, Any, str]:
    """Status, answer, and the engine that gave it."""
    body = {"model": "chat", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20, **more}
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {USER}"}) as session,
        session.post(f"{url}/v1/chat/completions", json=body) as answer,
    ):
        return answer.status, await answer.json(), answer.headers.get("x-llm-os-engine", "")


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[GatewayBed]:
    bed = GatewayBed(tmp_path / "home")
    yield bed
    await bed.close()


@pytest.fixture
async def pair(tmp_path: Path, bed: GatewayBed) -> AsyncIterator[tuple[Kind, Kind]]:
    few, many = Kind(tmp_path / "few.sock", FEW), Kind(tmp_path / "many.sock", MANY)
    for one in (few, many):
        await one.start()
    bed.route(a_route("chat", few, many))
    await bed.start()
    yield few, many
    for one in (few, many):
        await one.close()


async def test_one_caller_is_answered_by_one_engine_and_many_by_the_other(
    bed: GatewayBed, pair: tuple[Kind, Kind]
) -> None:
    few, many = pair
    for _ in range(5):
        assert (await ask(bed.url))[2] == "few"
    assert not many.seen
    few.delay = many.delay = 0.4
    asked, done = len(few.seen), asyncio.Event()

    async def caller() -> list[str]:
        found = []
        while not done.is_set():
            found.append((await ask(bed.url))[2])
        return found

    callers = [asyncio.create_task(caller()) for _ in range(8)]
    await many.until(lambda: len(many.seen) >= 60, 60)
    done.set()
    for found in await asyncio.gather(*callers):
        assert found[-3:] == ["many"] * 3  # all of them, and none now and then
    assert len(few.seen) - asked <= 16  # who came before the others were seen; on a busy machine twice


async def test_a_request_that_one_engine_cannot_answer_goes_to_the_other_one(
    bed: GatewayBed, pair: tuple[Kind, Kind]
) -> None:
    few, many = pair
    few.lacks, many.lacks = ("the_likeliest_tokens_are_told",), ("an_answer_is_held_to_a_schema",)
    bed.route(a_route("chat", few, many))
    assert (await ask(bed.url, logprobs=True, top_logprobs=2))[2] == "many"
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    assert (await ask(bed.url, response_format=form))[2] == "few"
    assert (len(few.seen), len(many.seen)) == (1, 1)


async def test_what_one_engine_refuses_another_is_asked_and_the_first_refusal_is_told(
    bed: GatewayBed, pair: tuple[Kind, Kind]
) -> None:
    few, many = pair
    refusal = {"error": {"message": "It has 9 tokens, the context has room for 4.", "code": "invalid_option"}}
    few.refuse_with = (400, refusal)
    assert (await ask(bed.url))[::2] == (200, "many")
    many.refuse_with = (400, {"error": {"message": "Another one.", "code": "invalid_option"}})
    status, body, _ = await ask(bed.url)
    assert (status, body["error"]["message"]) == (400, "It has 9 tokens, the context has room for 4.")
    assert (len(few.seen), len(many.seen)) == (2, 2)
    bed.route(a_route("chat", few))
    assert (await ask(bed.url))[0] == 400
    assert len(few.seen) == 3  # where there is one engine, it is asked once


async def test_an_engine_that_dies_is_replaced_by_the_other_one_in_the_same_request(
    bed: GatewayBed, pair: tuple[Kind, Kind]
) -> None:
    few, many = pair
    few.break_before = 1
    assert (await ask(bed.url))[::2] == (200, "many")
    await few.close()
    assert (await ask(bed.url))[::2] == (200, "many")
    assert len(many.seen) == 2


async def test_what_one_engine_refuses_waits_for_the_other_one_while_that_cannot_be_reached(
    bed: GatewayBed, pair: tuple[Kind, Kind]
) -> None:
    """And is not asked of the first one over and over."""
    few, many = pair
    few.refuse_with = (400, {"error": {"message": "It is too long.", "code": "invalid_option"}})
    await many.close()
    asking = asyncio.create_task(ask(bed.url))
    await few.until(lambda: len(few.seen) == 1)
    await asyncio.sleep(0.3)
    await many.start()
    assert (await asking)[::2] == (200, "many")
    assert len(few.seen) == 1
    await many.close()
    asking = asyncio.create_task(ask(bed.url))
    await few.until(lambda: len(few.seen) == 2)
    bed.route(a_route("chat", few))  # the kernel has seen it
    status, body, _ = await asking
    assert (status, body["error"]["message"]) == (400, "It is too long.")
    assert len(few.seen) <= 3


# -- the whole path ----------------------------------------------------------------------------------------------------

SLOW, QUICK = ({"tokens_per_second": rate, "reply": f"{rate} a second"} for rate in (50, 500))
MEMBERS = [{"engine": "fake", "options": options} for options in (SLOW, QUICK)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def home(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Home]:
    folder = tmp_path_factory.mktemp("mixed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder / "r"))
        home = Home(folder)
        await home.start()
        for number in (1, 2):
            await home.load("writer", "ToyForCausalLM", number)
        try:
            yield home
        finally:
            await home.down()


async def until_all(home: Home, name: str, number: int, seconds: float = 30.0) -> Any:
    """The deployment when so many replicas answer."""

    async def there() -> bool:
        replicas = (await home.get(f"/v1/deployments/{name}"))["replicas"]
        return len(replicas) == number and all(one["state"] == "ready" for one in replicas)

    try:
        await home.until(there, seconds)
    except TimeoutError:
        pytest.fail((await home.get(f"/v1/why/{name}"))["sentence"])
    return await home.get(f"/v1/deployments/{name}")


async def words(home: Home, url: str, key: str, name: str) -> str:
    body = {"model": name, "messages": [{"role": "user", "content": "Hi"}]}
    status, answer = await home.ask(url, key, "/v1/chat/completions", body)
    assert status == 200, answer
    return str(answer["choices"][0]["message"]["content"])


@pytest.mark.asyncio(loop_scope="module")
async def test_both_engines_serve_and_one_goes_on_when_the_other_is_killed(home: Home) -> None:
    url, key = await home.deploy("pair", "writer@1", engine=None, members=MEMBERS)
    record = await until_all(home, "pair", 2)
    assert sorted(one["member"] for one in record["replicas"]) == [0, 1]
    assert {await words(home, url, key, "pair") for _ in range(6)} == {"50 a second", "500 a second"}
    _, shown, _ = await home.command("ps")
    assert "writer@1 (fake, fake)" in shown
    assert "1 of 1 fake, 1 of 1 fake" in shown
    victim = next(one["attempt"] for one in record["replicas"] if one["member"] == 0)
    os.kill(process(home, victim), signal.SIGKILL)
    for _ in range(6):
        assert await words(home, url, key, "pair") in {"50 a second", "500 a second"}
    again = await until_all(home, "pair", 2)
    assert victim not in {one["attempt"] for one in again["replicas"]}
    assert again["troubles"]["0"]["failures"] == 1


def process(home: Home, attempt: str) -> int:
    """Of the worker of an attempt, which the stub started."""
    folder = str(home.settings.attempts / attempt)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                argv = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if "llm_os.workers.fake" in argv and folder in argv:
                return int(entry.name)
    raise AssertionError(f"{attempt} has no process")


@pytest.mark.asyncio(loop_scope="module")
async def test_an_engine_that_never_starts_does_not_keep_the_other_from_serving(home: Home) -> None:
    members = [MEMBERS[1], {"engine": "fake", "options": {"start_fails": True}}]
    url, key = await home.deploy("half", "writer@1", engine=None, members=members)

    async def tried() -> bool:
        return bool((await home.get("/v1/deployments/half"))["troubles"])

    await home.until(tried)
    assert await words(home, url, key, "half") == "500 a second"
    why = await home.get("/v1/why/half")
    assert (why["state"], why["sentence"].startswith("half answers requests.")) == ("ready", True)
    assert "The fake engine was told to fail at its start" in why["sentence"]


@pytest.mark.asyncio(loop_scope="module")
async def test_engines_come_and_go_by_an_update_without_a_failed_request(home: Home) -> None:
    url, key = await home.deploy("turns", "writer@1", options=SLOW)
    policy = {"canary": 0.5, "bake": "200ms", "watch": 0, "ready_within": 30}
    for body, number in (({"members": MEMBERS, "model": "writer@2"}, 2), ({"engine": "fake"}, 1)):
        await home.post("/v1/deployments/turns/update", {**body, "policy": policy})

        async def done() -> bool:
            assert await words(home, url, key, "turns")
            return (await home.get("/v1/deployments/turns"))["rollout"]["phase"] == "done"

        await home.until(done, 60)
        record = await until_all(home, "turns", number)
        assert len(record["spec"]["members"]) == (number if number > 1 else 0)
    assert record["version"] == "writer@2"
    refused = await home.refused(
        "/v1/deployments", {"spec": {"name": "x", "model": "writer@1", "members": MEMBERS[:1] * 2}}
    )
    assert "not all different" in refused["message"]


# -- the real ones -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="module")
async def test_llamacpp_and_openvino_serve_one_model_and_each_does_what_the_other_cannot(
    home: Home, sample_model: Callable[[str], Path]
) -> None:
    for name in ("llamacpp", "openvino"):
        if isinstance(missing := plugins.load("engine", name).probe(), Unavailable):
            pytest.skip(missing.reason)
    await home.fetch(str(sample_model("smollm2")), "smollm2")
    members = [
        {"engine": "llamacpp", "options": {"context": 512, "parallel": 2}},
        {"engine": "openvino", "options": {"context": 2048}},
    ]
    url, key = await home.deploy("both", "smollm2", engine=None, members=members, check=False)
    await until_all(home, "both", 2, 120)  # openvino lays the weights out anew at its first start

    async def chat(content: str = "What is the capital of France?", **more: Any) -> tuple[int, Any, str]:
        body = {"model": "both", "messages": [{"role": "user", "content": content}], "temperature": 0}
        async with (
            aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as session,
            session.post(f"{url}/v1/chat/completions", json={**body, "max_tokens": 16, **more}) as answer,
        ):
            return answer.status, await answer.json(), answer.headers["x-llm-os-engine"]

    status, likeliest, engine = await chat(logprobs=True, top_logprobs=2)
    assert (status, engine) == (200, "llamacpp")
    assert len(likeliest["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) == 2
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
    status, called, engine = await chat(tools=[tool], tool_choice="required", max_tokens=64)
    assert (status, engine) == (200, "openvino")
    assert called["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "look_up"
    status, _, engine = await chat("Tell me of the sea. " * 150)  # more than llamacpp's context
    assert (status, engine) == (200, "openvino")
    status, plain, _ = await chat()
    assert (status, plain["choices"][0]["message"]["role"]) == (200, "assistant")
