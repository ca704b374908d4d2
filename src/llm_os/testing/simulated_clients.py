"""Clients of the kernel under test: each does what its plan says, and keeps what it was told and promised."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random

from llm_os.errors import LLMOSError, NotFoundError
from llm_os.spec.api import CreateDeployment, OpenSession, SetCaps, SubmitJob, UpdateDeployment
from llm_os.spec.base import Json
from llm_os.spec.calibration import Member
from llm_os.spec.deployments import DeploymentSpec, Scaling, UpdatePolicy
from llm_os.spec.jobs import Job, JobSpec
from llm_os.spec.resources import Caps
from llm_os.testing.oracle import Oracle
from llm_os.testing.simulated import SimulatedFiles, needs
from llm_os.testing.simulated_kernel import SimulatedKernel
from llm_os.testing.strategies import GIB, PlannedDeployment, PlannedJob, PlannedSession


class SimulatedClients:
    """All clients of a run.

    Args:
        broken: called with what no client may see.

    Attributes:
        told: the reports that followers of each job have read: (attempt, number).
        jobs: how many were submitted.
    """

    def __init__(
        self,
        kernel: SimulatedKernel,
        files: SimulatedFiles,
        oracle: Oracle,
        random: Random,
        now: Callable[[], float],
        broken: Callable[[str], None],
    ) -> None:
        self._kernel, self._files, self._oracle = kernel, files, oracle
        self._random, self._now, self._broken = random, now, broken
        self.told: dict[str, list[tuple[str, int]]] = {}
        self.jobs = 0

    async def live(self, plan: PlannedSession, number: int) -> None:
        """One client: open a session, work, and go."""
        await asyncio.sleep(plan.at)
        session = (await self._kernel.ask("open_session", OpenSession(name=plan.name, ttl=plan.ttl))).id
        self._oracle.renewed[session] = (self._now() - plan.ttl, plan.ttl)
        work: list[Awaitable[None]] = [self._renew(session, plan.ttl)]
        if plan.cpus_cap is not None or plan.memory_cap is not None:
            work.append(self._cap(session, plan))
        work += [self._submit(session, job, f"card-{number}") for job in plan.jobs]
        work += [self._deploy(session, deployment, f"card-{number}") for deployment in plan.deployments]
        tasks = [asyncio.ensure_future(_unless_refused(one)) for one in work]
        await asyncio.sleep(plan.ends)
        for task in tasks:
            task.cancel()
        for error in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(error, BaseException) and not isinstance(error, asyncio.CancelledError):
                self._broken(f"A client got {error!r}.")
        self._oracle.may_end.add(session)
        if plan.closes:
            await self._kernel.ask("close_session", session)

    async def _renew(self, session: str, ttl: float) -> None:
        while True:
            sent = self._now()
            answered, _ = await self._kernel.ask_once("renew_session", session)
            if answered:
                self._oracle.renewed[session] = (sent, ttl)
            await asyncio.sleep(ttl / 3)

    async def _cap(self, session: str, plan: PlannedSession) -> None:
        caps = Caps(cpus=plan.cpus_cap, memory=plan.memory_cap)
        await self._kernel.ask("set_caps", session, SetCaps(caps=caps))

    async def _submit(self, session: str, plan: PlannedJob, card: str) -> None:
        await asyncio.sleep(plan.at)
        options = {
            "key": plan.key,
            "cpus": plan.cpus,
            "memory": plan.memory,
            "accelerators": plan.accelerators,
            "lasts": plan.lasts,
            "fate": plan.fate,
        }
        name = card if plan.task == "sim/model" else None
        spec = JobSpec(task=plan.task, options=options, name=name, priority=plan.priority)
        request = SubmitJob(spec=spec, session=session, background=plan.background)
        job: Job = await self._kernel.ask("submit_job", request)
        self._oracle.acknowledged[job.id] = needs(options)
        self.jobs += 1
        follower = asyncio.ensure_future(_unless_refused(self._follow(job.id))) if plan.followed else None
        try:
            if plan.cancel_after is not None:
                await asyncio.sleep(plan.cancel_after)
                self._oracle.may_end.add(job.id)
                await self._kernel.ask("cancel_job", job.id)
            if follower is not None:
                await follower
        finally:
            if follower is not None:
                follower.cancel()

    async def _follow(self, job: str) -> None:
        """Read its reports as a progress bar does, across deaths of the kernel."""
        since, ended = 0, False
        while not ended:
            page = await self._kernel.ask("job_reports", job, since, 2.0)
            seen = [(str(report.values.get("attempt")), report.seq) for report in page.reports]
            self.told.setdefault(job, []).extend(seen)
            since, ended = page.next, page.ended

    async def _deploy(self, session: str, plan: PlannedDeployment, card: str) -> None:
        await asyncio.sleep(plan.at)
        options: dict[str, Json] = {"cpus": plan.cpus, "memory": plan.memory}
        several = _side_by_side(plan.engines, options)
        spec = DeploymentSpec(
            name=plan.name,
            model=card,
            options={} if several else options,
            members=several,
            replicas=plan.replicas,
            idle_after=plan.idle_after,
            update=UpdatePolicy(bake=0.5, ready_within=8.0, watch=1.0),
            scaling=None if plan.least is None else Scaling(least=plan.least, most=2, idle_after=1.0, steady=1.0),
        )
        request = CreateDeployment(spec=spec, session=session, keep=plan.keep, private=plan.private)
        for _ in range(20):
            with suppress(NotFoundError):
                await self._kernel.ask("create_deployment", request)
                break
            await asyncio.sleep(0.5)
        self._files.busy[plan.name] = self._now() + self._random.choice([0.0, 4.0])
        changes = asyncio.ensure_future(_unless_refused(self._update(plan)))
        try:
            if plan.stop_after is not None:
                await asyncio.sleep(plan.stop_after)
                await self._kernel.ask("stop_deployment", plan.name)
            await changes
        finally:
            changes.cancel()

    async def _update(self, plan: PlannedDeployment) -> None:
        """Let it serve with other options, and perhaps take that back."""
        if plan.update_after is None:
            return
        await asyncio.sleep(plan.update_after)
        options: dict[str, Json] = {"cpus": plan.cpus, "memory": plan.memory + 2**20}
        several = _side_by_side(plan.updated_engines, options)
        request = UpdateDeployment(members=several) if several else UpdateDeployment(options=options)
        await self._kernel.ask("update_deployment", plan.name, request)
        if plan.roll_back_after is not None:
            await asyncio.sleep(plan.roll_back_after)
            await self._kernel.ask("roll_back_deployment", plan.name)


def _side_by_side(engines: int, options: dict[str, Json]) -> tuple[Member, ...]:
    """So many engines, the second one smaller; none where there is but one."""
    half = {"cpus": 0.5, "memory": GIB // 2}
    return (Member(engine="simulated", options=options), Member(engine="other", options=half)) if engines > 1 else ()


async def _unless_refused(work: Awaitable[None]) -> None:
    """A client that is told no gives up; that is its right."""
    with suppress(LLMOSError):
        await work
