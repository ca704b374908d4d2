"""Aliases of model versions over HTTP; must not decide anything: each route is one syscall."""

from __future__ import annotations

from fastapi import APIRouter

from llm_os.kernel.syscalls import Syscalls
from llm_os.spec import api
from llm_os.spec.base import Name


def router(syscalls: Syscalls) -> APIRouter:
    routes = APIRouter(prefix="/v1/aliases", tags=["models"])

    @routes.get("")
    async def aliases(card: str | None = None) -> list[api.Alias]:
        return syscalls.aliases(card)

    @routes.put("/{card}/{name}")
    async def move(card: Name, name: Name, request: api.MoveAlias) -> api.Alias:
        return syscalls.move_alias(card, name, request)

    @routes.delete("/{card}/{name}")
    async def drop(card: Name, name: Name) -> api.Alias:
        return syscalls.drop_alias(card, name)

    return routes
