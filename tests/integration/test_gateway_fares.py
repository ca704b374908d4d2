"""What the gateway counts for a version and against it: by these figures the kernel takes an update back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from llm_os.spec.routing import Canary, RevisionUsage
from llm_os.testing.gateway_bed import USER, GatewayBed, ScriptedReplica, a_route

CHAT: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
STREAM = {**CHAT, "stream": True}
SOON = {"x-llm-os-timeout": "0.3"}
OLD, NEW = 1, 2


@pytest.fixture
async def old(tmp_path: Path) -> AsyncIterator[ScriptedReplica]:
    one = ScriptedReplica(tmp_path / "old.sock")
    await one.start()
    yield one
    await one.close()


@pytest.fixture
async def new(tmp_path: Path) -> AsyncIterator[ScriptedReplica]:
    one = ScriptedReplica(tmp_path / "new.sock")
    await one.start()
    yield one
    await one.close()


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[GatewayBed]:
    made = GatewayBed(tmp_path / "home", "--per-replica", "1")
    yield made
    await made.close()


def tried(old: ScriptedReplica, new: ScriptedReplica, *, shadow: bool, revision: int = NEW) -> Any:
    """A route whose new version gets every request, or a copy of it."""
    ends = (old.endpoint(), new.endpoint().model_copy(update={"revision": revision, "version": "chat-model@2"}))
    canary = Canary(revision=revision, weight=1.0, shadow=shadow)
    return a_route("chat", old).model_copy(update={"endpoints": ends, "canary": canary})


async def ask(bed: GatewayBed, body: dict[str, Any] = CHAT, **headers: str) -> tuple[int, str]:
    head = {"authorization": f"Bearer {USER}", **headers}
    async with (
        aiohttp.ClientSession(headers=head) as session,
        session.post(bed.url + "/v1/chat/completions", json=body) as answer,
    ):
        return answer.status, await answer.text()


def fared(bed: GatewayBed, revision: int) -> RevisionUsage:
    return bed.counted("chat").revisions.get(revision) or RevisionUsage()


async def test_a_version_that_misses_a_deadline_has_failed(
    bed: GatewayBed, old: ScriptedReplica, new: ScriptedReplica
) -> None:
    """And the caller is not asked to wait for another version: the time is over."""
    bed.route(tried(old, new, shadow=False))
    await bed.start()
    new.delay = 30.0
    assert (await ask(bed, **SOON))[0] == 504
    await bed.until(lambda: fared(bed, NEW).requests == 1)
    assert (fared(bed, NEW).failed, fared(bed, NEW).first_bytes) == (1, 0)
    assert (fared(bed, OLD).requests, len(old.seen)) == (0, 0)


async def test_a_deadline_that_passes_in_the_queue_is_nobodys_failure(bed: GatewayBed, old: ScriptedReplica) -> None:
    bed.route(a_route("chat", old))
    await bed.start()
    old.delay = 0.6
    first = asyncio.create_task(ask(bed))
    await old.until(lambda: old.in_flight == 1)
    assert (await ask(bed, **SOON))[0] == 504
    assert (await first)[0] == 200
    await bed.until(lambda: fared(bed, OLD).requests == 1)
    assert fared(bed, OLD).failed == 0


async def test_a_caller_who_leaves_is_not_the_versions_failure(bed: GatewayBed, old: ScriptedReplica) -> None:
    bed.route(a_route("chat", old))
    await bed.start()
    old.delay = 30.0
    asking = asyncio.create_task(ask(bed))
    await old.until(lambda: old.in_flight == 1)
    asking.cancel()
    await old.until(lambda: old.hung_up == 1)
    old.delay = 0.0
    assert (await ask(bed))[0] == 200
    await bed.until(lambda: fared(bed, OLD).requests == 1)
    assert (fared(bed, OLD).failed, fared(bed, OLD).asked) == (0, 2)


FAULTS: dict[str, tuple[dict[str, Any], int]] = {
    "its stream ends in an error": ({"fail_after": 1}, 1),
    "its stream begins with an error": ({"fail_after": 0}, 1),
    "its stream breaks off": ({"break_after": 1}, 1),
    "it answers with an error": ({"refuse_with": (500, {"error": {"message": "oh"}})}, 1),
    "it breaks off before the first byte": ({"break_before": 9}, 1),
    "it refuses the request": ({"refuse_with": (400, {"error": {"message": "no"}})}, 0),
    "it answers": ({}, 0),
}


async def test_a_copy_counts_as_a_request_would(bed: GatewayBed, old: ScriptedReplica, new: ScriptedReplica) -> None:
    bed.route(tried(old, new, shadow=True))
    await bed.start()
    for number, (what, (faults, failures)) in enumerate(FAULTS.items()):
        revision, seen = NEW + number, len(new.seen)
        new.fail_after, new.break_after, new.refuse_with, new.break_before = None, None, None, 0
        for name, value in faults.items():
            setattr(new, name, value)
        bed.route(tried(old, new, shadow=True, revision=revision))
        status, text = await ask(bed, STREAM)
        assert (status, text.rstrip().endswith("[DONE]")) == (200, True), "the caller has the old version's answer"
        await new.until(lambda seen=seen: len(new.seen) > seen and new.in_flight == 0)
        await bed.until(lambda of=revision: fared(bed, of).asked == 1)
        if failures or not faults:
            await bed.until(lambda of=revision: fared(bed, of).requests == 1)
        found = fared(bed, revision)
        assert (found.failed, found.first_bytes) == (failures, 0 if faults else 1), what
    assert fared(bed, OLD).failed == 0


async def test_a_copy_goes_to_the_engine_that_can(
    bed: GatewayBed, old: ScriptedReplica, new: ScriptedReplica, tmp_path: Path
) -> None:
    other = ScriptedReplica(tmp_path / "other.sock")
    await other.start()
    route = tried(old, new, shadow=True)
    *there, lacking = route.endpoints
    beside = other.endpoint().model_copy(update={"revision": NEW, "version": lacking.version, "engine": "other"})
    lacking = lacking.model_copy(update={"lacks": ("an_answer_is_held_to_a_schema",)})
    bed.route(route.model_copy(update={"endpoints": (*there, lacking, beside)}))
    await bed.start()
    try:
        for _ in range(4):
            form = {"type": "json_object"}
            assert (await ask(bed, {**CHAT, "response_format": form}))[0] == 200
        await other.until(lambda: len(other.seen) == 4)
        assert (len(old.seen), len(new.seen)) == (4, 0)
    finally:
        await other.close()


async def test_what_a_tried_version_refuses_the_proven_one_is_asked(
    bed: GatewayBed, old: ScriptedReplica, new: ScriptedReplica
) -> None:
    """A version that refuses all is silent; one that refuses what the other one refuses, too, was not to blame."""
    bed.route(tried(old, new, shadow=False))
    await bed.start()
    new.refuse_with = (400, {"error": {"message": "The new one cannot.", "code": "invalid_option"}})
    assert (await ask(bed))[0] == 200
    await bed.until(lambda: fared(bed, OLD).first_bytes == 1)
    assert (fared(bed, NEW).silent, fared(bed, NEW).failed) == (True, 0)
    old.refuse_with = (400, {"error": {"message": "It is wrong.", "code": "invalid_option"}})
    bed.route(tried(old, new, shadow=False, revision=NEW + 1))
    status, text = await ask(bed)
    assert (status, "It is wrong." in text) == (400, True)
    await bed.until(lambda: NEW + 1 in bed.counted("chat").revisions and not fared(bed, NEW + 1).silent)
    assert (len(old.seen), len(new.seen)) == (2, 2)
    assert (fared(bed, NEW + 1).requests, fared(bed, OLD).asked) == (0, 1)
