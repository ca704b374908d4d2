"""The only door to the kernel: about thirty verbs, one transaction each. Server and autopilot import nothing else.

`Syscalls` is what callers see; `kernel.loop.Kernel` implements it. All methods run on the kernel's event loop; those
that are not coroutines never wait. Every method raises only `LLMOSError`s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from llm_os.spec import api
from llm_os.spec.alerts import AlertPage, Watched
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.deployments import Deployment
from llm_os.spec.events import Event
from llm_os.spec.jobs import Job
from llm_os.spec.measures import Measures
from llm_os.spec.models import ModelVersion
from llm_os.spec.resources import Resources
from llm_os.spec.routing import KeyEntry, Served
from llm_os.spec.sessions import Session
from llm_os.spec.verification import ModelVerification, Verification


class Syscalls(Protocol):
    def status(self) -> api.KernelStatus: ...

    async def shutdown(self, request: api.ShutdownRequest) -> api.ShutdownReport:
        """End everything (or keep it), then ask the process to exit. Returns before the process exits."""

    def open_session(self, request: api.OpenSession) -> Session: ...

    def renew_session(self, session: str) -> Session:
        """Raises NotFoundError for a session that expired or was closed."""

    def close_session(self, session: str) -> api.SessionEnd:
        """Cancel its jobs and stop its deployments, but for those that are kept. Idempotent."""

    def set_caps(self, session: str, request: api.SetCaps) -> Resources: ...

    def resources(self, session: str | None) -> Resources: ...

    def submit_job(self, request: api.SubmitJob) -> Job:
        """Validate options, resolve refs to digests, size it; refuse what can never fit (CapacityError)."""

    def jobs(self, state: str | None = None, limit: int = 100, given: str | None = None) -> list[Job]:
        """Newest first. `given`: only jobs that have the artifact of this digest as an input."""

    def job(self, job: str) -> Job: ...

    async def wait_job(self, job: str, version: str, seconds: float) -> Job:
        """The job as soon as it differs from `version` (see `job_version`), or after `seconds`."""

    def cancel_job(self, job: str) -> Job: ...

    async def job_reports(self, job: str, since: int, wait: float) -> api.ReportPage: ...

    async def job_logs(self, job: str, offset: int) -> api.LogPage: ...

    async def events(self, since: int, limit: int, wait: float) -> list[Event]: ...

    def why(self, subject: str) -> api.Why:
        """`subject` is a job id or a deployment name."""

    def models(self, card: str | None = None) -> list[ModelVersion]: ...

    def model(self, ref: str) -> ModelVersion:
        """`card` is its newest version. Raises NotFoundError with "did you mean"."""

    def measured(self, ref: str, session: str | None = None, precision: str | None = None) -> api.Measured:
        """Which engines could serve a version under a session's grant, and what they were measured to do."""

    def aliases(self, card: str | None = None) -> list[api.Alias]: ...

    def move_alias(self, card: str, name: str, request: api.MoveAlias) -> api.Alias:
        """Make `card@name` mean this version; deployments that follow it are updated."""

    def drop_alias(self, card: str, name: str) -> api.Alias:
        """Raises ConflictError while a deployment follows it."""

    def artifact(self, digest: str) -> ArtifactFacts: ...

    async def rows(self, digest: str, split: str, offset: int, limit: int) -> api.RowPage: ...

    async def export(self, digest: str, request: api.ExportRequest) -> api.ExportReport: ...

    def create_deployment(self, request: api.CreateDeployment) -> api.CreatedDeployment: ...

    def deployments(self, include_ended: bool = False, labels: Mapping[str, str] | None = None) -> list[Deployment]:
        """`labels`: only those that have all of these."""

    def deployment(self, name: str) -> Deployment: ...

    async def wait_deployment(self, name: str, state: str, seconds: float) -> Deployment:
        """The deployment as soon as its state differs from `state`, or after `seconds`."""

    def stop_deployment(self, name: str) -> Deployment: ...

    def update_deployment(self, name: str, request: api.UpdateDeployment) -> Deployment:
        """Begin to serve another version, engine or option. Returns at once; the deployment's `rollout` tells more."""

    def promote_deployment(self, name: str) -> Deployment:
        """Let a version that is being tried take over."""

    def roll_back_deployment(self, name: str) -> Deployment:
        """Take an update back, or go to the version before."""

    def add_adapter(self, name: str, request: api.AddAdapter) -> Deployment:
        """Carry an adapter beside the model. Returns at once; the deployment's replicas tell who holds it."""

    def remove_adapter(self, name: str, adapter: str) -> Deployment:
        """Carry it no more."""

    def scale_deployment(self, name: str, request: api.ScaleDeployment) -> Deployment: ...

    def begin_verification(self, name: str) -> Verification:
        """Compare a live deployment with its reference again. Returns at once; `verification` tells more.

        Raises:
            ConflictError: no replica answers. NotFoundError: its version has no reference.
        """

    async def verification(self, name: str, number: int, wait: float) -> Verification:
        """How far the comparison of this number is, when it is done or after `wait` seconds."""

    async def verify_model(self, ref: str, wait: float) -> ModelVerification:
        """Read the stored bytes of a version again; not done after `wait` seconds: ask again."""

    async def deployment_logs(self, name: str, offset: int) -> api.LogPage: ...

    def create_key(self, request: api.CreateKey) -> api.CreatedKey: ...

    def keys(self) -> list[api.KeyInfo]: ...

    def revoke_key(self, name: str) -> api.KeyInfo: ...

    def usage(self) -> list[Served]:
        """What was served to whom since counting began, at most a second old."""

    def watchers(self) -> list[KeyEntry]:
        """Keys with the role `monitor`, which may read metrics."""

    def measures(self) -> Measures:
        """Numbers of this moment: machine, disk, ledger, replicas."""

    def alerts(self) -> AlertPage:
        """What the autopilot told last; before its first look, what fired when the kernel before this one ended."""

    def note_alerts(self, watched: Watched) -> None:
        """The autopilot has looked. Alerts that began or ended become events; nothing else is written."""


def job_version(job: Job) -> str:
    """Changes whenever something a follower would show has changed."""
    progress = job.progress
    return f"{job.state}:{job.attempts}:{progress.get('seq', 0)}:{int(job.cancel_requested)}"
