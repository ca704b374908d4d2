"""Model versions over HTTP; must not decide anything: each route is one syscall."""

from __future__ import annotations

from fastapi import APIRouter

from llm_os.kernel.syscalls import Syscalls
from llm_os.server.management.waiting import Wait
from llm_os.spec import api
from llm_os.spec.models import ModelVersion
from llm_os.spec.verification import ModelVerification


def router(syscalls: Syscalls) -> APIRouter:
    routes = APIRouter(prefix="/v1/models", tags=["models"])

    @routes.get("")
    async def models(card: str | None = None) -> list[ModelVersion]:
        return syscalls.models(card)

    @routes.get("/{ref}")
    async def one(ref: str) -> ModelVersion:
        return syscalls.model(ref)

    @routes.get("/{ref}/calibration")
    async def calibration(ref: str, session: str | None = None, precision: str | None = None) -> api.Measured:
        return syscalls.measured(ref, session, precision)

    @routes.post("/{ref}/verify")
    async def verify(ref: str, wait: Wait = 20.0) -> ModelVerification:
        return await syscalls.verify_model(ref, wait)

    return routes
