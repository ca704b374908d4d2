"""Bodies of the management API: one place for the client and the server. Paths are listed with each body.

All under `/v1`, JSON, errors as `{"error": LLMOSError.to_dict()}` with the error's status.

| Method and path | Body -> answer |
|---|---|
| GET /health (no /v1, no key) | -> `{"status": "ok"}` |
| GET /v1/status | -> KernelStatus |
| POST /v1/shutdown | ShutdownRequest -> ShutdownReport |
| POST /v1/sessions | OpenSession -> Session |
| POST /v1/sessions/{id}/renew | -> Session |
| DELETE /v1/sessions/{id} | -> SessionEnd (what was ended, what goes on) |
| PUT /v1/sessions/{id}/caps | SetCaps -> Resources |
| GET /v1/resources?session= | -> Resources |
| POST /v1/jobs | SubmitJob -> Job |
| GET /v1/jobs?state=&limit=&input= | -> list[Job], newest first; `input`: those that read this artifact |
| GET /v1/jobs/{id}?after=&wait= | -> Job; with `wait` seconds, early when `job_version` changed |
| POST /v1/jobs/{id}/cancel | -> Job |
| GET /v1/jobs/{id}/reports?since=&wait= | -> ReportPage (all reports of all attempts, in order) |
| GET /v1/jobs/{id}/logs?offset= | -> LogPage (newest attempt) |
| GET /v1/events?since=&limit=&wait= | -> list[Event] |
| GET /v1/why/{subject} | -> Why |
| GET /v1/models?card= | -> list[ModelVersion] |
| GET /v1/models/{ref} | -> ModelVersion |
| GET /v1/models/{ref}/calibration?session=&precision= | -> Measured: which engines could serve it, and what they did |
| POST /v1/models/{ref}/verify?wait= | -> ModelVerification: its stored bytes read again; not `done`: ask again |
| GET /v1/aliases?card= | -> list[Alias] |
| PUT /v1/aliases/{card}/{name} | MoveAlias -> Alias |
| DELETE /v1/aliases/{card}/{name} | -> Alias |
| GET /v1/artifacts/{digest} | -> ArtifactFacts |
| GET /v1/artifacts/{digest}/rows?split=&offset=&limit= | -> RowPage |
| POST /v1/artifacts/{digest}/export | ExportRequest -> ExportReport (copies files to a folder; socket only) |
| POST /v1/deployments | CreateDeployment -> CreatedDeployment |
| GET /v1/deployments?all=&label= | -> list[Deployment] |
| GET /v1/deployments/{name}?wait= | -> Deployment; with `wait`, answers early on a change of state |
| POST /v1/deployments/{name}/stop | -> Deployment |
| POST /v1/deployments/{name}/update | UpdateDeployment -> Deployment |
| POST /v1/deployments/{name}/promote | -> Deployment |
| POST /v1/deployments/{name}/rollback | -> Deployment |
| POST /v1/deployments/{name}/scale | ScaleDeployment -> Deployment |
| POST /v1/deployments/{name}/adapters | AddAdapter -> Deployment |
| DELETE /v1/deployments/{name}/adapters/{adapter} | -> Deployment |
| POST /v1/deployments/{name}/verify | -> Verification: its replicas are compared with the reference again |
| GET /v1/deployments/{name}/verify?number=&wait= | -> Verification of this number, early when it is done |
| GET /v1/deployments/{name}/logs?offset= | -> LogPage |
| POST /v1/keys | CreateKey -> CreatedKey |
| GET /v1/keys | -> list[KeyInfo] |
| DELETE /v1/keys/{name} | -> KeyInfo |
| GET /v1/usage | -> list[Served] |
| GET /v1/alerts | -> AlertPage |
| GET /metrics (no /v1; role `monitor` will do) | -> Prometheus' text format |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from llm_os.spec.attempts import Report
from llm_os.spec.base import Json, Name, Record, Ref, Spec
from llm_os.spec.calibration import Calibration, Candidate, Member
from llm_os.spec.conditions import Condition
from llm_os.spec.deployments import Count, Deployment, DeploymentSpec, Scaling, UpdatePolicy
from llm_os.spec.diagnoses import Diagnosis
from llm_os.spec.events import Event
from llm_os.spec.jobs import JobSpec
from llm_os.spec.quotas import Quota
from llm_os.spec.resources import Caps


class KernelStatus(Record):
    version: str
    home: str
    pid: int
    started_at: float
    ephemeral: bool
    management: str
    """`http://127.0.0.1:7600`."""
    socket: str
    gateway: str | None
    """`http://127.0.0.1:7601/v1`, None until the gateway answers."""
    jobs: Mapping[str, int]
    """Number of jobs by state."""
    deployments: Mapping[str, int]
    sessions: int


class ShutdownRequest(Spec):
    keep: bool = False
    """Leave replicas, gateway and running jobs to themselves; the next kernel adopts them."""


class ShutdownReport(Record):
    ended: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


class OpenSession(Spec):
    name: str
    ttl: float = Field(default=15.0, gt=0)
    """Seconds without a renewal after which the session has expired."""


class SessionEnd(Record):
    ended: tuple[str, ...] = ()
    """Jobs and deployments that ended with the session."""
    kept: tuple[str, ...] = ()
    """What goes on."""


class SetCaps(Spec):
    caps: Caps
    strict: bool = False
    """CapacityError, and nothing changed, where something asked for is missing."""


class SubmitJob(Spec):
    spec: JobSpec
    session: str | None = None
    background: bool = False
    """True: the job outlives its session."""
    again: bool = False
    """True: it runs although an equal one was done; what comes out takes its place."""


class Measured(Record):
    """What could serve a version here, and what is known of that."""

    candidates: tuple[Candidate, ...]
    """Best known first. Fewer than two: nothing is to be measured."""
    calibration: Calibration | None = None
    """None: they were not measured, or something has changed since: the engines, the machine, what is granted."""


class ReportPage(Record):
    reports: tuple[Report, ...]
    next: int
    """Pass as `since` next time: an index into the job's whole list of reports."""
    ended: bool


class LogPage(Record):
    text: str
    next: int
    """Byte offset to go on from."""
    ended: bool


class Why(Record):
    subject: str
    kind: str
    state: str
    sentence: str
    """The answer in one sentence: cause, numbers, next step."""
    facts: tuple[str, ...] = ()
    """Of a deployment that answers: where the time of its requests goes."""
    diagnoses: tuple[Diagnosis, ...] = ()
    """What the evidence shows, the most telling first."""
    conditions: tuple[Condition, ...] = ()
    events: tuple[Event, ...] = ()


class RowPage(Record):
    split: str
    offset: int
    total: int
    rows: tuple[Mapping[str, Json], ...]


class ExportRequest(Spec):
    path: str
    """Absolute folder; it must not exist or be empty."""


class ExportReport(Record):
    path: str
    files: int
    size: int


class CreateDeployment(Spec):
    spec: DeploymentSpec
    session: str | None = None
    keep: bool = False
    """True: the deployment outlives its session."""
    private: bool = False
    """An on-demand replica for `predict` and `generate`: an equal live one is reused."""
    only_check: bool = False
    """Refuse what would be refused, and change nothing: the answer is what would be made, without a key."""


class CreatedDeployment(Record):
    deployment: Deployment
    key: str
    """A key of its own, shown once; the kernel stores its hash only."""
    url: str | None
    """OpenAI base URL of the gateway, None while the gateway starts."""


class UpdateDeployment(Spec):
    """What is None stays; an engine that does not open the new model is chosen anew, and options begin anew with it."""

    model: Ref | None = None
    engine: str | None = None
    options: Mapping[str, Json] | None = None
    members: tuple[Member, ...] | None = Field(default=None, max_length=4)
    """Engines side by side, in the place of `engine` and `options`."""
    policy: UpdatePolicy | None = None
    """None: as the deployment says."""
    only_check: bool = False
    """Refuse what would be refused, and change nothing."""


class AddAdapter(Spec):
    version: Ref
    """`card@number` of an adapter of the deployment's base, or `card` for its newest."""
    name: Name | None = None
    """What requests call it behind the deployment's name and a colon; None: its card."""
    replace: bool = False
    """Take the place of the one that has this name."""


class ScaleDeployment(Spec):
    """Either a fixed number of replicas, or between which numbers they shall follow what is asked."""

    replicas: Count | None = None
    scaling: Scaling | None = None

    @model_validator(mode="after")
    def _one(self) -> ScaleDeployment:
        if (self.replicas is None) == (self.scaling is None):
            raise ValueError("name either replicas or scaling")
        return self


class MoveAlias(Spec):
    version: Ref
    """`card@number`, or `card` for its newest."""


class Alias(Record):
    card: str
    name: str
    version: str
    """`card@number` that it means."""
    followers: tuple[str, ...] = ()
    """Deployments that follow it."""

    @property
    def ref(self) -> str:
        """`card@name`."""
        return f"{self.card}@{self.name}"


class CreateKey(Spec):
    name: Name
    role: Literal["user", "monitor"] = "user"
    tenant: Name = "default"
    deployments: tuple[Name, ...] | None = None
    """None: all of them."""
    quota: Quota = Quota()


class KeyInfo(Record):
    id: str
    name: str
    role: str
    tenant: str
    deployments: tuple[str, ...] | None
    created_at: float
    quota: Quota


class CreatedKey(Record):
    info: KeyInfo
    key: str
    """Shown once; the kernel stores its hash only."""
