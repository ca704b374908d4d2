"""Jobs over HTTP; must not decide anything: each route is one syscall, besides where paths may come from."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from llm_os.kernel.syscalls import Syscalls, job_version
from llm_os.server.management.paths import Paths
from llm_os.server.management.waiting import Offset, Since, Wait
from llm_os.spec import api
from llm_os.spec.jobs import Job

DIGEST = r"^sha256:[0-9a-f]{64}$"


def router(syscalls: Syscalls) -> APIRouter:
    routes = APIRouter(prefix="/v1/jobs", tags=["jobs"])

    @routes.post("")
    async def submit(request: api.SubmitJob, paths: Paths) -> Job:
        paths.check(request.spec.options)
        return syscalls.submit_job(request)

    @routes.get("")
    async def jobs(
        state: str | None = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
        given: Annotated[str | None, Query(alias="input", pattern=DIGEST)] = None,
    ) -> list[Job]:
        return syscalls.jobs(state, limit, given)

    @routes.get("/{job}")
    async def one(job: str, after: str | None = None, wait: Wait = 0.0) -> Job:
        found = syscalls.job(job)
        seen = job_version(found) if after is None else after
        if wait == 0 or seen != job_version(found):
            return found
        return await syscalls.wait_job(job, seen, wait)

    @routes.post("/{job}/cancel")
    async def cancel(job: str) -> Job:
        return syscalls.cancel_job(job)

    @routes.get("/{job}/reports")
    async def reports(job: str, since: Since = 0, wait: Wait = 0.0) -> api.ReportPage:
        return await syscalls.job_reports(job, since, wait)

    @routes.get("/{job}/logs")
    async def logs(job: str, offset: Offset = 0) -> api.LogPage:
        return await syscalls.job_logs(job, offset)

    return routes
