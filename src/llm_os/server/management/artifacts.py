"""Facts, rows and export of artifacts over HTTP; must not open files itself: each route is one syscall."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from llm_os.kernel.syscalls import Syscalls
from llm_os.server.management.paths import Paths
from llm_os.server.management.waiting import Offset
from llm_os.spec import api
from llm_os.spec.artifacts import ArtifactFacts

Digest = Annotated[str, Path(pattern=r"^sha256:[0-9a-f]{64}$")]


def router(syscalls: Syscalls) -> APIRouter:
    routes = APIRouter(prefix="/v1/artifacts", tags=["artifacts"])

    @routes.get("/{digest}")
    async def facts(digest: Digest) -> ArtifactFacts:
        return syscalls.artifact(digest)

    @routes.get("/{digest}/rows")
    async def rows(
        digest: Digest, split: str, offset: Offset = 0, limit: Annotated[int, Query(ge=1, le=10_000)] = 100
    ) -> api.RowPage:
        return await syscalls.rows(digest, split, offset, limit)

    @routes.post("/{digest}/export")
    async def export(digest: Digest, request: api.ExportRequest, paths: Paths) -> api.ExportReport:
        paths.require_socket()
        return await syscalls.export(digest, request)

    return routes
