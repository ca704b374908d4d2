"""Keys and what was served over HTTP; must not decide anything: each route is one syscall."""

from __future__ import annotations

from fastapi import APIRouter

from llm_os.kernel.syscalls import Syscalls
from llm_os.spec import api
from llm_os.spec.routing import Served


def router(syscalls: Syscalls) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["keys"])

    @routes.post("/keys")
    async def create(request: api.CreateKey) -> api.CreatedKey:
        return syscalls.create_key(request)

    @routes.get("/keys")
    async def keys() -> list[api.KeyInfo]:
        return syscalls.keys()

    @routes.delete("/keys/{name}")
    async def revoke(name: str) -> api.KeyInfo:
        return syscalls.revoke_key(name)

    @routes.get("/usage")
    async def usage() -> list[Served]:
        return syscalls.usage()

    return routes
