"""Health, status, shutdown, resources and why; must not decide anything: each route is one syscall."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter

from llm_os.kernel.syscalls import Syscalls
from llm_os.spec import api
from llm_os.spec.resources import Resources


def router(syscalls: Syscalls) -> APIRouter:
    routes = APIRouter(tags=["system"])

    @routes.get("/health")
    async def health() -> dict[Literal["status"], str]:
        return {"status": "ok"}

    @routes.get("/v1/status")
    async def status() -> api.KernelStatus:
        return syscalls.status()

    @routes.post("/v1/shutdown")
    async def shutdown(request: api.ShutdownRequest) -> api.ShutdownReport:
        return await syscalls.shutdown(request)

    @routes.get("/v1/resources")
    async def resources(session: str | None = None) -> Resources:
        return syscalls.resources(session)

    @routes.get("/v1/why/{subject}")
    async def why(subject: str) -> api.Why:
        return syscalls.why(subject)

    return routes
