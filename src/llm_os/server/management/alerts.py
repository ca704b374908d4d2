"""Alerts and the kernel's own metrics over HTTP; must not decide anything: each route is one syscall."""

from __future__ import annotations

from fastapi import APIRouter, Response

from llm_os.kernel.syscalls import Syscalls
from llm_os.server.management import metrics
from llm_os.spec.alerts import AlertPage


def router(syscalls: Syscalls) -> APIRouter:
    routes = APIRouter(tags=["alerts"])

    @routes.get("/v1/alerts")
    async def alerts() -> AlertPage:
        return syscalls.alerts()

    @routes.get("/metrics")
    async def exposition() -> Response:
        return Response(metrics.page(syscalls.measures()), media_type=metrics.CONTENT_TYPE)

    return routes
