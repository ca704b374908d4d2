"""The event log over HTTP; must not decide anything: one syscall."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from llm_os.kernel.syscalls import Syscalls
from llm_os.server.management.waiting import Since, Wait
from llm_os.spec.events import Event


def router(syscalls: Syscalls) -> APIRouter:
    routes = APIRouter(prefix="/v1/events", tags=["events"])

    @routes.get("")
    async def events(
        since: Since = 0, limit: Annotated[int, Query(ge=1, le=10_000)] = 100, wait: Wait = 0.0
    ) -> list[Event]:
        return await syscalls.events(since, limit, wait)

    return routes
