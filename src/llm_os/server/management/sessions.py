"""Client leases over HTTP; must not decide anything: each route is one syscall."""

from __future__ import annotations

from fastapi import APIRouter

from llm_os.kernel.syscalls import Syscalls
from llm_os.spec import api
from llm_os.spec.resources import Resources
from llm_os.spec.sessions import Session


def router(syscalls: Syscalls) -> APIRouter:
    routes = APIRouter(prefix="/v1/sessions", tags=["sessions"])

    @routes.post("")
    async def open_session(request: api.OpenSession) -> Session:
        return syscalls.open_session(request)

    @routes.post("/{session}/renew")
    async def renew(session: str) -> Session:
        return syscalls.renew_session(session)

    @routes.delete("/{session}")
    async def close(session: str) -> api.SessionEnd:
        return syscalls.close_session(session)

    @routes.put("/{session}/caps")
    async def set_caps(session: str, request: api.SetCaps) -> Resources:
        return syscalls.set_caps(session, request)

    return routes
