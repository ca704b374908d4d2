"""The syscalls: what server and autopilot may ask of the kernel. One transaction each; reading ones have none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from llm_os._version import __version__
from llm_os.kernel.adapting import Adapting
from llm_os.kernel.alerts import Alerts
from llm_os.kernel.aliases import Aliases
from llm_os.kernel.attempts import GATEWAY
from llm_os.kernel.calibrations import calibration_for, candidates_for
from llm_os.kernel.deployments import Deployments
from llm_os.kernel.jobs import Jobs
from llm_os.kernel.keys import Keys
from llm_os.kernel.measures import Measuring
from llm_os.kernel.scaling import Scales
from llm_os.kernel.sessions import Sessions
from llm_os.kernel.starts import shown
from llm_os.kernel.state import Pages, State, once
from llm_os.kernel.submission import find_model
from llm_os.kernel.syscalls import job_version
from llm_os.kernel.updates import Updates
from llm_os.kernel.verification import Verifications
from llm_os.kernel.why import why
from llm_os.spec import api
from llm_os.spec.alerts import AlertPage, Watched
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.conditions import Reason
from llm_os.spec.deployments import Deployment
from llm_os.spec.events import Event
from llm_os.spec.jobs import Job
from llm_os.spec.measures import Measures
from llm_os.spec.models import ModelVersion
from llm_os.spec.resources import Resources
from llm_os.spec.routing import KeyEntry, Served
from llm_os.spec.sessions import Session
from llm_os.spec.verification import ModelVerification, Verification
from llm_os.store import rows, tables

LOG_PAGE = 256 * 1024
MOST_WAIT = 30.0
"""Seconds that a waiting call may last; the caller asks again."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Who does what the calls ask."""

    jobs: Jobs
    deployments: Deployments
    updates: Updates
    scales: Scales
    sessions: Sessions
    keys: Keys
    aliases: Aliases
    adapting: Adapting


class Calls:
    """Implements `kernel.syscalls.Syscalls`."""

    def __init__(self, state: State, parts: Parts, *, ephemeral: bool) -> None:
        self._state = state
        self._jobs = parts.jobs
        self._deployments = parts.deployments
        self._updates = parts.updates
        self._scales = parts.scales
        self._sessions = parts.sessions
        self._keys = parts.keys
        self._aliases = parts.aliases
        self._adapters = parts.adapting
        self.ephemeral = ephemeral
        self.keep = False
        self.stopping_since = 0.0
        self.started_at = state.clock.now()
        self.management = ""
        self.pid = 0
        self._pages = Pages(state.files)
        self._alerts = Alerts(state)
        self._measuring = Measuring(state)
        self._verifications = Verifications(state, parts.deployments)

    def status(self) -> api.KernelStatus:
        with self._state.database.reading() as tx:
            jobs = rows.count_by_state(tx, tables.jobs)
            deployments = rows.count_by_state(tx, tables.deployments)
            sessions = len(rows.open_sessions(tx))
        url = self._state.gateway_url
        return api.KernelStatus(
            version=__version__,
            home=str(self._state.settings.home),
            pid=self.pid,
            started_at=self.started_at,
            ephemeral=self.ephemeral,
            management=self.management,
            socket=str(self._state.settings.socket),
            gateway=f"{url}/v1" if url else None,
            jobs=jobs,
            deployments=deployments,
            sessions=sessions,
        )

    async def shutdown(self, request: api.ShutdownRequest) -> api.ShutdownReport:
        return self.begin_shutdown(keep=request.keep)

    def begin_shutdown(self, *, keep: bool) -> api.ShutdownReport:
        """End (or leave) everything; the loop returns when it is done."""
        self._state.stopping, self.keep = True, keep
        self.stopping_since = self._state.clock.now()
        with self._state.database.transaction() as tx:
            live_jobs = rows.jobs_in(tx, Jobs.LIVE)
            live = rows.all_deployments(tx, include_ended=False)
            if not keep:
                for job in live_jobs:
                    self._jobs.cancel_row(tx, job, Reason.SHUTDOWN)
                for deployment in live:
                    self._deployments.stop_row(tx, deployment, Reason.SHUTDOWN)
        names = tuple([row.job.id for row in live_jobs] + [row.deployment.spec.name for row in live])
        self._state.pulse.beat()
        return api.ShutdownReport(kept=names) if keep else api.ShutdownReport(ended=names)

    def open_session(self, request: api.OpenSession) -> Session:
        return self._sessions.open(request)

    def renew_session(self, session: str) -> Session:
        return self._sessions.renew(session)

    def close_session(self, session: str) -> api.SessionEnd:
        return self._sessions.close(session)

    def set_caps(self, session: str, request: api.SetCaps) -> Resources:
        return self._sessions.set_caps(session, request)

    def resources(self, session: str | None) -> Resources:
        return self._sessions.resources(session)

    def submit_job(self, request: api.SubmitJob) -> Job:
        return self._jobs.submit(request)

    def jobs(self, state: str | None = None, limit: int = 100, given: str | None = None) -> list[Job]:
        with self._state.database.reading() as tx:
            return [self._with_progress(job) for job in rows.newest_jobs(tx, state, limit, given)]

    def job(self, job: str) -> Job:
        with self._state.database.reading() as tx:
            return self._with_progress(self._jobs.get(tx, job).job)

    def _with_progress(self, job: Job) -> Job:
        """The newest report lives in the attempt's folder; records are not rewritten for it."""
        watch = self._state.watches.get(job.attempt or "")
        report = watch.newest("progress") if watch else None
        if report is None:
            return job
        return job.model_copy(update={"progress": {**report.values, "seq": report.seq}})

    async def wait_job(self, job: str, version: str, seconds: float) -> Job:
        until = self._state.clock.now() + min(seconds, MOST_WAIT)
        found = self.job(job)
        while job_version(found) == version and not found.state.ended and self._state.clock.now() < until:
            await self._state.pulse.wait(until - self._state.clock.now())
            found = self.job(job)
        return found

    def cancel_job(self, job: str) -> Job:
        return self._jobs.cancel(job)

    async def job_reports(self, job: str, since: int, wait: float) -> api.ReportPage:
        until = self._state.clock.now() + min(wait, MOST_WAIT)
        while True:
            found = self.job(job)
            with self._state.database.reading() as tx:
                attempts = rows.attempts_of(tx, job)
            reports = [report for attempt in attempts for report in once(self._pages.of(attempt.id))]
            left = until - self._state.clock.now()
            if len(reports) > since or found.state.ended or left <= 0:
                return api.ReportPage(reports=tuple(reports[since:]), next=len(reports), ended=found.state.ended)
            await self._state.pulse.wait(left)

    async def job_logs(self, job: str, offset: int) -> api.LogPage:
        found = self.job(job)
        return await self._log(job, offset, found.state.ended)

    async def _log(self, owner: str, offset: int, ended: bool) -> api.LogPage:
        with self._state.database.reading() as tx:
            attempts = rows.attempts_of(tx, owner)
        if not attempts:
            return api.LogPage(text="", next=offset, ended=ended)
        newest = attempts[-1].id
        data = await self._state.launcher.logs(newest, self._state.files.attempt(newest), offset, LOG_PAGE)
        return api.LogPage(text=data.decode(errors="replace"), next=offset + len(data), ended=ended and not data)

    async def events(self, since: int, limit: int, wait: float) -> list[Event]:
        until = self._state.clock.now() + min(wait, MOST_WAIT)
        while True:
            with self._state.database.reading() as tx:
                found = rows.events_since(tx, since, limit)
            left = until - self._state.clock.now()
            if found or left <= 0:
                return found
            await self._state.pulse.wait(left)

    def why(self, subject: str) -> api.Why:
        with self._state.database.reading() as tx:
            return why(self._state, tx, subject, self._alerts.flows, self._measuring)

    def models(self, card: str | None = None) -> list[ModelVersion]:
        with self._state.database.reading() as tx:
            return rows.list_models(tx, card)

    def model(self, ref: str) -> ModelVersion:
        with self._state.database.reading() as tx:
            return self._model(tx, ref)

    def measured(self, ref: str, session: str | None = None, precision: str | None = None) -> api.Measured:
        with self._state.database.reading() as tx:
            version = find_model(tx, ref)
            candidates = candidates_for(self._state, tx, version.manifest, session, precision)
            found = calibration_for(self._state, tx, version, session, precision)
            return api.Measured(candidates=candidates, calibration=found)

    def _model(self, tx: Connection, ref: str) -> ModelVersion:
        return find_model(tx, ref)

    def aliases(self, card: str | None = None) -> list[api.Alias]:
        return self._aliases.list(card)

    def move_alias(self, card: str, name: str, request: api.MoveAlias) -> api.Alias:
        return self._aliases.move(card, name, request)

    def drop_alias(self, card: str, name: str) -> api.Alias:
        return self._aliases.drop(card, name)

    def artifact(self, digest: str) -> ArtifactFacts:
        return self._state.artifacts.facts(digest)

    async def rows(self, digest: str, split: str, offset: int, limit: int) -> api.RowPage:
        return await self._state.artifacts.rows(digest, split, offset, limit)

    async def export(self, digest: str, request: api.ExportRequest) -> api.ExportReport:
        return await self._state.artifacts.export(digest, request)

    def create_deployment(self, request: api.CreateDeployment) -> api.CreatedDeployment:
        return self._deployments.create(request)

    def deployments(self, include_ended: bool = False, labels: Mapping[str, str] | None = None) -> list[Deployment]:
        with self._state.database.reading() as tx:
            found = [
                shown(self._state, row.deployment) for row in rows.all_deployments(tx, include_ended=include_ended)
            ]
        return [one for one in found if (labels or {}).items() <= one.spec.labels.items()]

    def deployment(self, name: str) -> Deployment:
        with self._state.database.reading() as tx:
            return shown(self._state, self._deployments.get(tx, name).deployment)

    async def wait_deployment(self, name: str, state: str, seconds: float) -> Deployment:
        until = self._state.clock.now() + min(seconds, MOST_WAIT)
        found = self.deployment(name)
        while found.state.value == state and not found.state.ended and self._state.clock.now() < until:
            await self._state.pulse.wait(until - self._state.clock.now())
            found = self.deployment(name)
        return found

    def stop_deployment(self, name: str) -> Deployment:
        return self._deployments.stop(name)

    def update_deployment(self, name: str, request: api.UpdateDeployment) -> Deployment:
        return self._updates.update(name, request)

    def promote_deployment(self, name: str) -> Deployment:
        return self._updates.promote(name)

    def roll_back_deployment(self, name: str) -> Deployment:
        return self._updates.roll_back(name)

    def add_adapter(self, name: str, request: api.AddAdapter) -> Deployment:
        return self._adapters.add(name, request)

    def remove_adapter(self, name: str, adapter: str) -> Deployment:
        return self._adapters.remove(name, adapter)

    def scale_deployment(self, name: str, request: api.ScaleDeployment) -> Deployment:
        return self._scales.scale(name, request)

    def begin_verification(self, name: str) -> Verification:
        return self._verifications.begin(name)

    async def verification(self, name: str, number: int, wait: float) -> Verification:
        until = self._state.clock.now() + min(wait, MOST_WAIT)
        found = self._verifications.told(name, number)
        while not found.done and (left := until - self._state.clock.now()) > 0:
            await self._state.pulse.wait(left)
            found = self._verifications.told(name, number)
        return found

    async def verify_model(self, ref: str, wait: float) -> ModelVerification:
        return await self._verifications.model(ref, min(wait, MOST_WAIT))

    async def deployment_logs(self, name: str, offset: int) -> api.LogPage:
        found = self.deployment(name) if name != GATEWAY else None
        owner = found.id if found else GATEWAY
        return await self._log(owner, offset, found.state.ended if found else False)

    def create_key(self, request: api.CreateKey) -> api.CreatedKey:
        return self._keys.create(request)

    def keys(self) -> list[api.KeyInfo]:
        return self._keys.list()

    def revoke_key(self, name: str) -> api.KeyInfo:
        return self._keys.revoke(name)

    def usage(self) -> list[Served]:
        usage = self._state.files.read_usage()
        return list(usage.served) if usage is not None else []

    def watchers(self) -> list[KeyEntry]:
        with self._state.database.reading() as tx:
            return [entry for entry in rows.list_keys(tx) if entry.role == "monitor"]

    def measures(self) -> Measures:
        with self._state.database.reading() as tx:
            return self._measuring.take(tx)

    def alerts(self) -> AlertPage:
        return self._alerts.page()

    def note_alerts(self, watched: Watched) -> None:
        self._alerts.note(watched)
