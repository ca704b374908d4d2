"""A worker whose caller leaves: nothing went wrong, and the log does not say so."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.attempts import Input, ServeCall
from llm_os.workers.fake import FakeBackend
from llm_os.workers.server import Face


def a_face() -> Face:
    facts = ArtifactFacts(digest="sha256:" + "0" * 64, kind="model", size=1, meta={})
    call = ServeCall(
        engine="fake",
        deployment="chat",
        model=Input(path="/nowhere", facts=facts),
        version="chat@1",
        task="text-generation",
        options={},
        socket="/nowhere.sock",
    )
    return Face(call, FakeBackend(call))


@pytest.mark.parametrize(("left", "failed", "status"), [(ConnectionResetError(), 0, 499), (RuntimeError(), 1, 500)])
async def test_a_caller_who_has_just_left_is_no_failure(
    caplog: pytest.LogCaptureFixture, left: Exception, failed: int, status: int
) -> None:
    face = a_face()

    async def broken(_: web.Request) -> Any:
        raise left  # as writing to a connection that is about to end does

    (guard,) = face.app().middlewares
    with caplog.at_level(logging.ERROR):
        answer = await guard(make_mocked_request("POST", "/v1/chat/completions"), broken)  # type: ignore[operator]
    assert (answer.status, face.failed, face.running) == (status, failed, 0)
    assert bool(caplog.records) == bool(failed)
