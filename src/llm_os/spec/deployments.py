"""Lasting work: a served model, its replicas, and how it goes from one version to the next."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

from llm_os.spec.base import Json, Name, Record, Ref, Spec
from llm_os.spec.calibration import Member, Speed
from llm_os.spec.conditions import Condition
from llm_os.spec.parity import COMPARING, Parity
from llm_os.spec.resources import ResourceSpec
from llm_os.spec.units import Duration

Count = Annotated[int, Field(ge=1, le=64)]
Part = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class UpdatePolicy(Spec):
    """How a new version takes over."""

    canary: Part = 0.01
    """Share of the requests that the new version gets at first. 0: none but those of `tenants`."""
    tenants: tuple[Name, ...] = ()
    """Tenants whose requests all go to the new version at first."""
    shadow: bool = False
    """At first the new version gets copies of requests; nobody sees its answers."""
    bake: Duration | None = 10.0
    """Seconds that the new version must do well before it takes over. None: until it is promoted by hand."""
    watch: Duration = 60.0
    """Seconds after it took over in which it is still taken back when it does badly."""
    most_failures: Part = 0.05
    """Share of requests that may fail (status 500 and above, or broken off), unless the old version is as bad."""
    most_slower: float = Field(default=3.0, gt=1, allow_inf_nan=False)
    """So many times the old version's mean time to the first byte is too slow."""
    ready_within: Duration = 600.0
    """Seconds in which its first replica must answer."""


class Scaling(Spec):
    """How many replicas there are, by what is asked of them.

    Of several engines side by side it is the last one, the one for many requests, that gets more; of each other there
    is one, as long as it does not sleep.
    """

    least: int = Field(default=1, ge=0, le=64)
    """0: it sleeps when nobody asks, and wakes with the next request, which is held."""
    most: Count = 1
    in_flight: float = Field(default=8.0, gt=0, allow_inf_nan=False)
    """Requests under way, or waiting, that one replica shall have."""
    tokens_in_flight: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Tokens still to be read and written that one replica shall have. None: they do not count."""
    first_token: Duration | None = Field(default=None, gt=0)
    """Objective: seconds from a request's arrival to its first token, for 95 of 100 streams. None: there is none."""
    idle_after: Duration = 300.0
    """Seconds without a request after which the last replica goes, where `least` is 0."""
    steady: Duration = 60.0
    """Seconds in which fewer must have been enough before one goes; more come at once."""

    @model_validator(mode="after")
    def _ordered(self) -> Scaling:
        if self.least > self.most:
            raise ValueError(f"least ({self.least}) cannot be more than most ({self.most})")
        return self


class DeploymentSpec(Spec):
    name: Name
    model: Ref
    """`card@alias` follows the alias: when it moves, the deployment is updated."""
    engine: str | None = None
    """None: the best one here, as it was measured; the preferred one where none was."""
    options: Mapping[str, Json] = Field(default_factory=dict)
    precision: str | None = None
    """Of the weights while they are served (`int8`, `bf16` ...); None: any that says what the reference says."""
    members: tuple[Member, ...] = Field(default=(), max_length=4)
    """Engines whose replicas stand side by side, the one for few requests first. Empty: `engine` alone."""
    replicas: Count = 1
    """At its start, of each engine; with `scaling`, as many as it says."""
    idle_after: Duration | None = None
    """End after this long without a request. None: never."""
    update: UpdatePolicy = UpdatePolicy()
    """How the versions that follow take over."""
    scaling: Scaling | None = None
    """None: always `replicas`."""
    check: bool = True
    """Compare the engine with the reference before it serves, where the version has one."""
    adapters: Mapping[Name, Ref] = Field(default_factory=dict)
    """Adapters that every replica holds beside the model: requests for `NAME:ADAPTER` are answered with them."""
    labels: Mapping[Name, str] = Field(default_factory=dict)
    """Words of its owner's, for lists and rules."""


class DeploymentState(StrEnum):
    PENDING = "pending"
    STARTING = "starting"
    READY = "ready"
    ASLEEP = "asleep"
    """No replica is wanted: the next request wakes it."""
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        return self in {DeploymentState.STOPPED, DeploymentState.FAILED}


class RevisionMember(Record):
    """An engine that serves a revision, with what a replica of it needs."""

    engine: str
    options: Mapping[str, Json] = Field(default_factory=dict)
    resources: ResourceSpec
    parity: Parity | None = None
    """How far the engine agrees with the reference; None: they were not compared."""
    speeds: tuple[Speed, ...] = ()
    """What it was measured to do when it was chosen, fewest streams first; empty: nobody knows."""


class Revision(Record):
    """One thing that a deployment served, serves or shall serve: a version with its engines and options."""

    number: int
    version: str
    task: str
    engine: str
    options: Mapping[str, Json] = Field(default_factory=dict)
    resources: ResourceSpec
    parity: Parity | None = None
    """How far the engine agrees with the reference; None: they were not compared."""
    speeds: tuple[Speed, ...] = ()
    """What the engine was measured to do when it was chosen, fewest streams first; empty: nobody knows."""
    generation: Mapping[str, Json] = Field(default_factory=dict)
    """How the version wants to be asked: what holds for a request that does not say. Empty: it says nothing of it."""
    because: str = ""
    """Why this engine with these options, where nobody asked for them."""
    precision: str | None = None
    """That was asked for when it was planned; it holds for what is chosen after it, where nobody names an engine."""
    beside: tuple[RevisionMember, ...] = ()
    """Engines whose replicas stand beside those of `engine`."""

    @property
    def members(self) -> tuple[RevisionMember, ...]:
        """All engines; their places are the numbers of `Attempt.member`."""
        return (
            RevisionMember(
                engine=self.engine,
                options=self.options,
                resources=self.resources,
                parity=self.parity,
                speeds=self.speeds,
            ),
            *self.beside,
        )

    def judged(self, member: int, parity: Parity) -> Revision:
        """The same with the figures of one of its engines."""
        if member == 0:
            return self.model_copy(update={"parity": parity})
        beside = list(self.beside)
        beside[member - 1] = beside[member - 1].model_copy(update={"parity": parity})
        return self.model_copy(update={"beside": tuple(beside)})


class Phase(StrEnum):
    STARTING = "starting"
    """The first replica of the new version is not ready yet."""
    CANARY = "canary"
    """The new version gets some requests, or copies, and is compared with the old one."""
    ROLLING = "rolling"
    """Replicas are replaced one by one."""
    DONE = "done"
    ROLLED_BACK = "rolled_back"

    @property
    def ended(self) -> bool:
        return self in {Phase.DONE, Phase.ROLLED_BACK}


class Rollout(Record):
    """The way from one revision to the next; the newest one is kept when it has ended."""

    target: Revision
    policy: UpdatePolicy
    asked: Ref
    """What the deployment is said to serve when it is done: a version, or an alias that it follows."""
    phase: Phase = Phase.STARTING
    message: str = ""
    """Why it is where it is, for people."""
    returns: bool = False
    """It goes back to the version before."""
    tight: bool = False
    """There is no room for one replica more while they are replaced."""
    failures: int = 0
    """Replicas of the new version that died one after the other before one was ready."""
    not_before: float | None = None
    """When the next one may be started."""
    started_at: float
    since: float
    """When the phase began, seconds since the epoch."""


class Replica(Record):
    attempt: str
    state: str
    endpoint: str | None
    engine: str
    version: str = ""
    revision: int = 1
    progress: Mapping[str, Json] = Field(default_factory=dict)
    """How far its start is, where its worker tells it: `stage`, `step`, `total`, `at`. Not kept in the record."""

    @property
    def doing(self) -> str:
        """`compared 300 of 1,040 places with PyTorch`; empty where nothing is told."""
        step, total = self.progress.get("step"), self.progress.get("total")
        if self.progress.get("stage") != COMPARING or not isinstance(step, int) or not isinstance(total, int):
            return ""
        return f"compared {step:,} of {total:,} places with PyTorch"

    adapters: Mapping[str, str] = Field(default_factory=dict)
    """That it holds, by name: `card@number`."""
    adapters_failed: Mapping[str, str] = Field(default_factory=dict)
    """That it could not take, by name: why."""
    member: int = 0
    """Place of its engine among those of the revision."""


class Trouble(Record):
    """How the last replicas of one engine fared, of several side by side: the others go on serving."""

    failures: int = 1
    """Replicas that ended unasked, one after the other."""
    not_before: float | None = None
    """When the next one may be started."""
    out: bool = False
    """It ended by a mistake that no repetition cures: none is started until people ask for it."""
    message: str
    """How the last one ended, for people."""


class Deployment(Record):
    id: str
    spec: DeploymentSpec
    version: str
    """`card@number` that is served."""
    task: str
    engine: str
    session: str | None
    """Lease it belongs to; None: kept."""
    state: DeploymentState
    replicas: tuple[Replica, ...] = ()
    revision: int = 1
    """Number of the revision in force."""
    history: tuple[Revision, ...] = ()
    """Revisions that were in force, oldest first, the one in force last."""
    rollout: Rollout | None = None
    refused: str | None = None
    """Version that was taken back: an alias that means it is not followed there."""
    wanted: int | None = None
    """Replicas that there shall be now, of the last engine where there are several; None: `spec.replicas`."""
    troubles: Mapping[int, Trouble] = Field(default_factory=dict)
    """Of engines side by side in the revision in force: those whose replicas end, by their place."""
    scaled: str = ""
    """Which figure made it scale last, for people."""
    conditions: tuple[Condition, ...] = ()
    error: Mapping[str, Json] | None = None
    created_at: float
    ready_at: float | None = None
    ended_at: float | None = None

    @property
    def parity(self) -> Parity | None:
        """Of the revision in force; where several engines stand side by side, of the one that agrees least."""
        found = [one.parity for one in self.history[-1].members if one.parity] if self.history else []
        return min(found, key=lambda one: one.rank, default=None)

    def shares(self, members: int) -> tuple[int, ...]:
        """Replicas that shall answer of each of so many engines.

        All have as many; where the number follows what is asked, it is that of the last one, and one of each other.
        """
        number = self.spec.replicas if self.wanted is None else self.wanted
        others = number if self.spec.scaling is None else min(number, 1)
        return (*[others] * (members - 1), number)

    @property
    def engines(self) -> tuple[str, ...]:
        """Of the revision in force."""
        return tuple(member.engine for member in self.history[-1].members) if self.history else (self.engine,)

    @property
    def because(self) -> str:
        """Why the engine of the revision in force, where nobody asked for it."""
        return self.history[-1].because if self.history else ""

    @property
    def updating(self) -> bool:
        """Whether a rollout is under way."""
        going = self.rollout is not None and not self.rollout.phase.ended
        return going and not self.state.ended and self.state is not DeploymentState.STOPPING
