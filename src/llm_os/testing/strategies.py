"""Random workloads and random misfortune, all from one seeded source. Knows what can be asked, not who answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Literal

GIB = 2**30

Fate = Literal["ok", "user_error", "fails", "flaky", "hangs"]


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """A job that a client submits `at` seconds after its session was opened.

    Attributes:
        key: equal keys of cacheable tasks are equal work.
        followed: somebody reads its reports as they come.
        cancel_after: seconds after its submission; None: not cancelled by hand.
    """

    at: float
    task: str
    key: int
    cpus: float
    memory: int
    accelerators: int
    lasts: float
    fate: Fate
    priority: int = 0
    background: bool = False
    followed: bool = False
    cancel_after: float | None = None


@dataclass(frozen=True, slots=True)
class PlannedDeployment:
    """A deployment of the card that a job of the same session makes."""

    at: float
    name: str
    cpus: float
    memory: int
    replicas: int
    keep: bool
    private: bool
    idle_after: float | None
    stop_after: float | None
    update_after: float | None = None
    """It shall serve with other options then."""
    roll_back_after: float | None = None
    """Seconds after the update when somebody takes it back."""
    least: int | None = None
    """It scales from so many replicas on; None: it does not."""
    engines: int = 1
    """Engines side by side."""
    updated_engines: int = 1
    """After the update."""


@dataclass(frozen=True, slots=True)
class PlannedSession:
    """A client.

    Attributes:
        ends: it closes its session, or it dies without a word (`closes` False), this long after it opened it.
    """

    at: float
    name: str
    ttl: float
    ends: float
    closes: bool
    cpus_cap: float | None = None
    memory_cap: int | None = None
    jobs: tuple[PlannedJob, ...] = ()
    deployments: tuple[PlannedDeployment, ...] = ()


@dataclass(frozen=True, slots=True)
class Misfortune:
    """How much goes wrong, as shares of what is done; 0 everywhere is a calm day.

    Attributes:
        crash_at: for each life of the kernel the point at which it dies; lives beyond the tuple do not.
        workers: share of attempts that do not do as their task says.
        reports: share of reports that are lost, doubled or late.
    """

    crash_at: tuple[int, ...] = ()
    workers: float = 0.0
    reports: float = 0.0
    commits: float = 0.0
    disk: float = 0.0


@dataclass(frozen=True, slots=True)
class Scenario:
    sessions: tuple[PlannedSession, ...]
    misfortune: Misfortune = field(default_factory=Misfortune)
    gateway: bool = False
    accelerators: int = 0


def random_scenario(random: Random) -> Scenario:
    """Some clients with some work, on a machine where most things go wrong now and then."""
    accelerators = random.choice([0, 0, 2])
    sessions = tuple(_session(random, number, accelerators) for number in range(random.choice([1, 1, 2])))
    return Scenario(sessions, _misfortune(random), gateway=random.random() < 0.3, accelerators=accelerators)


def _session(random: Random, number: int, accelerators: int) -> PlannedSession:
    ends = random.uniform(3.0, 8.0)
    model = PlannedJob(0.2, "sim/model", random.randint(1, 3), 1.0, GIB, 0, random.uniform(0.2, 1.0), "ok")
    jobs = tuple(_job(random, ends, accelerators) for _ in range(random.randint(1, 4)))
    deployments: tuple[PlannedDeployment, ...] = ()
    if random.random() < 0.6:
        deployments = tuple(_deployment(random, number, n) for n in range(random.randint(1, 2)))
    capped = random.random() < 0.3
    return PlannedSession(
        at=random.uniform(0.0, 2.0),
        name=f"script-{number}",
        ttl=random.choice([2.0, 5.0]),
        ends=ends,
        closes=random.random() < 0.6,
        cpus_cap=random.choice([1.0, 2.0]) if capped else None,
        memory_cap=random.choice([2, 4]) * GIB if capped else None,
        jobs=(model, *jobs) if deployments or random.random() < 0.5 else jobs,
        deployments=deployments,
    )


def _job(random: Random, ends: float, accelerators: int) -> PlannedJob:
    fates: list[Fate] = ["ok", "ok", "ok", "ok", "ok", "user_error", "fails", "flaky", "hangs"]
    fate = random.choice(fates)
    return PlannedJob(
        at=random.uniform(0.0, ends * 0.8),
        task=random.choice(["sim/work", "sim/work", "sim/report"]),
        key=random.randint(1, 3),
        cpus=random.choice([0.5, 1.0, 1.0, 2.0]),
        memory=random.choice([1, 1, 2, 3]) * GIB,
        accelerators=random.choice([0, 1, 2]) if accelerators and random.random() < 0.3 else 0,
        lasts=random.choice([0.0, 0.3, 1.0, 2.0]),
        fate=fate,
        priority=random.choice([0, 0, 0, 1]),
        background=random.random() < 0.4,
        followed=random.random() < 0.3,
        cancel_after=random.uniform(0.0, 3.0) if fate == "hangs" or random.random() < 0.2 else None,
    )


def _deployment(random: Random, session: int, number: int) -> PlannedDeployment:
    at = random.uniform(1.5, 3.0)
    change = Random(at)  # of its own: what else happens in a run is what it was before there were updates
    return PlannedDeployment(
        at=at,
        name=f"chat-{session}-{number}",
        cpus=random.choice([0.5, 1.0]),
        memory=random.choice([1, 2]) * GIB,
        replicas=random.choice([1, 1, 2]),
        keep=random.random() < 0.3,
        private=random.random() < 0.3,
        idle_after=random.choice([None, None, 3.0]),
        stop_after=random.choice([None, None, 1.0, 4.0]),
        update_after=change.choice([None, 0.5, 2.0]),
        roll_back_after=change.choice([None, None, 0.3, 2.0]),
        least=change.choice([None, None, 0, 1]),
        engines=change.choice([1, 1, 2]),
        updated_engines=change.choice([1, 2]),
    )


def _misfortune(random: Random) -> Misfortune:
    lives = random.choice([0, 1, 1, 2, 3])
    return Misfortune(
        crash_at=tuple(random.choice([random.randint(1, 30), random.randint(1, 400)]) for _ in range(lives)),
        workers=random.choice([0.0, 0.1, 0.4]),
        reports=random.choice([0.0, 0.2]),
        commits=random.choice([0.0, 0.0, 0.02]),
        disk=random.choice([0.0, 0.0, 0.05]),
    )
