"""Deployments over HTTP; must not decide anything: each route is one syscall, besides where paths may come from."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import StringConstraints

from llm_os.kernel.syscalls import Syscalls
from llm_os.server.management.paths import Paths
from llm_os.server.management.waiting import Offset, Wait
from llm_os.spec import api
from llm_os.spec.deployments import Deployment
from llm_os.spec.verification import Verification

Labels = Annotated[
    tuple[Annotated[str, StringConstraints(pattern=r"^[^=]+=.*$", max_length=400)], ...],
    Query(description="`NAME=VALUE`, as often as wanted: only deployments that have all of these labels."),
]


def router(syscalls: Syscalls) -> APIRouter:
    routes = APIRouter(prefix="/v1/deployments", tags=["deployments"])

    @routes.post("")
    async def create(request: api.CreateDeployment, paths: Paths) -> api.CreatedDeployment:
        for options in (request.spec.options, *(member.options for member in request.spec.members)):
            paths.check(options)
        return syscalls.create_deployment(request)

    @routes.get("")
    async def deployments(
        include_ended: Annotated[bool, Query(alias="all")] = False, label: Labels = ()
    ) -> list[Deployment]:
        return syscalls.deployments(include_ended, dict(one.split("=", 1) for one in label))

    @routes.get("/{name}")
    async def one(name: str, wait: Wait = 0.0, state: str | None = None) -> Deployment:
        found = syscalls.deployment(name)
        if wait == 0 or (state is not None and state != found.state):
            return found
        return await syscalls.wait_deployment(name, found.state, wait)

    @routes.post("/{name}/stop")
    async def stop(name: str) -> Deployment:
        return syscalls.stop_deployment(name)

    @routes.post("/{name}/update")
    async def update(name: str, request: api.UpdateDeployment, paths: Paths) -> Deployment:
        for options in (request.options or {}, *(member.options for member in request.members or ())):
            paths.check(options)
        return syscalls.update_deployment(name, request)

    @routes.post("/{name}/promote")
    async def promote(name: str) -> Deployment:
        return syscalls.promote_deployment(name)

    @routes.post("/{name}/rollback")
    async def roll_back(name: str) -> Deployment:
        return syscalls.roll_back_deployment(name)

    @routes.post("/{name}/scale")
    async def scale(name: str, request: api.ScaleDeployment) -> Deployment:
        return syscalls.scale_deployment(name, request)

    @routes.get("/{name}/logs")
    async def logs(name: str, offset: Offset = 0) -> api.LogPage:
        return await syscalls.deployment_logs(name, offset)

    _add_adapters(routes, syscalls)
    _add_verification(routes, syscalls)
    return routes


def _add_adapters(routes: APIRouter, syscalls: Syscalls) -> None:
    @routes.post("/{name}/adapters")
    async def add_adapter(name: str, request: api.AddAdapter) -> Deployment:
        return syscalls.add_adapter(name, request)

    @routes.delete("/{name}/adapters/{adapter}")
    async def remove_adapter(name: str, adapter: str) -> Deployment:
        return syscalls.remove_adapter(name, adapter)


def _add_verification(routes: APIRouter, syscalls: Syscalls) -> None:
    @routes.post("/{name}/verify")
    async def verify(name: str) -> Verification:
        return syscalls.begin_verification(name)

    @routes.get("/{name}/verify")
    async def verification(name: str, number: int, wait: Wait = 0.0) -> Verification:
        return await syscalls.verification(name, number, wait)
